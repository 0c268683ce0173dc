"""One Oasis for all tests of this folder; it is started when the first of them wants it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from epitaxy_nomad.service import Service
from epitaxy_nomad.tokens import VARIABLE

if TYPE_CHECKING:
    from rig import Rig

HERE = Path(__file__).parent


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
    try:
        yield rig
        memory = {name: round(size, 2) for name, size in rig.resident_memory().items()}
        tell(f"memory of the Oasis in GB: {sum(memory.values()):.2f} = {memory}")
    finally:
        rig.stop()
        if request.session.testsfailed > failed_before:
            tell(f"the logs of the Oasis are in {rig.logs}")
        else:
            rig.remove()


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
