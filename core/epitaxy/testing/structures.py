"""Small structures that the checks of networks use, and how results are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def crystal() -> Atoms:
    """Return six atoms of three elements in a skewed cell, nothing symmetric about them."""
    from ase import Atoms

    cell = np.array([[4.1, 0.3, 0.0], [-0.5, 3.9, 0.4], [0.2, 0.1, 4.4]])
    places = [
        [0.05, 0.10, 0.02],
        [0.45, 0.15, 0.10],
        [0.12, 0.55, 0.20],
        [0.60, 0.62, 0.48],
        [0.18, 0.25, 0.66],
        [0.75, 0.20, 0.80],
    ]
    return Atoms([14, 8, 8, 14, 6, 8], scaled_positions=places, cell=cell, pbc=True)


def molecule() -> Atoms:
    """Return four atoms without a cell."""
    from ase import Atoms

    places = [[0.0, 0.0, 0.1], [0.8, 0.5, -0.2], [-0.7, 0.7, 0.0], [1.4, -0.9, 0.3]]
    return Atoms([8, 1, 1, 6], positions=places)


def slab() -> Atoms:
    """Return the crystal, open in one direction."""
    atoms = crystal()
    atoms.pbc = [True, True, False]
    return atoms


def lone_atom() -> Atoms:
    """Return one atom without neighbors."""
    from ase import Atoms

    return Atoms("H", positions=[[1.0, -2.0, 30.0]])


def same(found: np.ndarray, expected: np.ndarray, what: str, *, tolerance: float = 1e-9) -> None:
    """Assert that two arrays agree, relative to the largest expected value (and 1)."""
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    assert np.isfinite(found).all(), f"{what} is not finite: {found.ravel()[:6]}"
    worst = float(np.abs(found - expected).max(initial=0.0))
    allowed = tolerance * max(1.0, float(np.abs(expected).max(initial=0.0)))
    assert worst <= allowed, f"{what} differs by {worst:.3g}, allowed is {allowed:.3g}"
