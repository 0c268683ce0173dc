"""relax, md, eos and predict, from a file to tables, trajectories and plots."""

import csv
import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write

from epitaxy.cli import main
from epitaxy.errors import EpitaxyError, StructureError
from epitaxy.registry import Registry
from epitaxy.testing.calculator_checks import write_sample_artifact
from epitaxy_calculator import inputs
from epitaxy_calculator.calculator import PotentialCalculator
from epitaxy_calculator.recording import Recording, with_results

from .conftest import pair_potential, rattled_silicon

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two untrained networks."""
    folder = tmp_path_factory.mktemp("model") / "artifact"
    return write_sample_artifact(folder, registry=Registry.from_entry_points(), n_members=2)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the verbs use pair potentials, which have a sane minimum, for any artifact."""

    def use(*strengths: float) -> None:
        def load(args) -> PotentialCalculator:
            return PotentialCalculator([pair_potential(s) for s in strengths], dtype="float64")

        monkeypatch.setattr(inputs, "load_calculator", load)

    return use


@pytest.fixture
def silicon(tmp_path: Path) -> Path:
    write(tmp_path / "si.xyz", rattled_silicon(amplitude=0.05))
    return tmp_path / "si.xyz"


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def verb(*arguments: object) -> int:
    return main([str(a) for a in arguments])


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


def test_md_that_blows_up_keeps_its_frames(
    pair, silicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    out = tmp_path / "out"
    arguments = ("--steps", 50, "--every", 1, "--timestep", 1e200, "-o", out)
    assert verb("md", "any", silicon, *arguments, "--ensemble", "nve") == 2
    assert "cannot go on" in capsys.readouterr().err
    assert len(read(out / "md.extxyz", index=":")) == len(table(out / "md.csv")) >= 1


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


def test_a_file_cut_in_the_middle_is_predicted_up_to_there(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "cut.xyz", [rattled_silicon(seed=k) for k in range(3)])
    text = (tmp_path / "cut.xyz").read_text()
    (tmp_path / "cut.xyz").write_text(text[: len(text) - 200])
    out = tmp_path / "out"
    assert verb("predict", artifact, tmp_path / "cut.xyz", "-o", out) == 1
    assert "cut.xyz" in capsys.readouterr().err
    assert len(table(out / "predictions.csv")) in (0, 2)


@pytest.mark.parametrize("name", ["relax", "md", "eos"])
def test_an_interrupted_run_keeps_what_it_wrote(
    pair,
    silicon: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair(0.9, 1.1)
    calculate = PotentialCalculator.calculate
    calls = []

    def interrupted(self, *arguments: object, **named: object) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        calculate(self, *arguments, **named)

    monkeypatch.setattr(PotentialCalculator, "calculate", interrupted)
    out = tmp_path / "out"
    options = ("--every", 1) if name == "md" else ()
    assert verb(name, "any", silicon, "-o", out, *options) == 130
    said = capsys.readouterr().out
    assert "interrupted" in said
    assert str(out) in said
    frames = read(out / f"{name}.extxyz", index=":")
    assert len(frames) == len(table(out / f"{name}.csv")) >= 3


def test_results_are_not_overwritten_unless_asked(
    pair, silicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    out = tmp_path / "out"
    arguments = ("md", "any", silicon, "--steps", 2, "-o", out)
    assert verb(*arguments) == 0
    before = (out / "md.csv").read_text()
    assert verb(*arguments, "--seed", 5) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "md.csv").read_text() == before
    assert verb(*arguments, "--seed", 5, "--overwrite") == 0
    assert (out / "md.csv").read_text() != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.xyz", None, "does not exist"),
        ("empty.xyz", "", "ASE cannot read it"),
        ("og.xyz", "1\n\nOg 0 0 0\n", "has Og"),
        ("nan.xyz", "2\n\nSi 0 0 0\nSi nan 0 0\n", "position of atom 1"),
        ("flat.xyz", '1\nLattice="3 0 0 6 0 0 0 0 3" pbc="T T T"\nSi 0 0 0\n', "no volume"),
    ],
)
def test_an_unusable_file_is_named_and_nothing_is_written(
    pair,
    tmp_path: Path,
    name: str,
    content: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair(1.0)
    if content is not None:
        (tmp_path / name).write_text(content)
    assert verb("relax", "any", tmp_path / name, "-o", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("relax", "--cell"), "three directions"),
        (("md", "--ensemble", "npt"), "three directions"),
        (("eos",), "three directions"),
    ],
)
def test_a_molecule_has_no_cell_to_change(
    pair, tmp_path: Path, arguments: tuple, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    write(tmp_path / "m.xyz", Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]]))
    name, *options = arguments
    assert verb(name, "any", tmp_path / "m.xyz", *options, "-o", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("relax", "a", "f", "--fmax", "-1"),
        ("relax", "a", "f", "--steps", "0"),
        ("md", "a", "f", "--timestep", "nan"),
        ("md", "a", "f", "--temperature", "-3"),
        ("eos", "a", "f", "--strain", "big"),
        ("predict", "a"),
    ],
)
def test_wrong_arguments_end_with_status_2(arguments: tuple) -> None:
    with pytest.raises(SystemExit) as stop:
        verb(*arguments)
    assert stop.value.code == 2


