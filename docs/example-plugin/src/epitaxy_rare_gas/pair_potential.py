"""A pair potential whose shape is learnt."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from epitaxy import GraphBatch
from epitaxy.graphs.radial import bessel_basis, cosine_cutoff, distances


class PairPotential(nn.Module):
    """A sum over pairs of smooth functions of the distance, learnt for each pair of elements.

    Args:
        cutoff: largest distance of interacting atoms, Å.
        width: number of functions.
    """

    def __init__(self, *, cutoff: float = 8.5, width: int = 16) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.width = width
        self.embedding = nn.Embedding(119, width)
        self.body = nn.Linear(width, width)
        self.head = nn.Linear(width, 1, bias=False)

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return the atomic energies (n_atoms,)."""
        return self.head(self.features(graph)[-1]).squeeze(-1)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the element of each atom, then its surroundings: (n_atoms, width) each."""
        element = self.embedding(graph.numbers)
        pair = self.body(element[graph.centers] * element[graph.neighbors])  # (n_edges, width)
        r = distances(graph.vectors)
        shape = bessel_basis(r, self.cutoff, self.width) * cosine_cutoff(r, self.cutoff)[:, None]
        return element, torch.zeros_like(element).index_add(0, graph.centers, pair * shape)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning can freeze."""
        return {"embedding": self.embedding, "body": self.body, "head": self.head}
