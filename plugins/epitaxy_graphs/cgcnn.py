"""CGCNN: gated convolutions on a crystal graph of nearest neighbors.

Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018), arXiv 1710.10324; equation numbers below are
those of the paper, the normalisations those of its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, softplus

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.nearest import nearest_neighbors
from epitaxy.graphs.radial import distances
from epitaxy.heads import mean_pooling
from epitaxy_graphs.element_features import N_FEATURES, element_features

SPACING = 0.2  # Å, between the Gaussians of the distance, and their width


class CGCNN(nn.Module):
    """A body whose atoms start as physical properties of their elements.

    Args:
        width: features per atom.
        n_layers: convolutions.
        head_width: hidden layer after the mean over atoms.
        n_neighbors: nearest neighbors per atom; shells are kept whole.
        cutoff: largest distance of a neighbor, Å.

    Raises:
        OptionError: an option is out of range.
    """

    has_forces: ClassVar[bool] = False
    gives_energies: ClassVar[bool] = False
    gaussians: Tensor
    properties: Tensor

    def __init__(
        self,
        *,
        width: int = 64,
        n_layers: int = 3,
        head_width: int = 128,
        n_neighbors: int = 12,
        cutoff: float = 8.0,
    ) -> None:
        super().__init__()
        if min(width, n_layers, head_width, n_neighbors) < 1 or not cutoff > SPACING:
            raise OptionError(
                f"width={width}, n_layers={n_layers}, head_width={head_width}, "
                f"n_neighbors={n_neighbors}, cutoff={cutoff}: expected a cutoff above {SPACING} Å "
                f"and 1 or more of the others"
            )
        self.cutoff, self.width, self.n_neighbors = cutoff, width, n_neighbors
        self.head_width = head_width
        n_gaussians = round(cutoff / SPACING) + 1
        self.register_buffer(
            "gaussians", SPACING * torch.arange(n_gaussians, dtype=torch.float64), persistent=False
        )
        table = torch.tensor(element_features())
        self.register_buffer("properties", table, persistent=False)
        self.embedding = nn.Linear(N_FEATURES, width)
        self.layers = nn.ModuleList(Convolution(width, n_gaussians) for _ in range(n_layers))
        self.head = self.new_head(1)

    def new_head(self, n_out: int) -> nn.Module:
        """Return the layers from a structure (n, width) to (n, n_out)."""
        return nn.Sequential(
            nn.Softplus(),
            nn.Linear(self.width, self.head_width),
            nn.Softplus(),
            nn.Linear(self.head_width, n_out),
        )

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return one number per structure, (n_structures,)."""
        numbers: Tensor = self.head(self.structure_features(graph))
        return numbers.squeeze(-1)

    def structure_features(self, graph: GraphBatch) -> Tensor:
        """Return the mean over atoms (n_structures, width), eq. 6."""
        return mean_pooling(self.features(graph)[-1], graph.structures, graph.n_structures)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the atom features (n_atoms, width) after the embedding and each convolution."""
        graph = nearest_neighbors(graph, self.n_neighbors)
        dtype = graph.vectors.dtype
        d = distances(graph.vectors).unsqueeze(-1)
        e = torch.exp(-(((d - self.gaussians.to(dtype)) / SPACING) ** 2))  # (n_edges, n_gaussians)
        h = self.embedding(self.properties[graph.numbers].to(dtype))
        layers = [h]
        for layer in self.layers:
            h = layer(h, e, graph)
            layers.append(h)
        return tuple(layers)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        return {"embedding": self.embedding, "body": self.layers, "head": self.head}


class Convolution(nn.Module):
    """Eq. 5: h_i' = softplus(h_i + sum_j sigmoid(W_f z_ij + b_f) * softplus(W_s z_ij + b_s))."""

    def __init__(self, width: int, n_gaussians: int) -> None:
        super().__init__()
        self.gates = nn.Linear(2 * width + n_gaussians, 2 * width)
        self.norm_messages = Normalisation(2 * width)
        self.norm_sum = Normalisation(width)

    def forward(self, h: Tensor, e: Tensor, graph: GraphBatch) -> Tensor:
        """Return the new features (n_atoms, width)."""
        z = torch.cat([h[graph.centers], h[graph.neighbors], e], dim=-1)
        gate, core = self.norm_messages(self.gates(z)).chunk(2, dim=-1)
        messages = torch.sigmoid(gate) * softplus(core)
        received = torch.zeros_like(h).index_add(0, graph.centers, messages)
        return softplus(h + self.norm_sum(received))


class Normalisation(nn.BatchNorm1d):
    """Batch normalisation that uses its running numbers where a batch has fewer than two rows."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise (n, width)."""
        if self.training and rows.shape[0] > 1:
            normal: Tensor = super().forward(rows)
            return normal
        return batch_norm(
            rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


__all__ = ["CGCNN"]
