"""A neighbor list with a skin: built once, reused while the atoms have hardly moved.

The list holds every pair within ``cutoff + skin``. As long as no pair from outside can have
come within the cutoff, the pairs inside the cutoff are found by filtering the list, so the
edges are those of a fresh list. Source: L. Verlet, Phys. Rev. 159, 98 (1967),
doi:10.1103/PhysRev.159.98.

The bound used here also covers a change of the cell, so that cell relaxations and constant
pressure runs reuse the list. With ``cell = cell_built @ F`` and ``r = r_built @ F + u`` a
vector between neighbors is ``v = v_built @ F + u_j - u_i``, hence

    |v_built| <= |F^-1| (|v| + 2 max|u|),

and the list is complete while ``|F^-1| (cutoff + 2 max|u|) <= cutoff + skin`` (|F^-1| is the
largest singular value). For a fixed cell, F = 1, this is the usual "no atom moved more than
half the skin", where a common translation of all atoms does not count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from epitaxy.graphs.neighbors import neighbor_list

_ROUNDING = 1e-9  # Å; a pair at the cutoff contributes nothing, a wrong bound would


class Edges(NamedTuple):
    """The directed pairs within the cutoff, sorted by center.

    Attributes:
        centers: (n_edges,) int64.
        neighbors: (n_edges,) int64.
        vectors: (n_edges, 3), Å, in the dtype that was asked for.
        squared_distances: (n_edges,) float64, Å^2.
    """

    centers: np.ndarray
    neighbors: np.ndarray
    vectors: np.ndarray
    squared_distances: np.ndarray


class VerletList:
    """Gives the edges of one structure after another and rebuilds only when it must.

    Attributes:
        n_builds: how often the neighbor list was built.
        n_reuses: how often it was reused.
    """

    def __init__(self, cutoff: float, *, skin: float, dtype: str = "float64") -> None:
        """Make an empty list.

        Args:
            cutoff: Å.
            skin: Å; 0 builds a fresh list each time.
            dtype: numpy name of the dtype of the vectors that are returned.
        """
        self.cutoff = cutoff
        self.skin = skin
        self.n_builds = 0
        self.n_reuses = 0
        self._dtype = np.dtype(dtype)
        self._positions: np.ndarray | None = None  # (n_atoms, 3), when the list was built
        self._cell = np.zeros((3, 3))
        self._pbc = np.zeros(3, dtype=bool)
        self._centers = np.empty(0, dtype=np.int64)
        self._neighbors = np.empty(0, dtype=np.int64)
        self._images = np.empty((3, 0))  # float64 columns, ready for a product with the cell
        self._shifts = np.empty((3, 0))  # images in Å, for the cell in `_shift_cell`
        self._shift_cell = np.zeros((3, 3))

    def clear(self) -> None:
        """Forget the stored list."""
        self._positions = None

    def edges(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Edges:
        """Return the pairs within the cutoff.

        Args:
            positions: (n_atoms, 3) float64, Å, wrapped or not.
            cell: (3, 3) float64, Å, rows are the lattice vectors.
            pbc: (3,) bool.
        """
        if self.is_valid_for(positions, cell, pbc):
            self.n_reuses += 1
        else:
            self._build(positions, cell, pbc)
        if not np.array_equal(cell, self._shift_cell):
            self._shifts = cell.T @ self._images
            self._shift_cell = cell.copy()
        return self._within_cutoff(positions)

    def is_valid_for(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> bool:
        """Whether the stored list surely holds every pair within the cutoff."""
        built = self._positions
        if (
            built is None
            or self.skin <= 0
            or built.shape != positions.shape
            or not np.array_equal(self._pbc, pbc)
        ):
            return False
        stretch = 1.0
        if np.array_equal(cell, self._cell):
            moved = positions - built
        else:
            inverse = _inverse_deformation(self._cell, cell)
            if inverse is None:
                return False
            stretch = float(np.linalg.norm(inverse, ord=2))
            moved = positions - built @ np.linalg.inv(inverse)
        moved -= moved.mean(axis=0)
        largest = float(np.sqrt(np.einsum("ix,ix->i", moved, moved).max()))
        reach = stretch * (self.cutoff + 2 * largest)
        return reach <= self.cutoff + self.skin - _ROUNDING

    def _build(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
        self.clear()
        found = neighbor_list(positions, cell, pbc, self.cutoff + max(self.skin, 0.0))
        self._centers = np.ascontiguousarray(found.centers, dtype=np.int64)
        self._neighbors = np.ascontiguousarray(found.neighbors, dtype=np.int64)
        self._images = np.ascontiguousarray(np.asarray(found.images).T, dtype=np.float64)
        self._shifts = cell.T @ self._images
        self._shift_cell = cell.copy()
        self._positions, self._cell, self._pbc = positions.copy(), cell.copy(), pbc.copy()
        self.n_builds += 1

    def _within_cutoff(self, positions: np.ndarray) -> Edges:
        # Column by column: half the time of (n_edges, 3) arrays at 512 atoms.
        columns = np.ascontiguousarray(positions.T)
        vectors = []
        squared = np.zeros(len(self._centers))
        for axis in range(3):
            v = columns[axis].take(self._neighbors)
            v -= columns[axis].take(self._centers)
            v += self._shifts[axis]
            squared += v * v
            vectors.append(v)
        kept = np.flatnonzero(squared <= self.cutoff * self.cutoff)
        inside = np.empty((len(kept), 3), dtype=self._dtype)
        for axis in range(3):
            inside[:, axis] = vectors[axis].take(kept)
        return Edges(
            self._centers.take(kept), self._neighbors.take(kept), inside, squared.take(kept)
        )


def _inverse_deformation(built: np.ndarray, cell: np.ndarray) -> np.ndarray | None:
    """F^-1 with ``built = cell @ F^-1``, or None if a cell has no volume."""
    for matrix in (built, cell):
        lengths = np.linalg.norm(matrix, axis=1)
        if not lengths.all() or abs(np.linalg.det(matrix)) < 1e-6 * lengths.prod():
            return None
    return np.asarray(np.linalg.solve(cell, built))
