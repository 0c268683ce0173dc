"""AFLOW over a server on this machine that speaks the language of AFLUX."""

import os
import re
import signal
import subprocess
import sys
from urllib.parse import unquote

import numpy as np
import pytest
from aflow_server import CELL, FORCES, Aflow
from loopback import FakeClock, Loopback

from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.entry import Method
from epitaxy.errors import OptionError, SourceError
from epitaxy_aflow.source import AflowSource


@pytest.fixture
def make(tmp_path):
    def source(server: Loopback, **options) -> AflowSource:
        settings = {
            "url": f"{server.url}/API/aflux/",
            "files_url": server.url,
            "cache": str(tmp_path / "cache"),
            "page_size": 10,
            **options,
        }
        made = AflowSource(**settings)
        made.clock = FakeClock().clock()
        return made

    return source


@pytest.mark.parametrize("old", [False, True])
def test_pages_of_today_and_of_before_are_read_alike(make, old):
    with Loopback(Aflow(25, old=old)) as server:
        source = make(server)
        entries = list(source)
        assert [e.id for e in entries] == [f"aflow:{i:016x}" for i in range(25)]
        # A list does not say where it ends: only an empty page does.
        assert server.n_requests == (3 if old else 4)
        assert list(make(server))[24].origin == entries[24].origin
        assert server.n_requests == (3 if old else 4)
        assert source.fraction == 1.0
    entry = entries[0]
    assert entry.numbers.tolist() == [31, 7]
    np.testing.assert_allclose(entry.positions[1], entry.cell.sum(axis=0) / 4)
    assert entry.targets["energy"] == -11.0
    assert entry.targets["formation_energy"] == -0.8
    assert entry.targets["band_gap"] == 1.7
    assert entry.targets["is_metal"] == 0.0
    assert entry.method == Method("VASP 5.4.4", "PBE", "560 eV cutoff")
    assert entry.origin.url == "http://aflowlib.duke.edu/AFLOWDATA/ICSD_WEB/FCC/Ga1N1_ICSD_0"
    assert entry.origin.license == ""  # the service does not say
    assert entry.origin.retrieved == "2027-01-15"
    assert entry.tags["prototype"] == "AB_cF8_216_c_a"
    assert "forces" not in entry.targets


def test_a_server_that_gives_fewer_rows_than_asked_for_is_read_to_the_end(make):
    with Loopback(Aflow(25, most=7)) as server:
        assert len(list(make(server))) == 25


def test_the_query_asks_for_structures_and_for_what_is_required(make):
    with Loopback(Aflow(3)) as server:
        list(
            make(
                server,
                elements=("Ga", "N"),
                exclude_elements=("O",),
                n_elements=2,
                catalog="ICSD",
                band_gap=(1.0, 3.0),
                matchbook="spacegroup_relax(216),Pearson_symbol_relax",
                require=("formation_energy",),
            )
        )
        asked = unquote(server.requests[0].query)
    parts = re.split(r",(?![^()]*\))", asked)
    assert parts[0] == "auid"
    assert {"species(Ga,N,!O)", "nspecies(2)", "catalog(ICSD)", "Egap(1*,*3)"} <= set(parts)
    assert {"enthalpy_formation_atom(*)", "spacegroup_relax(216)", "geometry"} <= set(parts)
    assert {"positions_fractional", "composition", "paging(1,10)", "format(json)"} <= set(parts)
    assert "spacegroup_relax" not in parts


def test_options_that_make_no_query_are_refused_before_any_request():
    with pytest.raises(OptionError, match="no symbol of an element"):
        AflowSource(elements=("ga",))
    with pytest.raises(OptionError, match="lowest and highest"):
        AflowSource(band_gap=(3, 1))
    with pytest.raises(OptionError, match="Egap has an option of its own"):
        AflowSource(matchbook="Egap(1*)")
    with pytest.raises(OptionError, match="require: no forces here"):
        AflowSource(require=("forces",))


@pytest.mark.parametrize("functional", ["PBE", "any"])
def test_all_of_aflow_has_to_be_asked_for(functional):
    with pytest.raises(OptionError, match=r"say what to read: elements, .* limit=10000000"):
        AflowSource(functional=functional)
    assert AflowSource(limit=10_000_000)
    assert AflowSource(n_elements=2)


def test_other_functionals_and_missing_labels_are_left_out_and_counted(make):
    service = Aflow(8)
    service.rows[1]["dft_type"] = ["PAW_LDA"]
    service.rows[2]["dft_type"] = ["PAW_PBE", "PAW_LDA"]
    service.rows[3]["Egap"] = None  # not even sent: the query asks for Egap(*)
    service.rows[4]["enthalpy_formation_atom"] = "nan"
    service.rows[5] |= {"energy_cell": -5.5, "energy_atom": -5.5}
    service.rows[6]["composition"] = [1, 2]
    with Loopback(service) as server:
        source = make(server)
        assert [int(e.id[6:], 16) for e in source] == [0, 7]
    assert set(source.notes) == {
        "1 entry left out: functional LDA, not PBE (aflow:0000000000000001)",
        "1 entry left out: functional PBE,LDA, not PBE (aflow:0000000000000002)",
        "1 entry left out: no formation_energy (aflow:0000000000000004)",
        "1 entry left out: energy_cell (aflow:0000000000000005)",
        "1 entry left out: positions_fractional holds 2 atoms, composition 3 "
        "(aflow:0000000000000006)",
    }


