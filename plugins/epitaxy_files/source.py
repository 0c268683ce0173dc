"""Entries from files: extended xyz, ASE databases, and everything else that ASE reads."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.curation.names import distinct_names
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy.stores.parquet import iterate_parquet
from epitaxy_files.exported import KEY, pop_written, restore
from epitaxy_files.frames import Meter, iterate_ase, iterate_database, iterate_xyz, plain_name
from epitaxy_files.labels import explain_missing, known_values, read_targets

if TYPE_CHECKING:
    from ase import Atoms

_LONGEST_TAG = 200


class FileSource:
    """Reads one file, or all files that a pattern matches, frame by frame.

    Labels are found under their usual names (energy, free_energy, REF_energy, dft_energy ...;
    forces, force, REF_forces ...; stress, virial, virials ...); text in a frame's comment
    line becomes tags. A virial W becomes the stress -W / V.

    Args:
        path: the file, or a pattern such as "runs/*/OUTCAR"; .gz, .xz and .bz2 are unpacked on
            the way.
        format: name of ASE's format where the file's name does not say it.
        select: which rows of an ASE database, in ASE's words: "energy<0,Si".
        mapping: where a label has an unusual name: target -> name in the file, for example
            {"energy": "my_energy", "virial": "w"}.
        energy_unit: unit of energies in the file (eV, Hartree, Ry, kcal/mol, kJ/mol ...).
        forces_unit: unit of forces (eV/Å, eV/Bohr, Hartree/Bohr, kcal/mol/Å ...).
        stress_unit: unit of stresses (eV/Å^3, GPa, kbar ...).
        xc_functional: of the calculations, for example "PBE".
        code: program and version that made the labels.
        license: of the file, SPDX name.
        citation: how to cite the file.
    """

    def __init__(
        self,
        *,
        path: Path,
        format: str = "",
        select: str = "",
        mapping: Mapping[str, str] | None = None,
        energy_unit: str = "eV",
        forces_unit: str = "eV/Å",
        stress_unit: str = "eV/Å^3",
        xc_functional: str = "",
        code: str = "",
        license: str = "unknown",
        citation: str = "",
    ):
        self._path = Path(path)
        self._format = format
        self._select = select
        self._mapping = dict(mapping or {})
        self._conventions = Conventions(
            energy_unit=energy_unit, forces_unit=forces_unit, stress_unit=stress_unit
        )
        self._method = Method(code=code, xc_functional=xc_functional)
        self._license = license
        self._citation = citation
        self._meter = Meter()
        self._done = 0
        self._files = self._find()
        self.hints: tuple[str, ...] = ()
        """What may help where labels were not found, a sentence for the first such frame."""

    def _find(self) -> list[Path]:
        if self._path.exists() and not self._path.is_dir():
            return [self._path]
        found = [Path(p) for p in sorted(glob.glob(str(self._path), recursive=True))]
        files = [path for path in found if path.is_file()]
        if not files:
            what = "is a folder" if self._path.is_dir() else "does not exist"
            raise DataError(f"{self._path} {what}; give a file or a pattern such as 'runs/*.xyz'")
        return files

    @property
    def card(self) -> Card:
        """What the files are, as far as they say."""
        return Card(
            title=str(self._path.name),
            quantities=("energy", "forces", "stress"),
            license=self._license,
            citation=self._citation,
            url=str(self._path.name),
        )

    @property
    def exported(self) -> bool:
        """Whether `epitaxy export` wrote all files: what they hold was checked, labels may lack."""
        return all(self._is_exported(path) for path in self._files)

    def _is_exported(self, path: Path) -> bool:
        name = plain_name(path)
        if self._format == "parquet" or name.endswith(".parquet"):
            return True  # others are refused
        if not (path.is_file() and name.endswith((".xyz", ".extxyz", ".db"))):
            return False  # what a pipe says can be read once only
        try:
            return any(KEY in known_values(atoms) for _, atoms in islice(self._frames(path), 1))
        except DataError:
            return False  # the reading says what is wrong

    @property
    def fraction(self) -> float | None:
        """Part of the files that was read so far, None where that cannot be known."""
        if self._done == len(self._files):
            return 1.0
        current = self._meter.fraction
        if current is None:
            return None if len(self._files) == 1 else self._done / len(self._files)
        return (self._done + current) / len(self._files)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the frames in the order of the files.

        Raises:
            DataError: a file is damaged or cut; the message names file and frame.
        """
        self._done = 0
        self.hints = ()
        for path, name in zip(self._files, distinct_names(self._files), strict=True):
            self._meter = Meter()
            origin = Origin(url=name, license=self._license.replace("unknown", ""))
            if self._format == "parquet" or (not self._format and name.endswith(".parquet")):
                for i, (entry, self._meter.known) in enumerate(iterate_parquet(path)):
                    yield entry if entry.id else replace(entry, id=f"{name}#{i}")
            else:
                for number, atoms in self._frames(path):
                    yield self._entry(atoms, f"{name}#{number}", origin)
            self._done += 1

    def _frames(self, path: Path) -> Iterator[tuple[str, Atoms]]:
        name = plain_name(path)
        if self._format in ("db", "json") or (not self._format and name.endswith((".db", ".json"))):
            yield from iterate_database(path, select=self._select)
            return
        if self._select:
            raise DataError(f"{path}: select={self._select!r} works for ASE databases only")
        is_xyz = self._format in ("xyz", "extxyz") or (
            not self._format and name.endswith((".xyz", ".extxyz"))
        )
        frames = (
            iterate_xyz(path, self._meter)
            if is_xyz
            else iterate_ase(path, format=self._format or None, meter=self._meter)
        )
        for i, atoms in enumerate(frames):
            yield str(i), atoms

    def _entry(self, atoms: Atoms, name: str, origin: Origin) -> Entry:
        values = known_values(atoms)
        written = pop_written(values, name)
        try:
            targets = read_targets(atoms, values, mapping=self._mapping)
            volume = float(atoms.cell.volume) if all(atoms.pbc) else None
            targets = self._conventions.convert(targets, n_atoms=len(atoms), volume=volume)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        known = {**targets, **(written or {}).get("targets", {})}
        if "energy" not in known and not self.hints:
            self.hints = (f"{name}: {explain_missing(values, 'energy', mapping=self._mapping)}",)
        used = set(self._mapping.values())
        tags = {
            key: value
            for key, value in values.items()
            if isinstance(value, str) and len(value) <= _LONGEST_TAG and key not in (*used, "id")
        }
        entry = Entry(
            numbers=np.asarray(atoms.numbers).astype(np.uint8),
            positions=np.array(atoms.positions, dtype=np.float64),
            cell=np.array(atoms.cell.array, dtype=np.float64),
            pbc=np.array(atoms.pbc, dtype=bool),
            targets=MappingProxyType(targets),
            id=_id(values, name),
            method=self._method,
            origin=origin,
            tags=MappingProxyType(tags),
        )
        return entry if written is None else restore(entry, written, method=self._method)


def _id(values: Mapping[str, Any], name: str) -> str:
    given = values.get("id")
    return given if isinstance(given, str) and given else name
