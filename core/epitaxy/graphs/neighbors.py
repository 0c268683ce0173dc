"""Periodic neighbor lists: every pair within the cutoff, once in each direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pymatgen.optimization.neighbors import find_points_in_spheres

from epitaxy.errors import StructureError

GRID_CELLS_PER_ATOM = 1_000
"""With more grid cells per atom (and `GRID_CELLS_ALWAYS`) memory goes into empty space."""

GRID_CELLS_ALWAYS = 200_000
"""A grid of this many cells (a few MB) is always affordable."""

BOUNDARY = 1e-8
"""Å: pairs this close to the cutoff are decided by the exact vectors, alike in both directions."""

SMALLEST_VOLUME = 1e-6
"""Å^3; in fewer than three periodic directions, the smallest determinant of unit vectors."""


class Neighbors(NamedTuple):
    """All pairs of one structure within a cutoff, sorted by center.

    Attributes:
        centers: (n_edges,) int64, index of the atom whose neighbors are listed, ascending.
        neighbors: (n_edges,) int64, index of the neighbor.
        images: (n_edges, 3) float64, whole numbers: the neighbor sits in this periodic image.
        vectors: (n_edges, 3) float64, Å, ``r_neighbor + images @ cell - r_center``. The vector
            of a pair is exactly minus the vector of the same pair seen from the other side.
    """

    centers: np.ndarray
    neighbors: np.ndarray
    images: np.ndarray
    vectors: np.ndarray


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray | Sequence[bool], cutoff: float
) -> Neighbors:
    """Return every pair closer than or at the cutoff, in both directions.

    Atoms may lie outside the cell, the cell may be skewed, left-handed, smaller than the
    cutoff or absent (zeros) along directions that are not periodic. An atom is a neighbor of
    its own images but not of itself.

    The pairs come from the kernel of pymatgen, the fastest on a CPU in our measurements; very
    sparse structures, for which its grid would not fit into memory, from ASE.

    Args:
        positions: (n_atoms, 3), Å.
        cell: (3, 3), Å, rows are the lattice vectors.
        pbc: (3,) bool, periodic directions.
        cutoff: largest distance, Å.

    Raises:
        StructureError: positions or cell are not finite, the periodic lattice vectors span no
            volume, or two atoms sit on the same place.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    cell = np.ascontiguousarray(cell, dtype=np.float64)
    periodic = np.ascontiguousarray(pbc, dtype=bool)
    check_cutoff(cutoff)
    size = np.array([len(positions)])
    check_geometry(positions, cell[None], periodic[None], size)
    lattice = cell if periodic.all() else complete_cell(cell, periodic)
    (is_sparse,) = are_sparse(positions, cell[None], periodic[None], size, cutoff).tolist()
    centers, neighbors, images, distances = pairs(
        positions, lattice, periodic.astype(np.int64), cutoff, is_sparse
    )
    vectors = positions[neighbors] - positions[centers] + images @ lattice
    check_apart(int(np.count_nonzero(distances <= BOUNDARY)), len(positions))
    kept = within_cutoff(distances, vectors, cutoff)
    return Neighbors(centers[kept], neighbors[kept], images[kept], vectors[kept])


def check_cutoff(cutoff: float) -> None:
    """Raise `StructureError` unless the cutoff is a positive, finite length."""
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise StructureError(f"cutoff {cutoff} Å: it must be a positive, finite length")


