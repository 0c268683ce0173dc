"""The Materials Project over a server on this machine that speaks its protocol."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback import FakeClock, Loopback, Reply
from mp_server import KEY, VERSION, MaterialsProject, structure, summaries

from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.entry import Method
from epitaxy.errors import OptionError, SourceError
from epitaxy_mp.source import MaterialsProjectSource


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    return path


@pytest.fixture
def make(tmp_path, key_file):
    def source(server: Loopback, **options) -> MaterialsProjectSource:
        settings = {
            "url": server.url,
            "cache": str(tmp_path / "cache"),
            "key_file": key_file,
            "page_size": 10,
            "levels": False,
            **options,
        }
        made = MaterialsProjectSource(**settings)
        made.clock = FakeClock().clock()
        return made

    return source


def test_pages_are_read_in_order_and_asked_for_once(make):
    with Loopback(MaterialsProject(25)) as server:
        source = make(server)
        entries = list(source)
        assert [e.id for e in entries] == [f"mp-{1000 + i}" for i in range(25)]
        assert source.fraction == 1.0
        assert server.n_requests == 4  # heartbeat and three pages
        again = list(make(server))
        assert server.n_requests == 5  # only whether the database has changed
        assert [e.origin for e in again] == [e.origin for e in entries]
        assert list(make(server, refresh=True))[3].id == "mp-1003"
        assert server.n_requests == 9


def test_a_summary_becomes_an_entry_with_units_level_and_origin(make):
    with Loopback(MaterialsProject(5)) as server:
        source = make(server, levels=True)
        first, second, third, _, fifth = source
    assert first.targets["energy"] == pytest.approx(-10.8)
    assert first.targets["formation_energy"] == 0
    assert first.targets["band_gap"] == 0.6
    assert first.targets["bulk_modulus"] == 88.0
    assert first.targets["is_metal"] == 0
    assert "shear_modulus" not in first.targets
    np.testing.assert_allclose(first.positions[1], np.full(3, 5.43 / 4), atol=1e-12)
    assert first.method == Method("VASP", "PBE")
    assert third.method == Method("VASP", "r2SCAN")
    assert fifth.method.xc_functional == "PBE/PBE+U/r2SCAN mixed"  # energies disagree: unknown
    assert first.origin.url.endswith("/materials/mp-1000")
    assert first.origin.database == f"Materials Project {VERSION}"
    assert (first.origin.license, second.origin.license) == ("CC-BY-4.0", "CC-BY-NC-4.0")
    assert first.origin.retrieved == "2027-01-15"
    assert set(first.targets) <= set(source.card.quantities)


def test_corrected_energies_and_chosen_targets(make):
    with Loopback(MaterialsProject(3)) as server:
        entry = next(iter(make(server, energy="corrected", targets=("energy",))))
        assert dict(entry.targets) == {"energy": pytest.approx(-11.0)}
        assert entry.method.settings == "corrected energy"


def test_thermo_documents_bring_the_level_and_the_structure(make):
    with Loopback(MaterialsProject(4)) as server:
        entries = list(make(server, endpoint="thermo"))
    assert entries[0].method.xc_functional == "PBE"
    assert entries[2].method.xc_functional == "r2SCAN"
    assert entries[0].targets["decomposition_energy"] == -0.01
    assert len(entries[0]) == 2
    assert entries[0].id == "mp-1000"


def test_tasks_bring_forces_and_stress_with_our_sign(make):
    forces = [[0.0, 0.1, -0.2], [0.0, -0.1, 0.2]]
    stress = [[10.0, 1.0, 2.0], [1.0, 20.0, 3.0], [2.0, 3.0, 30.0]]
    task = {
        "task_id": "mp-7",
        "run_type": "GGA+U",
        "vasp_version": "6.3.2",
        "input": {"hubbards": {"Fe": 5.3, "O": 0.0}},
        "output": {
            "structure": structure("Fe", 4.2, second="O"),
            "energy": -15.0,
            "forces": forces,
            "stress": stress,
            "bandgap": 1.1,
        },
    }
    with Loopback(MaterialsProject(0, tasks=[task])) as server:
        (entry,) = make(server, endpoint="tasks", material_ids=("mp-7",))
        assert server.requests[-1].params["task_ids"] == "mp-7"
    kbar = 1 / 1602.1766208
    np.testing.assert_allclose(
        entry.targets["stress"], -kbar * np.array([10, 20, 30, 3, 2, 1]), rtol=1e-6
    )
    np.testing.assert_array_equal(entry.targets["forces"], forces)
    assert entry.method.xc_functional == "PBE+U"
    assert entry.method.code == "VASP 6.3.2"
    assert "U(Fe)=5.3 eV" in entry.method.settings
    assert "U(O)" not in entry.method.settings


def test_elasticity_brings_the_moduli(make):
    document = {
        "material_id": "mp-1",
        "formula_pretty": "Si",
        "structure": structure(),
        "bulk_modulus": {"voigt": 90.0, "reuss": 86.0, "vrh": 88.0},
        "shear_modulus": {"vrh": 61.0},
    }
    with Loopback(MaterialsProject(0, elasticity=[document])) as server:
        (entry,) = make(server, endpoint="elasticity", bulk_modulus=(50.0, 100.0))
        assert server.requests[-1].params["k_vrh_max"] == "100.0"
    assert entry.targets["bulk_modulus"] == 88.0
    assert entry.targets["shear_modulus"] == 61.0


def test_filters_go_into_the_query(make):
    with Loopback(MaterialsProject(3)) as server:
        list(
            make(
                server,
                chemical_system="Si",
                elements=("Si", "O"),
                band_gap=(0.1, 2.0),
                energy_above_hull=(0.0, 0.05),
                is_stable=True,
                limit=2,
            )
        )
        asked = server.requests[-1].params
    assert asked["chemsys"] == "Si"
    assert asked["elements"] == "Si,O"
    assert (asked["band_gap_min"], asked["band_gap_max"]) == ("0.1", "2.0")
    assert asked["energy_above_hull_max"] == "0.05"
    assert asked["is_stable"] == "true"
    assert asked["_limit"] == "2"
    assert "structure" in asked["_fields"]


def test_r2scan_is_asked_for_in_both_spellings_of_the_database(make):
    with Loopback(MaterialsProject(2)) as server:
        list(make(server, endpoint="thermo", thermo_type=("R2SCAN",)))
        assert server.requests[-1].params["thermo_types"] == "R2SCAN,r2SCAN"


def test_what_an_endpoint_cannot_be_asked_is_refused_before_any_request():
    with pytest.raises(OptionError, match=r"'tasks' cannot be asked for band_gap; summary can"):
        MaterialsProjectSource(endpoint="tasks", band_gap=(0, 1))
    with pytest.raises(OptionError, match="page_size = 5000"):
        MaterialsProjectSource(page_size=5000)
    with pytest.raises(OptionError, match="lowest and highest"):
        MaterialsProjectSource(band_gap=(2, 1))


def test_long_lists_of_ids_are_asked_for_in_parts(make):
    with Loopback(MaterialsProject(230)) as server:
        ids = tuple(f"mp-{1000 + i}" for i in range(230))
        entries = list(make(server, material_ids=ids, page_size=100))
        assert [e.id for e in entries] == list(ids)
        assert all(len(r.params.get("material_ids", "").split(",")) <= 100 for r in server.requests)
        assert len(list(make(server, material_ids=ids, limit=150, page_size=100))) == 150


def test_documents_that_cannot_be_used_are_left_out_and_named(make):
    service = MaterialsProject(6)
    documents = service.collections["summary"]
    half = [{"element": "Fe", "occu": 0.5}, {"element": "Ni", "occu": 0.5}]
    documents[2]["structure"]["sites"][0]["species"] = half
    documents[4]["structure"]["sites"][1]["species"] = [{"element": "Qq", "occu": 1}]
    with Loopback(service) as server:
        source = make(server)
        assert [e.id for e in source] == ["mp-1000", "mp-1001", "mp-1003", "mp-1005"]
    assert source.notes == (
        "1 document left out: disordered (mp-1002)",
        "1 document left out: site 1 holds 'Qq', which is no element (mp-1004)",
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", "answered 429"),
        ("500", "answered 500"),
        ("dropped", "broke off in the middle"),
        ("truncated", "cut or damaged"),
        ("html", "no JSON"),
        ("slow", "only a part of its answer"),
        ("schema", "has no list 'data' (found ['data_v2', 'meta_v2'])"),
        ("duplicate", "repeats page 1"),
        ("forever", "repeats page 1"),
        ("401", "next-gen.materialsproject.org/api"),
    ],
)
def test_a_fault_ends_the_ingest_with_a_message_and_leaves_the_old_dataset(
    tmp_path, key_file, capsys, fault, said
):
    command = [
        *("ingest", "mp", "-o", str(tmp_path / "set"), "--overwrite"),
        *("--option", f"cache={tmp_path / 'cache'}", "--option", f"key_file={key_file}"),
        *("--option", "page_size=10", "--option", "levels=false", "--option", "attempts=1"),
        *("--option", "requests_per_second=0"),
    ]
    with Loopback(MaterialsProject(25)) as server:
        command += ["--option", f"url={server.url}"]
        assert main([*command, "--option", "limit=3"]) == 0
        digest = Dataset.open(tmp_path / "set").digest
        server.fail(fault, at=server.n_requests + 3, times=None if fault != "duplicate" else 1)
        capsys.readouterr()
        assert main([*command, *(["--option", "timeout=1.5"] if fault == "slow" else [])]) != 0
        error = capsys.readouterr().err
        assert said in error
        assert KEY not in error
        assert Dataset.open(tmp_path / "set").digest == digest
        assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []
        server.heal()
        assert main(command) == 0
    assert len(Dataset.open(tmp_path / "set")) == 25


@pytest.mark.parametrize("fault", ["429 late", "429 date", "500", "dropped", "truncated"])
def test_a_fault_that_passes_costs_only_time(make, fault):
    with Loopback(MaterialsProject(25)) as server:
        source = make(server)
        fake = FakeClock()
        source.clock = fake.clock()
        server.now = lambda: fake.time
        server.fail(fault, at=3, times=2)
        assert len(list(source)) == 25
        if fault == "429 date":
            assert max(fake.slept) > 25
        if fault == "429 late":
            assert max(fake.slept) >= 7


def test_a_listing_that_changes_while_it_is_read_is_noticed(make):
    service = MaterialsProject(25)
    with Loopback(service) as server:

        def shift(reply: Reply) -> Reply:
            service.collections["summary"] = [*summaries(1), *service.collections["summary"]]
            return reply

        server.fail(shift, at=2)
        with pytest.raises(SourceError, match="mp-1009 is listed twice"):
            list(make(server))


def test_fewer_documents_than_announced_are_noticed(make):
    def promise(reply: Reply) -> Reply:
        return Reply(reply.body.replace(b'"total_doc": 5', b'"total_doc": 50'))

    with Loopback(MaterialsProject(5)) as server:
        server.fail(promise, at=2, times=None)
        with pytest.raises(SourceError, match="announced 50 entries and ended after 5"):
            list(make(server))


def test_nothing_found_says_what_was_asked(make):
    with Loopback(MaterialsProject(0)) as server:
        source = make(server, chemical_system="Li-Fe")
        with pytest.raises(SourceError, match=r"no document matches .*Li-Fe"):
            list(source)


def test_the_key_is_nowhere_in_cache_or_dataset(tmp_path, key_file):
    with Loopback(MaterialsProject(5)) as server:
        options = [f"cache={tmp_path / 'cache'}", f"url={server.url}", f"key_file={key_file}"]
        command = ["ingest", "mp", "-o", str(tmp_path / "set")]
        for option in options:
            command += ["--option", option]
        assert main(command) == 0
        assert any(r.headers.get("x-api-key") == KEY for r in server.requests)
    import gzip

    for path in [*(tmp_path / "cache").rglob("*"), *(tmp_path / "set").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            head, _, packed = content.partition(b"\n")
            if path.suffix == ".answer":
                content = head + gzip.decompress(packed)
            assert KEY.encode() not in content


def test_without_a_key_the_message_says_where_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MP_API_KEY", "PMG_MAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError, match=r"next-gen.materialsproject.org/api.*MP_API_KEY"):
        next(iter(MaterialsProjectSource()))


@pytest.mark.parametrize("place", ["MP_API_KEY", "PMG_MAPI_KEY", ".config", "."])
def test_the_key_is_found_where_users_keep_it(tmp_path, monkeypatch, place):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MP_API_KEY", "PMG_MAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    if place.isupper():
        monkeypatch.setenv(place, KEY)
    else:
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / ".pmgrc.yaml").write_text(f"PMG_MAPI_KEY: {KEY}\n")
    with Loopback(MaterialsProject(2)) as server:
        source = MaterialsProjectSource(url=server.url, cache="none", levels=False)
        assert len(list(source)) == 2
        assert server.requests[-1].headers["x-api-key"] == KEY


def test_a_key_of_the_old_api_is_refused_without_showing_it(tmp_path):
    path = tmp_path / "key"
    path.write_text("0123456789abcdef")
    with pytest.raises(SourceError, match=r"16 characters, 32 .*old API") as caught:
        next(iter(MaterialsProjectSource(key_file=path)))
    assert "0123456789abcdef" not in str(caught.value)


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGINT"])
def test_an_interrupted_ingest_goes_on_from_its_cache(tmp_path, key_file, signal_name):
    command = [
        *(sys.executable, "-m", "epitaxy", "ingest", "mp", "-o", str(tmp_path / "set")),
        *("--option", f"cache={tmp_path / 'cache'}", "--option", f"key_file={key_file}"),
        *("--option", "page_size=10", "--option", "levels=false"),
        *("--option", "requests_per_second=0"),
    ]
    with Loopback(MaterialsProject(95)) as server:
        command += ["--option", f"url={server.url}"]
        server.hold(at=7)  # heartbeat, five pages, and then nothing
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.holding.wait(60)
        os.kill(process.pid, getattr(signal, signal_name))
        said = process.communicate()[1].decode()
        assert "Traceback" not in said
        assert list((tmp_path / "cache").rglob("*.tmp")) == []
        assert not (tmp_path / "set").exists()
        n_before = server.n_requests
        assert n_before == 7
        server.hold_at = None
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert server.n_requests - n_before == 1 + 5  # heartbeat, and the five pages left
    assert len(Dataset.open(tmp_path / "set")) == 95


def test_a_new_version_of_the_database_is_not_mixed_with_the_old(make, monkeypatch):
    service = MaterialsProject(25)
    with Loopback(service) as server:
        list(make(server))
        monkeypatch.setattr("mp_server.VERSION", "2026.01.01")
        entries = list(make(server))
        assert server.n_requests == 8
        assert entries[0].origin.database.endswith("2026.01.01")
