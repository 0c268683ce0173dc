"""Structures of AFLOW entries: from keywords, from *_structure_relax.json, from CONTCAR.relax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from epitaxy.errors import EntryError
from epitaxy_aflow.values import numbers, words

_FIT = 1e-3  # Å; positions are printed with five digits


@dataclass(frozen=True, slots=True)
class Structure:
    """A periodic structure.

    Attributes:
        numbers: (n_atoms,) uint8.
        positions: (n_atoms, 3) Å.
        cell: (3, 3) Å.
        is_oriented: whether the axes are those of the calculation, so that its forces apply.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    is_oriented: bool


def from_keywords(entry: Mapping[str, Any]) -> Structure:
    """Return the structure in geometry, species, composition and positions_fractional.

    The six lengths and angles of `geometry` do not say how the cell lies in space. Where
    positions_cartesian is there too, it tells; otherwise the cell is turned as ASE does it, and
    forces cannot be used.

    Raises:
        EntryError: something is missing, or the numbers of atoms disagree.
    """
    from ase.geometry import cellpar_to_cell

    for name in ("geometry", "species", "composition"):
        if entry.get(name) in (None, "", []):
            raise EntryError(f"no {name}, hence no structure")
    parameters = numbers(entry["geometry"], "geometry").reshape(-1)
    if parameters.shape != (6,) or not (parameters > 0).all():
        raise EntryError("geometry is not six positive lengths and angles")
    z = _numbers(words(entry["species"]), numbers(entry["composition"], "composition"))
    cell = np.asarray(cellpar_to_cell(parameters), dtype=np.float64)
    if not np.isfinite(cell).all():
        raise EntryError("geometry has angles that close no cell")
    cartesian = _positions(entry.get("positions_cartesian"), len(z), "positions_cartesian")
    fractional = _positions(entry.get("positions_fractional"), len(z), "positions_fractional")
    if fractional is None:
        if cartesian is None:
            raise EntryError("no positions, hence no structure")
        raise EntryError("Cartesian positions alone do not say how the cell lies")
    oriented = None if cartesian is None else _orientation(cell, fractional, cartesian)
    final = cell if oriented is None else oriented
    return Structure(z, fractional @ final, final, oriented is not None)


def from_structure_json(document: Mapping[str, Any]) -> Structure:
    """Return the structure of a *_structure_relax.json file.

    Raises:
        EntryError: it is not as AFLOW writes it, or a site is shared.
    """
    from ase.data import atomic_numbers

    try:
        # A negative scale is a volume, as in POSCAR; AFLOW writes 1 there.
        scale = float(document.get("scale", 1))
        cell = np.array(document["lattice"], dtype=np.float64).reshape(3, 3)
        if scale < 0:
            scale = (-scale / abs(np.linalg.det(cell))) ** (1 / 3)
        cell = scale * cell
        atoms = document["atoms"]
        if any(abs(float(atom.get("occupancy", 1.0)) - 1.0) > 1e-6 for atom in atoms):
            raise EntryError("disordered: a site is occupied in part")
        z = np.array([atomic_numbers[_symbol(atom["name"])] for atom in atoms], dtype=np.uint8)
        positions = np.array([atom["position"] for atom in atoms], dtype=np.float64).reshape(-1, 3)
        kind = str(document.get("coordinates_type", "direct")).lower()
    except EntryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EntryError(f"the structure file is not as AFLOW writes it: {error!r}") from error
    if not len(z):
        raise EntryError("the structure has no atoms")
    return Structure(z, positions @ cell if kind.startswith("d") else scale * positions, cell, True)


def from_contcar(text: str) -> Structure:
    """Return the structure of a CONTCAR.relax.vasp file.

    Raises:
        EntryError: ASE cannot read it.
    """
    import io

    from ase.io.vasp import read_vasp

    try:
        atoms = read_vasp(io.StringIO(_with_symbols(text)))
    except Exception as error:  # the parser's own errors have many types
        raise EntryError(f"the CONTCAR cannot be read: {type(error).__name__}: {error}") from error
    return Structure(
        atoms.numbers.astype(np.uint8),
        np.array(atoms.positions, dtype=np.float64),
        np.array(atoms.cell.array, dtype=np.float64),
        True,
    )


def _with_symbols(text: str) -> str:
    """Put a line of symbols before the counts, which AFLOW leaves to the ends of the atom lines."""
    lines = text.splitlines()
    if len(lines) < 8 or not lines[5].split() or not lines[5].split()[0].isdigit():
        return text
    counts = [int(n) for n in lines[5].split()]
    first = np.cumsum([0, *counts[:-1]])
    symbols = [_symbol(lines[7 + int(row)].split()[3]) for row in first]
    atoms = [" ".join(line.split()[:3]) for line in lines[7 : 7 + sum(counts)]]
    kind = "Cartesian" if lines[6].strip()[:1].upper() in "CK" else "Direct"
    return "\n".join([*lines[:5], " ".join(symbols), lines[5], kind, *atoms, ""])


def _numbers(species: list[str], composition: np.ndarray) -> np.ndarray:
    from ase.data import atomic_numbers

    counts = np.atleast_1d(composition)
    if len(species) != len(counts) or not (counts == np.rint(counts)).all() or (counts < 1).any():
        raise EntryError(f"composition {counts.tolist()} does not fit species {','.join(species)}")
    symbols = [_symbol(name) for name in species]
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise EntryError(f"species {unknown[0]!r} is no element")
    return np.repeat(
        np.array([atomic_numbers[s] for s in symbols], dtype=np.uint8), counts.astype(int)
    )


def _symbol(name: str) -> str:
    """Return the element of a species, which may carry its potential: "Ti_sv" is "Ti"."""
    return name.partition("_")[0].partition(":")[0].strip()


def _positions(value: Any, n_atoms: int, name: str) -> np.ndarray | None:
    if value in (None, "", []):
        return None
    array = numbers(value, name)
    if array.size != 3 * n_atoms:
        raise EntryError(f"{name} holds {array.size // 3} atoms, composition {n_atoms}")
    return array.reshape(n_atoms, 3)


def _orientation(
    cell: np.ndarray, fractional: np.ndarray, cartesian: np.ndarray
) -> np.ndarray | None:
    """Return the cell in the axes of the Cartesian positions, None where they cannot tell."""
    if np.linalg.matrix_rank(fractional, tol=1e-3) < 3:
        return None
    found = np.linalg.lstsq(fractional, cartesian, rcond=None)[0]
    fits = np.abs(fractional @ found - cartesian).max() < _FIT
    metric = np.abs(found @ found.T - cell @ cell.T).max() < 1e-2 * np.abs(cell @ cell.T).max()
    return found if fits and metric else None
