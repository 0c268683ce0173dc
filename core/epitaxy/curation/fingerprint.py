"""Which structures are the same up to translation, rotation, order of atoms, cell and supercell.

The fingerprint of a crystal is its powder pattern: the intensities |S(q)|² of the lattice's
reciprocal vectors, weighted with the atomic numbers, in broad bins of |q|. A supercell or another
setting of the cell adds only vectors of zero intensity, so all descriptions of one crystal agree.
That of a cluster is the Debye formula (Debye, Ann. Phys. 351, 809 (1915)). The converse is not
exact (homometric structures, mirror images), so two that agree are equal for all purposes of a
leak check, not proof of identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from epitaxy.composition import compositions
from epitaxy.curation.spacegroup import is_degenerate, rows_with_structure
from epitaxy.dataset import Dataset

TOLERANCE = 1e-3
"""Relative difference of intensities and volumes up to which structures are the same; atoms that
moved by 0.0001 Å are, atoms that moved by 0.01 Å are not."""
N_BINS = 40

_LARGEST = 1.6  # of |q|, in units of 2 pi / (volume per atom)^(1/3): 17 vectors per atom
_SKEW = 0.2  # volume over the product of the edges
_WIDTH = 0.04
_DEBYE = np.linspace(0.5, 4.0, N_BINS)  # 1/Å, of clusters
_STRUCTURES_AT_ONCE = 10_000
_PHASES_AT_ONCE = 2_000_000


def same_structures(
    datasets: Sequence[Dataset],
    *,
    marks: Sequence[np.ndarray] | None = None,
    max_work: float = np.inf,
) -> list[np.ndarray] | None:
    """Return a number for every structure, equal for equal structures, one (n,) int per dataset.

    Args:
        datasets: structures and formulas; equal ones of different datasets get the same number.
        marks: (n,) int per dataset; only rows that may equal a row of another mark are looked
            at, the others get -1. This is what makes a check of a split cheap.
        max_work: give up beyond so many phases (10 million take about a second).

    Returns:
        the numbers, or None beyond `max_work`.
    """
    lengths = [len(dataset) for dataset in datasets]
    formulas = np.concatenate([compositions(dataset) for dataset in datasets])
    volumes = np.concatenate([_volumes(dataset) for dataset in datasets])
    kinds = np.unique(formulas, return_inverse=True)[1]
    wanted = np.ones(len(formulas), dtype=bool)
    if marks is not None:
        # Same formula and volume per atom, with more than one mark among them.
        mark = np.concatenate([np.asarray(one) for one in marks])
        coarse = _classes(kinds, np.log(np.maximum(volumes, 1e-9))[:, None])
        wanted = _is_mixed(coarse, mark)
    labels = np.full(len(formulas), -1)
    starts = np.cumsum([0, *lengths])
    rows = [wanted[a:b].nonzero()[0] for a, b in pairwise(starts)]
    if sum(work_of(d, r) for d, r in zip(datasets, rows, strict=True)) > max_work:
        return None
    prints = np.concatenate(
        [fingerprints(dataset, some) for dataset, some in zip(datasets, rows, strict=True)]
    )
    logs = np.log(np.maximum(volumes[wanted], 1e-9))[:, None]
    labels[wanted] = _classes(kinds[wanted], np.hstack([logs, prints]))
    return [labels[a:b] for a, b in pairwise(starts)]


def fingerprints(dataset: Dataset, rows: np.ndarray | None = None) -> np.ndarray:
    """Return the patterns of some structures, (k, N_BINS), without unit; zeros for a formula."""
    chosen = np.arange(len(dataset)) if rows is None else rows
    found = np.zeros((len(chosen), N_BINS))
    is_structure = np.zeros(len(dataset), dtype=bool)
    is_structure[rows_with_structure(dataset)] = True
    where = is_structure[chosen].nonzero()[0]
    for start in range(0, len(where), _STRUCTURES_AT_ONCE):
        these = where[start : start + _STRUCTURES_AT_ONCE]
        numbers, positions, cells, pbc, n_atoms = dataset.gather(chosen[these])
        ends = np.cumsum(n_atoms)
        for k, (first, end) in enumerate(zip(ends - n_atoms, ends, strict=True)):
            weights = numbers[first:end].astype(np.float64)
            weights /= np.sqrt((weights**2).mean())
            cell = _closed(cells[k], pbc[k], positions[first:end])
            found[these[k]] = (
                _debye(positions[first:end], weights)
                if cell is None
                else _powder(cell, positions[first:end], weights)
            )
    return found


def work_of(dataset: Dataset, rows: np.ndarray) -> float:
    """Return about how many phases `fingerprints` has to compute."""
    n_atoms = dataset.n_atoms[rows].astype(np.float64)
    return float((4 / 3 * np.pi * _LARGEST**3 / 2 * n_atoms**2 + 1_000).sum())


def _powder(cell: np.ndarray, positions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from ase.geometry import minkowski_reduce

    n = len(positions)
    if abs(np.linalg.det(cell)) < _SKEW * np.prod(np.linalg.norm(cell, axis=1)):
        # Skew vectors would need indices of the same reciprocal vectors from a far larger box.
        cell = minkowski_reduce(cell)[0]
    unit = 2 * np.pi / (abs(np.linalg.det(cell)) / n) ** (1 / 3)
    fractions = np.linalg.solve(cell.T, positions.T).T
    # |q| <= limit bounds each index by limit * |a_i| / 2 pi.
    top = np.floor(_LARGEST * unit * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    steps = [np.arange(-t, t + 1) for t in top]
    h = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    h = h[len(h) // 2 + 1 :]  # q and -q have the same intensity, q = 0 says nothing
    length = np.linalg.norm(h @ (2 * np.pi * np.linalg.inv(cell).T), axis=1) / unit
    inside = length < _LARGEST
    h, length = h[inside], length[inside]
    intensity = np.empty(len(h))
    at_once = max(1, _PHASES_AT_ONCE // n)
    for start in range(0, len(h), at_once):
        phases = np.exp(2j * np.pi * (h[start : start + at_once] @ fractions.T))
        intensity[start : start + at_once] = np.abs(phases @ weights) ** 2
    fade = (1 - (length / _LARGEST) ** 2) ** 2  # vectors enter smoothly
    centers = np.linspace(0.3, _LARGEST - 0.2, N_BINS)
    bins = np.exp(-(((length[:, None] - centers) / _WIDTH) ** 2) / 2)
    pattern: np.ndarray = (intensity * fade) @ bins / n**2
    return pattern


def _debye(positions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    n = len(positions)
    pattern = np.zeros(N_BINS)
    at_once = max(1, _PHASES_AT_ONCE // (n * N_BINS))
    for start in range(0, n, at_once):
        some = slice(start, start + at_once)
        steps = positions[some, None] - positions[None]
        distances = np.sqrt((steps**2).sum(axis=2))
        waves = np.sinc(distances[:, :, None] * _DEBYE / np.pi)
        pattern += np.einsum("i,ijk,j->k", weights[some], waves, weights)
    return pattern / n


def _closed(cell: np.ndarray, pbc: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
    """Return a cell of three vectors; None for a cluster.

    Slabs and chains get vectors across that depend on their extent only.
    """
    if not pbc.any():
        return None
    if pbc.all():
        return None if is_degenerate(cell, len(positions)) else cell
    kept = cell[pbc]
    across = np.linalg.svd(kept)[2][len(kept) :]
    extents = np.ptp(positions @ across.T, axis=0) + 10.0  # Å of vacuum
    # The plane across a chain has no preferred directions: one size for both.
    closed = np.vstack([kept, across * extents.max()])
    return None if is_degenerate(closed, len(positions)) else closed


def _volumes(dataset: Dataset) -> np.ndarray:
    """Return Å^3 per atom, 1 where it has no meaning, (n,)."""
    found = np.ones(len(dataset))
    for start in range(0, len(dataset), _STRUCTURES_AT_ONCE):
        some = dataset.gather(slice(start, start + _STRUCTURES_AT_ONCE))
        volume = np.abs(np.linalg.det(some.cells)) / np.maximum(some.n_atoms, 1)
        here = found[start : start + len(some.n_atoms)]
        periodic = some.pbc.all(axis=1) & (volume > 0)
        here[periodic] = volume[periodic]
    return found


def _classes(kinds: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return (n,) int, equal where kinds agree and all features do within the tolerance.

    Rounding cuts some pairs that are closer; a second grid, half a step aside, joins them.
    """
    steps = features / TOLERANCE
    first = _codes(kinds, np.floor(steps + 0.5))
    second = _codes(kinds, np.floor(steps))
    # Join classes of the two grids that share a row until nothing changes.
    labels = first
    while True:
        lowest = np.full(second.max(initial=-1) + 1, len(kinds))
        np.minimum.at(lowest, second, labels)
        joined = lowest[second]
        lowest = np.full(first.max(initial=-1) + 1, len(kinds))
        np.minimum.at(lowest, first, joined)
        joined = lowest[first]
        if (joined == labels).all():
            return labels
        labels = joined


def _codes(kinds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    table = np.ascontiguousarray(np.hstack([kinds[:, None], steps]).astype(np.int64))
    rows = table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).reshape(-1)
    return np.asarray(np.unique(rows, return_inverse=True)[1]).reshape(-1)


def _is_mixed(classes: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return (n,) bool, whether the class of a row has more than one mark."""
    n = classes.max(initial=-1) + 1
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(low, classes, marks)
    np.maximum.at(high, classes, marks)
    return np.asarray((low < high)[classes])
