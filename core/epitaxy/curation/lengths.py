"""Are positions and cells in Å? Fractional coordinates, metres and nanometres are recognised."""

from __future__ import annotations

from functools import cache

import numpy as np

FEW_ANGSTROM = 1.001  # Å, largest coordinate of positions that may be fractional
TINY = 1e-7  # Å; an atom is 1e-10 m wide, nothing is that small in Å
MIN_VOLUME = 1.0  # Å^3 per atom; hydrogen at 500 GPa still has 1.6
_TOO_NEAR = 0.6  # of the sum of two covalent radii: no bond is that short
_MOST_ATOMS = 60  # compared with each other


def wrong_lengths(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> str | None:
    """Return why positions or cell cannot be in Å, or None.

    Args:
        numbers: (n_atoms,) atomic numbers.
        positions: (n_atoms, 3), Å if all is well.
        cell: (3, 3).
        pbc: (3,) bool.
    """
    n_atoms = len(numbers)
    if pbc.any():
        lengths = np.linalg.norm(cell[pbc], axis=1)
        if 0 < lengths.max() < TINY:
            return "the cell looks like metres, not Å"
        if pbc.all():
            volume = abs(float(np.linalg.det(cell))) / n_atoms
            if lengths.min() > 1e-8 and 1e-6 * lengths.prod() / n_atoms < volume < MIN_VOLUME:
                if 5 < 1000 * volume < 200:
                    return "the cell looks like nm, not Å"
                return f"less than {MIN_VOLUME:g} Å^3 per atom"
            if looks_fractional(numbers, positions, cell):
                return "positions look fractional, not in Å"
    elif n_atoms > 1:
        extent = float(np.ptp(positions, axis=0).max())
        if 0 < extent < TINY:
            return "positions look like metres, not Å"
    return None


def looks_fractional(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> bool:
    """Return whether positions make sense as fractions of the cell, and none in Å.

    In Å some atoms are nearer than any bond; as fractions of the cell none are. A single atom
    cannot tell.
    """
    if len(numbers) < 2 or np.abs(positions).max() > FEW_ANGSTROM:
        return False
    in_angstrom = nearest_ratio(numbers, positions, cell)
    if in_angstrom >= _TOO_NEAR:
        return False
    return nearest_ratio(numbers, positions @ cell, cell) > max(_TOO_NEAR, 1.5 * in_angstrom)


def nearest_ratio(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray | None) -> float:
    """Return the shortest distance relative to the sum of the two covalent radii.

    Args:
        numbers: (n_atoms,) atomic numbers; of large structures the first `_MOST_ATOMS` count.
        positions: (n_atoms, 3), Å.
        cell: (3, 3), Å, periodic in three directions; None for a molecule.

    Returns:
        inf for a single atom without images.
    """
    numbers, positions = numbers[:_MOST_ATOMS], positions[:_MOST_ATOMS]
    radii = _radii()[np.asarray(numbers, dtype=np.int64)]
    sums = radii[:, None] + radii[None, :]
    steps = positions[None, :, :] - positions[:, None, :]
    if cell is None:
        distances = np.linalg.norm(steps, axis=2)
        np.fill_diagonal(distances, np.inf)
        return float((distances / sums).min())
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    fractions = steps @ np.linalg.inv(cell)
    fractions -= np.rint(fractions)
    best = np.inf
    for shift in shifts:
        distances = np.linalg.norm((fractions + shift) @ cell, axis=2)
        if not shift.any():
            np.fill_diagonal(distances, np.inf)
        best = min(best, float((distances / sums).min()))
    return best


@cache
def _radii() -> np.ndarray:
    """(119,) Å, covalent radii (Cordero 2008, from ASE); 1.5 where none is known."""
    from ase.data import covalent_radii

    radii = np.full(119, 1.5)
    known = np.asarray(covalent_radii, dtype=np.float64)[:119]
    radii[: len(known)] = np.where(known > 0.21, known, 1.5)
    return radii
