"""HydraGNN's EGNN exactly as published, to be counted and compared; no component uses it.

Lupo Pasini et al., arXiv 2406.12909, Table III (58,404, 14,539,004 and 163,129,004 parameters).
Those counts need four input features per atom, which in the configuration files of that time are
the atomic number and the three Cartesian coordinates. Coordinates as features change with the
origin and the axes, and for a crystal with the choice of image, so the energies are no property of
the structure; forces come from a head of their own, not from the energy; and messages have no
cutoff function, so that an atom that crosses the cutoff makes a jump. `epitaxy_graphs.egnn` has
none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from epitaxy.graphs.batch import GraphBatch
from epitaxy_graphs.egnn import SMALL_START

TABLE_III: dict[str, dict[str, Any]] = {
    "small": {
        "width": 50,
        "n_layers": 3,
        "shared": [50] * 2,
        "energy": [50, 25],
        "forces": [50] * 2,
    },
    "medium": {
        "width": 500,
        "n_layers": 6,
        "shared": [1000] * 2,
        "energy": [1000] * 2,
        "forces": [1000] * 2,
    },
    "large": {
        "width": 2000,
        "n_layers": 6,
        "shared": [1000] * 3,
        "energy": [1000] * 3,
        "forces": [1000] * 3,
    },
}
"""Options of `HydraGNNEGNN` for the three sizes of Table III."""


class HydraGNNEGNN(nn.Module):
    """The network of Table III: an energy per structure, and a vector per atom called force.

    Args:
        width: features per atom.
        n_layers: rounds of messages.
        shared: widths of the layers after the mean over atoms.
        energy: widths of the hidden layers that follow for the energy.
        forces: widths of the hidden layers for the forces, of each atom.
        n_inputs: input features per atom; 4 in the paper: atomic number, x, y, z.
    """

    def __init__(
        self,
        *,
        width: int,
        n_layers: int,
        shared: Sequence[int],
        energy: Sequence[int],
        forces: Sequence[int],
        n_inputs: int = 4,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PublishedLayer(width if step else n_inputs, width, moves=step + 1 < n_layers)
            for step in range(n_layers)
        )
        self.shared = perceptron([width, *shared])
        self.energy = perceptron([shared[-1], *energy, 1])
        self.forces = perceptron([width, *forces, 3])

    def forward(self, inputs: Tensor, graph: GraphBatch) -> tuple[Tensor, Tensor]:
        """Return energies (n_structures,) and forces (n_atoms, 3), in the units of the training.

        Args:
            inputs: (n_atoms, n_inputs).
            graph: structures; the distance of a pair is its edge feature too.
        """
        x, vectors = inputs, graph.vectors
        edge = vectors.norm(dim=-1, keepdim=True)
        for layer in self.layers:
            x, vectors = layer(x, vectors, edge, graph)
            x = relu(x)
        total = x.new_zeros((graph.n_structures, x.shape[1])).index_add(0, graph.structures, x)
        mean = total / graph.n_atoms_per_structure.unsqueeze(-1)
        energy: Tensor = self.energy(relu(self.shared(mean)))
        return energy.squeeze(-1), self.forces(x)


class PublishedLayer(nn.Module):
    """Eqs. 3 to 6 of arXiv 2102.09844 with relu, distances for squares and means for moves."""

    def __init__(self, n_inputs: int, width: int, *, moves: bool) -> None:
        super().__init__()
        self.edge = perceptron([2 * n_inputs + 2, width, width])
        self.node = perceptron([width + n_inputs, width, width])
        self.move: nn.Module | None = None
        if moves:
            last = nn.Linear(width, 1, bias=False)
            nn.init.xavier_uniform_(last.weight, gain=SMALL_START)
            self.move = nn.Sequential(nn.Linear(width, width), nn.ReLU(), last, nn.Tanh())

    def forward(
        self, x: Tensor, vectors: Tensor, edge: Tensor, graph: GraphBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the new features (n_atoms, width) and the new vectors (n_edges, 3)."""
        length = vectors.norm(dim=-1, keepdim=True)
        ends = [x[graph.centers], x[graph.neighbors], length, edge]
        messages = relu(self.edge(torch.cat(ends, dim=-1)))
        received = messages.new_zeros((x.shape[0], messages.shape[1]))
        received = received.index_add(0, graph.centers, messages)
        if self.move is not None:
            push = vectors / (length + 1) * self.move(messages)
            moved = push.new_zeros((x.shape[0], 3)).index_add(0, graph.centers, push)
            count = torch.bincount(graph.centers, minlength=x.shape[0]).clamp_min(1)
            moved = moved / count.unsqueeze(-1)
            vectors = vectors + moved[graph.neighbors] - moved[graph.centers]
        return self.node(torch.cat([x, received], dim=-1)), vectors


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths with relu between them."""
    steps: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        steps += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*steps[:-1])


__all__ = ["TABLE_III", "HydraGNNEGNN"]
