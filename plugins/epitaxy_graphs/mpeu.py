"""MPEU: message passing with edge updates, on a graph of nearest neighbors.

Jørgensen, Jacobsen, Schmidt, arXiv 1806.03146, in the form and with the hyperparameters of Bechtel
et al., arXiv 2309.06348, and Speckhard et al., Faraday Discuss. 2024, doi 10.1039/d4fd00102h.
There are no biases anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.graphs.nearest import nearest_neighbors
from epitaxy.graphs.radial import distances
from epitaxy_graphs.schnet import ShiftedSoftplus

SPACING = 0.1  # Å, delta of the Gaussians


class MPEU(nn.Module):
    """A network that updates edges, then sends messages, then updates atoms.

    Args:
        width: features per atom and edge (C of the paper: 256 for solids, 64 for molecules).
        n_layers: message-passing steps (T).
        n_gaussians: functions exp(-(d - k delta)^2 / delta), delta = 0.1 Å, that an edge starts as.
        n_neighbors: nearest neighbors per atom; shells are kept whole.
        cutoff: largest distance of a neighbor, Å.
        aggregation: of messages at an atom: "mean" (solids) or "sum" (molecules).
        elements: atomic numbers that get an embedding; all 118 if None.

    Raises:
        OptionError: an option is out of range.
    """

    has_forces: ClassVar[bool] = False

    def __init__(
        self,
        *,
        width: int = 256,
        n_layers: int = 3,
        n_gaussians: int = 150,
        n_neighbors: int = 12,
        cutoff: float = 8.0,
        aggregation: Literal["mean", "sum"] = "mean",
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or n_layers < 1 or n_gaussians < 1 or n_neighbors < 1 or not cutoff > 0:
            raise OptionError(
                f"width={width}, n_layers={n_layers}, n_gaussians={n_gaussians}, "
                f"n_neighbors={n_neighbors}, cutoff={cutoff}: expected width >= 2, cutoff > 0, and "
                f"1 or more of the others"
            )
        self.cutoff, self.width, self.n_neighbors = cutoff, width, n_neighbors
        self.n_gaussians = n_gaussians
        self.embedding = ElementEmbedding(width, elements)
        self.layers = nn.ModuleList(
            Layer(width, width if step else n_gaussians, aggregation) for step in range(n_layers)
        )
        self.head = self.new_head(1)

    def new_head(self, n_out: int) -> nn.Module:
        """Return the readout of an atom: C -> C/2 -> n_out."""
        half = self.width // 2
        return nn.Sequential(
            nn.Linear(self.width, half, bias=False),
            ShiftedSoftplus(),
            nn.Linear(half, n_out, bias=False),
        )

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return one number per atom, (n_atoms,)."""
        numbers: Tensor = self.head(self.features(graph)[-1])
        return numbers.squeeze(-1)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the atom features (n_atoms, width) after the embedding and each step."""
        graph = nearest_neighbors(graph, self.n_neighbors)
        d = distances(graph.vectors).unsqueeze(-1)
        centers = SPACING * torch.arange(self.n_gaussians, dtype=d.dtype, device=d.device)
        e = torch.exp(-((d - centers) ** 2) / SPACING)  # (n_edges, n_gaussians)
        h = self.embedding(graph.numbers)
        layers = [h]
        for layer in self.layers:
            h, e = layer(h, e, graph)
            layers.append(h)
        return tuple(layers)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        return {"embedding": self.embedding, "body": self.layers, "head": self.head}


class Layer(nn.Module):
    """One step: edge, message, atom.

    e' = W2 ssp(W1 [h_s, h_r, e]);  m = ssp(W ssp(W e')) * (W h_s);  h_r' = h_r + W ssp(W agg(m)).
    """

    def __init__(self, width: int, edge_width: int, aggregation: str) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.edge = nn.Sequential(
            nn.Linear(2 * width + edge_width, 2 * width, bias=False),
            ShiftedSoftplus(),
            nn.Linear(2 * width, width, bias=False),
        )
        self.gate = nn.Sequential(
            nn.Linear(width, width, bias=False),
            ShiftedSoftplus(),
            nn.Linear(width, width, bias=False),
            ShiftedSoftplus(),
        )
        self.sender = nn.Linear(width, width, bias=False)
        self.update = nn.Sequential(
            nn.Linear(width, width, bias=False),
            ShiftedSoftplus(),
            nn.Linear(width, width, bias=False),
        )

    def forward(self, h: Tensor, e: Tensor, graph: GraphBatch) -> tuple[Tensor, Tensor]:
        """Return the new features of atoms (n_atoms, width) and edges (n_edges, width)."""
        sender = h[graph.neighbors]
        e = self.edge(torch.cat([sender, h[graph.centers], e], dim=-1))
        messages = self.gate(e) * self.sender(sender)
        received = torch.zeros_like(h).index_add(0, graph.centers, messages)
        if self.aggregation == "mean":
            count = torch.bincount(graph.centers, minlength=h.shape[0]).clamp_min(1)
            received = received / count[:, None]
        return h + self.update(received), e


__all__ = ["MPEU"]
