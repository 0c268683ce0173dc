"""relax, md, eos and predict where something goes wrong: input, disk, Ctrl-C, packages."""

import resource
import signal
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write

from epitaxy.errors import EpitaxyError, StructureError
from epitaxy_calculator.calculator import PotentialCalculator
from epitaxy_calculator.recording import Recording

from .conftest import pair_potential, rattled_silicon, table, verb


def test_md_that_blows_up_keeps_its_frames(
    pair, silicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(1.0)
    out = tmp_path / "out"
    arguments = ("--steps", 50, "--every", 1, "--timestep", 1e200, "-o", out)
    assert verb("md", "any", silicon, *arguments, "--ensemble", "nve") == 2
    assert "cannot go on" in capsys.readouterr().err
    assert len(read(out / "md.extxyz", index=":")) == len(table(out / "md.csv")) >= 1


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
