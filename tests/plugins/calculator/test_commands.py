"""relax, md, eos and predict, from a file to tables, trajectories and plots."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from epitaxy_calculator.calculator import PotentialCalculator
from epitaxy_calculator.recording import with_results

from .conftest import rattled_silicon, table, verb

PNG = b"\x89PNG"


def test_relax_finds_the_minimum_of_atoms_and_cell(pair, silicon: Path, tmp_path: Path) -> None:
    pair(0.9, 1.0, 1.1)
    out = tmp_path / "out"
    assert verb("relax", "any", silicon, "--cell", "--fmax", 1e-3, "-o", out) == 0
    rows = table(out / "relax.csv")
    frames = read(out / "relax.extxyz", index=":")
    assert len(rows) == len(frames) > 3
    assert float(rows[-1]["energy_eV"]) < float(rows[0]["energy_eV"])
    assert float(rows[-1]["max_force_eV_per_A"]) <= 1e-3
    assert abs(float(rows[-1]["pressure_GPa"])) < 0.05
    assert float(rows[0]["max_force_std_eV_per_A"]) > 0
    assert frames[0].arrays["forces_std"].shape == (8, 3)
    assert frames[0].info["energy_std"] > 0
    relaxed = read(out / "relaxed.extxyz")
    assert relaxed.get_potential_energy() == pytest.approx(float(rows[-1]["energy_eV"]), abs=1e-6)
    assert (out / "relax.png").read_bytes()[:4] == PNG


def test_relax_that_does_not_converge_says_so(
    pair, silicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    out = tmp_path / "out"
    assert verb("relax", "any", silicon, "--steps", 1, "--fmax", 1e-6, "-o", out) == 1
    assert "not converged after 1 steps" in capsys.readouterr().out
    assert "energy_std_eV" not in table(out / "relax.csv")[0]


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_md_writes_what_happened(
    pair, silicon: Path, tmp_path: Path, ensemble: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(0.9, 1.1)
    out = tmp_path / "out"
    arguments = ("--steps", 25, "--every", 10, "--ensemble", ensemble, "-o", out)
    assert verb("md", "any", silicon, *arguments) == 0
    rows = table(out / "md.csv")
    assert [int(row["step"]) for row in rows] == [0, 10, 20, 25]
    assert float(rows[-1]["time_fs"]) == 25
    frames = read(out / "md.extxyz", index=":")
    assert len(frames) == 4
    assert np.abs(frames[-1].get_velocities()).max() > 0
    assert (out / "md.png").read_bytes()[:4] == PNG
    assert ("drift" in capsys.readouterr().out) == (ensemble == "nve")
    volumes = {row["volume_A3"] for row in rows}
    assert (len(volumes) > 1) == (ensemble == "npt")
    if ensemble == "nve":
        total = [float(row["total_energy_eV"]) for row in rows]
        assert np.ptp(total) < 0.02


def test_md_is_the_same_for_the_same_seed(pair, silicon: Path, tmp_path: Path) -> None:
    pair(1.0)
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / name
        verb("md", "any", silicon, "--steps", 10, "--seed", seed, "-o", out)
        found.append((out / "md.csv").read_text())
    assert found[0] == found[1] != found[2]


def test_md_with_langevin_and_a_supercell(pair, silicon: Path, tmp_path: Path) -> None:
    pair(1.0)
    out = tmp_path / "out"
    arguments = ("--steps", 5, "--thermostat", "langevin", "--repeat", 2, 1, 1, "-o", out)
    assert verb("md", "any", silicon, *arguments) == 0
    assert len(read(out / "md.extxyz")) == 16


def test_md_starts_at_the_temperature_that_was_asked_for(pair, tmp_path: Path) -> None:
    pair(1.0)
    write(tmp_path / "si.xyz", rattled_silicon(3))
    verb("md", "any", tmp_path / "si.xyz", "--steps", 1, "--temperature", 500, "-o", tmp_path / "o")
    first = read(tmp_path / "o" / "md.extxyz", index=0)
    assert first.get_temperature() == pytest.approx(500, rel=0.1)
    assert np.abs(first.get_momenta().sum(axis=0)).max() < 1e-6


def test_eos_gives_volume_and_bulk_modulus_with_error_bars(pair, tmp_path: Path) -> None:
    pair(0.9, 1.0, 1.1)
    write(tmp_path / "si.cif", bulk("Si"))
    assert verb("relax", "any", tmp_path / "si.cif", "--cell", "-o", tmp_path / "r") == 0
    relaxed = tmp_path / "r" / "relaxed.extxyz"
    out = tmp_path / "eos"
    assert verb("eos", "any", relaxed, "-o", out) == 0
    found = json.loads((out / "eos.json").read_text())
    assert found["volume_A3"] == pytest.approx(read(relaxed).get_volume(), rel=2e-3)
    # The member of strength s has s times the energy: one volume, and B0 in proportion to s.
    assert found["volume_std_A3"] < 1e-6 * found["volume_A3"]
    spread = np.std([0.9, 1.0, 1.1])
    assert found["bulk_modulus_std_GPa"] == pytest.approx(
        spread * found["bulk_modulus_GPa"], rel=1e-6
    )
    assert found["lattice"] == "FCC"
    assert len(table(out / "eos.csv")) == 11
    assert (out / "eos.png").read_bytes()[:4] == PNG


def test_eos_far_from_the_minimum_says_so(
    pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    write(tmp_path / "si.cif", bulk("Si"))
    verb("relax", "any", tmp_path / "si.cif", "--cell", "-o", tmp_path / "r")
    stretched = read(tmp_path / "r" / "relaxed.extxyz")
    stretched.set_cell(stretched.cell.array * 1.025, scale_atoms=True)
    write(tmp_path / "stretched.xyz", stretched)
    assert verb("eos", "any", tmp_path / "stretched.xyz", "-o", tmp_path / "eos") == 1
    assert "outside" in capsys.readouterr().out


def test_predict_reads_many_files_and_reports_what_it_refuses(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [rattled_silicon(seed=k) for k in range(4)]
    frames[2].symbols[0] = "Og"
    frames[3].positions[1] = frames[3].positions[0] + [0, 0, 0.001]
    write(tmp_path / "many.xyz", frames)
    write(tmp_path / "molecule.xyz", Atoms("SiC", positions=[[0, 0, 0], [0, 0, 1.9]]))
    out = tmp_path / "out"
    files = (tmp_path / "many.xyz", tmp_path / "molecule.xyz")
    assert verb("predict", artifact, *files, "-o", out, "--threshold", 1e-6) == 1
    said = capsys.readouterr()
    assert "3 structures predicted, 2 refused" in said.out
    assert "many.xyz, frame 2 has Og" in said.err
    assert "many.xyz, frame 3: atoms 0 and 1" in said.err
    assert "the members disagree by more than the threshold" in said.err
    assert "trained on" not in said.err.partition("warning")[2]
    assert "3 of 3 beyond the threshold" in said.out
    rows = table(out / "predictions.csv")
    assert [(row["formula"], row["frame"]) for row in rows] == [
        ("Si8", "0"),
        ("Si8", "1"),
        ("CSi", "0"),
    ]
    assert rows[2]["pressure_GPa"] == ""
    predicted = read(out / "predictions.extxyz", index=":")
    assert predicted[0].get_potential_energy() == pytest.approx(float(rows[0]["energy_eV"]))
    expected = PotentialCalculator(artifact)
    expected.calculate(frames[0])
    np.testing.assert_allclose(predicted[0].get_forces(), expected.results["forces"], atol=1e-5)


def test_nve_starts_from_zero_kelvin(pair, silicon: Path, tmp_path: Path) -> None:
    pair(1.0)
    out = tmp_path / "out"
    arguments = ("--temperature", 0, "--steps", 5, "--ensemble", "nve", "-o", out)
    assert verb("md", "any", silicon, *arguments) == 0
    assert float(table(out / "md.csv")[0]["temperature_K"]) == 0


def test_predict_compares_with_the_labels_in_the_files(
    pair, make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.1, 1.3)  # on average a fifth more than the labels, but for the atoms' energies
    frames = [rattled_silicon(seed=k) for k in range(3)]
    labelled = []
    for atoms in frames[:2]:
        calculator = make()
        calculator.calculate(atoms)
        labelled.append(with_results(atoms, calculator.results))
    write(tmp_path / "labelled.xyz", labelled)
    write(tmp_path / "bare.xyz", frames[2])
    out = tmp_path / "out"
    assert verb("predict", "any", tmp_path / "labelled.xyz", tmp_path / "bare.xyz", "-o", out) == 0
    expected = 0.2 * np.abs([atoms.get_forces() for atoms in labelled]).mean()
    said = capsys.readouterr().out
    assert f"forces {expected:.3g} eV/Å (2 labelled)" in said
    energy = np.mean([abs(a.get_potential_energy() / 8 + 5) for a in labelled])
    assert f"energy {0.2 * 1000 * energy:.3g} meV/atom (2 labelled)" in said
    assert (out / "predictions.png").read_bytes()[:4] == PNG


@pytest.mark.parametrize(("strengths", "has_plot"), [((0.9, 1.1), True), ((1.0,), False)])
def test_predict_without_labels_plots_the_error_bars_if_there_are_any(
    pair, silicon: Path, tmp_path: Path, strengths: tuple, has_plot: bool
) -> None:
    pair(*strengths)
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.png").write_text("old")
    assert verb("predict", "any", silicon, "-o", out, "--overwrite") == 0
    assert (out / "predictions.png").exists() == has_plot
    if has_plot:
        assert (out / "predictions.png").read_bytes()[:4] == PNG
