"""Heads: from the features of atoms to one target, whatever the body of the network.

Invariant targets come from pooled atom features. Vectors and tensors are sums over edges of a
learnt weight times the direction, or its outer product, so they turn with the structure for any
body whose features are invariant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.radial import bessel_basis, cosine_cutoff, distances
from epitaxy.quantities import Quantity

PoolingName = Literal["mean", "sum", "set2set", "attention", "own"]
Likelihood = Literal["point", "gaussian", "classes"]
Kind = Literal["structure", "atoms", "vector", "tensor"]

N_RADIAL = 8  # radial functions of edge heads
SMALLEST_LOG_STD, LARGEST_LOG_STD = -7.0, 7.0
_VECTORS, _TENSORS = ("forces", "dipole"), ("stress", "polarizability")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOptions:
    """How one target is predicted.

    Attributes:
        pooling: from atoms to a structure: "mean", "sum", "set2set", "attention", or "own", the
            body's own structure features (`structure_features`). None takes "sum" for extensive
            quantities, else "own" where the body has it and "mean" where not. Quantities per
            atom have none.
        hidden: widths of the hidden layers; None takes the head of the paper where the body has
            one (`new_head`), else one layer of 64.
        likelihood: "point"; "gaussian" also predicts one standard deviation and is trained on
            its negative log likelihood; "classes" predicts the probability of 1. None takes
            "classes" for claims (is_metal) and "point" for others.
        weight: in the sum of losses.
    """

    pooling: PoolingName | None = None
    hidden: tuple[int, ...] | None = None
    likelihood: Likelihood | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            OptionError: a value is out of range.
        """
        if any(width < 1 for width in self.hidden or ()) or not self.weight > 0:
            raise OptionError(
                f"head: hidden={self.hidden}, weight={self.weight}: expected widths of 1 or more "
                f"and a weight above 0"
            )

    def likelihood_of(self, quantity: Quantity) -> Likelihood:
        """Return the likelihood for a quantity, with the default filled in."""
        return self.likelihood or ("classes" if quantity.is_claim else "point")

    def pooling_of(self, quantity: Quantity, body: nn.Module) -> PoolingName:
        """Return the pooling for a quantity, with the default filled in."""
        if self.pooling:
            return self.pooling
        own: PoolingName = "own" if hasattr(body, "structure_features") else "mean"
        return "sum" if quantity.extensive else own


def kind_of(quantity: Quantity) -> Kind:
    """Return how a quantity turns with the structure and whether it is per atom."""
    if quantity.name in _VECTORS:
        return "vector"
    if quantity.name in _TENSORS:
        return "tensor"
    return "atoms" if quantity.per == "atom" else "structure"


class AtomFeatures(NamedTuple):
    """What heads read.

    Attributes:
        atoms: (n_atoms, width), features of the last layer; None if no head asked.
        structures: (n_structures, own width), the body's own; None if no head asked.
        graph: the batch.
        cutoff: of the body, Å.
    """

    atoms: Tensor | None
    structures: Tensor | None
    graph: GraphBatch
    cutoff: float


def perceptron(n_in: int, n_out: int, hidden: Sequence[int] | None = None) -> nn.Sequential:
    """Return linear layers with silu between them; one hidden layer of 64 if None."""
    sizes = [n_in, *((64,) if hidden is None else hidden)]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_out))


NewHead = Callable[[int], nn.Module]
"""A body's ``new_head(n_out)``: the paper's layers from (n, width) to (n, n_out)."""


