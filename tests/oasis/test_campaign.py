"""Many finished calculations into a real NOMAD that allows three unpublished uploads."""

import json
from pathlib import Path

import numpy as np
import pytest
from nomad_service import run_archive, strained

from epitaxy.cli import main
from epitaxy.dataset import Dataset

N, N_FILES = 8, 5
MAINFILE = r".+\.archive\.json"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders of calculations: one archive each that NOMAD reads, and files beside it."""
    for i, frame in enumerate(strained("Cu", N)):
        folder = tmp_path / "tree" / f"part{i % 2}" / f"calculation{i}"
        (folder / "charge").mkdir(parents=True)
        archive = run_archive("", [frame])
        del archive["metadata"]
        (folder / "copper.archive.json").write_text(json.dumps(archive))
        for k in range(1, N_FILES):
            place = folder / ("charge" if k % 2 else ".") / f"file{k}.dat"
            place.write_bytes(np.random.default_rng([i, k]).bytes(1000 * k))
    return tmp_path / "tree"


def test_a_campaign_is_sent_through_the_limit_and_read_back(author, service, tree, capsys):
    limits = ["--mainfile", MAINFILE, "--max-files", str(2 * N_FILES), "--name", "copper"]
    assert main(["campaign", "plan", str(tree), "-o", "camp", *limits]) == 0
    where = ["--url", f"{author.url}/v1"]
    # Four uploads of two calculations: more than may be unpublished at a time.
    send = ["campaign", "send", "camp", *where, "--publish", "--embargo", "1"]
    assert main([*send, "--dataset", "copper campaign"]) == 0, capsys.readouterr().err
    assert main(["campaign", "verify", "camp", *where, "--read-all"]) == 0
    capsys.readouterr()
    assert main(["campaign", "status", "camp"]) == 0
    assert str(N * N_FILES) in capsys.readouterr().out

    uploads = [upload for upload in service.uploads() if upload.name.startswith("copper")]
    assert len(uploads) == 4
    assert all(upload.is_published and upload.embargo_months == 1 for upload in uploads)
    for upload in uploads:
        entries = list(service.entries(upload.upload_id))
        assert [entry.errors for entry in entries] == [(), ()]

    dataset = service.dataset("copper campaign")
    assert dataset is not None
    settings = ("owner=user", f"url={author.url}/v1", f"dataset_id={dataset.dataset_id}")
    options = [word for setting in settings for word in ("--option", setting)]
    assert main(["ingest", "nomad", "-o", "back", *options]) == 0
    energies, _ = Dataset.open("back").target("energy")
    expected = [frame.targets["energy"] for frame in strained("Cu", N)]
    np.testing.assert_allclose(np.sort(energies), np.sort(expected), rtol=1e-12)

    assert main(send) == 0  # once more: there is nothing left to do
    assert len([u for u in service.uploads() if u.name.startswith("copper")]) == 4