def test_a_full_disk_leaves_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = rattled_silicon()
    calculator = PotentialCalculator(pair_potential())
    calculator.calculate(atoms)
    with Recording(tmp_path, "run") as recording:
        recording.add_frame(atoms, calculator.results)

        class Full:
            name = "run.extxyz"

            def __init__(self, file) -> None:
                self.file = file

            def tell(self) -> int:
                return self.file.tell()

            def write(self, content) -> int:
                if len(content) > 100:
                    return self.file.write(content[:100])
                raise OSError(28, "No space left on device")

            def truncate(self, size: int) -> int:
                return self.file.truncate(size)

            def close(self) -> None:
                self.file.close()

        monkeypatch.setattr(recording, "_frames", Full(recording._frames))
        with pytest.raises(EpitaxyError, match=r"No space left.*1 frames"):
            recording.add_frame(atoms, calculator.results)
    assert len(read(tmp_path / "run.extxyz", index=":")) == 1


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("predict", "predictions.extxyz"),
        ("relax", "relax.extxyz"),
        ("md", "md.extxyz"),
        ("eos", "eos.extxyz"),
    ],
)
def test_results_that_are_read_are_never_replaced(
    pair, tmp_path: Path, name: str, result: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    out = tmp_path / "out"
    out.mkdir()
    write(out / result, rattled_silicon(amplitude=0.05))
    before = (out / result).read_bytes()
    assert verb(name, "any", out / result, "-o", out, "--overwrite") == 2
    assert "would be replaced" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {result: before}


@pytest.mark.parametrize("content", [None, "", "no structure\n", "1\n\nOg 0 0 0\n"])
@pytest.mark.parametrize("name", ["predict", "relax", "md", "eos"])
def test_a_wrong_input_leaves_earlier_results_alone(
    pair, tmp_path: Path, name: str, content: str | None
) -> None:
    pair(1.0)
    if content is not None:
        (tmp_path / "wrong.xyz").write_text(content)
    out = tmp_path / "out"
    out.mkdir()
    stem = "predictions" if name == "predict" else name
    for suffix in ("extxyz", "csv"):
        (out / f"{stem}.{suffix}").write_text("old\n")
    assert verb(name, "any", tmp_path / "wrong.xyz", "-o", out, "--overwrite") == 2
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        f"{stem}.extxyz": "old\n",
        f"{stem}.csv": "old\n",
    }
    assert verb(name, "any", tmp_path / "wrong.xyz", "-o", tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["predict", "eos"])
