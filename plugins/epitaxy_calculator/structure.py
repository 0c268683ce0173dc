"""Refuses structures that no potential can answer for, by name and with the reason."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from epitaxy.errors import StructureError

SMALLEST_DISTANCE = 0.01
"""Å. Closer atoms are one atom written twice: the shortest chemical bond, H2, is 0.74 Å."""

SMALLEST_VOLUME_RATIO = 1e-6
"""Smallest volume of the periodic lattice vectors over the product of their lengths."""


def check_structure(atoms: Atoms, *, elements: Collection[int], name: str = "structure") -> None:
    """Check everything that can be seen without neighbors.

    Args:
        atoms: the structure.
        elements: atomic numbers that the potential was trained on.
        name: how the message calls the structure.

    Raises:
        StructureError: no atoms, an element that the potential does not know, positions or
            cell that are not finite, or periodic lattice vectors without volume.
    """
    if not len(atoms):
        raise StructureError(f"{name} has no atoms; at least one is needed")
    check_elements(atoms.numbers, elements=elements, name=name)
    check_positions(atoms.positions, name=name)
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise StructureError(f"{name}: the cell {cell.tolist()} Å is not finite")
    pbc = atoms.pbc
    if pbc.any() and volume_ratio(cell[pbc]) < SMALLEST_VOLUME_RATIO:
        raise StructureError(
            f"{name}: pbc is {pbc.tolist()} but the periodic lattice vectors span no volume "
            f"(cell {cell.tolist()} Å); set the cell, or pbc=False for a molecule"
        )


def check_positions(positions: np.ndarray, *, name: str) -> None:
    """Check that all positions are finite numbers.

    Raises:
        StructureError: naming the first atom whose position is not.
    """
    if not np.isfinite(positions).all():
        wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        raise StructureError(
            f"{name}: the position of atom {wrong[0]} is {positions[wrong[0]].tolist()} Å "
            f"({len(wrong)} of {len(positions)} atoms are not finite); did a run blow up?"
        )


def check_elements(numbers: np.ndarray, *, elements: Collection[int], name: str) -> None:
    """Check that every atom is of a known element.

    Raises:
        StructureError: naming the unknown and the known elements.
    """
    unknown = sorted(set(numbers.tolist()) - set(elements))
    if unknown:
        raise StructureError(
            f"{name} has {_symbols(unknown)}, which the potential was not trained on; "
            f"it knows {_symbols(sorted(elements))}"
        )


def check_distances(
    centers: np.ndarray,
    neighbors: np.ndarray,
    squared_distances: np.ndarray,
    *,
    name: str = "structure",
) -> None:
    """Check that no two atoms sit on each other.

    Raises:
        StructureError: naming the two atoms and their distance.
    """
    if not len(squared_distances):
        return
    edge = int(squared_distances.argmin())
    distance = float(squared_distances[edge]) ** 0.5
    if distance < SMALLEST_DISTANCE:
        first, second = int(centers[edge]), int(neighbors[edge])
        what = (
            f"atom {first} and its own periodic image"
            if first == second
            else f"atoms {first} and {second}"
        )
        raise StructureError(
            f"{name}: {what} are {distance:.2g} Å apart; "
            f"the smallest distance allowed is {SMALLEST_DISTANCE} Å, remove one of them"
        )


def check_apart(atoms: Atoms, *, name: str) -> None:
    """Check that no two atoms of a structure sit on each other, exactly or nearly.

    Raises:
        StructureError: naming the two atoms and their distance.
    """
    from ase.neighborlist import neighbor_list

    centers, neighbors, distances = neighbor_list("ijd", atoms, SMALLEST_DISTANCE)
    check_distances(centers, neighbors, distances**2, name=name)


def volume_ratio(vectors: np.ndarray) -> float:
    """Length, area or volume spanned by (k, 3) vectors over the product of their lengths."""
    if len(vectors) == 3:
        spanned = abs(float(np.linalg.det(vectors)))
    else:
        spanned = float(np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0)))
    lengths = float(np.sqrt(np.einsum("ix,ix->i", vectors, vectors)).prod())
    return spanned / lengths if lengths > 0 else 0.0


def _symbols(numbers: Collection[int]) -> str:
    return ", ".join(
        chemical_symbols[z] if 0 <= z < len(chemical_symbols) else f"Z={z}" for z in numbers
    )
