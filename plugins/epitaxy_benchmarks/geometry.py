"""Structures as the sets store them (pymatgen, JARVIS, CIF, POSCAR) -> arrays."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, EntryError
from epitaxy.quantities import quantity


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the atoms are.

    Attributes:
        numbers: (n_atoms,) uint8.
        positions: (n_atoms, 3), Å.
        cell: (3, 3), Å, rows are lattice vectors.
        pbc: (3,) bool.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    def entry(
        self,
        targets: Mapping[str, Any],
        *,
        id: str,
        method: Method,
        origin: Origin,
        tags: Mapping[str, str] | None = None,
    ) -> Entry:
        """Return an entry with these targets; those that are None are left out.

        Raises:
            EntryError: a target has the wrong shape.
        """
        checked: dict[str, np.ndarray] = {}
        for name, value in targets.items():
            if value is None:
                continue
            array = np.asarray(value, dtype=np.float64)
            rule = quantity(name)
            shape = (len(self.numbers), *rule.shape) if rule.per == "atom" else rule.shape
            if array.shape != shape:
                raise EntryError(f"{id}: {name} has shape {array.shape}, {shape} needed")
            checked[name] = array
        return Entry(
            numbers=self.numbers,
            positions=self.positions,
            cell=self.cell,
            pbc=self.pbc,
            targets=MappingProxyType(checked),
            id=id,
            method=method,
            origin=origin,
            tags=MappingProxyType({key: value for key, value in (tags or {}).items() if value}),
        )


def atomic_numbers(symbols: Sequence[str]) -> np.ndarray:
    """Return the atomic numbers of element symbols, (n_atoms,) uint8.

    Raises:
        DataError: a symbol is not that of an element.
    """
    from ase.data import atomic_numbers as known

    try:
        return np.array([known[symbol] for symbol in symbols], dtype=np.uint8)
    except KeyError as error:
        raise DataError(f"{error.args[0]!r} is not the symbol of an element") from None


def crystal(numbers: Any, fractions: Any, cell: Any) -> Geometry:
    """Return a fully periodic structure from fractional coordinates (n_atoms, 3)."""
    matrix = np.array(cell, dtype=np.float64).reshape(3, 3)
    fractional = np.array(fractions, dtype=np.float64).reshape(-1, 3)
    _same_length(numbers, fractional)
    return Geometry(
        np.asarray(numbers).astype(np.uint8), fractional @ matrix, matrix, np.ones(3, dtype=bool)
    )


def molecule(numbers: Any, positions: Any) -> Geometry:
    """Return a structure without a cell from positions (n_atoms, 3), Å."""
    cartesian = np.array(positions, dtype=np.float64).reshape(-1, 3)
    _same_length(numbers, cartesian)
    return Geometry(
        np.asarray(numbers).astype(np.uint8), cartesian, np.zeros((3, 3)), np.zeros(3, dtype=bool)
    )


def _same_length(numbers: Any, coordinates: np.ndarray) -> None:
    if len(numbers) != len(coordinates):
        raise DataError(f"{len(numbers)} elements but {len(coordinates)} positions")


def from_pymatgen(structure: Mapping[str, Any]) -> Geometry:
    """Return the structure of a pymatgen dictionary (``Structure.as_dict``).

    Raises:
        DataError: a site is partly occupied or holds several elements.
    """
    symbols = []
    for index, site in enumerate(structure["sites"]):
        species = site["species"]
        if len(species) != 1 or abs(species[0].get("occu", 1) - 1) > 1e-6:
            raise DataError(f"site {index} is disordered ({species}): entries need whole atoms")
        # "Fe3+" and "Fe" are the same atom: pymatgen keeps oxidation states beside the element
        symbols.append(species[0]["element"].rstrip("0123456789+-."))
    lattice = structure["lattice"]
    return crystal(
        atomic_numbers(symbols), [site["abc"] for site in structure["sites"]], lattice["matrix"]
    )


def from_jarvis(atoms: Mapping[str, Any]) -> Geometry:
    """Return the structure of a JARVIS dictionary (``jarvis.core.atoms.Atoms.to_dict``)."""
    numbers = atomic_numbers([symbol.strip() for symbol in atoms["elements"]])
    if not atoms.get("cartesian", False):
        return crystal(numbers, atoms["coords"], atoms["lattice_mat"])
    cell = np.array(atoms["lattice_mat"], dtype=np.float64)
    positions = np.array(atoms["coords"], dtype=np.float64)
    _same_length(numbers, positions)
    return Geometry(numbers, positions, cell, np.ones(3, dtype=bool))


def from_cif(text: str) -> Geometry:
    """Return the structure of a CIF's text."""
    from ase.io.cif import read_cif

    return from_ase(next(iter(read_cif(io.StringIO(text), slice(None)))))


def from_poscar(text: str) -> Geometry:
    """Return the structure of a POSCAR's text."""
    from ase.io.vasp import read_vasp

    return from_ase(read_vasp(io.StringIO(text)))


def from_ase(atoms: Any) -> Geometry:
    """Return the structure of ASE Atoms."""
    return Geometry(
        np.asarray(atoms.numbers).astype(np.uint8),
        np.array(atoms.positions, dtype=np.float64),
        np.array(atoms.cell.array, dtype=np.float64),
        np.array(atoms.pbc, dtype=bool),
    )


def number(value: Any) -> float | None:
    """Return a finite number, None for what stands for a missing one (None, "na", NaN, "").

    Raises:
        DataError: the value is neither.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "na", "nan")):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{value!r} is not a number") from None
    return found if math.isfinite(found) else None


def voigt(tensor: Any) -> np.ndarray:
    """Return xx, yy, zz, yz, xz, xy of a 3 x 3 tensor, symmetrized.

    Raises:
        DataError: it is not 3 x 3.
    """
    full = np.array(tensor, dtype=np.float64)
    if full.size != 9:
        raise DataError(f"a tensor has shape {full.shape}, (3, 3) needed")
    full = full.reshape(3, 3)
    six: np.ndarray = (0.5 * (full + full.T))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return six