def check_geometry(
    positions: np.ndarray,
    cells: np.ndarray,
    pbc: np.ndarray,
    n_atoms: np.ndarray,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Refuse structures without a meaning and return the volumes of the others.

    Args:
        positions: (n_atoms_total, 3), Å, stacked.
        cells: (n_structures, 3, 3), Å.
        pbc: (n_structures, 3) bool.
        n_atoms: (n_structures,), atoms per structure.
        names: how to call each structure in an error; its number in the list if absent.

    Returns:
        (n_structures,) float64, Å^3; nan where not periodic in three directions.

    Raises:
        StructureError: naming the first structure that is wrong, and why.
    """

    def refuse(index: int, reason: str) -> StructureError:
        name = f"structure {names[index] if names is not None else index}"
        return StructureError(f"{name if len(n_atoms) > 1 or names else 'structure'}: {reason}")

    if not np.isfinite(positions).all():
        atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        index = int(np.searchsorted(np.cumsum(n_atoms), atom, side="right"))
        first = int(np.sum(n_atoms[:index]))
        raise refuse(
            index, f"position of atom {atom - first} is {positions[atom]}; it must be finite"
        )
    fully = pbc.all(axis=1)
    a, b, c = cells[:, 0], cells[:, 1], cells[:, 2]
    volumes: np.ndarray = np.abs(np.einsum("si,si->s", a, _cross(b, c)))
    wrong = ~(volumes > SMALLEST_VOLUME) & fully
    partly = ~fully & pbc.any(axis=1)
    if partly.any():
        for index in np.flatnonzero(partly).tolist():
            lengths = np.linalg.norm(cells[index], axis=1)[pbc[index]]
            unit = cells[index][pbc[index]] / np.where(lengths > 0, lengths, 1.0)[:, None]
            wrong[index] = not (np.linalg.det(unit @ unit.T) > SMALLEST_VOLUME)
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        raise refuse(
            index,
            f"the periodic lattice vectors span no volume: cell {cells[index].tolist()} Å, "
            f"pbc {pbc[index].tolist()}; give a cell, or set pbc to False where there is none",
        )
    volumes[~fully] = np.nan
    return volumes


def _cross(b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Cross products of rows; a few times faster than `numpy.cross` for few rows."""
    product: np.ndarray = b[:, [1, 2, 0]] * c[:, [2, 0, 1]] - b[:, [2, 0, 1]] * c[:, [1, 2, 0]]
    return product


def complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Replace the lattice vectors of non-periodic directions by perpendicular ones of 1 Å.

    They carry no image, so their values do not matter, but the kernel needs a volume.
    """
    completed = np.array(cell, dtype=np.float64)
    missing = np.flatnonzero(~pbc)
    _, _, directions = np.linalg.svd(cell[pbc].reshape(-1, 3))
    completed[missing] = directions[len(cell) - len(missing) :]
    return completed


def pairs(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    cutoff: float,
    is_sparse: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the candidates: pairs within the cutoff plus `BOUNDARY`, and each atom with itself.

    Args:
        positions: (n_atoms, 3) contiguous float64, Å.
        cell: (3, 3) contiguous float64, Å, not singular.
        pbc: (3,) int64, periodic directions.
        cutoff: Å.
        is_sparse: what `are_sparse` says.

    Returns:
        centers (n,) ascending, neighbors (n,), images (n, 3) float64, distances (n,) Å.
    """
    n_atoms = len(positions)
    if n_atoms == 0:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros((0, 3)), np.zeros(0)
    if is_sparse:
        return _sparse_pairs(positions, cell, pbc, cutoff)
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] = find_points_in_spheres(
        positions, positions, cutoff + BOUNDARY, pbc, cell, 1e-8, 1.0
    )
    return found


def are_sparse(
    positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray, n_atoms: np.ndarray, cutoff: float
) -> np.ndarray:
    """Return for which structures the kernel's grid would be far larger than the structure.

    The kernel lays a grid with the spacing of the cutoff over the box around all atoms.

    Args:
        positions: (n_atoms_total, 3), Å, stacked.
        cells: (n_structures, 3, 3), Å.
        pbc: (n_structures, 3) bool.
        n_atoms: (n_structures,), atoms per structure.
        cutoff: Å.

    Returns:
        (n_structures,) bool.
    """
    # Wrapped atoms may sit anywhere in the parallelepiped of the periodic vectors.
    extent = np.abs(cells * pbc[:, :, None]).sum(axis=1)
    if not pbc.all():
        ends = np.cumsum(n_atoms)
        for index in np.flatnonzero(~pbc.all(axis=1) & (n_atoms > 0)).tolist():
            extent[index] += np.ptp(positions[ends[index] - n_atoms[index] : ends[index]], axis=0)
    grid_cells = np.prod(extent / max(cutoff, 1.0) + 3.0, axis=1)
    sparse: np.ndarray = grid_cells > np.maximum(GRID_CELLS_ALWAYS, GRID_CELLS_PER_ATOM * n_atoms)
    return sparse


def _sparse_pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same as `pairs`, with memory in proportion to the atoms (ASE bounds its bins)."""
    from ase.neighborlist import primitive_neighbor_list

    centers, neighbors, distances, images = primitive_neighbor_list(
        "ijdS", pbc.astype(bool), cell, positions, cutoff + BOUNDARY, self_interaction=True
    )
    order = np.argsort(centers, kind="stable")
    return (
        centers[order].astype(np.int64),
        neighbors[order].astype(np.int64),
        images[order].astype(np.float64),
        distances[order],
    )


def within_cutoff(distances: np.ndarray, vectors: np.ndarray, cutoff: float) -> np.ndarray:
    """Return the indices of the candidates that are pairs: not an atom with itself, not too far.

    Args:
        distances: (n,), Å, as the kernel rounded them.
        vectors: (n, 3), Å, exactly antisymmetric; further columns are not looked at.
        cutoff: Å.
    """
    kept = distances > BOUNDARY
    near = np.flatnonzero(distances > cutoff - BOUNDARY)
    if len(near):
        exact = vectors[near, :3]
        kept[near] = np.einsum("ei,ei->e", exact, exact) <= cutoff * cutoff
    return np.flatnonzero(kept)


def check_apart(n_coincident: int, n_atoms: int) -> None:
    """Raise `StructureError` if more candidates have no length than there are atoms."""
    if n_coincident > n_atoms:
        raise StructureError(
            "two atoms sit at the same place (or an atom and its own image): remove the duplicate"
        )
