"""PaiNN: messages of scalars and vectors that turn with the structure.

Schütt, Unke, Gastegger, "Equivariant message passing for the prediction of tensorial properties
and molecular spectra", arXiv 2102.03150. Equation numbers below are those of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.graphs.radial import bessel_basis, cosine_cutoff, distances
from epitaxy_graphs import painn_messages

ROUNDING = 0.1
"""Norms of vector features are sqrt(|v|^2 + ROUNDING^2). A symmetric site, such as every site of
a perfect crystal, has v = 0, and a bare norm (or the usual 1e-4) makes the energy a cone there:
forces jump within 0.01 Å, relaxations do not converge, phonons are meaningless."""


class PaiNN(nn.Module):
    """A network whose atoms carry scalar features s and vector features v.

    Args:
        width: scalar features per atom, and as many vectors.
        n_layers: pairs of a message and an update block.
        n_radial: Bessel functions that expand the distance.
        cutoff: largest distance of interacting atoms, Å.
        elements: atomic numbers that get an embedding, for example [14]; all 118 if None.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        n_layers: int = 3,
        n_radial: int = 20,
        cutoff: float = 5.0,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or n_layers < 1 or n_radial < 1 or not cutoff > 0:
            raise OptionError(
                f"width={width}, n_layers={n_layers}, n_radial={n_radial}, cutoff={cutoff}: "
                f"expected width >= 2, n_layers >= 1, n_radial >= 1, cutoff > 0"
            )
        self.cutoff = cutoff
        self.n_radial = n_radial
        self.embedding = ElementEmbedding(width, elements)
        self.messages = nn.ModuleList(Message(width, n_radial) for _ in range(n_layers))
        self.updates = nn.ModuleList(Update(width) for _ in range(n_layers))
        self.head = nn.Sequential(nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return the atomic energies (n_atoms,)."""
        energies: Tensor = self.head(self.features(graph)[-1])
        return energies.squeeze(-1)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the scalar features (n_atoms, width) after the embedding and each layer."""
        distance = distances(graph.vectors)
        weight = cosine_cutoff(distance, self.cutoff).unsqueeze(-1)
        # The last function is the constant of the linear layer W(r), under the same cutoff.
        basis = weight * bessel_basis(distance, self.cutoff, self.n_radial)
        basis = torch.cat([basis, weight], dim=-1)  # (n_edges, n_radial + 1)
        directions = graph.vectors / distance.unsqueeze(-1)

        s = self.embedding(graph.numbers)  # (n_atoms, width)
        v = s.new_zeros((s.shape[0], 3, s.shape[1]))  # (n_atoms, 3, width), eq. 6: v starts at zero
        layers = [s]
        for message, update in zip(self.messages, self.updates, strict=True):
            s, v = message(s, v, basis, directions, graph)
            s, v = update(s, v)
            layers.append(s)
        return tuple(layers)

    def compiled(self, graph: GraphBatch) -> Tensor:
        """Return what `forward` returns, to rounding, from compiled message kernels.

        For training and molecular dynamics: several times faster after some compiling. The
        energies can be differentiated by ``graph.vectors`` and then by the parameters, and the
        graph must hold every pair in both directions, as `epitaxy.graphs.builder` makes it.
        """
        energies: Tensor = self.head(self.compiled_features(graph))
        return energies.squeeze(-1)

    def compiled_features(self, graph: GraphBatch) -> Tensor:
        """Return the last of `features`, to rounding, from compiled message kernels."""
        if graph.centers.shape[0] == 0 or graph.numbers.shape[0] < 2:
            return self.features(graph)[-1]
        edges = painn_messages.edges_of(graph, self.cutoff, self.n_radial)
        s = self.embedding(graph.numbers)
        v = s.new_zeros((s.shape[0], 3, s.shape[1]))
        for message, update in zip(self.messages, self.updates, strict=True):
            s, v = message.compiled(s, v, edges)
            s, v = update(s, v)
        return s

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        body = nn.ModuleList([self.messages, self.updates])
        return {"embedding": self.embedding, "body": body, "head": self.head}


class Message(nn.Module):
    """Eqs. 7 and 8: what an atom receives from its neighbors."""

    def __init__(self, width: int, n_radial: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.outwards = nn.Linear(width, 3 * width)
        self.filter = nn.Linear(n_radial, 3 * width)

    def forward(
        self, s: Tensor, v: Tensor, basis: Tensor, directions: Tensor, graph: GraphBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the new features.

        Args:
            s: (n_atoms, width), scalars.
            v: (n_atoms, 3, width), vectors.
            basis: (n_edges, n_radial + 1), radial functions times the cutoff, then the cutoff.
            directions: (n_edges, 3), unit vectors from the center to the neighbor.
            graph: who is whose neighbor.
        """
        weights = torch.cat([self.filter.weight, self.filter.bias.unsqueeze(-1)], dim=-1)
        filters = basis @ weights.T  # (n_edges, 3 * width)
        sent = self.outwards(silu(self.hidden(s)))[graph.neighbors] * filters
        scalar, along_vector, along_edge = sent.chunk(3, dim=-1)
        vector = v[graph.neighbors] * along_vector.unsqueeze(1) + directions.unsqueeze(
            -1
        ) * along_edge.unsqueeze(1)
        return s.index_add(0, graph.centers, scalar), v.index_add(0, graph.centers, vector)

    def compiled(self, s: Tensor, v: Tensor, edges: painn_messages.Edges) -> tuple[Tensor, Tensor]:
        """Return what `forward` returns, from the kernels of `painn_messages`."""
        weights = torch.cat([self.filter.weight, self.filter.bias.unsqueeze(-1)], dim=-1)
        weights = weights.unflatten(0, (3, -1)).transpose(1, 2)  # (3, n_basis, width)
        scalar, along_vector, along_edge = (
            self.outwards(silu(self.hidden(s))).unflatten(-1, (3, -1)).split(1, dim=1)
        )
        sent = torch.cat([scalar, along_vector * v, along_edge], dim=1)  # (n_atoms, 5, width)
        received = painn_messages.message(sent, edges, weights)
        return s + received[:, 0], v + received[:, 1:]


class Update(nn.Module):
    """Eqs. 9 and 10: scalars and vectors of one atom act on each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias=False)  # U and V of the paper
        self.hidden = nn.Linear(2 * width, width)
        self.gates = nn.Linear(width, 3 * width)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new features; shapes as in `Message.forward`."""
        uv, vv = self.mix(v).chunk(2, dim=-1)  # (n_atoms, 3, width) each
        norm = (vv.square().sum(dim=1) + ROUNDING**2).sqrt()
        gates = self.gates(silu(self.hidden(torch.cat([s, norm], dim=-1))))
        a_ss, a_sv, a_vv = gates.chunk(3, dim=-1)
        return s + a_ss + a_sv * (uv * vv).sum(dim=1), v + a_vv.unsqueeze(1) * uv


__all__ = ["PaiNN"]
