"""Entries with the target `dos` from files of densities of states."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from epitaxy.composition import TAG, atoms_of_formula, parse_formula
from epitaxy.curation.names import distinct_names
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, EntryError
from epitaxy.protocols import Card
from epitaxy.spectra import DEFAULT_GRID, coverage
from epitaxy.web.left_out import LeftOut
from epitaxy_dos.alignment import TOLERANCE, align
from epitaxy_dos.readers.files import format_of, read_spectra
from epitaxy_dos.spectrum import Spectrum, Structure

_MOST_NAMED = 5

_FEWEST_ELECTRONS = 0.9
"""Per atom, below the zero: hydrogen has one, and a spectrum may begin above the lowest states."""

Format = Literal["", "doscar", "exciting", "pymatgen", "aflow", "npz", "csv"]


class DosSource:
    """Reads total densities of states, one file or all that a pattern matches.

    Formats: DOSCAR of VASP, dos.xml of exciting, Dos and CompleteDos of pymatgen as JSON,
    AFLOW's dosdata.json, and arrays (.npz, .csv). Structure and settings come from the file or
    from those beside it: POSCAR or CONTCAR, INCAR and KPOINTS; INFO.OUT. Densities of states of
    NOMAD come with the source `nomad`. Spins are summed; energies are aligned, and the tag
    `dos_reference` says to what.

    Args:
        path: the file, or a pattern such as "runs/*/DOSCAR"; .gz, .xz and .bz2 are unpacked.
        format: doscar, exciting, pymatgen, aflow, npz or csv, where the name does not say it.
        align: zero of energy: vbm (valence band maximum), fermi, auto (the first where there is a
            gap, else the second) or none (energies are relative to it already).
        fermi: Fermi energy on the scale of the file, eV, where the file does not say it.
        highest: valence band maximum on the scale of the file, eV, where it is known better than
            from the spectrum.
        tolerance: states/eV of the cell that count as none where band edges are looked for.
        structure: file with the structure, in any format that ASE reads, where none is found.
        formula: of the cell, such as Si2, where there is no structure.
        xc_functional: of the calculations, where the files do not say it.
        code: program that made them, where the files do not say it.
        license: of the files, SPDX name.
        citation: how to cite them.
    """

    def __init__(
        self,
        *,
        path: Path,
        format: Format = "",
        align: Literal["auto", "vbm", "fermi", "none"] = "auto",
        fermi: float | None = None,
        highest: float | None = None,
        tolerance: float = TOLERANCE,
        structure: Path | None = None,
        formula: str = "",
        xc_functional: str = "",
        code: str = "",
        license: str = "unknown",
        citation: str = "",
    ):
        self._path = Path(path)
        self._format = format
        self._align = align
        self._fermi = fermi
        self._highest = highest
        self._tolerance = tolerance
        self._structure = _read_structure(structure) if structure else None
        self._formula = formula
        self._method = Method(code=code, xc_functional=xc_functional)
        self._license = license
        self._citation = citation
        self._files = self._find()
        self._done = 0
        self._left_out = LeftOut("density of states", "densities of states")
        self._in_part: list[str] = []
        self._too_few: list[str] = []

    def _find(self) -> list[Path]:
        if self._path.is_file():
            return [self._path]
        found = [Path(p) for p in sorted(glob.glob(str(self._path), recursive=True))]
        files = [path for path in found if path.is_file()]
        if not files:
            what = "is a folder" if self._path.is_dir() else "does not exist"
            raise DataError(
                f"{self._path} {what}; give a file or a pattern such as 'runs/*/DOSCAR'"
            )
        return files

    @property
    def card(self) -> Card:
        """What the files are."""
        return Card(
            title=f"densities of states of {self._path.name}",
            quantities=("dos", "fermi_energy"),
            license=self._license,
            citation=self._citation,
            url=self._path.name,
        )

    @property
    def fraction(self) -> float | None:
        """Part of the files that was read so far."""
        return self._done / len(self._files)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and what does not cover the default grid, a sentence each."""
        said = list(self._left_out.notes())
        if self._in_part:
            n = len(self._in_part)
            said.append(
                f"only part of the default grid's range ({DEFAULT_GRID.edges[0]:.1f} to "
                f"{DEFAULT_GRID.edges[-1]:.1f} eV) is covered by {n:,}: {_some(self._in_part)}"
            )
        if self._too_few:
            said.append(
                f"fewer than {_FEWEST_ELECTRONS:g} electrons per atom below the zero of "
                f"{len(self._too_few):,}: {_some(self._too_few)}; are the values states/eV of the "
                "whole cell?"
            )
        return tuple(said)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in the order of the files.

        Of several files, those that are damaged are left out and named.

        Raises:
            DataError: the only file is damaged, or a file is of an unknown format.
        """
        self._done = 0
        self._left_out = LeftOut("density of states", "densities of states")
        self._in_part, self._too_few = [], []
        for path, name in zip(self._files, distinct_names(self._files), strict=True):
            kind = self._format or format_of(path)
            if not kind:
                raise DataError(
                    f"{path}: the name does not say what it is: give format=doscar, exciting, "
                    "pymatgen, aflow, npz or csv"
                )
            try:
                spectra = read_spectra(path, kind)
            except DataError as error:
                if len(self._files) == 1:
                    raise
                self._left_out.add(name, str(error).removeprefix(f"{path}: "))
                spectra = []
            for spectrum in spectra:
                id = f"{name}#{spectrum.name}" if spectrum.name else name
                if kind == "npz" and spectrum.name and len(self._files) == 1:
                    id = spectrum.name
                try:
                    yield self._entry(spectrum, id, name)
                except EntryError as error:
                    self._left_out.add(id, str(error))
            self._done += 1

    def _entry(self, spectrum: Spectrum, id: str, name: str) -> Entry:
        spectrum = replace(
            spectrum,
            fermi=spectrum.fermi if self._fermi is None else self._fermi,
            highest=spectrum.highest if self._highest is None else self._highest,
        )
        aligned = align(spectrum, self._align, tolerance=self._tolerance)
        structure = self._structure or spectrum.structure
        formula = self._formula or spectrum.formula
        tags = {**spectrum.tags, "dos_reference": aligned.reference}
        if structure is None:
            if not formula:
                raise EntryError("neither a structure nor a formula: give structure= or formula=")
            numbers = _atoms(formula)
            structure = Structure(
                numbers, np.zeros((len(numbers), 3)), np.zeros((3, 3)), (False, False, False)
            )
            tags[TAG] = formula
        covered = coverage(np.array([aligned.low, aligned.high])).fraction
        if covered < 1:
            self._in_part.append(f"{id} ({covered:.0%})")
        electrons = _electrons(spectrum, aligned.zero) / len(structure.numbers)
        if electrons < _FEWEST_ELECTRONS:
            self._too_few.append(f"{id} ({electrons:.2f})")
        given = self._method
        method = replace(
            spectrum.method,
            code=given.code or spectrum.method.code,
            xc_functional=given.xc_functional or spectrum.method.xc_functional,
        )
        targets = {"dos": aligned.dos}
        if spectrum.fermi is not None:
            targets["fermi_energy"] = np.array(spectrum.fermi)
        return Entry(
            numbers=np.asarray(structure.numbers).astype(np.uint8),
            positions=np.asarray(structure.positions, dtype=np.float64),
            cell=np.asarray(structure.cell, dtype=np.float64),
            pbc=np.array(structure.pbc, dtype=bool),
            targets=MappingProxyType(targets),
            id=id,
            method=method,
            origin=Origin(url=name, license=self._license.replace("unknown", "")),
            tags=MappingProxyType(tags),
        )


def _electrons(spectrum: Spectrum, zero: float) -> float:
    """Return the integral of a spectrum up to its zero."""
    energies = np.append(spectrum.energies[spectrum.energies < zero], zero)
    dos = np.interp(energies, spectrum.energies, spectrum.total)
    return float(((dos[1:] + dos[:-1]) / 2 * np.diff(energies)).sum())


def _atoms(formula: str) -> np.ndarray:
    """Return the atoms of a formula as it is written: Si2 has two; the smallest unit if broken."""
    amounts = parse_formula(formula)
    if all(amount == round(amount) for amount in amounts.values()):
        return np.repeat(list(amounts), [round(amount) for amount in amounts.values()])
    return atoms_of_formula(formula)


def _some(names: list[str]) -> str:
    n = len(names)
    more = f" and {n - _MOST_NAMED:,} more" if n > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _read_structure(path: Path) -> Structure:
    from ase.io import read

    try:
        atoms = read(path)
    except Exception as error:  # ase raises many kinds
        raise DataError(f"{path}: no structure that ASE reads: {error}") from error
    a, b, c = (bool(periodic) for periodic in atoms.pbc)
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, (a, b, c))
