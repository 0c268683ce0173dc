"""Spectra without structures: a file of spectra as something that a study can look at."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.dataset import Dataset, Rows, row_numbers
from epitaxy.entry import Method
from epitaxy.errors import DataError, EntryError
from epitaxy_dos.alignment import Zero, align
from epitaxy_dos.readers.files import format_of, plain_name, read_spectra, text_of
from epitaxy_dos.spectra import ENERGIES
from epitaxy_dos.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class SpectraTable:
    """Spectra with names and settings, as far as a study asks for them.

    Attributes:
        spectrum: quantity, "dos" or "phonon_dos".
        values: (n, n_points) on the grid of the quantity.
        ids: (n,) names.
        columns: setting -> (n,) texts.
        levels: (n,) level of theory of each.
    """

    spectrum: str
    values: np.ndarray
    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    levels: tuple[Method, ...]

    def __len__(self) -> int:
        """How many spectra there are."""
        return len(self.ids)

    def __getitem__(self, rows: Rows) -> SpectraTable:
        """Return some of them."""
        chosen = row_numbers(rows, len(self))
        return SpectraTable(
            self.spectrum,
            self.values[chosen],
            tuple(self.ids[i] for i in chosen),
            {name: texts[chosen] for name, texts in self.columns.items()},
            tuple(self.levels[i] for i in chosen),
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """The one quantity."""
        return (self.spectrum,)

    def target(self, name: str, rows: Rows | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return values and mask, as a dataset does."""
        if name != self.spectrum:
            raise DataError(f"the file has {self.spectrum}, no {name}")
        values = self.values if rows is None else self.values[row_numbers(rows, len(self))]
        return values, np.ones(len(values), dtype=bool)

    @property
    def n_atoms(self) -> np.ndarray:
        """Not known.

        Raises:
            DataError: always.
        """
        raise DataError("spectra without structures cannot be compared per atom")

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(sorted(self.columns))

    def tag(self, name: str) -> np.ndarray:
        """Return a setting, (n,) str."""
        return self.columns[name]

    @property
    def methods(self) -> tuple[Method, ...]:
        """The distinct levels of theory."""
        return tuple(dict.fromkeys(self.levels))

    def method(self, i: int) -> Method:
        """Return the level of theory of a spectrum."""
        return self.levels[i]

    @property
    def digest(self) -> str:
        """Sha256 over names, settings and values."""
        found = hashlib.sha256(self.values.tobytes())
        words = {name: texts.tolist() for name, texts in self.columns.items()}
        levels = [repr(level) for level in self.levels]
        found.update(json.dumps([self.spectrum, self.ids, words, levels]).encode())
        return found.hexdigest()


Spectra = Dataset | SpectraTable
"""What a study looks at."""


def is_file_of_spectra(path: Path) -> bool:
    """Whether a path is a file that `read_table` reads, not a dataset."""
    return path.is_file()


def read_table(path: Path, *, zero: Zero = "auto") -> SpectraTable:
    """Read the spectra of a file that has no structures, or whose structures do not matter.

    Args:
        path: any format of the source `dos`; or {id: {dos_energies, dos_values}} in J, as in the
            tests of nomad-dos-fingerprints; or phonon spectra of the JARVIS leaderboard,
            {part: {id: "66 numbers joined by ;"}}, also in a zip.
        zero: to what densities of states are aligned; where a file says neither Fermi energy nor
            valence band maximum, energies are taken as they are.

    Raises:
        DataError: the file cannot be read, or is none of these.
    """
    kind = format_of(path)
    if kind:
        spectra = read_spectra(path, kind)
        if all(s.fermi is None and s.highest is None for s in spectra):
            zero = "none"
        return _aligned(path, spectra, zero)
    document = _document(path)
    if all(isinstance(part, dict) and _are_texts(part) for part in document.values()):
        return _phonons(path, document)
    return _joules(path, document)


def _aligned(path: Path, spectra: Sequence[Spectrum], zero: Zero) -> SpectraTable:
    values, columns = [], []
    for spectrum in spectra:
        try:
            aligned = align(spectrum, zero)
        except EntryError as error:
            where = f"{path}: {spectrum.name}" if spectrum.name else str(path)
            raise DataError(f"{where}: {error}") from error
        values.append(aligned.dos)
        columns.append({**spectrum.tags, "dos_reference": aligned.reference})
        if spectrum.formula:
            columns[-1]["composition"] = spectrum.formula
    names = [s.name or path.name for s in spectra]
    return _table("dos", values, names, columns, [s.method for s in spectra])


def _table(
    spectrum: str,
    values: Sequence[np.ndarray],
    names: Sequence[str],
    columns: Sequence[Mapping[str, str]],
    levels: Sequence[Method],
) -> SpectraTable:
    keys = dict.fromkeys(key for one in columns for key in one)
    texts = {key: np.array([one.get(key, "") for one in columns], dtype=str) for key in keys}
    return SpectraTable(spectrum, np.array(values), tuple(names), texts, tuple(levels))


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as stored:
                text = stored.read(stored.namelist()[0]).decode("utf-8")
        elif plain_name(path).endswith(".json"):
            text = text_of(path)
        else:
            raise DataError(
                f"{path}: no file of spectra: DOSCAR, dos.xml, .npz, .csv, JSON or a zip of it"
            )
        document = json.loads(text)
    except (OSError, ValueError, IndexError, zipfile.BadZipFile, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict) or not document:
        raise DataError(f"{path}: no JSON object with spectra by name")
    return document


def _are_texts(part: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in part.values())


def _phonons(path: Path, document: Mapping[str, Any]) -> SpectraTable:
    n_points = len(ENERGIES["phonon_dos"])
    values, names, columns = [], [], []
    for part, entries in document.items():
        for name, text in entries.items():
            try:
                numbers = np.array(text.split(";"), dtype=np.float64)
            except ValueError as error:
                raise DataError(f"{path}: {name}: no numbers joined by ';': {error}") from error
            if len(numbers) != n_points:
                raise DataError(f"{path}: {name}: {len(numbers)} values; {n_points} are needed")
            values.append(numbers)
            names.append(name)
            columns.append({"part": part})
    return _table("phonon_dos", values, names, columns, [Method()] * len(names))


def _joules(path: Path, document: Mapping[str, Any]) -> SpectraTable:
    from ase.units import J

    spectra = []
    for name, entry in document.items():
        if not isinstance(entry, dict) or not {"dos_energies", "dos_values"} <= set(entry):
            continue
        try:
            spectrum = Spectrum(
                energies=np.array(entry["dos_energies"], dtype=np.float64) * J,
                channels=np.atleast_2d(np.array(entry["dos_values"], dtype=np.float64)) / J,
                name=name,
            )
        except (TypeError, ValueError) as error:  # an EntryError is a ValueError
            raise DataError(f"{path}: {name}: {error}") from error
        spectra.append(spectrum)
    if not spectra:
        raise DataError(f"{path}: no entry has dos_energies and dos_values")
    return _aligned(path, spectra, "none")
