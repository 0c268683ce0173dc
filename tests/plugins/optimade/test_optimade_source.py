"""The source of OPTIMADE against real servers of it, and against one that breaks."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import FakeClock, Loopback, Reply, Request

from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import OptionError, SourceError
from epitaxy_benchmarks.silicon import SiliconSource
from epitaxy_optimade.source import OptimadeSource

SUPPORT = Path(__file__).parents[2] / "support"
N = 60


def document(entry: Entry, **own: Any) -> dict[str, Any]:
    """Return a silicon frame as a structure document."""
    n = len(entry)
    return {
        "type": "structures",
        "id": entry.id,
        "attributes": {
            "elements": ["Si"],
            "nelements": 1,
            "elements_ratios": [1.0],
            "chemical_formula_reduced": "Si",
            "chemical_formula_descriptive": f"Si{n}",
            "chemical_formula_anonymous": "A",
            "nsites": n,
            "dimension_types": [1, 1, 1],
            "nperiodic_dimensions": 3,
            "lattice_vectors": entry.cell.tolist(),
            "cartesian_site_positions": entry.positions.tolist(),
            "species": [{"name": "Si", "chemical_symbols": ["Si"], "concentration": [1.0]}],
            "species_at_sites": ["Si"] * n,
            "structure_features": [],
            "last_modified": "2026-01-01T00:00:00Z",
            **own,
        },
    }


def frames(xc: str) -> list[Entry]:
    return list(islice(SiliconSource(xc=xc), N))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[list[str]]:
    """Two real servers: "exmpl" with PBE frames, "alexandria" with LDA frames."""
    folder = tmp_path_factory.mktemp("optimade")
    energy = {"name": "energy", "type": "float", "unit": "eV", "description": "Total energy."}
    xc = {"name": "xc_functional", "type": "string", "description": "Functional."}
    specs = []
    for prefix, name, fields in (
        ("exmpl", "PBE", [energy]),
        ("alexandria", "LDA", [energy, xc]),
    ):
        path = folder / f"{prefix}.jsonl"
        lines: list[Any] = [{"x-optimade": {"meta": {"api_version": "1.2.0"}}}]
        for entry in frames(name):
            own = {"energy": float(entry.targets["energy"])}
            lines.append(
                document(entry, **own, **({"xc_functional": name} if xc in fields else {}))
            )
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        specs.append({"prefix": prefix, "jsonl": str(path), "fields": fields, "page_limit": 50})
    (folder / "servers.json").write_text(json.dumps(specs))
    environment = {**os.environ, "OPTIMADE_CONFIG_FILE": str(folder / "none.json")}
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "optimade_servers.py"), str(folder), str(writing)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        pass_fds=[writing],
        text=True,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as stream:
            told = stream.read()  # until it is told, or the process has ended
        if not told:
            pytest.fail(f"the OPTIMADE servers did not start: {process.communicate()[1]}")
        ports = json.loads(told)
        yield [f"http://127.0.0.1:{port}" for port in ports]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def make(providers: Any, folder: Path, **options: Any) -> OptimadeSource:
    given: dict[str, Any] = {"requests_per_second": 0, **options}
    source = OptimadeSource(providers=providers, cache=str(folder / "cache"), **given)
    source.clock = FakeClock().clock()
    return source


def assert_same(found: list[Entry], expected: list[Entry]) -> None:
    """Check that structures and energies are what was loaded, to the last bit."""
    assert [entry.id.partition(":")[2] for entry in found] == [entry.id for entry in expected]
    for entry, frame in zip(found, expected, strict=True):
        np.testing.assert_array_equal(entry.numbers, frame.numbers)
        np.testing.assert_array_equal(entry.positions, frame.positions)
        np.testing.assert_array_equal(entry.cell, frame.cell)
        np.testing.assert_array_equal(entry.pbc, frame.pbc)
        assert float(entry.targets["energy"]) == float(frame.targets["energy"])


def test_a_real_server_gives_back_what_was_loaded_page_by_page(servers, tmp_path):
    source = make(
        [servers[0]],
        tmp_path,
        page_limit=7,
        filter='elements HAS ALL "Si"',
        mapping={"energy": "_exmpl_energy"},
    )
    found = list(source)
    assert_same(found, frames("PBE"))
    assert found[0].id == f"exmpl:{frames('PBE')[0].id}"
    assert found[0].origin.database == "Tests of exmpl (OPTIMADE 1.2.0)"
    assert found[0].origin.url == f"{servers[0]}/v1/structures/{frames('PBE')[0].id}"
    assert found[0].origin.retrieved
    assert source.fraction == 1.0
    assert source.notes == ()


def test_the_filter_is_the_servers(servers, tmp_path):
    expected = [entry for entry in frames("PBE") if len(entry) == 2]
    mapping = {"energy": "_exmpl_energy"}
    source = make([servers[0]], tmp_path, filter='elements HAS "Si" AND nsites=2', mapping=mapping)
    assert 0 < len(expected) < N
    assert_same(list(source), expected)
    middle = float(np.median([float(e.targets["energy"]) for e in frames("LDA")]))
    low = [entry for entry in frames("LDA") if float(entry.targets["energy"]) < middle]
    assert_same(list(make([servers[1]], tmp_path, filter=f"_alexandria_energy < {middle}")), low)
    assert list(make([servers[0]], tmp_path, filter='elements HAS "Ge"')) == []
    with pytest.raises(SourceError, match=r"answered 400 \(Unable to parse filter"):
        list(make([servers[0]], tmp_path, filter="elements HAS ALL"))


def test_two_providers_come_one_after_the_other(servers, tmp_path):
    source = make(servers, tmp_path, page_limit=25, mapping={"energy": "_exmpl_energy"})
    fractions = []
    found = []
    for entry in source:
        found.append(entry)
        fractions.append(source.fraction)
    assert_same(found[:N], frames("PBE"))
    assert_same(found[N:], frames("LDA"))
    assert fractions == sorted(fractions)
    assert {entry.tags["provider"] for entry in found} == {"exmpl", "alexandria"}
    assert {entry.method.xc_functional for entry in found[:N]} == {""}
    assert {entry.method.xc_functional for entry in found[N:]} == {"LDA"}
    assert found[-1].method.code == "VASP"
    named = make([f"mine={servers[0]}/v1"], tmp_path, limit=3)
    assert [e.id for e in named] == [f"mine:{e.id}" for e in frames("PBE")[:3]]
    twice = make([servers[0], servers[0] + "/"], tmp_path, limit=1)
    with pytest.raises(OptionError, match="twice"):
        list(twice)


def test_pages_longer_than_the_server_allows_are_read_in_its_own_size(servers, tmp_path):
    source = make([servers[0]], tmp_path, page_limit=1000)
    assert len(list(source)) == N
    assert source.notes == ("OPTIMADE provider exmpl wants shorter pages, read in its own size",)


def test_a_field_that_the_server_does_not_have_is_refused_with_the_nearest(servers, tmp_path):
    with pytest.raises(
        OptionError, match=r"no field '_exmpl_energi'.*Did you mean '_exmpl_energy'"
    ):
        list(make([servers[0]], tmp_path, mapping={"energy": "_exmpl_energi"}))


def test_ingest_reads_real_servers_into_a_dataset(servers, tmp_path, capsys):
    arguments = [
        *("ingest", "optimade", "-o", str(tmp_path / "ds")),
        *("--option", f"providers=[{servers[1]}]", "--option", f"cache={tmp_path / 'cache'}"),
        *("--option", 'filter=elements HAS ALL "Si" AND nelements=1'),
    ]
    assert main(arguments) == 0
    assert f"{N} of {N} frames kept" in capsys.readouterr().out
    dataset = Dataset.open(tmp_path / "ds")
    assert_same(list(dataset), frames("LDA"))


class Registry:
    """The list of providers, their indexes and one small server each, all in one place."""

    def __init__(self, n: int = 6):
        self.url = ""
        self.n = n
        self.string_links = True
        self.more: dict[str, Any] = {}
        self.version = "1.1.0"
        entries = list(islice(SiliconSource(), n))
        self.documents = [document(entry, _mp_stability=None) for entry in entries]

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        parts = request.path.strip("/").split("/")
        if parts == ["v1", "links"]:
            return self._links(
                ("mp", "external", f"{self.url}/index-mp"),
                ("odbx", "external", {"href": f"{self.url}/index-odbx"}),
                ("aiida", "external", None),
            )
        if parts[0] == "index-mp":
            return self._links(
                ("optimade", "root", None),
                ("mp", "child", f"{self.url}/mp"),
                ("old", "child", f"{self.url}/old"),
                aggregate={"old": "no"},
            )
        if parts[0] == "index-odbx":
            return self._links(
                ("main", "child", f"{self.url}/odbx-main"),
                ("misc", "child", f"{self.url}/misc"),
            )
        meta = {"api_version": self.version, "provider": {"prefix": parts[0], "name": parts[0]}}
        if parts[1:] == ["v1", "info"]:
            return Reply.of({"data": {"attributes": {"api_version": self.version}}, "meta": meta})
        if parts[1:] != ["v1", "structures"]:
            return Reply.of({"errors": [{"status": "404", "detail": "Not Found"}]}, status=404)
        start, size = int(request.params.get("page_offset", 0)), 2
        end = start + size
        following: Any = None
        if end < self.n:
            following = f"{self.url}/{parts[0]}/v1/structures?page_offset={end}"
            following = following if self.string_links else {"href": following}
        meta |= {"data_returned": self.n, "more_data_available": end < self.n, **self.more}
        data = self.documents[start:end]
        return Reply.of({"data": data, "links": {"next": following}, "meta": meta})

    def _links(self, *links: tuple[str, str, Any], aggregate: Any = None) -> Reply:
        data = [
            {
                "type": "links",
                "id": name,
                "attributes": {
                    "link_type": kind,
                    "base_url": url,
                    "aggregate": (aggregate or {}).get(name, "ok"),
                },
            }
            for name, kind, url in links
        ]
        return Reply.of({"data": data, "meta": {}})


@pytest.fixture
def registry() -> Iterator[tuple[Loopback, Registry]]:
    answers = Registry()
    with Loopback(answers) as server:
        answers.url = server.url
        yield server, answers


def test_names_are_looked_up_in_the_list_of_providers_and_kept(registry, tmp_path):
    server, _ = registry
    source = make("mp,odbx", tmp_path, registry=server.url)
    found = list(source)
    assert len(found) == 18
    assert {e.tags["provider"] for e in found} == {"mp", "odbx/main", "odbx/misc"}
    assert len({e.id for e in found}) == 18
    n_requests = server.n_requests
    assert [e.id for e in make(["mp"], tmp_path, registry=server.url)] == [e.id for e in found[:6]]
    assert server.n_requests <= n_requests + 1  # only /info/structures, which it does not have
    (one,) = make(["odbx/misc"], tmp_path, registry=server.url, limit=1)
    assert one.id.startswith("odbx/misc:")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("obdx", "no OPTIMADE provider is called 'obdx'. Did you mean 'odbx'"),
        ("odbx/mian", "has no server 'mian', only main, misc. Did you mean odbx/main"),
        ("aiida", "'aiida' has no server at present"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(registry, tmp_path, name, said):
    server, _ = registry
    with pytest.raises(OptionError, match=said):
        list(make([name], tmp_path, registry=server.url))


@pytest.mark.parametrize("string_links", [True, False])
def test_links_to_the_next_page_may_be_text_or_objects(registry, tmp_path, string_links):
    server, answers = registry
    answers.string_links = string_links
    assert len(list(make([f"{server.url}/odbx"], tmp_path))) == 6


def test_servers_that_leave_rules_aside_are_read(registry, tmp_path):
    server, answers = registry
    for number, structure in enumerate(answers.documents):
        structure["id"] = 4066011 + number  # as OQMD does
        structure["attributes"]["_x_gap"] = 0.5 * number
        del structure["attributes"]["species"], structure["attributes"]["nsites"]
    found = list(make([f"{server.url}/oqmd"], tmp_path, mapping={"band_gap": "_x_gap"}))
    assert [entry.id for entry in found] == [f"oqmd:{4066011 + i}" for i in range(6)]
    assert [float(entry.targets["band_gap"]) for entry in found] == [0.5 * i for i in range(6)]
    asked = next(r.params for r in server.requests if r.path.endswith("/structures") and r.query)
    fields = asked["response_fields"].split(",")
    assert {"_x_gap", "_oqmd_delta_e", "lattice_vectors"} <= set(fields)
    assert "_mp_stability" not in fields


def test_warnings_of_a_server_reach_the_user(registry, tmp_path):
    server, answers = registry
    answers.more = {"warnings": [{"type": "warning", "detail": "the field x is ignored"}]}
    source = make([f"{server.url}/odbx"], tmp_path)
    assert len(list(source)) == 6
    assert source.notes == ("OPTIMADE provider odbx warns: the field x is ignored",)


@pytest.mark.parametrize("fault", ["429", "429 late", "500", "dropped", "truncated", "slow"])
def test_faults_that_pass_are_tried_again(registry, tmp_path, fault):
    server, _ = registry
    server.fail(fault, at=4)
    timeout = 1.0 if fault == "slow" else 60.0
    assert len(list(make([f"{server.url}/odbx"], tmp_path, timeout=timeout))) == 6


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "answered 500"),
        ("dropped", "broke off in the middle"),
        ("truncated", "cut or damaged"),
        ("html", "sent no JSON"),
        ("empty", "empty answer"),
        ("schema", "no list of structures"),
        ("duplicate", "circles|listed twice"),
        ("forever", "circles|listed twice"),
    ],
)
def test_faults_that_last_are_named(registry, tmp_path, fault, said):
    server, _ = registry
    server.fail(fault, at=4, times=1 if fault in ("duplicate", "forever") else None)
    with pytest.raises(SourceError, match=said) as caught:
        list(make([f"{server.url}/odbx"], tmp_path, attempts=1))
    assert "OPTIMADE provider odbx: " in str(caught.value)
    assert server.n_requests < 10
    server.heal()
    assert len(list(make([f"{server.url}/odbx"], tmp_path))) == 6  # nothing wrong was kept


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda doc: doc.pop("id"), "a document has no id"),
        (lambda doc: doc.update(attributes=None), "no id or no attributes"),
    ],
)
def test_documents_of_another_form_are_refused(registry, tmp_path, change, said):
    server, answers = registry
    change(answers.documents[3])
    with pytest.raises(SourceError, match=said):
        list(make([f"{server.url}/odbx"], tmp_path))


def test_errors_in_an_answer_with_status_200_are_shown(registry, tmp_path):
    server, _ = registry
    errors = {"errors": [{"status": "501", "title": "Not implemented", "detail": "no HAS ONLY"}]}
    server.fail(lambda reply: Reply.of(errors), at=3)
    with pytest.raises(SourceError, match="the server reports: no HAS ONLY"):
        list(make([f"{server.url}/odbx"], tmp_path))


def test_another_version_of_the_standard_is_refused(registry, tmp_path):
    server, answers = registry
    answers.version = "2.0.0"
    with pytest.raises(SourceError, match=r"version 2\.0\.0 of OPTIMADE; version 1 is understood"):
        list(make([f"{server.url}/odbx"], tmp_path))


def test_one_provider_that_fails_is_named_and_may_be_skipped(registry, tmp_path):
    server, _ = registry
    with Loopback(lambda request: Reply(b"down", 500)) as broken:
        names = [f"{server.url}/a", broken.url, f"{server.url}/b"]
        with pytest.raises(SourceError, match=rf"OPTIMADE provider {broken.url}: .*answered 500"):
            list(make(names, tmp_path, attempts=1))
        source = make(names, tmp_path, attempts=1, on_error="skip")
        found = list(source)
        assert [entry.tags["provider"] for entry in found] == ["a"] * 6 + ["b"] * 6
        assert source.notes[0].startswith(
            f"OPTIMADE provider {broken.url} is incomplete or missing: "
        )
        with pytest.raises(SourceError, match="answered 500"):
            list(make([broken.url], tmp_path, attempts=1, on_error="skip"))


def test_a_read_that_was_killed_goes_on_where_it_was(tmp_path):
    answers = Registry(n=12)
    with Loopback(answers) as server:
        answers.url = server.url
        command = [
            *(sys.executable, "-m", "epitaxy", "ingest", "optimade", "-o", str(tmp_path / "ds")),
            *("--option", f"providers=[{server.url}/odbx]", "--require", "none"),
            *("--option", f"cache={tmp_path / 'cache'}", "--keep-duplicates"),
        ]
        server.hold(6)  # /info, /info/structures, three pages, then nothing more
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert server.holding.wait(60), process.communicate(timeout=5)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert not (tmp_path / "ds").exists()
        server.heal()
        before = server.n_requests
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        asked = [r.query for r in server.requests[before:] if r.path.endswith("/structures")]
        assert [q for q in asked if "page_offset" in q] == [f"page_offset={i}" for i in (6, 8, 10)]
    assert len(Dataset.open(tmp_path / "ds")) == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "say what to read"),
        ({"providers": "mp", "page_limit": 0}, "page_limit = 0"),
        ({"providers": "mp", "path": Path(__file__)}, "say what to read"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        OptimadeSource(**options)
