"""`epitaxy publish` into a real NOMAD: parsed, found, kept once, and back bit for bit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from epitaxy.artifact import load_artifact, read_manifest
from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.receipts import content_digest, read_receipts
from epitaxy.split import Split

MODEL = "epitaxy_nomad.oasis.model.TrainedModel"
DATASET = "epitaxy_nomad.oasis.dataset.StructureDataset"


def files_of(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder but the receipts."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "receipts.jsonl"
    }


def at(author) -> list[str]:
    """Return where `epitaxy nomad` finds the rig."""
    return ["--url", f"{author.url}/v1"]


@pytest.fixture
def publish(author, capsys):
    """Return a function that runs `epitaxy publish` and returns the receipt."""

    def call(path: Path, *settings: str, status: int = 0) -> dict:
        options = [f"url={author.url}/v1", "requests_per_second=50", *settings]
        sets = [word for option in options for word in ("--set", option)]
        capsys.readouterr()
        assert main(["publish", str(path), "--to", "nomad", "--json", *sets]) == status
        said = capsys.readouterr()
        assert author.token() not in said.out + said.err
        if (path / "receipts.jsonl").exists():
            assert author.token() not in (path / "receipts.jsonl").read_text()
        return json.loads(said.out) if status == 0 else {"error": said.err}

    return call


def archive_of(asked, entry_id: str) -> dict:
    """Return the archive of an entry."""
    reply = asked.post(f"entries/{entry_id}/archive/query", json={"required": "*"})
    assert reply.status_code == 200, reply.text
    return reply.json()["data"]["archive"]


def search(asked, query: dict, **more) -> list[dict]:
    """Return the user's entries that a query finds."""
    reply = asked.post("entries/query", json={"owner": "user", "query": query, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()["data"]


def test_artifact_becomes_a_model_that_is_found_by_its_digest(service, publish, asked, trained):
    artifact = trained / "run" / "artifact"
    receipt = publish(artifact)
    assert receipt["facts"]["errors"] == receipt["facts"]["warnings"] == []
    (entry,) = receipt["facts"]["entries"]
    assert entry["status"] == "SUCCESS"
    assert entry["mainfile"].endswith("/manifest.json")

    manifest = read_manifest(artifact)
    model = archive_of(asked, entry["entry_id"])["data"]
    assert model["m_def"] == MODEL
    assert model["digest"] == content_digest(artifact)
    assert model["is_complete"]
    assert model.get("problems", []) == []
    assert model["n_members"] == 2
    assert model["energy_error"] > 0
    assert model["split"]["split_digest"] == manifest["data"]["split_digest"]

    for query in (
        {f"data.digest#{MODEL}": model["digest"]},
        {"section_defs.definition_qualified_name:all": [MODEL]},
        {f"data.n_members#{MODEL}": {"gte": 2, "lt": 3}},
        {"results.material.elements:all": ["Al", "Cu"]},
        {"entry_id": entry["entry_id"]},
    ):
        assert [found["entry_id"] for found in search(asked, query)] == [entry["entry_id"]], query
    assert search(asked, {f"data.digest#{MODEL}": "0" * 64}) == []


def test_dataset_becomes_an_entry_that_is_found(service, publish, asked, trained):
    receipt = publish(trained / "metals")
    (entry,) = receipt["facts"]["entries"]
    dataset = archive_of(asked, entry["entry_id"])["data"]
    assert dataset["m_def"] == DATASET
    assert dataset["n_structures"] == 30
    assert dataset["digest"] == Dataset.open(trained / "metals").digest
    found = search(asked, {f"data.n_structures#{DATASET}": {"gte": 30}})
    assert [hit["entry_id"] for hit in found] == [entry["entry_id"]]


def test_artifact_comes_back_bit_for_bit_and_predicts_the_same(
    service, publish, trained, tmp_path, author
):
    artifact = trained / "run" / "artifact"
    receipt = publish(artifact)
    back = tmp_path / "back"
    assert main(["nomad", "download", receipt["identifier"], "-o", str(back), *at(author)]) == 0
    assert files_of(back) == files_of(artifact)
    split = Split.load(trained / "run" / "split.json", Dataset.open(trained / "metals"))
    here = load_artifact(artifact).model.predict(split.test)
    there = load_artifact(back).model.predict(split.test)
    for name, values in here.mean.items():
        assert (values == there.mean[name]).all()
        assert (here.std[name] == there.std[name]).all()


def test_dataset_comes_back_bit_for_bit(service, publish, trained, tmp_path, author):
    receipt = publish(trained / "metals")
    back = tmp_path / "back"
    assert main(["nomad", "download", receipt["identifier"], "-o", str(back), *at(author)]) == 0
    assert files_of(back) == files_of(trained / "metals")
    assert Dataset.open(back).digest == Dataset.open(trained / "metals").digest


def test_what_is_published_again_is_found_and_not_sent_again(service, publish, trained, copy):
    artifact = copy(trained / "run" / "artifact")
    first = publish(artifact)
    second = publish(artifact)
    (artifact / "receipts.jsonl").unlink()  # as on another machine: found by its name
    third = publish(artifact)
    ids = {receipt["identifier"] for receipt in (first, second, third)}
    assert ids == {first["identifier"]}
    assert [r["facts"]["found_earlier"] for r in (first, second, third)] == [False, True, True]
    assert len(list(service.uploads(published=False))) == 1
    assert len(read_receipts(artifact)) == 1


def test_a_killed_publication_goes_on(service, publish, oasis, tmp_path, author):
    rng = np.random.default_rng(0)
    n_atoms = 400
    numbers = np.full(n_atoms, 29)
    entries = [
        Entry(
            numbers=numbers,
            positions=rng.normal(size=(n_atoms, 3)) * 10,
            cell=np.eye(3) * 40,
            pbc=np.ones(3, dtype=bool),
            targets={"energy": float(i), "forces": rng.normal(size=(n_atoms, 3))},
            id=f"cloud-{i}",
        )
        for i in range(1500)
    ]
    Dataset.from_entries(entries).save(tmp_path / "clouds")
    assert sum(map(len, files_of(tmp_path / "clouds").values())) > 20e6
    options = ["--to", "nomad", "--set", f"url={author.url}/v1", "--json"]
    command = [sys.executable, "-m", "epitaxy", "publish", "clouds", *options]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=tmp_path, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("sending"):
                break
        process.kill()
    (begun,) = service.uploads(published=False)

    receipt = publish(tmp_path / "clouds")
    assert receipt["identifier"] == begun.upload_id
    assert [entry["status"] for entry in receipt["facts"]["entries"]] == ["SUCCESS"]
    assert len(list(service.uploads(published=False))) == 1
    assert main(["nomad", "download", begun.upload_id, "-o", "back", *at(author)]) == 0
    assert Dataset.open("back").digest == Dataset.open("clouds").digest


def test_metadata_dataset_and_embargo_arrive(service, publish, asked, copy, trained):
    import user_stub

    artifact = copy(trained / "run" / "artifact")
    receipt = publish(
        artifact,
        "comment=trained on copper",
        "references=[https://doi.org/10.1000/182]",
        f"coauthors=[{user_stub.COAUTHOR['email']}]",
        "dataset=models of metals",
    )
    (entry,) = receipt["facts"]["entries"]
    (found,) = search(asked, {"entry_id": entry["entry_id"]})
    assert found["comment"].startswith("trained on copper")
    assert content_digest(artifact) in found["comment"]
    assert found["references"] == ["https://doi.org/10.1000/182"]
    assert [person["name"] for person in found["authors"]] == ["Ada Author", "Carl Coauthor"]
    assert [dataset["dataset_name"] for dataset in found["datasets"]] == ["models of metals"]

    changed = publish(artifact, "comment=trained on copper and aluminium")
    assert changed["identifier"] == receipt["identifier"]
    (found,) = search(asked, {"entry_id": entry["entry_id"]})
    assert "aluminium" in found["comment"]


def test_limit_of_uploads_is_explained(service, publish, trained):
    for number in range(3):
        service.create(f"upload {number}")
    error = publish(trained / "metals", status=2)["error"]
    assert "3 unpublished uploads" in error
    assert "services.upload_limit" in error


def test_without_a_token_nothing_is_published(author, trained, monkeypatch, capsys):
    from epitaxy_nomad.tokens import VARIABLE

    setting = f"url={author.url}/v1"
    monkeypatch.delenv(VARIABLE)
    assert main(["publish", str(trained / "metals"), "--to", "nomad", "--set", setting]) == 2
    assert "token" in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, author.token(expires_in=-1))
    assert main(["publish", str(trained / "metals"), "--to", "nomad", "--set", setting]) == 2
    assert "does not accept the token" in capsys.readouterr().err


def test_uploads_are_looked_after_from_the_command_line(service, publish, copy, trained, capsys):
    artifact = copy(trained / "run" / "artifact")
    upload_id = publish(artifact)["identifier"]
    assert main(["nomad", "status", str(artifact)]) == 0  # the receipt says where
    said = capsys.readouterr().out
    assert "status: SUCCESS" in said
    assert "manifest.json" in said
    assert main(["nomad", "wait", str(artifact)]) == 0
    capsys.readouterr()
    options = ["--url", f"{service.url}", "--unpublished", "--json"]
    assert main(["nomad", "list", *options]) == 0
    assert [upload["upload_id"] for upload in json.loads(capsys.readouterr().out)] == [upload_id]
    assert main(["nomad", "delete", str(artifact), "--yes"]) == 0
    assert service.find(upload_id) is None


def test_a_damaged_upload_is_reported_in_its_entry(service, asked, trained, copy):
    """What the parser says of an artifact whose weights were lost on the way."""
    import io
    import zipfile

    artifact = copy(trained / "run" / "artifact")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.write(artifact / "manifest.json", "model/manifest.json")
    upload = service.upload([stream.getvalue()], name="damaged")
    service.wait(upload, deadline=120)
    (entry,) = service.entries(upload)
    model = archive_of(asked, entry.entry_id)["data"]
    assert not model["is_complete"]
    assert any("is missing" in problem for problem in model["problems"])


@pytest.fixture(scope="module")
def few(tmp_path_factory, trained) -> Path:
    """A dataset that is published for good, in the tests below."""
    folder = tmp_path_factory.mktemp("published") / "metals"
    Dataset.open(trained / "metals")[np.arange(8)].save(folder)
    return folder


def test_an_embargoed_publication_is_hidden_final_and_found_again(
    publish, few, service, asked, author, capsys
):
    receipt = publish(few, "publish=true", "embargo_months=3", "dataset=eight metals")
    assert receipt["facts"]["published"]
    assert receipt["facts"]["embargo_months"] == 3
    (entry,) = receipt["facts"]["entries"]
    (found,) = search(asked, {"entry_id": entry["entry_id"]})
    assert found["published"]
    assert found["with_embargo"]
    public = {"owner": "public", "query": {"entry_id": entry["entry_id"]}}
    assert asked.post("entries/query", json=public).json()["data"] == []

    assert main(["nomad", "delete", receipt["identifier"], "--yes", *at(author)]) == 2
    assert "can neither be changed nor deleted" in capsys.readouterr().err
    assert main(["nomad", "download", str(few), "-o", "few", *at(author)]) == 0
    assert files_of(Path("few")) == files_of(few)

    central = publish(few, "publish=true", "to_central=true", status=2)["error"]
    assert "administrator" in central
    doi = publish(few, "publish=true", "dataset=eight metals", "doi=true", status=2)["error"]
    assert "DOI" in doi

    again = publish(few, "publish=true", "embargo_months=3", "dataset=eight metals")
    assert again["facts"]["found_earlier"]
    assert again["identifier"] == receipt["identifier"]
