"""Which rows of a dataset may be unusable? Column by column, for many structures at once.

A screen lets no unusable frame through and is fast; `epitaxy.curation.frames.FrameChecker` then
gives the reason for the few rows that it stops. Rows that need a closer look anyway, such as
slabs, are stopped too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from epitaxy.composition import TAG
from epitaxy.curation.frames import JOULE, FrameChecks, kd_tree
from epitaxy.curation.lengths import FEW_ANGSTROM, MIN_VOLUME, TINY
from epitaxy.curation.ranges import limits_with
from epitaxy.dataset import Dataset, Structures
from epitaxy.quantities import quantity

_BLOCK_STRUCTURES = 20_000
_BLOCK_ATOMS = 200_000


def blocks(dataset: Dataset) -> Iterator[np.ndarray]:
    """Yield consecutive rows, so many that their atoms take some 10 MB."""
    ends = dataset.atom_ptr
    start = 0
    while start < len(dataset):
        stop = int(np.searchsorted(ends, ends[start] + _BLOCK_ATOMS, side="right")) - 1
        stop = min(max(stop, start + 1), start + _BLOCK_STRUCTURES, len(dataset))
        yield np.arange(start, stop)
        start = stop


def suspicious_rows(dataset: Dataset, checks: FrameChecks, rows: np.ndarray) -> np.ndarray:
    """Return which of some rows need a closer look, (k,) bool."""
    frames = dataset.gather(rows)
    bad = np.asarray(frames.n_atoms == 0)
    has_structure = _have_structures(dataset, rows)
    bad |= _any_per_structure(frames, (frames.numbers < 1) | (frames.numbers > 118))
    bad |= ~np.isfinite(frames.cells).all(axis=(1, 2))
    bad |= _any_per_structure(frames, ~np.isfinite(frames.positions).all(axis=1))
    bad |= _wrong_labels(dataset, checks, rows, frames)
    periodic, whole = frames.pbc.any(axis=1), frames.pbc.all(axis=1)
    bad |= has_structure & periodic & ~whole  # slabs and wires
    crystals = has_structure & whole & ~bad
    bad[crystals] |= _wrong_cells(frames.cells[crystals], frames.n_atoms[crystals])
    extent = _largest_per_structure(frames, np.abs(frames.positions).max(axis=1))
    bad |= has_structure & (frames.n_atoms > 1) & whole & (extent <= FEW_ANGSTROM)
    bad |= has_structure & (frames.n_atoms > 1) & ~periodic & _are_tiny(frames)
    if checks.min_distance > 0:
        bad |= _too_near(frames, has_structure & ~bad, checks.min_distance)
    return np.asarray(bad)


def _have_structures(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    if TAG not in dataset.tags:
        return np.ones(len(rows), dtype=bool)
    return np.asarray(dataset[rows].tag(TAG) == "")


def _wrong_labels(
    dataset: Dataset, checks: FrameChecks, rows: np.ndarray, frames: Structures
) -> np.ndarray:
    bad = np.zeros(len(rows), dtype=bool)
    limits = limits_with(checks.limits)
    required = checks.require or ()
    if not set(required) <= set(dataset.targets):
        bad[:] = True
    for name in dataset.targets:
        values, mask = dataset.target(name, rows)
        if name in required:
            bad |= ~mask
        if quantity(name).per == "atom":
            finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
            bad |= _any_per_structure(frames, ~finite)
        else:
            bad |= ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if name == "energy":
            per_atom = np.abs(values) / np.maximum(frames.n_atoms, 1)
            bad |= (per_atom > 0) & (per_atom < JOULE)
            if checks.max_energy is not None:
                bad |= per_atom > checks.max_energy
        if name == "forces" and checks.max_force is not None:
            # A little under the limit: the closer look decides on the edge.
            size = (values**2).sum(axis=1)
            bad |= _any_per_structure(frames, size > (0.999 * checks.max_force) ** 2)
        if name in limits:
            low, high = limits[name]
            bad |= mask & ~((values >= low) & (values <= high))
    return bad


def _wrong_cells(cells: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(cells, axis=2)
    volumes = np.abs(np.linalg.det(cells))
    flat = volumes < 2e-6 * lengths.prod(axis=1)
    small = volumes < MIN_VOLUME * n_atoms
    return np.asarray(flat | small | (lengths.min(axis=1) < 1e-6))


def _are_tiny(frames: Structures) -> np.ndarray:
    starts = np.cumsum(frames.n_atoms) - frames.n_atoms
    steps = frames.positions - np.repeat(
        frames.positions[np.minimum(starts, max(len(frames.positions) - 1, 0))],
        frames.n_atoms,
        axis=0,
    )
    extent = _largest_per_structure(frames, np.abs(steps).max(axis=1))
    return np.asarray((extent > 0) & (extent < TINY))


def _too_near(frames: Structures, chosen: np.ndarray, limit: float) -> np.ndarray:
    """Return which of the chosen structures have two atoms (or images) nearer than a limit.

    Atoms near a face of their cell are repeated beyond the opposite one; a fourth coordinate
    keeps structures apart, so that one tree serves all of them.
    """
    near = np.zeros(len(frames.n_atoms), dtype=bool)
    whole = np.asarray(frames.pbc.all(axis=1))
    owner = np.repeat(np.arange(len(frames.n_atoms)), frames.n_atoms)
    inside = chosen[owner]
    owner, positions = owner[inside], frames.positions[inside]
    if not len(owner):
        return near
    cells = np.where((whole & chosen)[:, None, None], frames.cells, np.eye(3))
    inverse = np.linalg.inv(cells)
    heights = 1 / np.linalg.norm(inverse, axis=1)  # (k, 3), distance between opposite faces
    near |= chosen & whole & (heights < limit).any(axis=1)
    fractions = np.einsum("ai,aij->aj", positions, inverse[owner])
    periodic = whole[owner]
    fractions[periodic] %= 1.0
    for axis in range(3):
        margin = limit / heights[owner, axis]
        low = periodic & (fractions[:, axis] < margin)
        high = periodic & (fractions[:, axis] > 1 - margin)
        shift = np.eye(3)[axis]
        fractions = np.concatenate([fractions, fractions[low] + shift, fractions[high] - shift])
        owner = np.concatenate([owner, owner[low], owner[high]])
        periodic = np.concatenate([periodic, periodic[low], periodic[high]])
    points = np.concatenate(
        [np.einsum("ai,aij->aj", fractions, cells[owner]), 10 * limit * owner[:, None]], axis=1
    )
    pairs = kd_tree()(points, compact_nodes=False, balanced_tree=False).query_pairs(
        1.001 * limit, output_type="ndarray"
    )
    near[owner[pairs[:, 0]]] = True
    return near


def _any_per_structure(frames: Structures, flags: np.ndarray) -> np.ndarray:
    owner = np.repeat(np.arange(len(frames.n_atoms)), frames.n_atoms)
    return np.bincount(owner, flags, minlength=len(frames.n_atoms)) > 0


def _largest_per_structure(frames: Structures, values: np.ndarray) -> np.ndarray:
    found = np.zeros(len(frames.n_atoms))
    filled = (frames.n_atoms > 0).nonzero()[0]
    if len(filled):
        starts = (np.cumsum(frames.n_atoms) - frames.n_atoms)[filled]
        found[filled] = np.maximum.reduceat(values, starts)
    return found
