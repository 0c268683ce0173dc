"""Calculations out of a real NOMAD, through the `nomad` source: both layouts, pages, datasets."""

import numpy as np

from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy_nomad.publisher import NomadPublisher
from epitaxy_nomad.source import NomadSource

DATASET = "calculations of tests"


def make(author, folder, **options) -> NomadSource:
    """Return the source on the rig, as its author."""
    given = {"owner": "user", "page_size": 2, "requests_per_second": 0, **options}
    return NomadSource(url=f"{author.url}/v1", cache=str(folder / "cache"), **given)


def test_entries_of_an_upload_come_back_as_they_were_calculated(author, calculations, tmp_path):
    upload_id, frames = calculations
    entries = {entry.id: entry for entry in make(author, tmp_path, upload_id=upload_id)}
    assert sorted(entries) == sorted(frames)
    for id, held in frames.items():
        assert (entries[id].numbers == held[-1].numbers).all()
        np.testing.assert_allclose(entries[id].positions, held[-1].positions, atol=1e-12)
        np.testing.assert_allclose(entries[id].cell, held[-1].cell, atol=1e-12)
        for name in ("energy", "forces"):
            np.testing.assert_allclose(
                entries[id].targets[name], held[-1].targets[name], rtol=1e-12, atol=1e-12
            )
        assert entries[id].tags["upload"] == upload_id
        assert entries[id].origin.url.endswith(f"/entries/{id}")


def test_a_relaxation_comes_frame_by_frame(author, calculations, tmp_path):
    upload_id, frames = calculations
    every = list(make(author, tmp_path, upload_id=upload_id, frames="all"))
    assert len(every) == sum(map(len, frames.values()))
    (id,) = (id for id, held in frames.items() if len(held) == 3)
    steps = [entry for entry in every if entry.id.startswith(f"{id}/run/")]
    for entry, frame in zip(steps, frames[id], strict=True):
        np.testing.assert_allclose(entry.targets["energy"], frame.targets["energy"], rtol=1e-12)


def test_one_command_makes_a_dataset_that_keeps_the_ids(
    author, service, asked, calculations, tmp_path, capsys
):
    upload_id, frames = calculations
    dataset = service.dataset(DATASET) or service.create_dataset(DATASET)
    service.edit(upload_id, {"datasets": [dataset.dataset_id]})
    settings = {
        "url": f"{author.url}/v1",
        "owner": "user",
        "dataset_id": dataset.dataset_id,
        "cache": "none",
    }
    options = [w for name, value in settings.items() for w in ("--option", f"{name}={value}")]
    status = main(["ingest", "nomad", "-o", str(tmp_path / "set"), *options])
    assert status == 0, capsys.readouterr().err
    assert sorted(Dataset.open(tmp_path / "set").ids) == sorted(frames)

    # Published again it refers to the calculations that it is from, and NOMAD follows that.
    publisher = NomadPublisher(url=f"{author.url}/v1", requests_per_second=50)
    (entry,) = publisher.publish(tmp_path / "set").facts["entries"]
    reply = asked.post(f"entries/{entry['entry_id']}/archive/query", json={"required": "*"})
    archive = reply.json()["data"]["archive"]
    assert sorted(archive["data"]["source_entry_ids"]) == sorted(frames)
    assert set(archive["data"]["source_upload_ids"]) == {upload_id}
    followed = {found["target_entry_id"] for found in archive["metadata"]["entry_references"]}
    assert followed >= set(frames)


def test_without_a_token_unpublished_entries_are_not_there(author, calculations, tmp_path):
    upload_id, _ = calculations
    assert list(make(author, tmp_path, upload_id=upload_id, owner="public")) == []
