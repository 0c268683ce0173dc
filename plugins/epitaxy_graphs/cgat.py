"""CGAT: attention on a crystal graph that knows neighbors and their order, but no distances.

Schmidt, Pettersson, Verdozzi, Botti, Marques, Sci. Adv. 7, eabi7948 (2021); equation numbers below
are those of the paper. Its code (github.com/hyllios/CGAT) differs in some places; both forms can
be chosen. Not distances but the numbers of the neighbor shells go in, so a structure before its
relaxation gives what it gives after, as long as the order of its neighbors stays.

The code differs from the paper in four more ways, none of which is followed: it sends messages from
an atom to those it counts as neighbors, not the other way (with the edges turned round, its numbers
and ours agree to 1e-15); it splits a shell that the 24th neighbor belongs to; atoms with fewer than
24 neighbors within 18 Å drop their structure; the power of the fractions begins at random.

Size of the paper's setting, which is that of the defaults: 114,440,648 parameters, and 117,599,692
with both updates "released", 3,018,633 of them in the head and 553,023 in the composition part
(with 200 numbers per element). In float32 that is 0.47 GB, with gradients and the two moments of
Adam 1.9 GB. A training batch keeps 13.5 MB per atom in addition ("released": 7.8 MB), measured on
the CPU with five atoms of 24 neighbors per structure: 67 MB (39 MB) per structure, linear in their
number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.nearest import nearest_neighbors, shells
from epitaxy.heads import softmax_per_structure
from epitaxy_graphs.element_input import ElementInput, ElementInputName
from epitaxy_graphs.hypernetwork import Hypernetwork
from epitaxy_graphs.roost import (
    CompositionEncoder,
    ResidualHead,
    compositions_of,
    mlp,
    shifts_of_softmax,
)

HEAD = (1024, 1024, 512, 512, 256, 256, 128)
COMPOSITION_HIDDEN = 256  # hidden layers of the composition part
Form = Literal["paper", "released"]


class CGAT(nn.Module):
    """A body that sees which atoms are neighbors in which order, and the composition.

    It is the choice where geometries are not known well, such as prototypes before relaxation. It
    has no forces.

    Args:
        width: features per atom, and of a structure.
        edge_width: features per edge.
        n_layers: message-passing steps.
        n_heads: attention heads.
        n_neighbors: nearest neighbors per atom; shells are kept whole.
        n_composition_layers: steps of the composition part (ROOST), which guides the pooling.
        node_update: what the weights of the atoms' update depend on: "paper", the change of the
            atom in the step before; "released", a learnt mixture of what it started as and the
            message.
        edge_update: "paper", by the attention over heads, concatenated; "released", by the edge
            alone: the attention of its code is computed for nothing, a quarter of all weights.
        elements_as: what elements start as: "properties" (92 physical ones) or "learnt" vectors.
        element_vectors: path of a JSON file {symbol: [numbers]} to start from instead, such as the
            200 matscholar numbers of the paper; "" for none.
        head_widths: layers of the residual head.
        cutoff: largest distance of a neighbor, Å.
        elements: atomic numbers that get a learnt vector; all 118 if None.

    Raises:
        OptionError: an option is out of range, or the file cannot be used.
    """

    has_forces: ClassVar[bool] = False
    gives_energies: ClassVar[bool] = False

    def __init__(
        self,
        *,
        width: int = 128,
        edge_width: int = 512,
        n_layers: int = 5,
        n_heads: int = 6,
        n_neighbors: int = 24,
        n_composition_layers: int = 3,
        node_update: Form = "paper",
        edge_update: Form = "paper",
        elements_as: ElementInputName = "properties",
        element_vectors: str = "",
        head_widths: Sequence[int] = HEAD,
        cutoff: float = 8.0,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        sizes = (edge_width, n_layers, n_heads, n_neighbors, n_composition_layers, *head_widths)
        if width < 2 or min(sizes) < 1 or not head_widths or not cutoff > 0:
            raise OptionError(
                f"width={width}, edge_width={edge_width}, n_layers={n_layers}, n_heads={n_heads}, "
                f"n_neighbors={n_neighbors}, n_composition_layers={n_composition_layers}, "
                f"head_widths={tuple(head_widths)}, cutoff={cutoff}: expected a width of 2 or "
                f"more, a cutoff above 0 Å and 1 or more of the others"
            )
        self.cutoff, self.width, self.n_neighbors = cutoff, width, n_neighbors
        self.head_widths = tuple(head_widths)
        self.elements_in = ElementInput(
            width, elements_as, vectors=element_vectors, bias=False, elements=elements
        )
        self.shells_in = nn.Embedding(n_neighbors + 1, edge_width)
        self.layers = nn.ModuleList(
            Layer(
                width,
                edge_width,
                n_heads,
                mixes=node_update == "released" and step > 0,
                # Nothing reads the edges after the last step; the code has weights there.
                edge_update=edge_update if edge_update == "released" or step < n_layers - 1 else "",
            )
            for step in range(n_layers)
        )
        self.node_update = node_update
        self.composition = CompositionEncoder(
            width,
            n_layers=n_composition_layers,
            n_heads=1,
            hidden=COMPOSITION_HIDDEN,
            elements_as=elements_as,
            element_vectors=element_vectors,
            elements=elements,
        )
        self.pool = Attention(2 * width, width, width, n_heads, hidden=width)
        self.head = self.new_head(2)

    def new_head(self, n_out: int) -> nn.Module:
        """Return the residual layers from a structure (n, width) to (n, n_out)."""
        return ResidualHead(self.width, self.head_widths, n_out, rezero=True)

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return a mean and the logarithm of its standard deviation, (n_structures, 2)."""
        numbers: Tensor = self.head(self.structure_features(graph))
        return numbers

    def structure_features(self, graph: GraphBatch) -> Tensor:
        """Return atoms pooled under the guidance of the composition (n_structures, width)."""
        h = self.features(graph)[-1]
        context = self.composition(compositions_of(graph))[graph.structures]
        scores, messages = self.pool(torch.cat([h, context], dim=-1), h)
        a = softmax_per_structure(scores, graph.structures, graph.n_structures)
        pooled = messages.new_zeros((graph.n_structures, *messages.shape[1:]))
        return pooled.index_add(0, graph.structures, a * messages).mean(dim=1)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the atom features (n_atoms, width) after the embedding and each step."""
        graph = nearest_neighbors(graph, self.n_neighbors)
        e = self.shells_in(shells(graph))
        h = self.elements_in(graph.numbers)
        layers, change = [h], h
        for layer in self.layers:
            # "released" has h itself in the first step, and what atoms started as in the others.
            conditions = change if self.node_update == "paper" else layers[0]
            change, e = layer(h, e, conditions, graph)
            h = h + change
            layers.append(h)
        return tuple(layers)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        embedding = nn.ModuleList([self.elements_in, self.shells_in])
        body = nn.ModuleList([self.layers, self.composition, self.pool])
        return {"embedding": embedding, "body": body, "head": self.head}

    @property
    def untrained_parameters(self) -> tuple[str, ...]:
        """Names of parameters that are there, as in the code of the paper, but change nothing."""
        unread = [*shifts_of_softmax(self), "pool.scores.out_bias"]
        last = len(self.layers) - 1
        for step, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            unread.append(f"layers.{step}.attention.scores.out_bias")
            if layer.edge_update == "released":
                name = "edge" if step == last else "edge.attention"
                part = layer.get_submodule(name)
                unread += [f"layers.{step}.{name}.{n}" for n, _ in part.named_parameters()]
        return tuple(unread)


class Layer(nn.Module):
    """One step, eqs. 1 and 2: attention over neighbors changes atoms, attention over heads edges.

    Args:
        width: features per atom.
        edge_width: features per edge.
        n_heads: attention heads.
        mixes: whether the update of atoms depends on a mixture of conditions and message.
        edge_update: "paper", "released", or "" for none.
    """

    def __init__(
        self, width: int, edge_width: int, n_heads: int, *, mixes: bool, edge_update: str
    ) -> None:
        super().__init__()
        n_in = 2 * width + edge_width
        self.edge_update = edge_update
        self.attention = Attention(n_in, n_in, width, n_heads)
        self.update = Hypernetwork(width)
        self.mixture = nn.Parameter(torch.rand(1)) if mixes else None
        self.edge: nn.Module | None = None
        if edge_update:
            kind = EdgeUpdate if edge_update == "paper" else ReleasedEdgeUpdate
            self.edge = kind(n_in, edge_width, n_heads)

    def forward(
        self, h: Tensor, e: Tensor, conditions: Tensor, graph: GraphBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the change of atoms (n_atoms, width) and the new edges (n_edges, edge_width).

        Args:
            h: (n_atoms, width).
            e: (n_edges, edge_width).
            conditions: (n_atoms, width), what the weights of the update depend on.
            graph: nearest neighbors.
        """
        z = torch.cat([h[graph.centers], e, h[graph.neighbors]], dim=-1)
        scores, messages = self.attention(z, z)  # (n_edges, n_heads, width)
        a = softmax_per_structure(scores, graph.centers, h.shape[0])
        received = messages.new_zeros((h.shape[0], *messages.shape[1:]))
        received = received.index_add(0, graph.centers, a * messages).mean(dim=1)
        if self.mixture is not None:
            share = self.mixture.clamp(0.0, 1.0)
            conditions = share * conditions + (1 - share) * received
        if self.edge is not None:
            e = e + self.edge(z, e)
        return self.update(received, conditions), e