def test_results_appear_only_when_they_are_whole(
    pair, silicon: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(1.0)
    out = tmp_path / "out"
    out.mkdir()
    stem = "predictions" if name == "predict" else name
    (out / f"{stem}.extxyz").write_text("old\n")
    seen = []
    add_row = Recording.add_row

    def watched(self, row) -> None:
        seen.append((out / f"{stem}.extxyz").read_text())
        add_row(self, row)

    monkeypatch.setattr(Recording, "add_row", watched)
    verb(name, "any", silicon, "-o", out, "--overwrite")
    assert set(seen) == {"old\n"}
    assert len(read(out / f"{stem}.extxyz", index=":")) == len(seen)
    assert not list(out.glob("*.part"))


def test_a_disk_that_is_full_at_the_end_leaves_the_relaxation(
    pair,
    silicon: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair(1.0)
    out = tmp_path / "out"

    def full(path: Path, *arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert verb("relax", "any", silicon, "-o", out) == 2
    said = capsys.readouterr().err
    assert "relaxed.extxyz" in said
    assert "relax.extxyz is complete" in said
    frames = read(out / "relax.extxyz", index=":")
    assert len(frames) == len(table(out / "relax.csv")) > 1


def two_at_one_place() -> Atoms:
    atoms = rattled_silicon()
    atoms.positions[5] = atoms.positions[2]
    return atoms


@pytest.mark.parametrize("name", ["predict", "relax", "md", "eos"])
@pytest.mark.parametrize("distance", [0.0, 0.005])
def test_atoms_at_one_place_are_named_with_file_and_frame(
    pair, tmp_path: Path, name: str, distance: float, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    atoms = two_at_one_place()
    atoms.positions[5, 2] += distance
    write(tmp_path / "twice.traj", [rattled_silicon(), rattled_silicon(seed=1), atoms])
    verb(name, "any", tmp_path / "twice.traj", "-o", tmp_path / "out")
    said = capsys.readouterr().err
    frame = 2 if name == "predict" else -1
    assert f"twice.traj, frame {frame}: atoms 2 and 5 are {distance:.2g} Å apart" in said
    assert "smallest distance allowed is 0.01 Å" in said
    assert "1e-08" not in said


def test_the_calculator_names_atoms_at_one_place() -> None:
    calculator = PotentialCalculator(pair_potential())
    with pytest.raises(EpitaxyError, match="atoms 2 and 5 are 0 Å apart"):
        calculator.calculate(two_at_one_place())
    with pytest.raises(EpitaxyError, match="structure 1: atoms 2 and 5 are 0 Å apart"):
        calculator.predict([rattled_silicon(), two_at_one_place()])


@pytest.mark.parametrize(
    ("name", "n_frames", "message"),
    [
        ("POSCAR", 1, "POSCAR has 1 frame; there is no frame 7, give --index 0"),
        ("si.xyz", 3, "si.xyz has 3 frames; there is no frame 7, give --index 0 to 2"),
    ],
)
def test_a_frame_that_is_not_there_is_refused_with_the_number_of_frames(
    pair,
    tmp_path: Path,
    name: str,
    n_frames: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair(1.0)
    frames = [rattled_silicon(seed=k) for k in range(n_frames)]
    write(tmp_path / name, frames if n_frames > 1 else frames[0])
    assert verb("md", "any", tmp_path / name, "--index", 7, "-o", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [("--ensemble", "nvt"), ("--ensemble", "npt"), ("--thermostat", "langevin")]
)
def test_a_thermostat_at_zero_kelvin_is_refused_before_anything_is_written(
    pair, silicon: Path, tmp_path: Path, options: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    out = tmp_path / "out"
    arguments = ("--temperature", 0, "--steps", 5, *options, "-o", out)
    assert verb("md", "any", silicon, *arguments) == 2
    assert "above 0 K" in capsys.readouterr().err
    assert not out.exists()


def test_nve_starts_from_zero_kelvin(pair, silicon: Path, tmp_path: Path) -> None:
    pair(1.0)
    out = tmp_path / "out"
    arguments = ("--temperature", 0, "--steps", 5, "--ensemble", "nve", "-o", out)
    assert verb("md", "any", silicon, *arguments) == 0
    assert float(table(out / "md.csv")[0]["temperature_K"]) == 0


def test_atoms_that_cannot_move_have_no_dynamics(
    pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    atoms = rattled_silicon()
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    write(tmp_path / "fixed.traj", atoms)
    assert verb("md", "any", tmp_path / "fixed.traj", "-o", tmp_path / "out") == 2
    assert "fixed.traj" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["predict", "relax", "md", "eos"])
def test_a_missing_plot_library_is_noticed_before_the_work(
    silicon: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert verb(name, "any", silicon, "-o", tmp_path / "out") == 2
    assert "needs matplotlib; install with: pip install 'epitaxy[calculator]'" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize("name", ["predict", "relax", "md", "eos"])
def test_a_disk_that_fills_up_is_one_message_that_says_what_is_kept(
    pair,
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair(1.0)
    frames = [rattled_silicon(seed=k) for k in range(5)]
    write(tmp_path / "si.xyz", frames if name == "predict" else frames[0])
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        status = verb(name, "any", tmp_path / "si.xyz", "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 2
    said = capsys.readouterr().err
    assert said.startswith("epitaxy: error: cannot write")
    (trajectory,) = out.glob("*.extxyz*")
    n_frames = len(read(trajectory, index=":", format="extxyz"))
    assert 0 < n_frames < 5
    assert f"the {n_frames} frames before it are in {trajectory}" in said


def test_an_eos_that_cannot_go_on_says_where_its_volumes_are(
    pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair(1.0)
    write(tmp_path / "si.cif", bulk("Si"))
    out = tmp_path / "out"
    calculate = PotentialCalculator.calculate
    calls = []

    def failing(self, *arguments: object, **named: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise StructureError("structure: a run blew up")
        calculate(self, *arguments, **named)

    monkeypatch.setattr(PotentialCalculator, "calculate", failing)
    assert verb("eos", "any", tmp_path / "si.cif", "-o", out) == 2
    assert f"the 2 frames before it are in {out}/eos.extxyz.part" in capsys.readouterr().err
    assert len(read(out / "eos.extxyz.part", index=":", format="extxyz")) == 2
