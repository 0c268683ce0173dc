"""The example under docs/examples/high-throughput does what its page says."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase.build import bulk
from ase.collections import dcdft
from ase.db import connect
from ase.units import Bohr
from calculations import calculation
from loopback import Loopback
from nomad_uploads import PREFIX, TOKEN, NomadUploads

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "high-throughput"


@pytest.fixture(scope="module")
def workflow() -> ModuleType:
    spec = importlib.util.spec_from_file_location("workflow", FOLDER / "workflow.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_one_row_per_crystal_and_functional(workflow: ModuleType, tmp_path: Path) -> None:
    database = tmp_path / "crystals.db"
    assert workflow.write_structures(database) == 12
    assert workflow.write_structures(database) == 12
    row = connect(database).get(name="AlP", xc="PBE")
    assert row.volume == pytest.approx(5.464**3 / 4)


def test_the_input_of_exciting_has_the_crystal(workflow: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("excitingtools", reason="needs excitingtools")
    atoms = bulk("SiC", "zincblende", a=4.36)
    path = workflow.write_exciting_input(atoms, "PBE", tmp_path / "run", species="/species")
    root = ET.parse(path).getroot()
    vectors = [v.text.split() for v in root.iter("basevect") if v.text]
    np.testing.assert_allclose(np.array(vectors, dtype=float) * Bohr, atoms.cell, atol=1e-9)
    assert [s.get("speciesfile") for s in root.iter("species")] == ["Si.xml", "C.xml"]
    coordinates = [a.get("coord", "").split() for a in root.iter("atom")]
    scaled = np.array(coordinates, dtype=float)
    np.testing.assert_allclose(scaled, atoms.get_scaled_positions(), atol=1e-9)
    (groundstate,) = root.iter("groundstate")
    assert groundstate.get("xctype") == "GGA_PBE"
    assert groundstate.get("ngridk") == "8 8 8"


def test_a_summary_of_nothing_says_which_step_is_missing(
    workflow: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workflow.write_structures(tmp_path / "crystals.db")
    monkeypatch.setattr("sys.argv", ["workflow.py", "summary", "--work", str(tmp_path)])
    with pytest.raises(SystemExit):
        workflow.main()
    assert "run the step compute before" in capsys.readouterr().err


def test_what_is_computed_is_published(
    workflow: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "crystals.db"
    workflow.write_structures(database)
    rows = connect(database)
    for row in list(rows.select(name="Si")):
        calculation(tmp_path / "calculations" / row.name / row.xc, name="gs.txt")
        rows.update(row.id, folder=f"calculations/{row.name}/{row.xc}")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    service = NomadUploads()
    with Loopback(service) as server:
        there = {"url": server.url + PREFIX, "token_file": token}
        assert not workflow.publish(database, tmp_path / "camp", dry_run=True, **there)
        assert not service.uploads
        assert not workflow.publish(database, tmp_path / "camp", dry_run=False, **there)
    (upload,) = service.uploads.values()
    assert len(upload.files) == 10
    assert {name.rsplit("/", 3)[1] for name in upload.files} >= {"LDA", "PBE"}
    assert "2 calculations sent in 1 uploads: 0 changed since" in capsys.readouterr().out


@pytest.mark.slow
def test_silicon_is_computed_with_gpaw(workflow: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("gpaw", reason="needs GPAW")
    database = tmp_path / "crystals.db"
    workflow.write_structures(database)
    row = connect(database).get(name="Si", xc="LDA")
    assert workflow.compute_all(database, tmp_path / "calculations", [row.id]) == 0
    (found,) = workflow.summary(database)
    shipped = json.loads((FOLDER / "results.json").read_text())["calculations"]
    (expected,) = [r for r in shipped if (r["crystal"], r["xc"]) == ("Si", "LDA")]
    assert found["energy_ev"] == pytest.approx(expected["energy_ev"], abs=2e-3)


@pytest.mark.parametrize("crystal", ["Si", "Ge"])
def test_the_shipped_lattice_constants_are_those_of_all_electrons(crystal: str) -> None:
    """WIEN2k with PBE, per atom. Source: Lejaeghere et al., Science 351, aad3000 (2016)."""
    rows = json.loads((FOLDER / "results.json").read_text())["calculations"]
    (row,) = [r for r in rows if (r["crystal"], r["xc"]) == (crystal, "PBE")]
    expected = (8 * dcdft.data[crystal]["wien2k_volume"]) ** (1 / 3)
    assert row["a_angstrom"] == pytest.approx(expected, rel=3e-3)


def test_the_shipped_results_are_in_the_order_that_physics_wants() -> None:
    """LDA binds more strongly than PBE: shorter bonds, lower energies against atoms."""
    rows = json.loads((FOLDER / "results.json").read_text())["calculations"]
    table = {(row["crystal"], row["xc"]): row for row in rows}
    for crystal in ("C", "Si", "Ge", "SiC", "BN", "AlP"):
        lda, pbe = table[crystal, "LDA"], table[crystal, "PBE"]
        assert 0.97 < lda["a_angstrom"] / pbe["a_angstrom"] < 0.997
        assert lda["energy_ev"] < pbe["energy_ev"] < 0