class Attention(nn.Module):
    """Scores and messages of several heads, one number per channel: vector attention.

    Args:
        n_scores_in: width of what scores are made of.
        n_messages_in: width of what messages are made of.
        n_out: width of scores and messages.
        n_heads: how many of each.
        hidden: width of the hidden layers; two thirds of the input if None.
    """

    def __init__(
        self,
        n_scores_in: int,
        n_messages_in: int,
        n_out: int,
        n_heads: int,
        *,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.scores = Perceptrons(n_scores_in, hidden or int(n_scores_in / 1.5), n_out, n_heads)
        self.messages = Perceptrons(
            n_messages_in, hidden or int(n_messages_in / 1.5), n_out, n_heads
        )

    def forward(self, scored: Tensor, sent: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and messages, each (n, n_heads, n_out)."""
        return self.scores(scored), self.messages(sent)


class Perceptrons(nn.Module):
    """Several perceptrons side by side, with one hidden layer of leaky units each.

    Args:
        n_in: width of the input, which all share.
        hidden: width of each hidden layer.
        n_out: width of each output.
        n_heads: how many.
    """

    def __init__(self, n_in: int, hidden: int, n_out: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads, self.hidden = n_heads, hidden
        self.first = nn.Linear(n_in, n_heads * hidden)
        reach = hidden**-0.5  # as torch.nn.Linear begins
        self.out_weight = nn.Parameter(torch.empty(n_heads, hidden, n_out).uniform_(-reach, reach))
        self.out_bias = nn.Parameter(torch.empty(n_heads, n_out).uniform_(-reach, reach))

    def forward(self, z: Tensor) -> Tensor:
        """Return (n, n_heads, n_out)."""
        hidden = leaky_relu(self.first(z), inplace=True)
        each = hidden.view(z.shape[0], self.n_heads, self.hidden).transpose(
            0, 1
        )  # (n_heads, n, hidden)
        return torch.baddbmm(self.out_bias[:, None], each, self.out_weight).transpose(0, 1)


class EdgeUpdate(nn.Module):
    """Eq. 2: FCNN of all heads side by side, each channel weighed by a softmax over heads."""

    def __init__(self, n_in: int, width: int, n_heads: int) -> None:
        super().__init__()
        self.attention = Attention(n_in, n_in, width, n_heads)
        self.update = mlp(n_heads * width, width, width)

    def forward(self, z: Tensor, e: Tensor) -> Tensor:
        """Return the change of edges (n_edges, width)."""
        scores, messages = self.attention(z, z)  # (n_edges, n_heads, width)
        change: Tensor = self.update((torch.softmax(scores, dim=1) * messages).flatten(1))
        return change


class ReleasedEdgeUpdate(nn.Module):
    """The edge update of the code: a perceptron of the edge; its attention is never read."""

    def __init__(self, n_in: int, width: int, n_heads: int) -> None:
        super().__init__()
        self.attention = Attention(n_in, n_in, width, n_heads)
        self.update = mlp(width, width, width)

    def forward(self, z: Tensor, e: Tensor) -> Tensor:
        """Return the change of edges (n_edges, width)."""
        change: Tensor = self.update(e)
        return change


__all__ = ["CGAT"]
