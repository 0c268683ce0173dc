"""From structures to packed graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from epitaxy.errors import StructureError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.neighbors import (
    are_sparse,
    check_cutoff,
    check_geometry,
    complete_cell,
    pairs,
    within_cutoff,
)

if TYPE_CHECKING:
    from ase import Atoms

    from epitaxy.dataset import Dataset


def build_batch(
    dataset: Dataset,
    rows: Sequence[int] | np.ndarray | None = None,
    *,
    cutoff: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> GraphBatch:
    """Return the graphs of some structures of a dataset, packed in the order of `rows`.

    Args:
        dataset: structures.
        rows: indices into the dataset; all structures if None.
        cutoff: largest distance of two connected atoms, Å.
        dtype: of the vectors and volumes; geometry is computed in float64 and rounded once.
        device: where the tensors go.

    Raises:
        StructureError: a structure has no usable geometry; the message names its id.
    """
    chosen = dataset.gather(rows)
    try:
        return pack(
            chosen.numbers,
            chosen.positions,
            chosen.cells,
            chosen.pbc,
            chosen.n_atoms,
            cutoff=cutoff,
            dtype=dtype,
            device=device,
        )
    except StructureError:
        names = [dataset.ids[row] for row in (range(len(dataset)) if rows is None else rows)]
        check_geometry(chosen.positions, chosen.cells, chosen.pbc, chosen.n_atoms, names)
        raise


def build_batch_from_atoms(
    atoms: Sequence[Atoms],
    *,
    cutoff: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> GraphBatch:
    """Return the graphs of ASE Atoms, packed in their order; see `build_batch`."""
    if len(atoms) == 1:
        (one,) = atoms
        numbers, positions = one.numbers, one.positions
    elif atoms:
        numbers = np.concatenate([one.numbers for one in atoms])
        positions = np.concatenate([one.positions for one in atoms])
    else:
        numbers, positions = np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    return pack(
        numbers,
        positions,
        np.array([one.cell.array for one in atoms]).reshape(-1, 3, 3),
        np.array([one.pbc for one in atoms], dtype=bool).reshape(-1, 3),
        np.array([len(one) for one in atoms], dtype=np.int64),
        cutoff=cutoff,
        dtype=dtype,
        device=device,
    )


def pack(
    numbers: np.ndarray,
    positions: np.ndarray,
    cells: np.ndarray,
    pbc: np.ndarray,
    n_atoms: np.ndarray,
    *,
    cutoff: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> GraphBatch:
    """Return the graphs of stacked structures.

    Per structure only the search for pairs is a Python call; everything else works on the
    arrays of the whole batch.

    Args:
        numbers: (n_atoms_total,), atomic numbers.
        positions: (n_atoms_total, 3), Å.
        cells: (n_structures, 3, 3), Å.
        pbc: (n_structures, 3) bool.
        n_atoms: (n_structures,), atoms per structure.
        cutoff: Å.
        dtype: of vectors and volumes.
        device: where the tensors go.

    Raises:
        StructureError: a structure has no usable geometry, or the cutoff is not positive.
    """
    check_cutoff(cutoff)
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    cells = np.ascontiguousarray(cells, dtype=np.float64)
    volumes = check_geometry(positions, cells, pbc, n_atoms)
    if not pbc.all():
        cells = np.array(
            [
                cell if periodic.all() else complete_cell(cell, periodic)
                for cell, periodic in zip(cells, pbc, strict=True)
            ]
        )
    periodic = pbc.astype(np.int64)
    sparse = are_sparse(positions, cells, pbc, n_atoms, cutoff).tolist()
    ends = np.cumsum(n_atoms).tolist()
    found = []
    start = 0
    for end, cell, directions, is_sparse in zip(ends, cells, periodic, sparse, strict=True):
        found.append(pairs(positions[start:end], cell, directions, cutoff, is_sparse))
        start = end
    centers, neighbors, vectors = _join(found, positions, cells, n_atoms, cutoff, dtype)
    structures = np.repeat(np.arange(len(n_atoms)), n_atoms)
    return GraphBatch(
        numbers=torch.as_tensor(np.asarray(numbers, dtype=np.int64)).to(device),
        centers=torch.from_numpy(centers).to(device),
        neighbors=torch.from_numpy(neighbors).to(device),
        vectors=vectors.to(device),
        structures=torch.from_numpy(structures).to(device),
        n_atoms_per_structure=torch.as_tensor(np.asarray(n_atoms, dtype=np.int64)).to(device),
        volumes=torch.from_numpy(volumes).to(device=device, dtype=dtype),
    )


def _join(
    found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    positions: np.ndarray,
    cells: np.ndarray,
    n_atoms: np.ndarray,
    cutoff: float,
    dtype: torch.dtype,
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Return centers, neighbors and vectors of the batch from the candidates per structure.

    On the way vectors have a fourth column of zeros: such rows are gathered twice as fast.
    """
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return none, none, torch.zeros((0, 3), dtype=dtype)
    wide_positions = _with_fourth_column(positions)
    wide_cells = _with_fourth_column(cells)
    if len(found) == 1:
        centers, neighbors, images, distances = found[0]
        shifts = images @ wide_cells[0]
    else:
        n_pairs = np.array([len(one[0]) for one in found])
        first_atom = np.repeat(np.cumsum(n_atoms) - n_atoms, n_pairs)
        centers = np.concatenate([one[0] for one in found])
        neighbors = np.concatenate([one[1] for one in found])
        distances = np.concatenate([one[3] for one in found])
        centers += first_atom
        neighbors += first_atom
        shifts = np.empty((len(centers), 4))
        end = 0
        for (_, _, images, _), cell, n in zip(found, wide_cells, n_pairs.tolist(), strict=True):
            np.matmul(images, cell, out=shifts[end : end + n])
            end += n
    # In this order the vector of a pair is exactly minus that of the reversed pair.
    vectors = wide_positions.take(neighbors, axis=0)
    vectors -= wide_positions.take(centers, axis=0)
    vectors += shifts
    kept = within_cutoff(distances, vectors, cutoff, len(positions))
    rounded = torch.from_numpy(vectors).to(dtype)
    chosen = rounded.index_select(0, torch.from_numpy(kept))[:, :3].contiguous()
    return centers.take(kept), neighbors.take(kept), chosen


def _with_fourth_column(rows: np.ndarray) -> np.ndarray:
    """Return (..., 4) rows that end with a zero."""
    wide = np.zeros((*rows.shape[:-1], 4))
    wide[..., :3] = rows
    return wide
