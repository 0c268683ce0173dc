"""What the verbs relax, md, eos and predict have in common: arguments, files, calculator."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.errors import ConfigError, DataError, EpitaxyError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

    from epitaxy_calculator.calculator import PotentialCalculator

THRESHOLD = 0.2
"""eV/Å: a force this uncertain is twice the usual error of a usable potential."""


def add_arguments(parser: ArgumentParser, *, output: str, many_files: bool = False) -> None:
    """Declare the arguments that all verbs take.

    Args:
        parser: of the verb.
        output: default folder for the results.
        many_files: whether several files can be given.
    """
    parser.add_argument("artifact", type=Path, help="folder of a trained model")
    if many_files:
        parser.add_argument("files", type=Path, nargs="+", help="structures, all that ASE reads")
    else:
        parser.add_argument("file", type=Path, help="structure, in any format that ASE reads")
        parser.add_argument(
            "--index", type=int, default=-1, help="which frame of the file (default: the last)"
        )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(output), help=f"folder (default: {output})"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the results that are in the folder"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="precision (default: as trained)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="run compiled code: several times faster after some ten seconds at the start",
    )
    parser.add_argument(
        "--threshold",
        type=positive,
        default=THRESHOLD,
        metavar="EV_PER_A",
        help=f"warn where the force on an atom is more uncertain (default: {THRESHOLD} eV/Å)",
    )


def positive(text: str) -> float:
    """Return a number above zero, for argparse."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text} must be a number above 0")
    return value


def not_negative(text: str) -> float:
    """Return a number that is 0 or more, for argparse."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text} must be a number, 0 or more")
    return value


def count(text: str) -> int:
    """Return a whole number above zero, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} must be a whole number above 0")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def load_calculator(args: Namespace) -> PotentialCalculator:
    """Return the calculator of the artifact.

    Raises:
        ConfigError: the calculator of the artifact is not one of ours.
    """
    from epitaxy.calculator import load
    from epitaxy_calculator.calculator import PotentialCalculator

    spec = {"use": "potential", "compile": args.compile}
    calculator = load(args.artifact, device=args.device, dtype=args.dtype, calculator=spec)
    if not isinstance(calculator, PotentialCalculator):
        raise ConfigError(f"this verb needs the calculator 'potential', got {calculator.name!r}")
    return calculator


def read_structure(path: Path, *, index: int = -1) -> Atoms:
    """Return one frame of a file, without the calculator that the file may bring.

    Raises:
        DataError: the file is missing or unreadable, or has no such frame.
    """
    from ase import Atoms
    from ase.io import read

    _check_file(path)
    try:
        atoms = read(path, index=index)
    except Exception as error:
        n_frames = _count_frames(path)
        if n_frames and not -n_frames <= index < n_frames:
            allowed = "0" if n_frames == 1 else f"0 to {n_frames - 1}"
            raise DataError(
                f"{path} has {n_frames} frame{'s' * (n_frames > 1)}; there is no frame {index}, "
                f"give --index {allowed}"
            ) from error
        raise DataError(f"{path}, frame {index}: ASE cannot read it ({_reason(error)})") from error
    if not isinstance(atoms, Atoms):
        raise DataError(f"{path}, frame {index}: not one structure but a {type(atoms).__name__}")
    atoms.calc = None
    return atoms


def attach(atoms: Atoms, calculator: PotentialCalculator, *, path: Path, index: int) -> None:
    """Attach the calculator and evaluate the structure once, before anything is written.

    Raises:
        StructureError: it is refused; the message names file and frame.
    """
    calculator.check(atoms, name=f"{path}, frame {index}")
    atoms.calc = calculator
    try:
        atoms.get_forces()
    except StructureError as error:
        text = str(error).removeprefix("structure").removeprefix(":").strip()
        raise StructureError(f"{path}, frame {index}: {text}") from error


def read_frames(path: Path) -> Iterator[Atoms]:
    """Yield all frames of a file, one at a time, with the results that it holds.

    Raises:
        DataError: the file is missing or unreadable; frames before the damage were yielded.
    """
    from ase.io import iread

    _check_file(path)
    n_frames = 0
    try:
        for atoms in iread(path, index=":"):
            yield atoms
            n_frames += 1
    except EpitaxyError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: ASE cannot read frame {n_frames} ({_reason(error)}); "
            f"{n_frames} frames before it were read"
        ) from error
    if not n_frames:
        raise DataError(f"{path} holds no structure")


def _count_frames(path: Path) -> int:
    """Return how many frames a file holds, 0 if it cannot be read to its end."""
    from ase.io import iread

    try:
        return sum(1 for _ in iread(path, index=":"))
    except Exception:
        return 0


def _check_file(path: Path) -> None:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}; give a file that ASE reads (xyz, cif, POSCAR, traj ...)")
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def check_files(
    directory: Path, *, sources: Sequence[Path], names: tuple[str, ...], overwrite: bool
) -> None:
    """Check what is read and where results go, before any work and without touching anything.

    Args:
        directory: folder for the results, which need not exist.
        sources: files that will be read.
        names: files that will be written into the folder.
        overwrite: whether those that are there may be replaced.

    Raises:
        DataError: a file to read is missing or unreadable.
        ConfigError: a file is both read and written, results are there already, or the folder
            cannot be one.
    """
    for path in sources:
        _check_file(path)
        for name in names:
            if (directory / name).exists() and path.samefile(directory / name):
                raise ConfigError(
                    f"{path} is to be read and would be replaced by the results in {directory}: "
                    f"choose another folder with -o"
                )
    there = [name for name in names if (directory / name).exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{directory} already holds {', '.join(there)}: choose another folder with -o, "
            f"or give --overwrite"
        )
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file; give a folder for the results with -o")


def make_folder(directory: Path) -> Path:
    """Make the folder for results.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write into {directory}: {error}") from error
    return directory


def remove_results(directory: Path, *, names: tuple[str, ...]) -> None:
    """Remove earlier results.

    Raises:
        ConfigError: one cannot be removed.
    """
    try:
        for name in names:
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot replace the results in {directory}: {error}") from error
