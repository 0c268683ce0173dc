"""The publisher of NOMAD against a service that behaves as NOMAD 2.0.0 does, checked by its API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import FakeClock, Loopback
from nomad_openapi import EXTRACT, WHOLE, extract
from nomad_uploads import CENTRAL_TOKEN, PREFIX, TOKEN, Checked, NomadUploads

from epitaxy.errors import ArtifactError, DataError, OptionError, PublishError, StoreError
from epitaxy.receipts import append_receipt, content_digest
from epitaxy.testing.publisher_checks import make_artifact, no_sockets
from epitaxy.testing.store_checks import ragged_dataset
from epitaxy_nomad.publisher import NomadPublisher
from epitaxy_nomad.tokens import VARIABLE


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "model")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    ragged_dataset().save(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)


@pytest.fixture
def nomad() -> NomadUploads:
    return NomadUploads()


@pytest.fixture
def server(nomad: NomadUploads) -> Iterator[Loopback]:
    with Checked(nomad) as checked, Loopback(checked) as server:
        yield server


def make(server: Loopback, **options: object) -> NomadPublisher:
    given = {"requests_per_second": 0, "attempts": 3, **options}
    publisher = NomadPublisher(url=server.url + PREFIX, **given)  # type: ignore[arg-type]
    publisher.clock = FakeClock().clock()
    return publisher


def n_puts(server: Loopback) -> int:
    return sum(request.method == "PUT" for request in server.requests)


def the(nomad: NomadUploads):
    (upload,) = nomad.uploads.values()
    return upload


# --- what arrives ---


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["artifact", "dataset"])
def test_it_arrives_bit_for_bit_below_one_folder(request, kind, compressed, nomad, server):
    path = request.getfixturevalue(kind)
    receipt = make(server, compressed=compressed).publish(path)
    upload, folder = the(nomad), f"epitaxy-{content_digest(path)[:12]}"
    sent = {name for name in upload.files if name.startswith(f"{folder}/")}
    there = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert sent == {f"{folder}/{name}" for name in there}
    for name in there:
        assert upload.files[f"{folder}/{name}"] == (path / name).read_bytes()
    assert set(upload.files) - sent == {f"{folder}.sha256", "nomad.json"}
    assert receipt.identifier == upload.upload_id
    assert receipt.facts["digest"] == content_digest(path)
    assert receipt.facts["kind"] == kind
    assert (receipt.facts["status"], receipt.facts["published"]) == ("SUCCESS", False)
    assert [e["mainfile"] for e in receipt.facts["entries"]] == [f"{folder}/manifest.json"]
    assert receipt.url.endswith(upload.upload_id)
    assert folder in upload.name
    assert content_digest(path) in upload.metadata["comment"]
    put = next(r for r in server.requests if r.method == "PUT")
    assert ("content-length" in put.headers) is not compressed


def test_receipts_and_strangers_are_no_part_of_an_artifact(artifact, nomad, server):
    digest = content_digest(artifact)
    append_receipt(artifact, make(server, dataset="first").publish(artifact))
    (artifact / "notes.txt").write_text("private")
    make(server).publish(artifact)
    assert content_digest(artifact) == digest
    assert n_puts(server) == 1
    other = NomadUploads()
    with Loopback(other) as elsewhere:
        make(elsewhere).publish(artifact)
    assert not [name for name in the(other).files if "receipts" in name or "notes" in name]


def test_metadata_reach_the_upload_and_every_entry(artifact, nomad, server):
    receipt = make(
        server,
        upload_name="Silicon with PaiNN",
        comment="trained for a test",
        references=["https://doi.org/10.1000/x"],
        coauthors=["grace"],
        dataset="Silicon",
    ).publish(artifact)
    upload = the(nomad)
    assert upload.name.startswith("Silicon with PaiNN [epitaxy-")
    assert upload.metadata["comment"].startswith("trained for a test\n\nepitaxy artifact, sha256 ")
    assert upload.metadata["references"] == ["https://doi.org/10.1000/x"]
    assert upload.metadata["coauthors"] == ["grace"]
    assert upload.entries[0]["datasets"] == ["dataset-0"]
    assert receipt.facts["dataset"] == {"dataset_id": "dataset-0", "name": "Silicon", "doi": ""}


def test_a_dataset_of_this_name_is_used_again(artifact, dataset, nomad, server):
    for path in (artifact, dataset):
        make(server, dataset="Silicon").publish(path)
    assert len(nomad.datasets) == 1
    assert all(u.entries[0]["datasets"] == ["dataset-0"] for u in nomad.uploads.values())


def test_where_the_plugin_is_missing_an_entry_of_nomads_own_kind_is_added(artifact, server, nomad):
    nomad.knows_epitaxy = False
    receipt = make(server, publish=True).publish(artifact)
    folder = f"epitaxy-{content_digest(artifact)[:12]}"
    assert [e["mainfile"] for e in receipt.facts["entries"]] == [f"{folder}.archive.json"]
    entry = json.loads(the(nomad).files[f"{folder}.archive.json"])["data"]
    assert entry["m_def"] == "nomad.datamodel.metainfo.eln.BasicEln"
    assert content_digest(artifact) in entry["description"]
    assert the(nomad).published


@pytest.mark.slow
def test_nomad_itself_reads_the_entry_of_its_own_kind(artifact, server, nomad, tmp_path):
    """By its parser and normalizers, as every NOMAD runs them."""
    client = pytest.importorskip("nomad.client")
    nomad.knows_epitaxy = False
    make(server, upload_name="Silicon").publish(artifact)
    name = f"epitaxy-{content_digest(artifact)[:12]}.archive.json"
    (tmp_path / name).write_bytes(the(nomad).files[name])
    (archive,) = client.parse(str(tmp_path / name))
    client.normalize_all(archive)
    archive.metadata.apply_archive_metadata(archive)
    assert archive.metadata.entry_name.startswith("Silicon [epitaxy-")
    assert archive.metadata.entry_type == "BasicEln"
    assert content_digest(artifact) in archive.data.description


def test_without_any_entry_nothing_is_published(artifact, nomad, server):
    nomad.knows_epitaxy = False
    with pytest.raises(PublishError, match="recognised no entry") as caught:
        make(server, entry="never", publish=True).publish(artifact)
    assert not the(nomad).published
    assert caught.value.receipt.identifier == the(nomad).upload_id


# --- published ---


def test_it_is_published_with_an_embargo(artifact, nomad, server):
    receipt = make(server, publish=True, embargo_months=3).publish(artifact)
    assert (the(nomad).published, the(nomad).embargo) == (True, 3)
    assert (receipt.facts["published"], receipt.facts["embargo_months"]) == (True, 3)


def test_a_dataset_gets_one_doi(artifact, nomad, server):
    nomad.has_doi = True
    publisher = make(server, publish=True, dataset="Silicon", doi=True)
    first, second = publisher.publish(artifact), publisher.publish(artifact)
    assert first.facts["dataset"]["doi"] == "10.17172/nomad/2026.11.21-1"
    assert second.facts["dataset"] == first.facts["dataset"]
    assert sum(request.path.endswith("/action/doi") for request in server.requests) == 1


def test_a_nomad_without_dois_says_so(artifact, nomad, server):
    with pytest.raises(PublishError, match="gives no DOIs"):
        make(server, publish=True, dataset="Silicon", doi=True).publish(artifact)


def test_an_oasis_sends_it_to_the_central_nomad(artifact, nomad, server):
    nomad.is_oasis = nomad.is_admin = True
    receipt = make(server, publish=True, to_central=True).publish(artifact)
    assert receipt.facts["published_to"] == ["https://nomad-lab.eu/prod/v1/api"]
    again = make(server, publish=True, to_central=True).publish(artifact)
    assert again.facts["published_to"] == receipt.facts["published_to"]


def test_only_an_administrator_sends_it_to_the_central_nomad(artifact, nomad, server):
    nomad.is_oasis = True
    with pytest.raises(PublishError, match=r"403.*only an administrator"):
        make(server, publish=True, to_central=True).publish(artifact)
    assert the(nomad).published  # what could be done is done


def test_a_token_of_the_central_nomad_lets_anybody_send_it_there(artifact, nomad, server, tmp_path):
    (tmp_path / "token").write_text(CENTRAL_TOKEN)
    given = {"publish": True, "to_central": True, "central_token_file": tmp_path / "token"}
    server.fail("refused", at=order_of(server, artifact, "/action/transfer", **given))
    receipt = make(server, **given).publish(artifact)  # one answer is lost, nothing is sent twice
    assert receipt.facts["published_to"] == ["https://nomad-lab.eu/prod/v1/api"]
    assert make(server, **given).publish(artifact).facts["published_to"]
    assert sum(request.path.endswith("/transfer") for request in server.requests) == 1
    assert CENTRAL_TOKEN not in str(receipt)


def test_what_the_central_nomad_refuses_is_told_without_the_token(artifact, server, tmp_path):
    (tmp_path / "token").write_text("expired-secret")
    given = {"publish": True, "to_central": True, "central_token_file": tmp_path / "token"}
    with pytest.raises(PublishError, match=r"did not reach the central NOMAD: .*\*\*\* bad"):
        make(server, **given).publish(artifact)
    (tmp_path / "token").write_text(CENTRAL_TOKEN)  # another one: the same command goes on
    receipt = make(server, **given).publish(artifact)
    assert receipt.facts["published_to"] == ["https://nomad-lab.eu/prod/v1/api"]


def order_of(server: Loopback, path: Path, ending: str, **options: object) -> int:
    """Return the number of the first request of this kind when `path` is published."""
    with Loopback(NomadUploads()) as rehearsal:
        make(rehearsal, **options).publish(path)
        paths = [request.path for request in rehearsal.requests]
    return next(i for i, asked in enumerate(paths, start=1) if asked.endswith(ending))


# --- once ---


def test_a_second_call_sends_nothing(artifact, nomad, server):
    first = make(server).publish(artifact)
    append_receipt(artifact, first)
    second = make(server).publish(artifact)
    assert second.identifier == first.identifier
    assert (first.facts["found_earlier"], second.facts["found_earlier"]) == (False, True)
    assert (n_puts(server), len(nomad.uploads)) == (1, 1)


def test_another_machine_finds_it_by_its_digest(tmp_path, artifact, nomad, server):
    first = make(server, upload_name="one").publish(artifact)
    copy = artifact.rename(tmp_path / "copy")  # without a receipt
    second = make(server, upload_name="two").publish(copy)
    assert second.identifier == first.identifier
    assert (n_puts(server), len(nomad.uploads)) == (1, 1)


def test_it_is_found_among_hundreds_of_uploads(artifact, nomad, server):
    nomad.limit = 1000
    make(server).publish(artifact)
    for number in range(250):
        nomad.uploads[f"other-{number}"] = type(the_first(nomad))(f"other-{number}", None)
    make(server).publish(artifact)
    assert n_puts(server) == 1


def the_first(nomad: NomadUploads):
    return next(iter(nomad.uploads.values()))


def test_what_is_left_to_do_is_done_by_the_next_call(artifact, nomad, server):
    make(server).publish(artifact)
    make(server, publish=True, embargo_months=1, comment="better").publish(artifact)
    assert n_puts(server) == 1
    assert the(nomad).published
    assert the(nomad).metadata["comment"].startswith("better")
    make(server, publish=True, dataset="late").publish(artifact)  # as published ones allow
    assert the(nomad).entries[0]["datasets"] == ["dataset-0"]
    assert the(nomad).metadata["comment"].startswith("better")


def test_a_receipt_of_an_upload_that_was_deleted_is_passed_over(artifact, nomad, server):
    append_receipt(artifact, make(server).publish(artifact))
    nomad.uploads.clear()
    receipt = make(server).publish(artifact)
    assert receipt.facts["found_earlier"] is False
    assert n_puts(server) == 2


def test_a_receipt_of_another_nomad_does_not_count(artifact, nomad, server):
    append_receipt(artifact, make(server).publish(artifact))
    with Loopback(NomadUploads()) as other:
        make(other).publish(artifact)
        assert n_puts(other) == 1


def test_trained_anew_it_is_another_upload(tmp_path, artifact, nomad, server):
    make(server).publish(artifact)
    other = make_artifact(tmp_path / "other", seed=1)
    make(server).publish(other)
    assert len(nomad.uploads) == 2


# --- a dry run ---


def test_a_dry_run_needs_no_token_and_tells_what_would_be_sent(artifact, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    publisher = NomadPublisher(url="https://nomad.example/api/v1", dataset="Silicon", publish=True)
    with no_sockets():
        facts = publisher.publish(artifact, dry_run=True).facts
    folder = f"epitaxy-{content_digest(artifact)[:12]}"
    assert facts["files"][f"{folder}/weights.bin"] == (artifact / "weights.bin").stat().st_size
    assert facts["n_bytes"] > sum(facts["files"].values())
    assert facts["metadata"]["dataset"] == "Silicon"
    assert facts["max_upload_bytes"] == 32 * 2**30
    assert any("for good" in step for step in facts["steps"])


def test_a_dry_run_tells_the_exact_size(artifact, nomad, server):
    announced = make(server, entry="never").publish(artifact, dry_run=True).facts["n_bytes"]
    assert server.n_requests == 0
    make(server, entry="never").publish(artifact)
    put = next(request for request in server.requests if request.method == "PUT")
    assert len(put.body) == int(put.headers["content-length"]) == announced


# --- what cannot be published ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"embargo_months": 37, "publish": True}, "embargo_months = 37, but NOMAD allows 0 to 36"),
        ({"embargo_months": 3}, "add publish: true"),
        ({"doi": True, "publish": True}, "needs the option dataset"),
        ({"to_central": True}, "add publish: true"),
        ({"central_token_file": Path("x")}, "is for to_central: true"),
        ({"doi": True, "dataset": "x", "publish": True, "embargo_months": 1}, "under embargo"),
        ({"deadline": 0.0}, "must be above 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        NomadPublisher(**options)


def test_what_is_too_large_is_refused_before_anything_is_sent(artifact, nomad, server):
    with pytest.raises(PublishError, match=r"has 1\d,\d+ bytes, but an upload may have 10,000"):
        make(server, max_upload_bytes=10_000).publish(artifact)
    assert not nomad.uploads
    make(server).publish(artifact)


def test_a_damaged_artifact_or_dataset_is_refused(artifact, dataset, server):
    (artifact / "weights.bin").write_bytes(b"x" * 16384)
    with pytest.raises(ArtifactError, match=r"weights\.bin was changed"):
        make(server).publish(artifact)
    column = max(dataset.glob("*.npy"), key=lambda file: file.stat().st_size)
    column.write_bytes(column.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(StoreError, match=column.name):
        make(server).publish(dataset)
    with pytest.raises(DataError, match="neither an artifact nor a dataset"):
        make(server).publish(dataset.parent)
    server.respond(request_of_nothing(server))  # something was checked
    assert server.n_requests == 0


def request_of_nothing(server: Loopback):
    from loopback import Request

    return Request("GET", f"{PREFIX}/info", "", {}, b"")


def test_without_a_token_nothing_is_asked(artifact, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    with no_sockets(), pytest.raises(OptionError, match=f"publishing needs a token.*{VARIABLE}"):
        NomadPublisher().publish(artifact)


def test_the_extract_of_the_description_is_of_the_whole_one():
    if not WHOLE.is_file():
        pytest.skip("needs ../shared/reference")
    assert json.loads(EXTRACT.read_text()) == extract(json.loads(WHOLE.read_text()))
