"""A trajectory and a table that are whole at any moment, whatever stops the program."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz
from ase.outputs import all_outputs

from epitaxy.errors import EpitaxyError

SIGNIFICANT_DIGITS = 10


class Recording:
    """Appends frames to ``<name>.extxyz`` and rows to ``<name>.csv``.

    A frame or a row is one write to the file: Ctrl-C or a full disk leaves the earlier ones.

    Attributes:
        rows: the rows so far, for the plot.
    """

    def __init__(self, directory: Path, name: str, *, aside: bool = False) -> None:
        """Open both files for writing.

        Args:
            directory: an existing folder.
            name: of the files, without their suffixes.
            aside: write ``<file>.part`` until `publish`, so that earlier results stay.

        Raises:
            EpitaxyError: a file cannot be written.
        """
        self.trajectory = directory / f"{name}.extxyz"
        self.table = directory / f"{name}.csv"
        self.rows: list[dict[str, Any]] = []
        self.n_frames = 0
        self._aside = aside
        self._frames = _open(_part(self.trajectory) if aside else self.trajectory)
        self._lines = _open(_part(self.table) if aside else self.table)
        self._columns: list[str] = []

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._frames.close()
        self._lines.close()
        if self._aside and not self.n_frames:
            _part(self.trajectory).unlink(missing_ok=True)
            _part(self.table).unlink(missing_ok=True)

    def publish(self) -> None:
        """Close what was written aside and put it in the place of earlier results.

        Raises:
            EpitaxyError: a file cannot be renamed.
        """
        self._frames.close()
        self._lines.close()
        if self._aside:
            self._aside = False
            _rename(self.trajectory)
            _rename(self.table)

    def add_frame(self, atoms: Atoms, results: Mapping[str, Any]) -> None:
        """Append a structure with its results; spreads go to info and arrays."""
        text = io.StringIO()
        write_xyz(text, [with_results(atoms, results)])
        self._append(self._frames, text.getvalue())
        self.n_frames += 1

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Append a row; the first one decides on the columns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._columns:
            self._columns = list(row)
            writer.writerow(self._columns)
        writer.writerow([_cell(row.get(name)) for name in self._columns])
        self._append(self._lines, text.getvalue())
        self.rows.append(dict(row))

    @property
    def kept(self) -> str:
        """What a message says of the part that was written, whatever happens next."""
        path = _part(self.trajectory) if self._aside else self.trajectory
        return f"the {self.n_frames} frames before it are in {path}"

    def column(self, name: str) -> np.ndarray:
        """Return a column of the table as numbers; nan where a row has none."""
        values = [row.get(name) for row in self.rows]
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def _append(self, file: io.FileIO, text: str) -> None:
        start = file.tell()
        content = memoryview(text.encode())
        try:
            while content:
                content = content[file.write(content) :]
        except OSError as error:
            file.truncate(start)
            kept = f"; {self.kept}" if self.n_frames else ""
            raise EpitaxyError(f"cannot write {file.name}: {error.strerror}{kept}") from error
        except BaseException:
            file.truncate(start)
            raise


def write_structure(path: Path, atoms: Atoms, results: Mapping[str, Any]) -> None:
    """Write one structure with its results, as `write_text` does."""
    text = io.StringIO()
    write_xyz(text, [with_results(atoms, results)])
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file; one that is there is replaced when all is written.

    Raises:
        EpitaxyError: the file cannot be written.
    """
    try:
        _part(path).write_text(text, encoding="utf-8")
    except OSError as error:
        _part(path).unlink(missing_ok=True)
        raise EpitaxyError(f"cannot write {path}: {error}") from error
    _rename(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _open(path: Path) -> io.FileIO:
    try:
        return path.open("wb", buffering=0)
    except OSError as error:
        raise EpitaxyError(f"cannot write {path}: {error.strerror}") from error


def _rename(path: Path) -> None:
    try:
        _part(path).replace(path)
    except OSError as error:
        raise EpitaxyError(
            f"cannot replace {path}: {error.strerror}; its new content is in {_part(path)}"
        ) from error


def with_results(atoms: Atoms, results: Mapping[str, Any]) -> Atoms:
    """Return a copy whose calculator holds what ASE knows, the rest in info and arrays."""
    frame = atoms.copy()
    frame.set_constraint()
    known = {name: value for name, value in results.items() if name in all_outputs}
    frame.calc = SinglePointCalculator(frame, **known)
    for name, value in results.items():
        if name in all_outputs:
            continue
        if np.ndim(value) and len(value) == len(frame) and name != "energy_members":
            frame.arrays[name] = np.array(value)
        else:
            frame.info[name] = value
    return frame


def uncertainty_columns(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns energy_std_eV and max_force_std_eV_per_A; none without an ensemble."""
    if "energy_std" not in results:
        return {}
    return {
        "energy_std_eV": results["energy_std"],
        "max_force_std_eV_per_A": largest_force_std(results),
    }


def largest_force_std(results: Mapping[str, Any]) -> float:
    """Return the largest standard deviation of the force on an atom, all components, eV/Å."""
    return float(np.sqrt(np.square(results["forces_std"]).sum(axis=1)).max())


def largest_force(results: Mapping[str, Any]) -> float:
    """Return the largest force on an atom, eV/Å."""
    return float(np.sqrt(np.square(results["forces"]).sum(axis=1)).max())


def pressure(results: Mapping[str, Any]) -> float | None:
    """Return minus the mean normal stress in GPa, None where there is no stress."""
    from epitaxy.evaluation.eos import GPA_PER_EV_PER_CUBIC_ANGSTROM

    if "stress" not in results:
        return None
    return -float(np.mean(results["stress"][:3])) * GPA_PER_EV_PER_CUBIC_ANGSTROM


class UncertaintyWatch:
    """Says when the members of an ensemble disagree by more than a threshold.

    Attributes:
        threshold: eV/Å.
        n_seen: structures seen with an error bar.
        n_beyond: how many of them are beyond the threshold.
        worst: the largest force uncertainty seen, eV/Å.
    """

    def __init__(self, threshold: float) -> None:
        """Start with nothing seen."""
        self.threshold = threshold
        self.n_seen = 0
        self.n_beyond = 0
        self.worst = 0.0

    def see(self, results: Mapping[str, Any], name: str) -> str:
        """Return a warning for the first structure beyond the threshold, else ""."""
        if "forces_std" not in results:
            return ""
        std = largest_force_std(results)
        self.n_seen += 1
        self.worst = max(self.worst, std)
        if std <= self.threshold:
            return ""
        self.n_beyond += 1
        if self.n_beyond > 1:
            return ""
        atom = int(np.square(results["forces_std"]).sum(axis=1).argmax())
        return (
            f"warning: {name}: the members disagree by more than the threshold: "
            f"{std:.3g} eV/Å in the force on atom {atom} (threshold {self.threshold:g})"
        )

    def summary(self) -> str:
        """Return one line about all that was seen."""
        if not self.n_seen:
            return "uncertainty: none, the model is not an ensemble"
        verdict = (
            f"{self.n_beyond} of {self.n_seen} beyond the threshold of {self.threshold:g} eV/Å"
            if self.n_beyond
            else f"all {self.n_seen} within the threshold of {self.threshold:g} eV/Å"
        )
        return f"uncertainty of the forces: at most {self.worst:.3g} eV/Å; {verdict}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.{SIGNIFICANT_DIGITS}g}"
    return str(value)
