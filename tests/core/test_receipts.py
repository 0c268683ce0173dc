"""Receipts lie beside what was published and change nothing about it."""

import json
import os
import stat
from pathlib import Path

import pytest

from epitaxy.artifact import check_artifact, save_artifact
from epitaxy.dataset import Dataset
from epitaxy.errors import ArtifactError, DataError, PublishError, StoreError
from epitaxy.protocols import Receipt
from epitaxy.receipts import append_receipt, content_digest, read_content, read_receipts
from epitaxy.testing.publisher_checks import make_artifact
from epitaxy.testing.store_checks import ragged_dataset

ONE = Receipt("nomad", "upload-1", "https://nomad.example/1", {"digest": "ab", "n": [1, 2]})
TWO = Receipt("folder", "größer", "", {})


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "model")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    ragged_dataset().save(tmp_path / "dataset")
    return tmp_path / "dataset"


def test_receipts_come_back_in_their_order(artifact):
    assert read_receipts(artifact) == ()
    append_receipt(artifact, ONE)
    append_receipt(artifact, TWO)
    assert read_receipts(artifact) == (ONE, TWO)


@pytest.mark.parametrize("kind", ["artifact", "dataset"])
def test_a_receipt_changes_neither_digest_nor_wholeness(request, kind):
    path = request.getfixturevalue(kind)
    before = read_content(path)
    append_receipt(path, ONE)
    assert read_content(path, verify=True) == before
    assert before.kind == kind
    assert "receipts.jsonl" not in before.files


def test_the_digest_of_a_dataset_is_that_of_its_data(dataset, tmp_path):
    assert content_digest(dataset) == ragged_dataset().digest
    append_receipt(dataset, ONE)
    Dataset.open(dataset, verify=True).save(tmp_path / "copy")
    assert content_digest(tmp_path / "copy") == content_digest(dataset)


def test_an_artifact_inside_another_takes_no_receipt_along(artifact, tmp_path):
    """A difference model copies the artifact of its lower level, with what lies in it."""
    append_receipt(artifact, ONE)

    class Copies:
        spec = None
        capabilities = None

        def save(self, directory: Path) -> None:
            (directory / "low").mkdir()
            for file in artifact.iterdir():
                (directory / "low" / file.name).write_bytes(file.read_bytes())

    from epitaxy.protocols import Capabilities
    from epitaxy.spec import Spec

    model = Copies()
    model.spec, model.capabilities = Spec("example/copies"), Capabilities()
    outer = save_artifact(model, tmp_path / "outer")  # type: ignore[arg-type]
    assert "low/receipts.jsonl" not in check_artifact(outer)["files"]
    append_receipt(outer / "low", TWO)
    check_artifact(outer)
    assert "low/card.md" in read_content(outer).files
    assert not any("receipts" in name for name in read_content(outer).files)


def test_only_what_the_manifest_names_is_published_of_an_artifact(artifact):
    (artifact / "notes.txt").write_text("private")
    assert read_content(artifact).files == ("card.md", "manifest.json", "weights.bin")


def test_the_card_may_be_edited_or_missing(artifact):
    digest = content_digest(artifact)
    (artifact / "card.md").write_text("mine")
    assert content_digest(artifact) == digest
    (artifact / "card.md").unlink()
    assert read_content(artifact).files == ("manifest.json", "weights.bin")


def test_what_is_damaged_or_something_else_is_refused(artifact, dataset, tmp_path):
    (artifact / "weights.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"weights\.bin has 0 bytes"):
        read_content(artifact)
    read_content(artifact, verify=False)
    next(dataset.glob("*.npy")).unlink()
    with pytest.raises(StoreError):
        read_content(dataset)
    for text in ("[]", "no JSON", '{"format": "another"}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(DataError, match="neither an artifact nor a dataset"):
            read_content(tmp_path)
    with pytest.raises(DataError, match="there is nothing at this path"):
        read_content(tmp_path / "absent")


def test_a_line_that_was_cut_is_named_and_does_not_swallow_the_next(artifact):
    append_receipt(artifact, ONE)
    file = artifact / "receipts.jsonl"
    file.write_bytes(file.read_bytes() + b'{"publisher": "nom')
    append_receipt(artifact, TWO)
    with pytest.raises(PublishError, match=r"receipts\.jsonl, line 2 is no receipt"):
        read_receipts(artifact)
    lines = file.read_text("utf-8").splitlines()
    assert json.loads(lines[2])["publisher"] == "folder"
    file.write_text("\n".join([lines[0], "", lines[2]]), "utf-8")
    assert read_receipts(artifact) == (ONE, TWO)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_receipt_that_cannot_be_kept_is_in_the_message(artifact):
    artifact.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(PublishError, match=r"published, but .* keep it: .*upload-1"):
        append_receipt(artifact, ONE)


def test_a_receipt_where_a_folder_lies_is_in_the_message(artifact):
    (artifact / "receipts.jsonl").mkdir()
    with pytest.raises(PublishError, match=r"published, but .* keep it: .*upload-1"):
        append_receipt(artifact, ONE)


def test_only_what_the_manifest_of_a_dataset_names_is_published(dataset, tmp_path):
    (tmp_path / "secret").write_text("not for others")
    (dataset / "key").symlink_to(tmp_path / "secret")
    (dataset / "notes.txt").write_text("mine")
    (dataset / "more").mkdir()
    (dataset / "more/manifest.json").write_text("{}")
    files = read_content(dataset).files
    assert "manifest.json" in files
    assert all((dataset / name).is_file() for name in files)
    assert not {"key", "notes.txt", "more/manifest.json"} & set(files)


@pytest.mark.parametrize("text", ['{"format": ["epitaxy-dataset"]}', "[" * 100_000, "null"])
def test_a_strangers_manifest_is_neither_artifact_nor_dataset(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="neither an artifact nor a dataset"):
        read_content(tmp_path)
