"""From structures to packed graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from epitaxy.composition import TAG, parse_formula
from epitaxy.errors import StructureError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.neighbors import (
    BOUNDARY,
    are_sparse,
    check_apart,
    check_cutoff,
    check_geometry,
    complete_cell,
    pairs,
    within_cutoff,
)

if TYPE_CHECKING:
    from ase import Atoms

    from epitaxy.dataset import Dataset

PAIRS_AT_ONCE = 16000
"""Pairs that are worked on together: their arrays take about 2 MB."""


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
        cutoff: largest distance of two connected atoms, Å; 0 for a network that sees only the
            composition: no edges, positions are not looked at, formulas give `amounts`.
        dtype: of the vectors and volumes; geometry is computed in float64 and rounded once.
        device: where the tensors go.

    Raises:
        StructureError: a structure has no usable geometry; the message names its id.
    """
    chosen = dataset.gather(rows)
    if cutoff == 0:
        graph = _without_edges(
            chosen.numbers, chosen.cells, chosen.pbc, chosen.n_atoms, dtype=dtype, device=device
        )
        amounts = _amounts(dataset, rows, chosen.numbers, chosen.n_atoms)
        if amounts is None:
            return graph
        return graph._replace(amounts=torch.from_numpy(amounts).to(device))
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
        cutoff: Å; 0 for no edges, as in `build_batch`.
        dtype: of vectors and volumes.
        device: where the tensors go.

    Raises:
        StructureError: a structure has no usable geometry, or the cutoff is not positive.
    """
    if cutoff == 0:
        return _without_edges(numbers, cells, pbc, n_atoms, dtype=dtype, device=device)
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


def _without_edges(
    numbers: np.ndarray,
    cells: np.ndarray,
    pbc: np.ndarray,
    n_atoms: np.ndarray,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> GraphBatch:
    """Return graphs of atoms alone."""
    spans = np.abs(np.linalg.det(np.asarray(cells, dtype=np.float64)))
    volumes = np.where(np.asarray(pbc).all(axis=1), spans, np.nan)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return GraphBatch(
        numbers=torch.as_tensor(np.asarray(numbers, dtype=np.int64)).to(device),
        centers=none,
        neighbors=none,
        vectors=torch.zeros((0, 3), dtype=dtype, device=device),
        structures=torch.from_numpy(np.repeat(np.arange(len(n_atoms)), n_atoms)).to(device),
        n_atoms_per_structure=torch.as_tensor(np.asarray(n_atoms, dtype=np.int64)).to(device),
        volumes=torch.from_numpy(volumes).to(device=device, dtype=dtype),
    )


def _amounts(
    dataset: Dataset,
    rows: Sequence[int] | np.ndarray | None,
    numbers: np.ndarray,
    n_atoms: np.ndarray,
) -> np.ndarray | None:
    """Return (n_atoms,) how much each atom stands for, exact for formulas; None without them.

    Raises:
        StructureError: a formula does not have the elements of its atoms.
    """
    if TAG not in dataset.tags:
        return None
    part = dataset if rows is None else dataset[np.asarray(rows)]
    formulas = part.tag(TAG)
    if not (formulas != "").any():
        return None
    amounts = np.ones(len(numbers))
    ends = np.cumsum(n_atoms)
    for row in np.flatnonzero(formulas != ""):
        atoms = slice(int(ends[row] - n_atoms[row]), int(ends[row]))
        given = parse_formula(str(formulas[row]))
        elements, place, count = np.unique(numbers[atoms], return_inverse=True, return_counts=True)
        if elements.tolist() != sorted(given):
            raise StructureError(
                f"{part.ids[int(row)]}: its tag {TAG} is {str(formulas[row])!r}, but its atoms are "
                f"of other elements: correct the tag, or leave it out where there is a structure"
            )
        amounts[atoms] = (np.array([given[int(z)] for z in elements]) / count)[place]
    return amounts


class _Piece(NamedTuple):
    """Candidates of a whole structure or of a part of it.

    Attributes:
        first_atom: number of the structure's first atom in the batch.
        cell: (3, 4), Å, with a fourth column of zeros.
        candidates: centers, neighbors, images, distances as `pairs` gives them.
    """

    first_atom: int
    cell: np.ndarray
    candidates: tuple[np.ndarray, ...]


def _join(
    found: Sequence[tuple[np.ndarray, ...]],
    positions: np.ndarray,
    cells: np.ndarray,
    n_atoms: np.ndarray,
    cutoff: float,
    dtype: torch.dtype,
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Return centers, neighbors and vectors of the batch from the candidates per structure.

    The work is done in pieces of about `PAIRS_AT_ONCE`, whose arrays stay in the processor's
    cache and in memory that the allocator does not give back in between.
    """
    wide_positions = _with_fourth_column(positions)
    n_candidates = sum(len(candidates[0]) for candidates in found)
    centers = np.empty(n_candidates, dtype=np.int64)
    neighbors = np.empty(n_candidates, dtype=np.int64)
    vectors = torch.empty((n_candidates, 3), dtype=dtype)
    pieces: list[_Piece] = []
    n_waiting = n_coincident = n_edges = 0

    def work_off() -> None:
        nonlocal n_waiting, n_coincident, n_edges
        here, there, between, distances = _join_pieces(pieces, n_waiting, wide_positions)
        n_coincident += n_waiting - int(np.count_nonzero(distances > BOUNDARY))
        kept = within_cutoff(distances, between, cutoff)
        end = n_edges + len(kept)
        here.take(kept, out=centers[n_edges:end], mode="clip")  # "raise" would copy twice
        there.take(kept, out=neighbors[n_edges:end], mode="clip")
        rounded = torch.from_numpy(between).to(dtype).numpy().take(kept, axis=0)
        vectors[n_edges:end] = torch.from_numpy(rounded)[:, :3]
        n_edges = end
        pieces.clear()
        n_waiting = 0

    first_atoms = (np.cumsum(n_atoms) - n_atoms).tolist()
    for candidates, first, cell in zip(found, first_atoms, _with_fourth_column(cells), strict=True):
        n_pairs = len(candidates[0])
        for start in range(0, n_pairs, PAIRS_AT_ONCE):
            part = candidates
            if n_pairs > PAIRS_AT_ONCE:
                part = tuple(column[start : start + PAIRS_AT_ONCE] for column in candidates)
            pieces.append(_Piece(first, cell, part))
            n_waiting += len(part[0])
            if n_waiting >= PAIRS_AT_ONCE:
                work_off()
    work_off()
    check_apart(n_coincident, len(positions))
    return centers[:n_edges], neighbors[:n_edges], vectors[:n_edges]


def _join_pieces(
    pieces: Sequence[_Piece], n_pairs: int, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return centers and neighbors in the batch, vectors (n_pairs, 4) and distances.

    Vectors have a fourth column of zeros: such rows are gathered twice as fast.
    """
    centers = np.empty(n_pairs, dtype=np.int64)
    neighbors = np.empty(n_pairs, dtype=np.int64)
    distances = np.empty(n_pairs)
    shifts = np.empty((n_pairs, 4))
    start = 0
    for first_atom, cell, (here, there, images, lengths) in pieces:
        end = start + len(here)
        np.add(here, first_atom, out=centers[start:end])
        np.add(there, first_atom, out=neighbors[start:end])
        np.matmul(images, cell, out=shifts[start:end])
        distances[start:end] = lengths
        start = end
    # In this order the vector of a pair is exactly minus that of the reversed pair.
    vectors = positions.take(neighbors, axis=0)
    vectors -= positions.take(centers, axis=0)
    vectors += shifts
    return centers, neighbors, vectors, distances


def _with_fourth_column(rows: np.ndarray) -> np.ndarray:
    """Return (..., 4) rows that end with a zero."""
    wide = np.zeros((*rows.shape[:-1], 4))
    wide[..., :3] = rows
    return wide
