"""Entries from the ADIOS2 files of HydraGNN."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy.quantities import QUANTITIES, quantity
from epitaxy.stores.hydragnn import LABELS, HydraFile, Key

_AT_ONCE = 1_000  # structures
_LONGEST_TAG = 200
_PLACE = re.compile(r"(?P<key>\w+)(\[(?P<first>\d+)(:(?P<last>\d+))?\])?")
_USUAL = {
    "numbers": ("atomic_numbers", "z", "Z", "x[0]"),
    "positions": ("pos", "positions", "x[1:4]"),
    "cell": ("cell", "supercell_size", "lattice"),
    "pbc": ("pbc",),
}
"""Part of a structure -> where it usually is, best first."""


class HydraGnnSource:
    """Reads the training, validation and test set of a BP5 file that HydraGNN wrote.

    Every key that is named like a quantity (energy, forces, stress ...) is taken. The tag `part`
    says train, valid or test. Graph edges are left out: they are made again when needed.

    Args:
        path: of the file (a directory, in BP5).
        parts: which of train, valid and test to read.
        mapping: where something has an unusual place: target (or numbers, positions, cell, pbc)
            -> key, or columns of a key: {"energy": "y", "forces": "x[4:7]"}.
        energy_per_atom: the energy in the file is divided by the number of atoms.
        energy_scale: factor that undoes a scaling of the energy in the file.
        energy_unit: unit of the energy, after `energy_scale`.
        forces_unit: unit of forces.
        stress_unit: unit of stresses.
        xc_functional: of the calculations, for example "PBE".
        code: program and version that made the labels.
        license: of the file, SPDX name.
        citation: how to cite the file.
    """

    def __init__(
        self,
        *,
        path: Path,
        parts: tuple[str, ...] = ("train", "valid", "test"),
        mapping: Mapping[str, str] | None = None,
        energy_per_atom: bool = False,
        energy_scale: float = 1.0,
        energy_unit: str = "eV",
        forces_unit: str = "eV/Å",
        stress_unit: str = "eV/Å^3",
        xc_functional: str = "",
        code: str = "",
        license: str = "unknown",
        citation: str = "",
    ):
        self._path = Path(path)
        if unknown := [part for part in parts if part not in LABELS]:
            raise DataError(f"no part {unknown[0]!r}; there are: {', '.join(LABELS)}")
        self._parts = tuple(parts)
        self._mapping = dict(mapping or {})
        for name in self._mapping:
            if name not in _USUAL:
                quantity(name)
        self._energy_scale = energy_scale
        self._conventions = Conventions(
            energy_unit=energy_unit,
            energy_per_atom=energy_per_atom,
            forces_unit=forces_unit,
            stress_unit=stress_unit,
        )
        self._method = Method(code=code, xc_functional=xc_functional)
        self._license = license
        self._citation = citation
        self._file = HydraFile(self._path)
        self._total = sum(self._file.n_samples(LABELS[part]) for part in self._present())
        self._n_done = 0
        self.hints: tuple[str, ...] = ()
        """What may be wrong with the labels, a sentence each."""
        if self._file.is_normalized:
            self.hints = (
                f"{self._path.name}: HydraGNN has scaled its features to 0 ... 1 (minmax); the "
                "labels are not in their units: give energy_scale, or map the unscaled keys",
            )

    def _present(self) -> list[str]:
        return [part for part in self._parts if LABELS[part] in self._file.labels]

    @property
    def card(self) -> Card:
        """What the file is, as far as it says."""
        return Card(
            title=self._file.name or self._path.name,
            quantities=("energy", "forces", "stress"),
            license=self._license,
            citation=self._citation,
            url=self._path.name,
        )

    @property
    def fraction(self) -> float | None:
        """Part of the structures that was read so far."""
        return self._n_done / self._total if self._total else 1.0

    def __iter__(self) -> Iterator[Entry]:
        """Yield the structures of train, valid and test in the order of the file.

        Raises:
            DataError: no key holds the atomic numbers or positions, or their values are none.
            StoreError: the file is damaged.
        """
        self._n_done = 0
        for part in self._present():
            label = LABELS[part]
            keys = self._file.keys(label)
            places = self._places(keys, label)
            wanted = {key.name: key for key, _ in places.values()}
            texts = {name: key for name, key in keys.items() if key.dtype == "uint8"}
            wanted |= {key.name: key for key in texts.values()}
            n = self._file.n_samples(label)
            for start in range(0, n, _AT_ONCE):
                stop = min(start + _AT_ONCE, n)
                read = {name: self._file.samples(key, start, stop) for name, key in wanted.items()}
                for i in range(stop - start):
                    values = {
                        name: _columns(read[key.name][i], columns, key.axis)
                        for name, (key, columns) in places.items()
                    }
                    words = {
                        name: read[key.name][i].tobytes().decode(errors="replace")
                        for name, key in texts.items()
                    }
                    yield self._entry(f"{self._path.name}/{label}#{start + i}", part, values, words)
                    self._n_done += 1

    def _places(self, keys: Mapping[str, Key], label: str) -> dict[str, tuple[Key, slice]]:
        """Return what -> key and columns in which it is."""
        places = {}
        for name in (*_USUAL, *QUANTITIES, "energy_per_atom"):
            given = self._mapping.get(name)
            for place in (given,) if given else _USUAL.get(name, (name,)):
                found = _PLACE.fullmatch(place)
                if found is None:
                    raise DataError(
                        f"mapping: {name}: {place!r} is not a key or columns of one, as 'y' or "
                        "'x[4:7]'"
                    )
                if found["key"] in keys:
                    first = int(found["first"] or 0)
                    stop = int(found["last"]) if found["last"] else first + 1
                    columns = slice(first, stop) if found["first"] else slice(None)
                    places[name] = keys[found["key"]], columns
                    break
            else:
                if given or name in ("numbers", "positions"):
                    raise DataError(
                        f"{self._path}: {label} has no {given or name}; its keys are "
                        f'{", ".join(keys)}: say where it is with --option "mapping={{{name}: '
                        'KEY}" (or KEY[4:7])'
                    )
        if "energy" in places:
            places.pop("energy_per_atom", None)
        return places

    def _entry(
        self, name: str, part: str, values: dict[str, np.ndarray], words: Mapping[str, str]
    ) -> Entry:
        raw = np.asarray(values.pop("numbers"), dtype=np.float64).reshape(-1)
        numbers = np.rint(raw)
        if not len(raw) or (raw != numbers).any() or raw.min() < 1 or raw.max() > 118:
            raise DataError(
                f"{name}: {raw[:4]} are not atomic numbers: say where they are with "
                '--option "mapping={numbers: KEY[COLUMN]}"'
            )
        n_atoms = len(numbers)
        cell = values.pop("cell", np.zeros(9)).astype(np.float64)
        cell = cell.reshape(3, 3) if cell.size == 9 else np.diag(cell.reshape(-1))
        pbc = values.pop("pbc", np.full(3, bool(cell.any()))).astype(bool).reshape(-1)
        positions = values.pop("positions").astype(np.float64)
        targets: dict[str, np.ndarray] = {}
        for key, value in values.items():
            array = value.astype(np.float64)
            if key == "energy_per_atom":
                per_atom = self._conventions.energy_per_atom
                targets["energy"] = array.reshape(()) * (1 if per_atom else n_atoms)
                continue
            rule = quantity(key)
            if key == "stress" and array.size == 9:
                matrix = array.reshape(3, 3)
                array = (0.5 * (matrix + matrix.T))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            shape = (n_atoms, *rule.shape) if rule.per == "atom" else rule.shape
            if array.size == int(np.prod(shape)):
                targets[key] = array.reshape(shape)
            elif key in self._mapping:
                raise DataError(
                    f"{name}: {key} has the shape {array.shape} in {self._mapping[key]}, "
                    f"expected {shape}"
                )
        if "energy" in targets:
            targets["energy"] = targets["energy"] * self._energy_scale
        volume = float(abs(np.linalg.det(cell))) if pbc.all() else None
        targets = self._conventions.convert(targets, n_atoms=n_atoms, volume=volume)
        tags = {key: word for key, word in words.items() if 0 < len(word) <= _LONGEST_TAG}
        return Entry(
            numbers=numbers.astype(np.uint8),
            positions=positions.reshape(n_atoms, 3),
            cell=cell,
            pbc=pbc,
            targets=MappingProxyType(targets),
            id=name,
            method=self._method,
            origin=Origin(
                url=self._path.name,
                database=self._file.name,
                license=self._license.replace("unknown", ""),
            ),
            tags=MappingProxyType({**tags, "part": part}),
        )


def _columns(values: np.ndarray, columns: slice, axis: int) -> np.ndarray:
    """Return some columns of a sample, with the varying axis first."""
    rows = np.moveaxis(values, axis, 0)
    return rows if columns == slice(None) else rows[:, columns]
