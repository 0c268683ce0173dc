"""The density of states by linear interpolation between k-points: the tetrahedron method.

Source: Blöchl, Jepsen and Andersen, Phys. Rev. B 49, 16223 (1994), appendix B, without the
correction of the occupations.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

_APART = 1e-7
"""eV; corners are at least this far apart, so that flat bands divide by something."""

_AT_ONCE = 4_000_000
"""Values of the number of states that are held in memory at the same time."""


def density_of_states(bands: np.ndarray, cell: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Return the density of states of one spin, (n_energies,) states/eV per cell.

    Each value is the mean over the interval around its energy, so no state is lost.

    Args:
        bands: (n1, n2, n3, n_bands) eV on a uniform grid of k-points that is periodic.
        cell: (3, 3) Å, lattice vectors as rows.
        energies: (n_energies,) eV, equally spaced.
    """
    step = float(energies[1] - energies[0])
    first = float(energies[0]) - step / 2
    n_edges = len(energies) + 1
    corners = _corners(bands.shape[:3], cell)
    states = np.zeros(n_edges)
    for offsets in corners:
        shifted = [np.roll(bands, tuple(-offset), axis=(0, 1, 2)).ravel() for offset in offsets]
        values = np.sort(np.array(shifted), axis=0) + _APART * np.arange(4)[:, None]
        states += _states(values, first, step, n_edges)
    dos: np.ndarray = np.diff(states) / step / (len(corners) * np.prod(bands.shape[:3]))
    return dos


def _corners(size: tuple[int, ...], cell: np.ndarray) -> list[np.ndarray]:
    """Return the six tetrahedra around the shortest diagonal of a cell of the grid, (4, 3) each."""
    steps = np.linalg.inv(cell).T / np.array(size)[:, None]
    starts = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    start = min(starts, key=lambda corner: float(np.linalg.norm((1 - 2 * corner) @ steps)))
    found = []
    for axes in permutations(range(3)):
        path = [start]
        for axis in axes:
            corner = path[-1].copy()
            corner[axis] = 1 - corner[axis]
            path.append(corner)
        found.append(np.array(path))
    return found


def _states(values: np.ndarray, first: float, step: float, n_edges: int) -> np.ndarray:
    """Sum the states of tetrahedra up to each edge.

    Args:
        values: (4, n) eV, the corners' energies, increasing.
        first: first edge, eV.
        step: between edges, eV.
        n_edges: how many there are.
    """
    low = np.clip(np.ceil((values[0] - first) / step), 0, n_edges).astype(int)
    high = np.clip(np.ceil((values[3] - first) / step), 0, n_edges).astype(int)
    full = np.cumsum(np.bincount(high, minlength=n_edges + 1)[:n_edges]).astype(float)
    counts = high - low
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        stop = np.searchsorted(total, (total[start - 1] if start else 0) + _AT_ONCE) + 1
        n = counts[start:stop]
        which = np.repeat(np.arange(start, start + len(n)), n)
        within = np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n)
        edges = low[which] + within
        part = _fraction(values[:, which], first + step * edges)
        full += np.bincount(edges, weights=part, minlength=n_edges)
        start = int(stop)
    return full


def _fraction(e: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the part of each tetrahedron below x, (n,); corners e (4, n) with e0 <= x <= e3."""
    e10, e20, e30 = e[1] - e[0], e[2] - e[0], e[3] - e[0]
    e21, e31, e32 = e[2] - e[1], e[3] - e[1], e[3] - e[2]
    y = x - e[1]
    lower = (x - e[0]) ** 3 / (e10 * e20 * e30)
    middle = (e10**2 + 3 * e10 * y + 3 * y**2 - (e20 + e31) / (e21 * e31) * y**3) / (e20 * e30)
    upper = 1 - (e[3] - x) ** 3 / (e30 * e31 * e32)
    below: np.ndarray = np.where(x < e[1], lower, np.where(x < e[2], middle, upper))
    return below
