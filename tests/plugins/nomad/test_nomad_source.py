"""The source of NOMAD against a service that follows its description, with faults."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback import FakeClock, Loopback
from nomad_service import TOKEN, NomadService, data_archive, results_archive, run_archive, strained

from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.errors import OptionError, SourceError
from epitaxy_nomad.source import NomadSource

OPENAPI = Path(__file__).parents[4] / "shared/reference/nomad-openapi-2.0.0.json"


def archives(n: int = 7) -> list[dict]:
    frames = strained("Cu", n)
    return [run_archive(f"entry-{i:03}", frames[i : i + 1]) for i in range(n)]


def make(server: Loopback, folder: Path, **options) -> NomadSource:
    given = {"query": {"upload_id": "up-1"}, "page_size": 3, "requests_per_second": 0, **options}
    source = NomadSource(url=f"{server.url}/nomad/api/v1", cache=str(folder / "cache"), **given)
    source.clock = FakeClock().clock()
    return source


def test_all_pages_are_read_in_order_and_kept(tmp_path):
    with Loopback(NomadService(archives())) as server:
        source = make(server, tmp_path)
        entries = list(source)
        assert [entry.id for entry in entries] == [f"entry-{i:03}" for i in range(7)]
        for entry, frame in zip(entries, strained("Cu", 7), strict=True):
            for name in ("energy", "forces", "stress"):
                np.testing.assert_allclose(entry.targets[name], frame.targets[name], atol=1e-12)
        assert source.fraction == 1.0
        assert entries[0].origin.url == f"{server.url}/nomad/api/v1/entries/entry-000"
        assert entries[0].tags["upload"] == "up-1"
        assert server.n_requests == 3
        assert [e.id for e in make(server, tmp_path)] == [e.id for e in entries]
        assert server.n_requests == 3  # all from the cache
        list(make(server, tmp_path, refresh=True))
        assert server.n_requests == 6


@pytest.mark.parametrize("n", [3, 6])
def test_a_last_page_that_is_full_is_followed_by_an_empty_one(tmp_path, n):
    with Loopback(NomadService(archives(n))) as server:
        assert len(list(make(server, tmp_path))) == n


def test_trajectories_derived_results_and_both_schemas_come_as_asked_for(tmp_path):
    frames = strained("Al", 4)
    held = [
        run_archive("a", frames),
        data_archive("b", frames[:2]),
        results_archive("c", frames[0]),
    ]
    with Loopback(NomadService(held)) as server:
        last = list(make(server, tmp_path))
        assert [entry.id for entry in last] == ["a", "b", "c"]
        np.testing.assert_allclose(last[0].positions, frames[3].positions, atol=1e-12)
        np.testing.assert_allclose(last[1].positions, frames[1].positions, atol=1e-12)
        assert last[1].method.xc_functional == "PBEsol"
        every = list(make(server, tmp_path, frames="all"))
        assert [entry.id for entry in every] == [
            *(f"a/run/0/calculation/{i}" for i in range(4)),
            *(f"b/data/outputs/{i}" for i in range(2)),
            "c/results",
        ]
        assert [entry.tags["section"] for entry in last[:2]] == [
            "run/0/calculation/-1/system_ref",
            "data/outputs/-1/model_system_ref",
        ]
        assert every[2].tags["section"] == "run/0/calculation/2/system_ref"
        assert every[5].tags["section"] == "data/outputs/1/model_system_ref"
        for entry, frame in zip(every, [*frames, *frames[:2]], strict=False):
            np.testing.assert_allclose(entry.targets["energy"], frame.targets["energy"])
        runs = list(make(server, tmp_path, layout="run"))
        assert [entry.id for entry in runs] == ["a"]


def test_conditions_are_joined(tmp_path):
    service = NomadService([*archives(4), run_archive("vasp", strained("Al", 1), program="VASP")])
    with Loopback(service) as server:
        query = {"results.method.simulation.program_name": "FHI-aims"}
        wanted = ["entry-001", "entry-002", "vasp"]
        source = make(server, tmp_path, query=query, upload_id="up-1", entry_ids=wanted)
        assert [entry.id for entry in source] == ["entry-001", "entry-002"]
        assert service.bodies[0]["query"] == {
            "and": [query, {"upload_id": "up-1"}, {"entry_id:any": wanted}]
        }


def test_a_limit_ends_the_read_early(tmp_path):
    with Loopback(NomadService(archives())) as server:
        assert len(list(make(server, tmp_path, limit=4))) == 4
        assert server.n_requests == 2


def test_entries_without_an_archive_are_counted(tmp_path):
    missing = [f"entry-{i:03}" for i in (1, 3, 4, 5)]  # the second page of three is empty
    with Loopback(NomadService(archives(7), unreadable=missing)) as server:
        source = make(server, tmp_path)
        assert [entry.id for entry in source] == ["entry-000", "entry-002", "entry-006"]
        assert source.notes[0].startswith("4 of 7 dropped: the service lists it without an archive")


@pytest.mark.parametrize("fault", ["500", "429", "dropped", "truncated"])
def test_faults_that_pass_are_tried_again(tmp_path, fault):
    with Loopback(NomadService(archives(4))) as server:
        server.fail(fault, at=2)
        assert len(list(make(server, tmp_path))) == 4
        assert server.n_requests == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "answered 500"),
        ("dropped", "broke off in the middle"),
        ("html", "sent no JSON"),
        ("schema", "the answer holds no list 'data'"),
        ("duplicate", "went|repeats|listed twice"),
    ],
)
def test_faults_that_last_end_the_read_with_their_name(tmp_path, fault, said):
    with Loopback(NomadService(archives())) as server:
        server.fail(fault, at=2, times=None)
        with pytest.raises(SourceError, match=said) as caught:
            list(make(server, tmp_path, attempts=1))
        assert f"{server.url}/nomad/api/v1/entries/archive/query" in str(caught.value)


def test_a_service_that_goes_round_in_circles_is_noticed(tmp_path):
    with Loopback(NomadService(archives())) as server:
        server.fail("forever", at=2)
        with pytest.raises(SourceError, match=r"circles|listed twice"):
            list(make(server, tmp_path))
        assert server.n_requests <= 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query": {"no.such.quantity": 1}}, "422 .*no.such.quantity is not a quantity"),
        ({"required": {"run": "bad"}}, "400 .*unknown directive bad"),
    ],
)
def test_the_words_of_the_service_reach_the_user(tmp_path, options, said):
    with Loopback(NomadService(archives())) as server:
        with pytest.raises(SourceError, match=said):
            list(make(server, tmp_path, **options))
        assert server.n_requests == 1


def test_a_token_opens_entries_that_are_not_public_and_is_written_nowhere(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("NOMAD_CLIENT_ACCESS_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with Loopback(NomadService(archives(2))) as server:
        with pytest.raises(OptionError, match="NOMAD_CLIENT_ACCESS_TOKEN"):
            list(make(server, tmp_path, owner="user"))
        entries = list(make(server, tmp_path, owner="user", token_file=file))
        assert len(entries) == 2
        monkeypatch.setenv("NOMAD_CLIENT_ACCESS_TOKEN", TOKEN)
        assert len(list(make(server, tmp_path, owner="user"))) == 2
        list(make(server, tmp_path, query={"upload_id": "up-1", "entry_id": "entry-000"}))
        assert "authorization" not in server.requests[-1].headers  # public: not sent
        with pytest.raises(SourceError, match=r"403 \(Only admins") as refused:
            list(make(server, tmp_path, owner="admin", token_file=file))
        file.write_text("eyJ.another-token.that-expired")
        with pytest.raises(SourceError, match=r"401 .*expired.*token_file") as caught:
            list(make(server, tmp_path, owner="user", token_file=file))
    written = [p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert written
    for secret in (TOKEN, "another-token"):
        assert not any(secret.encode() in content for content in written)
        assert secret not in f"{caught.value} {refused.value} {caplog.text} {entries}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query": None}, "say what to read"),
        ({"page_size": 0}, "page_size = 0"),
        ({"token_file": Path("no-such-file"), "owner": "user"}, "no-such-file"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_sent(tmp_path, options, said):
    with Loopback(NomadService([])) as server:
        with pytest.raises(OptionError, match=said):
            list(make(server, tmp_path, **options))
        assert server.n_requests == 0


@pytest.mark.skipif(not OPENAPI.is_file(), reason="needs ../shared/reference")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frames": "all", "dos": True, "entry_ids": ["a", "b"], "dataset_id": "d"},
        {"owner": "visible", "query": {"results.material.elements": ["Si"]}, "limit": 5},
        {"layout": "results", "query": {"or": [{"upload_id": "a"}, {"upload_id": "b"}]}},
    ],
)
def test_requests_are_as_the_description_of_nomad_says(tmp_path, options):
    import jsonschema
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    description = json.loads(OPENAPI.read_text())
    service = NomadService(archives(4))
    with Loopback(service) as server:
        list(make(server, tmp_path, **options))
    assert service.bodies
    registry = Registry().with_resource(
        "urn:nomad",
        Resource.from_contents(description, default_specification=DRAFT202012),
    )
    schema = {"$ref": "urn:nomad#/components/schemas/EntriesArchive"}
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    for body in service.bodies:
        validator.validate(body)
        assert set(body) <= set(
            description["components"]["schemas"]["EntriesArchive"]["properties"]
        )
        known = description["components"]["schemas"]["MetadataPagination"]["properties"]
        assert set(body["pagination"]) <= set(known)


def test_a_read_that_was_killed_goes_on_where_it_was(tmp_path):
    command = [
        *(sys.executable, "-m", "epitaxy", "ingest", "nomad", "-o", str(tmp_path / "ds")),
        *("--option", f"cache={tmp_path / 'cache'}", "--option", "page_size=2"),
        *("--option", "upload_id=up-1", "--keep-duplicates"),
    ]
    with Loopback(NomadService(archives(9))) as server:
        command += ["--option", f"url={server.url}/nomad/api/v1"]
        server.hold(4)
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert server.holding.wait(60), process.communicate(timeout=5)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert not (tmp_path / "ds").exists()
        n_before = server.n_requests
        server.heal()
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        assert server.n_requests - n_before == 2  # of 5 pages, 3 were kept
    assert len(Dataset.open(tmp_path / "ds")) == 9


def test_ingest_writes_a_checked_dataset(tmp_path, capsys):
    frames = strained("Cu", 60)
    held = [run_archive("good", frames), run_archive("bad", frames[:1])]
    held[1]["run"][0]["system"][0]["atoms"]["labels"] = ["bead"] * 4
    with Loopback(NomadService(held)) as server:
        arguments = [
            *("ingest", "nomad", "-o", str(tmp_path / "ds")),
            *("--option", f"url={server.url}/api/v1", "--option", "frames=all"),
            *("--option", "query={upload_id: up-1}", "--option", f"cache={tmp_path / 'cache'}"),
            *("--option", f"token_file={tmp_path / 'token'}"),
        ]
        (tmp_path / "token").write_text(TOKEN)
        assert main(arguments) == 0
    said = capsys.readouterr()
    assert "60 of 60 frames kept" in said.out
    assert "forces: consistent" in said.out
    assert "1 of 61 dropped: particles that are no atoms (bead) (bad" in said.err
    dataset = Dataset.open(tmp_path / "ds")
    assert dataset.history[0]["sources"][0]["frames"] == "all"
    assert str(tmp_path) not in json.dumps(dataset.history)  # where keys and cache are
    assert dataset.ids[7] == "good/run/0/calculation/7"
    np.testing.assert_allclose(dataset[7].targets["stress"], frames[7].targets["stress"], atol=1e-9)
    assert dataset.method(0).xc_functional == "PBE"
    assert "particles that are no atoms" in json.dumps(dataset.history[0])
