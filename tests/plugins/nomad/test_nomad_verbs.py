"""`epitaxy publish` and `epitaxy nomad` as a user types them."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Loopback, Reply
from nomad_uploads import PREFIX, TOKEN, Checked, Held, NomadUploads

from epitaxy.artifact import check_artifact
from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.receipts import content_digest, read_receipts
from epitaxy.testing.publisher_checks import make_artifact
from epitaxy.testing.store_checks import ragged_dataset
from epitaxy_nomad import service as service_module
from epitaxy_nomad.commands import nomad as verb_module
from epitaxy_nomad.tokens import VARIABLE


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "model")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr(service_module, "FIRST_POLL", 0.001)
    monkeypatch.setattr(service_module, "LONGEST_POLL", 0.002)
    monkeypatch.setattr(verb_module, "REQUESTS_PER_SECOND", 0.0)


@pytest.fixture
def nomad() -> NomadUploads:
    return NomadUploads()


@pytest.fixture
def server(nomad: NomadUploads) -> Iterator[Loopback]:
    with Checked(nomad) as checked, Loopback(checked) as server:
        yield server


def publish(server: Loopback, path: Path, *options: str) -> int:
    pairs = [f"url={server.url}{PREFIX}", "requests_per_second=0", *options]
    return main(["publish", str(path), "--to", "nomad", *(w for p in pairs for w in ("--set", p))])


def at(server: Loopback) -> list[str]:
    return ["--url", server.url + PREFIX]


def same_files(one: Path, other: Path) -> bool:
    def files(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "receipts.jsonl"
        }

    return files(one) == files(other)


# --- epitaxy publish ---


def test_a_receipt_is_printed_and_kept(artifact, server, nomad, capsys):
    assert publish(server, artifact, "comment=first try", "references=['https://x.org/1']") == 0
    said = capsys.readouterr()
    (receipt,) = read_receipts(artifact)
    assert receipt.identifier == next(iter(nomad.uploads))
    assert f"nomad: {receipt.identifier}" in said.out
    assert f"digest: {content_digest(artifact)}" in said.out
    assert "sending 5 files" in said.err
    check_artifact(artifact)  # it is as whole as before
    assert publish(server, artifact, "publish=true") == 0
    assert "has it already (says a receipt)" in capsys.readouterr().err
    assert [r.facts["published"] for r in read_receipts(artifact)] == [False, True]


def test_a_config_file_holds_the_options(artifact, server, tmp_path, capsys):
    config = tmp_path / "publish.yaml"
    config.write_text(
        f"publish:\n  use: nomad\n  url: {server.url}{PREFIX}\n  requests_per_second: 0\n"
        "  upload_name: from the file\n"
    )
    argv = ["publish", str(artifact), "--config", str(config), "--set", "comment=x", "--json"]
    assert main(argv) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["facts"]["upload_name"].startswith("from the file [epitaxy-")
    config.write_text("model: painn\n")
    assert main(argv) == 2
    assert "has no section 'publish:'" in capsys.readouterr().err


def test_a_dry_run_leaves_no_receipt(artifact, capsys, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    argv = ["publish", str(artifact), "--to", "nomad", "--dry-run"]
    assert main([*argv, "--set", "url=http://127.0.0.1:9/api/v1"]) == 0
    said = capsys.readouterr().out
    assert "would publish epitaxy-" in said
    assert "weights.bin: 16,384" in said
    assert "nothing was sent" in said
    assert not (artifact / "receipts.jsonl").exists()


def test_the_receipt_of_a_failure_is_kept_too(artifact, server, nomad, capsys):
    nomad.fail_processing = "out of memory"
    assert publish(server, artifact) == 2
    assert "out of memory" in capsys.readouterr().err
    (receipt,) = read_receipts(artifact)
    assert receipt.facts["status"] == "FAILURE"


def test_entries_that_failed_are_told_to_scripts_too(artifact, server, nomad, capsys):
    nomad.fail_entries = "no structure found"
    assert publish(server, artifact) == 1
    said = capsys.readouterr()
    assert "no structure found" in said.out
    assert "it is there, but with the errors above" in said.err
    assert len(read_receipts(artifact)) == 1
    assert main(["nomad", "status", str(artifact)]) == 1
    assert main(["nomad", "wait", str(artifact)]) == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["publish", "x"], "where to? give --to NAME"),
        (["publish", "x", "--to", "nomda"], "Did you mean 'nomad'?"),
        (["publish", "x", "--to", "nomad", "--set", "embrago_months=1"], "'embargo_months'"),
        (["publish", "x", "--to", "nomad", "--set", "publish=perhaps"], "publish = 'perhaps'"),
        (["publish", "x", "--to", "nomad", "--set", "publish"], "section.key=value"),
        (["publish", "x", "--to", "nomad", "--dry-run"], "x is neither an artifact nor a dataset"),
    ],
)
def test_wrong_use_is_explained(tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert said in capsys.readouterr().err


# --- epitaxy nomad ---


def test_status_and_wait_know_the_folder_that_was_published(artifact, server, nomad, capsys):
    publish(server, artifact, "publish=true", "embargo_months=2")
    upload_id = next(iter(nomad.uploads))
    capsys.readouterr()
    assert main(["nomad", "status", str(artifact)]) == 0
    said = capsys.readouterr().out
    assert f"{upload_id}: model example/weights" in said
    assert "published: yes, hidden for 2 months" in said
    assert "SUCCESS, epitaxy-" in said
    nomad.uploads[upload_id].polls_left = 3
    assert main(["nomad", "wait", upload_id, *at(server), "--timeout", "5"]) == 0
    assert "status: SUCCESS" in capsys.readouterr().out
    assert main(["nomad", "status", upload_id, *at(server), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["parser"] == "parsers/epitaxy"


def test_status_of_a_failure_shows_the_errors_and_exits_with_1(artifact, server, nomad, capsys):
    nomad.fail_processing = "out of memory"
    publish(server, artifact)
    capsys.readouterr()
    assert main(["nomad", "status", str(artifact)]) == 1
    assert "error: out of memory" in capsys.readouterr().out


def test_waiting_has_an_end(artifact, server, nomad, capsys):
    publish(server, artifact)
    nomad.never_done = True
    nomad.uploads[next(iter(nomad.uploads))].polls_left = 1
    assert main(["nomad", "wait", str(artifact), "--timeout", "0.05"]) == 2
    assert "still works on it after 0.05 s" in capsys.readouterr().err


def test_uploads_are_listed(artifact, server, nomad, capsys):
    publish(server, artifact, "publish=true")
    nomad.uploads["other"] = Held("other", None)  # without a name, as NOMAD allows
    capsys.readouterr()
    assert main(["nomad", "list", *at(server)]) == 0
    said = capsys.readouterr().out
    assert "2 uploads, 1 of them unpublished" in said
    assert said.splitlines()[0].startswith("other")
    for flag, n in (("--published", 1), ("--unpublished", 1), ("--ours", 1)):
        assert main(["nomad", "list", flag, "--json", *at(server)]) == 0
        assert len(json.loads(capsys.readouterr().out)) == n


def test_deleting_asks_first(artifact, server, nomad, capsys, monkeypatch):
    publish(server, artifact)
    upload_id = next(iter(nomad.uploads))
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["nomad", "delete", upload_id, *at(server)]) == 2
    assert "nothing was deleted" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["nomad", "delete", upload_id, *at(server)]) == 0
    assert not nomad.uploads
    assert main(["nomad", "delete", upload_id, *at(server), "--yes"]) == 2
    assert "NOMAD does not know it" in capsys.readouterr().err


def test_what_is_published_is_not_deleted(artifact, server, nomad, capsys):
    publish(server, artifact, "publish=true")
    assert main(["nomad", "delete", str(artifact), "--yes"]) == 2
    assert "can neither be changed nor deleted" in capsys.readouterr().err
    assert nomad.uploads


def test_a_folder_that_two_nomads_have_is_asked_about_at_each(artifact, server, nomad, capsys):
    publish(server, artifact)
    with Loopback(NomadUploads()) as other:
        other.respond.n_made = 7  # its ids are others
        publish(other, artifact)
        here, there = (receipt.identifier for receipt in read_receipts(artifact))
        capsys.readouterr()
        assert main(["nomad", "status", str(artifact), *at(server)]) == 0
        assert capsys.readouterr().out.startswith(f"{here}: ")
        assert main(["nomad", "status", str(artifact)]) == 0
        said = capsys.readouterr()
        assert said.out.startswith(f"{there}: ")
        assert f"asking {other.url}{PREFIX}, which the receipt names" in said.err
    assert here != there
    assert main(["nomad", "status", str(artifact), "--url", "https://else.where/api/v1"]) == 2
    assert "no receipt of NOMAD at https://else.where" in capsys.readouterr().err


def test_a_folder_without_a_receipt_is_explained(artifact, capsys):
    assert main(["nomad", "status", str(artifact)]) == 2
    assert "was not published from here" in capsys.readouterr().err


def test_a_verb_without_a_token_says_how_to_give_one(monkeypatch, capsys):
    monkeypatch.delenv(VARIABLE)
    assert main(["nomad", "list"]) == 2
    said = capsys.readouterr().err
    assert "`epitaxy nomad list` needs a token" in said
    assert VARIABLE in said


# --- and back ---


@pytest.mark.parametrize("by", ["upload", "entry", "folder"])
def test_an_artifact_comes_back_bit_for_bit(artifact, tmp_path, server, nomad, capsys, by):
    publish(server, artifact)
    (upload,) = nomad.uploads.values()
    which = {
        "upload": upload.upload_id,
        "entry": upload.entries[0]["entry_id"],
        "folder": str(artifact),
    }[by]
    assert main(["nomad", "download", which, "-o", str(tmp_path / "in/back"), *at(server)]) == 0
    said = capsys.readouterr().out
    assert "every file as it was published" in said
    assert same_files(artifact, tmp_path / "in/back")
    assert content_digest(tmp_path / "in/back") == content_digest(artifact)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["back"]


def test_a_dataset_comes_back_bit_for_bit(tmp_path, server, capsys):
    ragged_dataset().save(tmp_path / "ds")
    publish(server, tmp_path / "ds", "compressed=true")
    assert main(["nomad", "download", str(tmp_path / "ds"), "-o", str(tmp_path / "back")]) == 0
    assert same_files(tmp_path / "ds", tmp_path / "back")
    assert Dataset.open(tmp_path / "back", verify=True).digest == ragged_dataset().digest


def test_a_file_that_is_gone_in_nomad_is_noticed(artifact, tmp_path, server, nomad, capsys):
    publish(server, artifact)
    (upload,) = nomad.uploads.values()
    folder = f"epitaxy-{content_digest(artifact)[:12]}"
    card = upload.files.pop(f"{folder}/card.md")
    argv = ["nomad", "download", upload.upload_id, "-o", str(tmp_path / "back"), *at(server)]
    assert main(argv) == 2
    assert f"lacks {folder}/card.md, which was published" in capsys.readouterr().err
    upload.files[f"{folder}/card.md"] = card
    assert main(argv) == 0
    assert same_files(artifact, tmp_path / "back")


@pytest.mark.parametrize("fault", ["dropped", "slow", "500"])
def test_a_download_that_broke_off_goes_on(artifact, tmp_path, server, nomad, fault, monkeypatch):
    publish(server, artifact)
    (upload,) = nomad.uploads.values()
    argv = ["nomad", "download", upload.upload_id, "-o", str(tmp_path / "back"), *at(server)]
    before = server.n_requests
    assert main(argv) == 0
    asked = server.requests[before:]
    number = next(i for i, r in enumerate(asked, 1) if r.path.endswith("weights.bin"))
    shutil.rmtree(tmp_path / "back")
    if fault == "slow":
        inner = service_module.Service.__init__
        monkeypatch.setattr(
            service_module.Service,
            "__init__",
            lambda self, *args, **named: inner(self, *args, **{**named, "timeout": 0.3}),
        )
    server.fail(fault, at=server.n_requests + number)
    before = server.n_requests
    assert main(argv) == 0
    parts = [r for r in server.requests[before:] if r.path.endswith("weights.bin")]
    assert len(parts) == 2
    assert int(parts[1].params["offset"]) == (0 if fault == "500" else 8192)
    assert same_files(artifact, tmp_path / "back")


def test_what_another_download_left_is_used(artifact, tmp_path, server, nomad, capsys):
    publish(server, artifact)
    (upload,) = nomad.uploads.values()
    argv = ["nomad", "download", upload.upload_id, "-o", str(tmp_path / "back"), *at(server)]
    upload.files["epitaxy-0.sha256"], kept = b"", dict(upload.files)
    weights = next(name for name in upload.files if name.endswith("weights.bin"))
    upload.files[weights] = upload.files[weights][::-1]
    assert main(argv) == 2  # leaves its hidden folder behind
    upload.files = kept
    (left,) = tmp_path.glob(".back.download/*/files")
    (left / "gone.txt").write_text("no longer in NOMAD")
    whole = (artifact / "weights.bin").read_bytes()
    (left / ".weights.bin.part").write_bytes(whole[:5000])
    (left / "card.md").write_bytes(b"?" * (artifact / "card.md").stat().st_size)  # of the past
    before = server.n_requests
    assert main(argv) == 0
    asked = {r.path.rpartition("/")[2]: r.params for r in server.requests[before:]}
    assert asked["weights.bin"]["offset"] == "5000"
    assert same_files(artifact, tmp_path / "back")
    assert not list(tmp_path.glob(".back*"))


def test_what_a_download_of_another_upload_left_is_not_mixed_in(tmp_path, server, nomad, capsys):
    nomad.uploads["one"] = Held("one", None, files={"a": b"1", "b": b"1", "c": b"1"})
    nomad.uploads["two"] = Held("two", None, files={"a": b"2", "c": b"2"})
    goal = ["-o", str(tmp_path / "back"), *at(server)]
    inner = nomad._raw
    nomad._raw = lambda request, upload_id, path: (
        Reply(b"", 500) if path == "c" else inner(request, upload_id, path)
    )
    assert main(["nomad", "download", "one", *goal]) == 2
    nomad._raw = inner
    assert main(["nomad", "download", "two", *goal]) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "back").iterdir()} == {"a": b"2", "c": b"2"}


def test_a_folder_that_cannot_be_written_is_explained(tmp_path, server, nomad, capsys):
    nomad.uploads["one"] = Held("one", None, files={"a": b"1"})
    (tmp_path / "file").write_text("")
    goal = str(tmp_path / "file" / "back")
    assert main(["nomad", "download", "one", "-o", goal, *at(server)]) == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_files_that_were_changed_in_nomad_are_refused(artifact, tmp_path, server, nomad, capsys):
    publish(server, artifact)
    (upload,) = nomad.uploads.values()
    name = next(name for name in upload.files if name.endswith("weights.bin"))
    upload.files[name] = upload.files[name][::-1]
    argv = ["nomad", "download", upload.upload_id, "-o", str(tmp_path / "back"), *at(server)]
    assert main(argv) == 2
    assert "is not what was published" in capsys.readouterr().err
    assert not (tmp_path / "back").exists()


def test_what_is_there_is_not_overwritten(artifact, tmp_path, server, capsys):
    assert main(["nomad", "download", "x", "-o", str(artifact), *at(server)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["nomad", "download", "x", "-o", str(tmp_path / "back"), *at(server)]) == 2
    assert "NOMAD does not know it" in capsys.readouterr().err


def test_any_other_upload_comes_without_proof(tmp_path, server, nomad, capsys):
    odd = "ä b/c#d?e%20&f+g.txt"
    files = {"a/vasprun.xml": b"<x/>", "a/b/OUTCAR": b"1\n", "README": b"", odd: b"2"}
    nomad.uploads["calc"] = Held("calc", None, files=files)
    nomad.uploads["calc"].entries = [
        {"entry_id": "e1", "mainfile": "a/b/OUTCAR", "upload_id": "calc", "datasets": []}
    ]
    argv = ["-o", str(tmp_path / "back"), *at(server)]
    assert main(["nomad", "download", "calc", *argv]) == 0
    assert "nothing to compare them with" in capsys.readouterr().out
    assert (tmp_path / "back/a/b/OUTCAR").read_bytes() == b"1\n"
    assert (tmp_path / "back/README").read_bytes() == b""
    assert (tmp_path / "back" / odd).read_bytes() == b"2"
    argv = ["-o", str(tmp_path / "one"), *at(server)]
    assert main(["nomad", "download", "e1", *argv]) == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["OUTCAR"]


def test_an_upload_with_hundreds_of_files_comes_back(tmp_path, server, nomad):
    files = {f"{number:03}.txt": str(number).encode() for number in range(230)}
    nomad.uploads["many"] = Held("many", None, files=files)
    assert main(["nomad", "download", "many", "-o", str(tmp_path / "back"), *at(server)]) == 0
    assert len(list((tmp_path / "back").iterdir())) == 230


def test_a_file_name_that_leads_out_of_the_folder_is_refused(tmp_path, server, nomad, capsys):
    nomad.uploads["bad"] = Held("bad", None, files={"../outside": b"x", "inside": b"y"})
    assert main(["nomad", "download", "bad", "-o", str(tmp_path / "back"), *at(server)]) == 2
    assert "leads out of the folder" in capsys.readouterr().err
    assert not (tmp_path / "outside").exists()