def test_hubbard_u_is_in_the_method_and_can_be_chosen(make):
    service = Aflow(2)
    service.rows[1] |= {"ldau_TLUJ": "2;2,0;7.5,0;1.5,0"}
    with Loopback(service) as server:
        plain, with_u = make(server)
        assert with_u.method == Method("VASP 5.4.4", "PBE+U", "U(Ga)=6 eV; 560 eV cutoff")
        assert plain.method.xc_functional == "PBE"
        assert [e.id for e in make(server, hubbard="with")] == [with_u.id]
        assert [e.id for e in make(server, hubbard="without")] == [plain.id]


def test_entries_that_are_listed_twice_are_taken_once(make):
    service = Aflow(5)
    service.rows.insert(3, dict(service.rows[2]))
    with Loopback(service) as server:
        source = make(server)
        assert len(list(source)) == 5
    assert source.notes == ("1 entry left out: listed more than once (aflow:0000000000000002)",)


def test_files_bring_forces_and_stress_in_the_axes_of_the_calculation(make):
    with Loopback(Aflow(2)) as server:
        entry, _ = make(server, files=True)
    np.testing.assert_allclose(entry.cell, CELL)
    np.testing.assert_array_equal(entry.targets["forces"], FORCES)
    kbar = 1 / 1602.1766208
    np.testing.assert_allclose(
        entry.targets["stress"], -kbar * np.array([10, 20, 30, 3, 2, 1]), rtol=1e-6
    )


def test_without_a_structure_file_there_are_no_forces_but_an_entry(make):
    service = Aflow(1)
    service.lost.add("Ga1N1_ICSD_0_structure_relax.json")
    with Loopback(service) as server:
        (entry,) = make(server, files=True)
    assert "forces" not in entry.targets
    assert entry.targets["energy"] == -11.0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", "answered 429"),
        ("500", "answered 500"),
        ("dropped", "broke off in the middle"),
        ("truncated", "cut or damaged"),
        ("html", "no JSON"),
        ("slow", "only a part of its answer"),
        ("schema", "has no auid and aurl"),
        ("duplicate", "repeats page 1"),
        ("forever", "repeats page 1"),
    ],
)
def test_a_fault_ends_the_ingest_with_a_message_and_leaves_the_old_dataset(
    tmp_path, capsys, fault, said
):
    command = [
        *("ingest", "aflow", "-o", str(tmp_path / "set"), "--overwrite"),
        *("--option", f"cache={tmp_path / 'cache'}", "--option", "page_size=10"),
        *("--option", "attempts=1"),
        *("--option", "requests_per_second=0"),
    ]
    with Loopback(Aflow(25)) as server:
        command += ["--option", f"url={server.url}/API/aflux/"]
        assert main([*command, "--option", "catalog=ICSD", "--option", "limit=3"]) == 0
        digest = Dataset.open(tmp_path / "set").digest
        server.fail(fault, at=server.n_requests + 2, times=None if fault != "duplicate" else 1)
        capsys.readouterr()
        assert main([*command, *(["--option", "timeout=1.5"] if fault == "slow" else [])]) != 0
        assert said in capsys.readouterr().err
        assert Dataset.open(tmp_path / "set").digest == digest
        assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []
        server.heal()
        assert main(command) == 0
    assert len(Dataset.open(tmp_path / "set")) == 25


def test_the_old_answer_of_another_schema_is_named(make):
    with Loopback(Aflow(5, old=True)) as server:
        server.fail("schema", times=None)
        with pytest.raises(SourceError, match=r"neither a list nor \{'1 of N'"):
            list(make(server))


@pytest.mark.parametrize("fault", ["429 late", "429 date", "503", "dropped", "refused"])
def test_a_fault_that_passes_costs_only_time(make, fault):
    with Loopback(Aflow(25)) as server:
        source = make(server)
        fake = FakeClock()
        source.clock, server.now = fake.clock(), lambda: fake.time
        server.fail(fault, at=2, times=3)
        assert len(list(source)) == 25


def test_nothing_found_says_what_was_asked(make):
    with Loopback(Aflow(0)) as server, pytest.raises(SourceError, match=r"matches .*species\(Xe\)"):
        list(make(server, elements=("Xe",)))


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGINT"])
def test_an_interrupted_ingest_goes_on_from_its_cache(tmp_path, signal_name):
    command = [
        *(sys.executable, "-m", "epitaxy", "ingest", "aflow", "-o", str(tmp_path / "set")),
        *("--option", f"cache={tmp_path / 'cache'}", "--option", "page_size=10"),
        *("--option", "requests_per_second=0"),
    ]
    with Loopback(Aflow(95)) as server:
        command += ["--option", f"url={server.url}/API/aflux/"]
        server.hold(at=6)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.holding.wait(60)
        os.kill(process.pid, getattr(signal, signal_name))
        said = process.communicate()[1].decode()
        assert "Traceback" not in said
        assert list((tmp_path / "cache").rglob("*.tmp")) == []
        assert not (tmp_path / "set").exists()
        server.hold_at = None
        n_before = server.n_requests
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert server.n_requests - n_before == 10 + 1 - 5  # ten pages, an empty one, five kept
    assert len(Dataset.open(tmp_path / "set")) == 95
