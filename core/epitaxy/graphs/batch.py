"""Many structures as one graph: the arrays that every network reads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GraphBatch(NamedTuple):
    """A packed batch of periodic graphs.

    An edge is a directed pair: atom `centers[e]` receives from its neighbor `neighbors[e]`
    (an image of it), and ``vectors[e] = r_neighbor + image - r_center``. Every pair within
    the cutoff is there in both directions. Edges are sorted by center, so sums over the
    neighbors of an atom read memory in order. All geometry that a network may use comes from
    `vectors`: energies are differentiated with respect to it.

    Attributes:
        numbers: (n_atoms,) int64, atomic numbers.
        centers: (n_edges,) int64, index of the receiving atom, ascending.
        neighbors: (n_edges,) int64, index of the sending atom.
        vectors: (n_edges, 3), Å, from the center to the neighbor's image.
        structures: (n_atoms,) int64, index of the structure that an atom belongs to.
        n_atoms_per_structure: (n_structures,) int64.
        volumes: (n_structures,), Å^3; nan where the structure is not periodic in 3 directions.
        amounts: (n_atoms,) float64, how much of its element in a formula such as "Fe0.98C0.02"
            an atom stands for; None where every atom stands for itself.
    """

    numbers: Tensor
    centers: Tensor
    neighbors: Tensor
    vectors: Tensor
    structures: Tensor
    n_atoms_per_structure: Tensor
    volumes: Tensor
    amounts: Tensor | None = None

    @property
    def n_structures(self) -> int:
        """Number of structures in the batch."""
        n: int = self.n_atoms_per_structure.shape[0]  # no int(): torch.compile would fix it
        return n
