"""EGNN: messages from distances through a learnt function of both atoms.

Satorras, Hoogeboom, Welling, "E(n) equivariant graph neural networks", arXiv 2102.09844. Equation
numbers below are those of the paper. What is added so that energies make a potential: every
message falls smoothly to zero at the cutoff, and periodic images are neighbors like any other.
Atoms start as an embedding of their element and not, as in HydraGNN's published counts
(`epitaxy_graphs.egnn_hydragnn`), as coordinates: energies would depend on the origin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.graphs.radial import bessel_basis, cosine_cutoff, distances
from epitaxy_graphs import edge_kernels
from epitaxy_graphs.edge_kernels import Edges

FARTHEST_MOVE = 3.0
"""Bound of phi_x (eq. 4), as in the authors' code: 3 tanh(...)."""
SOFTENING = 0.1
"""Å. Lengths of moved vectors, which may vanish, are sqrt(|x|^2 + SOFTENING^2)."""
SMALL_START = 0.001
"""Gain of the last layer of phi_x at the start, as in the authors' code."""


class EGNN(nn.Module):
    """A network whose messages are learnt functions of both atoms and their distance.

    Args:
        width: features per atom, and per message.
        n_layers: rounds of messages.
        n_radial: Bessel functions that expand the distance; 0 for the squared distance alone, in
            units of the squared cutoff, as in the paper.
        cutoff: largest distance of interacting atoms, Å.
        attention: whether each message is weighted by a learnt number between 0 and 1 (eq. 8).
        move_atoms: whether atoms have positions of their own that each round but the last moves
            (eq. 4). The paper leaves it out where, as here, the result is invariant.
        elements: atomic numbers that get an embedding, for example [14]; all 118 if None.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        n_layers: int = 4,
        n_radial: int = 8,
        cutoff: float = 5.0,
        attention: bool = False,
        move_atoms: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or n_layers < 1 or n_radial < 0 or not cutoff > 0:
            raise OptionError(
                f"width={width}, n_layers={n_layers}, n_radial={n_radial}, cutoff={cutoff}: "
                f"expected width >= 2, n_layers >= 1, n_radial >= 0, cutoff > 0"
            )
        self.cutoff, self.width, self.n_radial = cutoff, width, n_radial
        self.embedding = ElementEmbedding(width, elements)
        self.layers = nn.ModuleList(
            Layer(
                width,
                n_radial or 1,
                attention=attention,
                moves=move_atoms and step + 1 < n_layers,
            )
            for step in range(n_layers)
        )
        self.head = self.new_head(1)

    def new_head(self, n_out: int) -> nn.Module:
        """Return the readout of an atom: width -> width -> n_out."""
        return nn.Sequential(
            nn.Linear(self.width, self.width), nn.SiLU(), nn.Linear(self.width, n_out)
        )

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return the atomic energies (n_atoms,)."""
        energies: Tensor = self.head(self.features(graph)[-1])
        return energies.squeeze(-1)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the atom features (n_atoms, width) after the embedding and each layer."""
        vectors = graph.vectors
        # The weight belongs to the true distance, so that a neighbor beyond it never counts.
        weight = cosine_cutoff(distances(vectors), self.cutoff).unsqueeze(-1)
        radial = self.radial(vectors)
        h = self.embedding(graph.numbers)
        layers = [h]
        for layer in self.layers:
            h, moved = layer(h, radial, weight, vectors, graph)
            layers.append(h)
            if moved is not None:
                vectors = vectors + moved[graph.neighbors] - moved[graph.centers]
                radial = self.radial(vectors)
        return tuple(layers)

    def compiled(self, graph: GraphBatch) -> Tensor:
        """Return what `forward` returns, to rounding, from kernels with their own derivatives.

        The energies can be differentiated by ``graph.vectors`` and then by the parameters.
        """
        if graph.centers.shape[0] < 2 or graph.numbers.shape[0] < 2:
            plain: Tensor = self(graph)
            return plain
        vectors = graph.vectors
        weight = cosine_cutoff(distances(vectors), self.cutoff).unsqueeze(-1)
        radial = self.radial(vectors)
        edges = edge_kernels.edges_of(graph)
        h = self.embedding(graph.numbers)
        for layer in self.layers:
            h, moved = layer.compiled(h, radial, weight, vectors, edges)
            if moved is not None:
                by_neighbor = edge_kernels.gather(moved, edges.neighbor)
                vectors = vectors + by_neighbor - edge_kernels.gather(moved, edges.center)
                radial = self.radial(vectors)
                edges = edges._replace(moves=True)
        energies: Tensor = self.head(h)
        return energies.squeeze(-1)

    def radial(self, vectors: Tensor) -> Tensor:
        """Return what messages see of the edge vectors: (n_edges, n_radial or 1)."""
        if self.n_radial == 0:
            return vectors.square().sum(dim=-1, keepdim=True) / self.cutoff**2
        softened = (vectors.square().sum(dim=-1) + SOFTENING**2).sqrt()
        return bessel_basis(softened, self.cutoff, self.n_radial)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        return {"embedding": self.embedding, "body": self.layers, "head": self.head}


class Layer(nn.Module):
    """One equivariant graph convolutional layer (eqs. 3 to 6).

    With w_ij the smooth cutoff of the distance and g_ij what is seen of it:
    m_ij = phi_e(h_i, h_j, g_ij); m_i = sum_j w_ij m_ij; h_i' = h_i + phi_h(h_i, m_i);
    x_i' = x_i + sum_j w_ij (x_i - x_j) / (1 + |x_i - x_j|) phi_x(m_ij) / (1 + sum_j w_ij).
    """

    def __init__(self, width: int, n_radial: int, *, attention: bool, moves: bool) -> None:
        super().__init__()
        self.width = width
        self.pair = nn.Linear(2 * width + n_radial, width)  # phi_e: its first layer,
        self.message = nn.Linear(width, width)  # and its second
        self.update = nn.Sequential(  # phi_h
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.attention = nn.Linear(width, 1) if attention else None
        self.move: nn.ModuleList | None = None  # phi_x
        if moves:
            last = nn.Linear(width, 1, bias=False)
            nn.init.xavier_uniform_(last.weight, gain=SMALL_START)
            self.move = nn.ModuleList([nn.Linear(width, width), last])

    def forward(
        self, h: Tensor, radial: Tensor, weight: Tensor, vectors: Tensor, graph: GraphBatch
    ) -> tuple[Tensor, Tensor | None]:
        """Return the new features, and by how much atoms move (n_atoms, 3), Å, if they do.

        Args:
            h: (n_atoms, width), features.
            radial: (n_edges, n_radial), what is seen of the distances.
            weight: (n_edges, 1), smooth cutoff.
            vectors: (n_edges, 3), Å, from the center to the neighbor.
            graph: who is whose neighbor.
        """
        by_center, by_neighbor, table = self.ends(h, radial.shape[1])
        before = (
            by_center.index_select(0, graph.centers)  # several times faster than by_center[...]
            + by_neighbor.index_select(0, graph.neighbors)
            + radial @ table
        )
        messages = silu(self.message(silu(before)))  # (n_edges, width)
        if self.attention is not None:
            messages = messages * torch.sigmoid(self.attention(messages))
        received = torch.zeros_like(h).index_add(0, graph.centers, weight * messages)
        moved = None
        if self.move is not None:
            pushes = self.pushes(messages, weight, vectors)
            sums = pushes.new_zeros((h.shape[0], 4)).index_add(0, graph.centers, pushes)
            moved = sums[:, :3] / (1 + sums[:, 3:])
        return h + self.update(torch.cat([h, received], dim=-1)), moved

    def compiled(
        self, h: Tensor, radial: Tensor, weight: Tensor, vectors: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor | None]:
        """Return what `forward` returns, from `edge_kernels`."""
        by_center, by_neighbor, table = self.ends(h, radial.shape[1])
        inner = edge_kernels.pair_silu(by_center, by_neighbor, radial, table, edges)
        values, moved = self.message(inner), None
        if self.attention is None:
            received = edge_kernels.silu_sum(values, weight, edges)
        if self.attention is not None or self.move is not None:
            messages = edge_kernels.edge_silu(values)
        if self.attention is not None:
            messages = messages * torch.sigmoid(self.attention(messages))
            received = edge_kernels.add_up(weight * messages, edges.center)
        if self.move is not None:
            pushes = self.pushes(messages, weight, vectors, edge_kernels.edge_silu)
            sums = edge_kernels.add_up(pushes, edges.center)
            moved = sums[:, :3] / (1 + sums[:, 3:])
        return h + self.update(torch.cat([h, received], dim=-1)), moved

    def ends(self, h: Tensor, n_radial: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each end of an edge adds to phi_e, and its table of radial functions.

        The first layer of phi_e is linear in each atom: applied to atoms it costs a tenth.
        """
        weights = self.pair.weight.split([self.width, self.width, n_radial], dim=1)
        center, neighbor, table = weights
        return h @ center.T + self.pair.bias, h @ neighbor.T, table.T

    def pushes(
        self,
        messages: Tensor,
        weight: Tensor,
        vectors: Tensor,
        activation: Callable[[Tensor], Tensor] = silu,
    ) -> Tensor:
        """Return what moves an atom along each edge, and the weight: (n_edges, 4)."""
        assert self.move is not None
        share = torch.tanh(self.move[1](activation(self.move[0](messages))))  # phi_x
        length = vectors.square().sum(dim=-1, keepdim=True).add(SOFTENING**2).sqrt()
        push = -FARTHEST_MOVE * share * vectors / (1 + length)
        return torch.cat([weight * push, weight], dim=-1)


__all__ = ["EGNN"]
