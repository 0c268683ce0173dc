"""ROOST: attention between the elements of a composition; the structure is not looked at.

Goodall and Lee, Nat. Commun. 11, 6280 (2020), arXiv 1910.00617; equation numbers below are those of
the paper. A composition is a complete graph of its elements, weighted by their fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import N_ELEMENTS
from epitaxy.heads import softmax_per_structure
from epitaxy_graphs.element_input import ElementInput, ElementInputName

HEAD = (1024, 512, 256, 128, 64)
"""Widths of the residual head of the paper."""


class Compositions(NamedTuple):
    """The elements of each structure, once each, and all ordered pairs of them.

    Attributes:
        numbers: (n_rows,) int64, atomic numbers.
        structures: (n_rows,) int64, structure of each row, ascending.
        fractions: (n_rows,), adding up to 1 in each structure.
        centers: (n_pairs,) int64, the row that receives.
        neighbors: (n_pairs,) int64, the row that sends: another element of the same structure, or
            the element itself if it is the only one.
        row_of_atom: (n_atoms,) int64.
        n_structures: how many structures there are.
    """

    numbers: Tensor
    structures: Tensor
    fractions: Tensor
    centers: Tensor
    neighbors: Tensor
    row_of_atom: Tensor
    n_structures: int


def compositions_of(graph: GraphBatch) -> Compositions:
    """Return the compositions of a batch; formulas keep their exact fractions."""
    n_structures, dtype = graph.n_structures, graph.vectors.dtype
    keys, row_of_atom = torch.unique(
        graph.structures * (N_ELEMENTS + 1) + graph.numbers, return_inverse=True
    )
    structures, numbers = keys // (N_ELEMENTS + 1), keys % (N_ELEMENTS + 1)
    amounts = graph.amounts
    if amounts is None:
        amounts = torch.ones_like(graph.numbers, dtype=torch.float64)
    total = amounts.new_zeros(keys.shape[0]).index_add(0, row_of_atom, amounts)
    whole = amounts.new_zeros(n_structures).index_add(0, structures, total)
    n_rows = torch.bincount(structures, minlength=n_structures)
    first = (n_rows.cumsum(0) - n_rows)[structures]  # first row of each row's structure
    partners = n_rows[structures]
    centers = torch.repeat_interleave(partners)
    begin = (partners.cumsum(0) - partners)[centers]
    neighbors = first[centers] + torch.arange(centers.shape[0], device=keys.device) - begin
    kept = (centers != neighbors) | (partners[centers] == 1)
    return Compositions(
        numbers,
        structures,
        (total / whole[structures]).to(dtype),
        centers[kept],
        neighbors[kept],
        row_of_atom,
        n_structures,
    )


class CompositionEncoder(nn.Module):
    """From elements and fractions to one vector per composition.

    Args:
        width: features per element, the fraction among them.
        n_layers: message-passing steps.
        n_heads: attention heads, averaged.
        hidden: width of the hidden layer of each perceptron.
        elements_as: what elements start as, see `ElementInput`.
        element_vectors: path of a user's table of element vectors.
        elements: atomic numbers that get a learnt row.
    """

    def __init__(
        self,
        width: int,
        *,
        n_layers: int,
        n_heads: int,
        hidden: int,
        elements_as: ElementInputName,
        element_vectors: str = "",
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = ElementInput(
            width - 1, elements_as, vectors=element_vectors, elements=elements
        )
        self.layers = nn.ModuleList(
            nn.ModuleList(
                WeightedAttention(2 * width, hidden, mlp(2 * width, hidden, width))
                for _ in range(n_heads)
            )
            for _ in range(n_layers)
        )
        self.pool = nn.ModuleList(
            WeightedAttention(width, hidden, nn.Identity()) for _ in range(n_heads)
        )

    def steps(self, rows: Compositions) -> tuple[Tensor, ...]:
        """Return the features (n_rows, width) of elements after the embedding and each step."""
        w = rows.fractions[:, None]
        h = torch.cat([self.embedding(rows.numbers), w], dim=-1)
        found = [h]
        for heads in self.layers:
            z = torch.cat([h[rows.centers], h[rows.neighbors]], dim=-1)
            received = [head(z, w[rows.neighbors], rows.centers, h.shape[0]) for head in heads]
            h = h + torch.stack(received).mean(dim=0)  # eq. 4
            found.append(h)
        return tuple(found)

    def pooled(self, h: Tensor, rows: Compositions) -> Tensor:
        """Return the vectors of compositions (n_structures, width), eq. 5."""
        w = rows.fractions[:, None]
        each = [head(h, w, rows.structures, rows.n_structures) for head in self.pool]
        return torch.stack(each).mean(dim=0)

    def forward(self, rows: Compositions) -> Tensor:
        """Return the vectors of compositions (n_structures, width)."""
        return self.pooled(self.steps(rows)[-1], rows)


class WeightedAttention(nn.Module):
    """sum_j a_j g(z_j) with a_j = w_j^p exp(f(z_j)) / sum_k w_k^p exp(f(z_k)), eqs. 2, 3 and 5.

    The power p of the fractions is 1 in the paper and learnt in its code; here it starts at 1.

    Args:
        n_in: width of z.
        hidden: width of the hidden layer of f.
        message: g.
    """

    def __init__(self, n_in: int, hidden: int, message: nn.Module) -> None:
        super().__init__()
        self.gate = mlp(n_in, hidden, 1)
        self.message = message
        self.power = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, w: Tensor, index: Tensor, n_sets: int) -> Tensor:
        """Return (n_sets, n_out).

        Args:
            z: (n, n_in).
            w: (n, 1), fractions.
            index: (n,) int64, the set that each row belongs to.
            n_sets: how many there are.
        """
        scores = self.gate(z) + self.power * torch.log(w)
        a = softmax_per_structure(scores, index, n_sets)
        messages = a * self.message(z)
        return messages.new_zeros((n_sets, messages.shape[1])).index_add(0, index, messages)


def shifts_of_softmax(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the biases that shift all scores of a softmax alike."""
    return tuple(
        f"{name}.gate.2.bias"
        for name, part in network.named_modules()
        if isinstance(part, WeightedAttention)
    )


def mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    """Return a perceptron with one hidden layer of leaky units."""
    return nn.Sequential(nn.Linear(n_in, hidden), nn.LeakyReLU(), nn.Linear(hidden, n_out))


class ResidualHead(nn.Module):
    """h' = relu(W h + b) + W' h per layer, without W' where the width stays; then a linear layer.

    Args:
        n_in: width of the input.
        hidden: widths of the layers.
        n_out: width of the output.
        rezero: multiply each layer's relu by a learnt number that begins with 0.
    """

    def __init__(
        self, n_in: int, hidden: Sequence[int], n_out: int, *, rezero: bool = False
    ) -> None:
        super().__init__()
        sizes = list(pairwise([n_in, *hidden]))
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in sizes)
        self.straight = nn.ModuleList(
            nn.Linear(before, after, bias=False) if before != after else nn.Identity()
            for before, after in sizes
        )
        self.factors = nn.ParameterList(torch.zeros(1) for _ in sizes) if rezero else None
        self.out = nn.Linear(hidden[-1], n_out)

    def forward(self, h: Tensor) -> Tensor:
        """Return (n, n_out)."""
        for k, (layer, straight) in enumerate(zip(self.layers, self.straight, strict=True)):
            change = torch.relu(layer(h))
            if self.factors is not None:
                change = self.factors[k] * change
            h = change + straight(h)
        numbers: Tensor = self.out(h)
        return numbers


class Roost(nn.Module):
    """A body that sees which elements there are and in what fractions, nothing else.

    Works on formulas without a structure too. What it gives does not depend on the size of the
    cell.

    Args:
        width: features per element, the fraction among them.
        n_layers: message-passing steps.
        n_heads: attention heads, averaged.
        hidden: width of the hidden layer of each perceptron.
        elements_as: what elements start as: "properties" (92 physical ones) or "learnt" vectors.
        element_vectors: path of a JSON file {symbol: [numbers]} to start from instead, such as the
            200 matscholar numbers of the paper; "" for none.
        elements: atomic numbers that get a learnt vector; all 118 if None.

    Raises:
        OptionError: an option is out of range, or the file cannot be used.
    """

    has_forces: ClassVar[bool] = False
    gives_energies: ClassVar[bool] = False
    composition_only: ClassVar[bool] = True
    cutoff: ClassVar[float] = 0.0

    def __init__(
        self,
        *,
        width: int = 64,
        n_layers: int = 3,
        n_heads: int = 3,
        hidden: int = 256,
        elements_as: ElementInputName = "properties",
        element_vectors: str = "",
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or min(n_layers, n_heads, hidden) < 1:
            raise OptionError(
                f"width={width}, n_layers={n_layers}, n_heads={n_heads}, hidden={hidden}: expected "
                f"a width of 2 or more and 1 or more of the others"
            )
        self.width = width
        self.encoder = CompositionEncoder(
            width,
            n_layers=n_layers,
            n_heads=n_heads,
            hidden=hidden,
            elements_as=elements_as,
            element_vectors=element_vectors,
            elements=elements,
        )
        self.head = self.new_head(1)

    @property
    def untrained_parameters(self) -> tuple[str, ...]:
        """Names of parameters that are there, as in the code of the paper, but change nothing."""
        return shifts_of_softmax(self)

    def new_head(self, n_out: int) -> nn.Module:
        """Return the residual layers from a composition (n, width) to (n, n_out)."""
        return ResidualHead(self.width, HEAD, n_out)

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return one number per structure, (n_structures,)."""
        numbers: Tensor = self.head(self.structure_features(graph))
        return numbers.squeeze(-1)

    def structure_features(self, graph: GraphBatch) -> Tensor:
        """Return the vectors of compositions (n_structures, width)."""
        vectors: Tensor = self.encoder(compositions_of(graph))
        return vectors

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the features (n_atoms, width) of each atom's element, after each step."""
        rows = compositions_of(graph)
        return tuple(h[rows.row_of_atom] for h in self.encoder.steps(rows))

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        body = nn.ModuleList([self.encoder.layers, self.encoder.pool])
        return {"embedding": self.encoder.embedding, "body": body, "head": self.head}


__all__ = ["CompositionEncoder", "ResidualHead", "Roost", "compositions_of"]
