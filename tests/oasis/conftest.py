"""One Oasis for all tests of this folder; it is started when the first of them wants it."""

from __future__ import annotations

import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from nomad_service import data_archive, run_archive, strained

from epitaxy.cli import main
from epitaxy_nomad.service import Service
from epitaxy_nomad.tokens import VARIABLE

if TYPE_CHECKING:
    from rig import Rig

    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry

HERE = Path(__file__).parent
N_SINGLE = 5
CONFIG = """\
dataset: {folder}/metals
split: {{method: random, valid: 5, test: 6}}
model: {{use: painn, width: 8, n_layers: 1, n_radial: 4, cutoff: 3.5}}
strategy: {{use: ensemble, n_members: 2}}
training: {{epochs: 3, batch_size: 4, lr: 0.01, n_threads: 1, stress_weight: 10}}
output: {folder}/run
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests here: they run with `-m oasis` only."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.oasis)


@pytest.fixture(scope="session")
def oasis(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A running Oasis with our plugin in it; the folder of its logs is told when a test failed."""
    sys.path.insert(0, str(HERE))
    from rig import Rig

    rig = Rig()
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")

    def tell(text: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"\n{text}\n")

    failed_before = request.session.testsfailed
    tell(f"starting an Oasis, logs in {rig.logs}")
    rig.start()
    tell(f"the Oasis at {rig.url} was ready after {rig.seconds['start']:.0f} s")
    gaps: list[str] = []
    try:
        yield rig
        memory = {name: round(size, 2) for name, size in rig.resident_memory().items()}
        tell(f"memory of the Oasis in GB: {sum(memory.values()):.2f} = {memory}")
        gaps = (rig.logs / "elastic.log").read_text().splitlines()
    finally:
        rig.stop()
        if gaps or request.session.testsfailed > failed_before:
            tell(f"the logs of the Oasis are in {rig.logs}")
        else:
            rig.remove()
    assert not gaps, "Elasticsearch was asked for what its stub does not know"


@pytest.fixture
def service(oasis: Rig) -> Iterator[Service]:
    """The Oasis as its author sees it; what is unpublished in the end is deleted."""
    with Service(f"{oasis.url}/v1", oasis.token(), requests_per_second=50) as asked:
        yield asked
        for upload in list(asked.uploads(published=False)):
            asked.wait(upload.upload_id, deadline=120)
            asked.delete(upload.upload_id, deadline=120)


@pytest.fixture
def author(oasis: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rig:
    """The Oasis with the author's token where epitaxy looks for it, in an empty folder."""
    monkeypatch.setenv(VARIABLE, oasis.token())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return oasis


@pytest.fixture
def asked(oasis: Rig) -> Iterator[httpx.Client]:
    """The bare API as its author sees it, to look at what our own client has done."""
    headers = {"Authorization": f"Bearer {oasis.token()}", "Accept": "application/json"}
    with httpx.Client(
        base_url=f"{oasis.url}/v1", headers=headers, trust_env=False, timeout=60
    ) as client:
        yield client


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, make_metals: Callable[..., Dataset]) -> Path:
    """A folder with a dataset `metals`, and an ensemble trained on it in `run/artifact`."""
    folder = tmp_path_factory.mktemp("trained")
    make_metals(30).save(folder / "metals")
    (folder / "job.yaml").write_text(CONFIG.format(folder=folder))
    assert main(["train", str(folder / "job.yaml"), "--quiet"]) == 0
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that copies a folder without its receipts."""

    def call(folder: Path) -> Path:
        ignored = shutil.ignore_patterns("receipts.jsonl")
        return Path(shutil.copytree(folder, tmp_path / folder.name, ignore=ignored))

    return call


def written(archive: dict) -> str:
    """Return an archive as a file of an upload: NOMAD gives ids and metadata itself."""
    return json.dumps({name: part for name, part in archive.items() if name != "metadata"})


@pytest.fixture
def calculations(service: Service) -> tuple[str, dict[str, list[Entry]]]:
    """The frames by mainfile, and the upload that holds them."""
    singles = strained("Cu", N_SINGLE)
    relaxation = strained("Al", 3, seed=1)
    frames = {f"{i}.archive.json": singles[i : i + 1] for i in range(N_SINGLE)}
    files = {name: run_archive("", held) for name, held in frames.items()}
    frames["relaxation.archive.json"] = relaxation
    files["relaxation.archive.json"] = run_archive("", relaxation)
    frames["new.archive.json"] = strained("Ni", 2, seed=2)
    files["new.archive.json"] = data_archive("", frames["new.archive.json"])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, written(content))
    upload_id = service.upload([stream.getvalue()], name="calculations")
    upload = service.wait(upload_id, deadline=180)
    assert upload.status == "SUCCESS", upload
    entries = {entry.mainfile: entry for entry in service.entries(upload_id)}
    assert {name: entry.errors for name, entry in entries.items()} == dict.fromkeys(files, ())
    return upload_id, {entries[name].entry_id: held for name, held in frames.items()}
