"""The publisher of NOMAD against a service that behaves as NOMAD 2.0.0 does, checked by its API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import FakeClock, Loopback
from nomad_openapi import EXTRACT, WHOLE, extract
from nomad_uploads import PREFIX, TOKEN, Checked, NomadUploads

from epitaxy.receipts import content_digest
from epitaxy.testing.publisher_checks import make_artifact
from epitaxy_nomad.publisher import NomadPublisher
from epitaxy_nomad.tokens import VARIABLE


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "model")


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


def puts(server: Loopback) -> int:
    return sum(request.method == "PUT" for request in server.requests)


def test_an_artifact_arrives_bit_for_bit(artifact, nomad, server):
    receipt = make(server).publish(artifact)
    (upload,) = nomad.uploads.values()
    folder = f"epitaxy-{content_digest(artifact)[:12]}"
    for file in artifact.rglob("*"):
        if file.is_file():
            name = f"{folder}/{file.relative_to(artifact).as_posix()}"
            assert upload.files[name] == file.read_bytes()
    assert {name.partition("/")[0] for name in upload.files} == {
        folder,
        f"{folder}.sha256",
        "nomad.json",
    }
    assert receipt.publisher == "nomad"
    assert receipt.identifier == upload.upload_id
    assert receipt.facts["digest"] == content_digest(artifact)
    assert receipt.facts["status"] == "SUCCESS"
    assert receipt.facts["published"] is False
    assert [entry["mainfile"] for entry in receipt.facts["entries"]] == [f"{folder}/manifest.json"]
    assert upload.name == f"model example/weights for energy [{folder}]"
    assert content_digest(artifact) in upload.metadata["comment"]


def test_a_second_call_sends_nothing(artifact, nomad, server):
    first = make(server).publish(artifact)
    second = make(server).publish(artifact)
    assert second.identifier == first.identifier
    assert second.facts["found_earlier"] is True
    assert (puts(server), len(nomad.uploads)) == (1, 1)


def test_the_extract_of_the_description_is_of_the_whole_one():
    if not WHOLE.is_file():
        pytest.skip("needs ../shared/reference")
    assert json.loads(EXTRACT.read_text()) == extract(json.loads(WHOLE.read_text()))