class StructureHead(nn.Module):
    """An invariant target of structures: a perceptron on pooled features.

    With "sum" and "mean" the perceptron acts on each atom before the sum or the mean.

    Args:
        n_in: width of the atom features.
        n_own: width of the body's own structure features; 0 if it has none.
        n_out: numbers per structure.
        options: see `HeadOptions`.
        pooling: how atoms become a structure.
        new_head: makes the body's own layers; None if it has none.
    """

    def __init__(
        self,
        n_in: int,
        n_own: int,
        n_out: int,
        *,
        options: HeadOptions,
        pooling: PoolingName,
        new_head: NewHead | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        n_pooled = {"set2set": 2 * n_in, "own": n_own}.get(pooling, n_in)
        if pooling == "own" and not n_own:
            raise OptionError("pooling 'own': this body has no structure_features; use another")
        # A body with its own readout has its head on top of that, any other on its atoms.
        fits = pooling == "own" if n_own else pooling in ("mean", "sum")
        if options.hidden is None and new_head is not None and fits:
            self.perceptron = new_head(n_out)
        else:
            self.perceptron = perceptron(n_pooled, n_out, options.hidden)
        self.pool: nn.Module | None = None
        if pooling == "set2set":
            self.pool = Set2Set(n_in)
        elif pooling == "attention":
            self.pool = AttentionPooling(n_in)

    def forward(self, features: AtomFeatures) -> Tensor:
        """Return (n_structures, n_out)."""
        graph = features.graph
        if self.pooling == "own":
            assert features.structures is not None
            owned: Tensor = self.perceptron(features.structures)
            return owned
        assert features.atoms is not None
        if self.pool is not None:
            pooled = self.pool(features.atoms, graph.structures, graph.n_structures)
        else:
            each = self.perceptron(features.atoms)
            total = each.new_zeros((graph.n_structures, each.shape[1]))
            total = total.index_add(0, graph.structures, each)
            if self.pooling == "sum":
                return total
            return total / graph.n_atoms_per_structure[:, None]
        found: Tensor = self.perceptron(pooled)
        return found


class AtomHead(nn.Module):
    """An invariant number per atom.

    Args:
        n_in: width of the atom features.
        n_out: numbers per atom.
        options: see `HeadOptions`.
    """

    def __init__(self, n_in: int, n_out: int, *, options: HeadOptions) -> None:
        super().__init__()
        self.perceptron = perceptron(n_in, n_out, options.hidden)

    def forward(self, features: AtomFeatures) -> Tensor:
        """Return (n_atoms, n_out)."""
        assert features.atoms is not None
        found: Tensor = self.perceptron(features.atoms)
        return found


class EdgeHead(nn.Module):
    """Vectors or symmetric tensors that turn with the structure.

    With w_e a learnt number per edge that vanishes at the cutoff and u_e its direction: a vector
    of atom i is sum_e w_e u_e over its edges; a tensor is sum_e w_e u_e (x) u_e + a_i 1.

    Args:
        n_in: width of the atom features.
        kind: "vector" or "tensor".
        per_atom: whether the target is per atom; else atoms are summed (extensive) or averaged.
        extensive: whether the target of a structure is a sum over atoms.
        options: see `HeadOptions`.
    """

    def __init__(
        self, n_in: int, *, kind: Kind, per_atom: bool, extensive: bool, options: HeadOptions
    ) -> None:
        super().__init__()
        self.kind, self.per_atom, self.extensive = kind, per_atom, extensive
        width = (options.hidden or (64,))[0]
        self.center = nn.Linear(n_in, width)
        self.neighbor = nn.Linear(n_in, width, bias=False)
        self.distance = nn.Linear(N_RADIAL, width, bias=False)
        self.weight = nn.Linear(width, 1)
        self.trace = AtomHead(n_in, 1, options=options) if kind == "tensor" else None

    def forward(self, features: AtomFeatures) -> Tensor:
        """Return (n_atoms or n_structures, 3 or 6)."""
        graph, h = features.graph, features.atoms
        assert h is not None
        d = distances(graph.vectors)
        u = graph.vectors / d[:, None]
        hidden = self.center(h)[graph.centers] + self.neighbor(h)[graph.neighbors]
        hidden = silu(hidden + self.distance(bessel_basis(d, features.cutoff, N_RADIAL)))
        weight = self.weight(hidden) * cosine_cutoff(d, features.cutoff)[:, None]  # (n_edges, 1)
        if self.kind == "vector":
            each = weight * u
        else:
            x, y, z = u.unbind(-1)
            each = weight * torch.stack([x * x, y * y, z * z, y * z, x * z, x * y], dim=-1)
        atoms = each.new_zeros((h.shape[0], each.shape[1])).index_add(0, graph.centers, each)
        if self.trace is not None:
            unit = atoms.new_tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
            atoms = atoms + self.trace(features) * unit
        if self.per_atom:
            return atoms
        if self.extensive:
            total = atoms.new_zeros((graph.n_structures, atoms.shape[1]))
            return total.index_add(0, graph.structures, atoms)
        return mean_pooling(atoms, graph.structures, graph.n_structures)


def mean_pooling(
    features: Tensor, structures: Tensor, n_structures: int, weights: Tensor | None = None
) -> Tensor:
    """Return the (weighted) mean of features over the members of each set.

    Args:
        features: (n, width).
        structures: (n,) int64, the set that each row belongs to.
        n_structures: number of sets.
        weights: (n,) or None for equal ones (AtomSets eq. 4).
    """
    if weights is None:
        weights = features.new_ones(features.shape[0])
    total = features.new_zeros((n_structures, features.shape[1]))
    total = total.index_add(0, structures, features * weights[:, None])
    norm = features.new_zeros(n_structures).index_add(0, structures, weights)
    return total / norm.clamp_min(torch.finfo(features.dtype).tiny)[:, None]


class AttentionPooling(nn.Module):
    """A mean with learnt weights, exp(a . x_i) over each set.

    Args:
        width: of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(
        self, features: Tensor, structures: Tensor, n_structures: int, weights: Tensor | None = None
    ) -> Tensor:
        """Return (n_structures, width); arguments as in `mean_pooling`."""
        a = softmax_per_structure(self.score(features)[:, 0], structures, n_structures, weights)
        return mean_pooling(features, structures, n_structures, a)


class Set2Set(nn.Module):
    """A readout that attends to the members of a set several times, independent of their order.

    m_i = W x_i + b (left out without `n_hidden`); then T times: q_t = LSTM(q*_(t-1)),
    e_i = m_i . q_t, a_i = w_i exp(e_i) / sum_j w_j exp(e_j), r_t = sum_i a_i m_i,
    q*_t = [q_t, r_t]. The query q is inside q*, so the LSTM has no other input and its state is
    its cell alone.

    Source: Vinyals, Bengio, Kudlur, arXiv 1511.06391, eqs. 3-7; with weights Chen and Ong, npj
    Comput. Mater. 7, 173 (2021), eqs. 5-9.

    Args:
        width: of the features.
        n_steps: T.
        n_hidden: width of m; that of the features, without W, if None.
    """

    def __init__(self, width: int, *, n_steps: int = 3, n_hidden: int | None = None) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.memory = nn.Identity() if n_hidden is None else nn.Linear(width, n_hidden)
        self.n_hidden = n_hidden or width
        self.gates = nn.Linear(2 * self.n_hidden, 4 * self.n_hidden)

    def forward(
        self, features: Tensor, structures: Tensor, n_structures: int, weights: Tensor | None = None
    ) -> Tensor:
        """Return (n_structures, 2 n_hidden); arguments as in `mean_pooling`."""
        m = self.memory(features)
        q_star = m.new_zeros((n_structures, 2 * self.n_hidden))
        cell = m.new_zeros((n_structures, self.n_hidden))
        for _ in range(self.n_steps):
            write, keep, new, show = self.gates(q_star).chunk(4, dim=-1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(new)
            q = torch.sigmoid(show) * torch.tanh(cell)
            scores = (m * q[structures]).sum(dim=-1)
            a = softmax_per_structure(scores, structures, n_structures, weights)
            r = m.new_zeros((n_structures, self.n_hidden))
            q_star = torch.cat([q, r.index_add(0, structures, a[:, None] * m)], dim=-1)
        return q_star


def softmax_per_structure(
    scores: Tensor, structures: Tensor, n_structures: int, weights: Tensor | None = None
) -> Tensor:
    """Return w_i exp(s_i) / sum_j w_j exp(s_j) over each set, (n,) or (n, k)."""
    shape = (n_structures, *scores.shape[1:])
    index = structures.reshape(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    largest = scores.new_full(shape, -math.inf).scatter_reduce(0, index, scores.detach(), "amax")
    raised = torch.exp(scores - largest[structures])
    if weights is not None:
        raised = raised * weights.reshape(-1, *[1] * (scores.dim() - 1))
    total = raised.new_zeros(shape).index_add(0, structures, raised)
    return raised / total[structures].clamp_min(torch.finfo(scores.dtype).tiny)
