"""PNA: several aggregations of the neighbors' messages, scaled by how many there are.

Corso, Cavalleri, Beaini, Liò, Veličković, "Principal neighbourhood aggregation for graph nets",
arXiv 2004.05718, with distances as edge features. Two networks with the same parameters:

`PNA` is smooth, so that energies have forces. The neighbors of an atom are a set in which each
counts with the smooth cutoff of its distance, and the atom itself counts once and sends zero. Mean
and standard deviation are those of this weighted set; maximum and minimum, whose derivatives jump
when another neighbor becomes the largest, are replaced by
``log(mean(exp(s m))) / s`` for s = 4 and -4, which lies between the mean and the extreme.

`PublishedPNA` has the aggregators of the paper and no forces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.graphs.radial import bessel_basis, cosine_cutoff, distances
from epitaxy_graphs import edge_kernels, pna_messages
from epitaxy_graphs.pna_messages import SHARPNESS

ROUNDING = 0.1
"""Standard deviations are sqrt(variance + ROUNDING^2): a bare one has a cone at zero."""
N_AGGREGATORS = 4
N_SCALERS = 3


class PNA(nn.Module):
    """A network that hears mean, deviation and soft extremes of its neighbors.

    Args:
        width: features per atom, and per message.
        n_layers: rounds of messages.
        n_radial: Bessel functions that expand the distance.
        cutoff: largest distance of interacting atoms, Å.
        mean_neighbors: sum of the neighbors' weights on an average atom of the training set: an
            atom with as many has the scalers 1. It sets a scale only (delta of eq. 5).
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
        mean_neighbors: float = 8.0,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or n_layers < 1 or n_radial < 1 or not cutoff > 0 or not mean_neighbors > 0:
            raise OptionError(
                f"width={width}, n_layers={n_layers}, n_radial={n_radial}, cutoff={cutoff}, "
                f"mean_neighbors={mean_neighbors}: expected width >= 2, n_layers >= 1, "
                f"n_radial >= 1, cutoff > 0, mean_neighbors > 0"
            )
        self.cutoff, self.width, self.n_radial = cutoff, width, n_radial
        self.mean_neighbors = mean_neighbors
        self.embedding = ElementEmbedding(width, elements)
        self.layers = nn.ModuleList(Layer(width, n_radial) for _ in range(n_layers))
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
        distance = distances(graph.vectors)
        radial = bessel_basis(distance, self.cutoff, self.n_radial)
        weight = cosine_cutoff(distance, self.cutoff).unsqueeze(-1)
        count = self.count(weight, graph)
        x = self.embedding(graph.numbers)
        layers = [x]
        for layer in self.layers:
            messages = layer.messages(x, radial, graph)  # (n_edges, width)
            x = x + layer.update(
                x, self.aggregates(messages, weight, count, graph), self.scalers(count)
            )
            layers.append(x)
        return tuple(layers)

    def compiled(self, graph: GraphBatch) -> Tensor:
        """Return what `forward` returns, to rounding, from kernels with their own derivatives.

        The energies can be differentiated by ``graph.vectors`` and then by the parameters.
        """
        if graph.centers.shape[0] < 2 or graph.numbers.shape[0] < 2:
            plain: Tensor = self(graph)
            return plain
        distance = distances(graph.vectors)
        radial = bessel_basis(distance, self.cutoff, self.n_radial)
        weight = cosine_cutoff(distance, self.cutoff).unsqueeze(-1)
        edges = edge_kernels.edges_of(graph)
        count = 1 + edge_kernels.add_up(weight, edges.center)
        x = self.embedding(graph.numbers)
        for layer in self.layers:
            ends = layer.ends(x)
            received = pna_messages.weighted_sums(ends, radial, weight, edges)
            x = x + layer.update(x, of_sums(received, count), self.scalers(count))
        energies: Tensor = self.head(x)
        return energies.squeeze(-1)

    def count(self, weight: Tensor, graph: GraphBatch) -> Tensor:
        """Return how many atoms each one hears, itself included: (n_atoms, 1)."""
        n_atoms = graph.numbers.shape[0]
        return 1 + weight.new_zeros((n_atoms, 1)).index_add(0, graph.centers, weight)

    def aggregates(
        self, messages: Tensor, weight: Tensor, count: Tensor, graph: GraphBatch
    ) -> Tensor:
        """Return mean, deviation, soft maximum and soft minimum, (n_atoms, 4 * width)."""
        powers = weight * pna_messages.powers(messages)
        zeros = powers.new_zeros((count.shape[0], powers.shape[1]))
        return of_sums(zeros.index_add(0, graph.centers, powers), count)

    def scalers(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return amplification and attenuation (n_atoms, 1), eq. 5 with alpha = 1 and -1.

        With the atom itself among the counted, the logarithm does not vanish on a lone atom.
        """
        ratio = torch.log(1 + count) / math.log(2 + self.mean_neighbors)
        return ratio, 1 / ratio

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        return {"embedding": self.embedding, "body": self.layers, "head": self.head}


class PublishedPNA(PNA):
    """PNA with the aggregators of the paper: mean, deviation, maximum and minimum as they are.

    Energies jump where a neighbor crosses the cutoff, and forces where another neighbor becomes the
    largest: a body for properties, not a potential.

    Args:
        width: features per atom, and per message.
        n_layers: rounds of messages.
        n_radial: Bessel functions that expand the distance.
        cutoff: largest distance of neighbors, Å.
        mean_neighbors: neighbors of an average atom of the training set: an atom with as many has
            the scalers 1. It sets a scale only (delta of eq. 5).
        elements: atomic numbers that get an embedding, for example [14]; all 118 if None.

    Raises:
        OptionError: an option is out of range.
    """

    has_forces: ClassVar[bool] = False

    def __init__(
        self,
        *,
        width: int = 128,
        n_layers: int = 4,
        n_radial: int = 8,
        cutoff: float = 5.0,
        mean_neighbors: float = 30.0,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            width=width,
            n_layers=n_layers,
            n_radial=n_radial,
            cutoff=cutoff,
            mean_neighbors=mean_neighbors,
            elements=elements,
        )

    def compiled(self, graph: GraphBatch) -> Tensor:
        """Return what `forward` returns; there are no kernels for the published aggregators."""
        plain: Tensor = self(graph)
        return plain

    def count(self, weight: Tensor, graph: GraphBatch) -> Tensor:
        """Return the number of neighbors, 1 where there are none: (n_atoms, 1)."""
        degree = torch.bincount(graph.centers, minlength=graph.numbers.shape[0])
        return degree.clamp_min(1).to(weight.dtype).unsqueeze(-1)

    def aggregates(
        self, messages: Tensor, weight: Tensor, count: Tensor, graph: GraphBatch
    ) -> Tensor:
        """Return mean, deviation, maximum and minimum (n_atoms, 4 * width), eqs. 2 to 4."""
        zeros = messages.new_zeros((count.shape[0], messages.shape[1]))
        mean = zeros.index_add(0, graph.centers, messages) / count
        square = zeros.index_add(0, graph.centers, messages.square()) / count
        rows = graph.centers.unsqueeze(-1).expand_as(messages)
        largest, smallest = (
            zeros.scatter_reduce(0, rows, messages, reduction, include_self=False)
            for reduction in ("amax", "amin")
        )
        deviation = ((square - mean.square()).relu() + SMALLEST_VARIANCE).sqrt()
        return torch.cat([mean, deviation, largest, smallest], dim=-1)

    def scalers(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return amplification and attenuation (n_atoms, 1), eq. 5 with alpha = 1 and -1."""
        ratio = torch.log(1 + count) / math.log(1 + self.mean_neighbors)
        return ratio, 1 / ratio


class Layer(nn.Module):
    """One layer (eq. 8): x_i' = x_i + U(x_i, scaled aggregates of m_ij over j).

    m_ij = silu(W [x_i, x_j, g_ij]) * V g_ij with g_ij the radial functions; the product lets a
    message depend on the distance as freely as a continuous filter.
    """

    def __init__(self, width: int, n_radial: int) -> None:
        super().__init__()
        self.width = width
        self.pair = nn.Linear(2 * width + n_radial, width)
        self.filter = nn.Linear(n_radial, width, bias=False)
        self.inwards = nn.Linear((1 + N_AGGREGATORS * N_SCALERS) * width, width)
        self.outwards = nn.Linear(width, width)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what each end adds to a message, and the tables of the radial functions.

        Returns:
            by center and by neighbor, (n_atoms, width) each; inside and outside the activation,
            (n_radial, width) each.
        """
        n_radial = self.filter.weight.shape[1]
        center, neighbor, inside = self.pair.weight.split([self.width, self.width, n_radial], dim=1)
        return (
            x @ center.T + self.pair.bias,
            x @ neighbor.T,
            inside.T,
            self.filter.weight.T,
        )

    def messages(self, x: Tensor, radial: Tensor, graph: GraphBatch) -> Tensor:
        """Return m_ij, (n_edges, width)."""
        by_center, by_neighbor, inside, outside = self.ends(x)
        before = (
            by_center.index_select(0, graph.centers)  # several times faster than by_center[...]
            + by_neighbor.index_select(0, graph.neighbors)
            + radial @ inside
        )
        return silu(before) * (radial @ outside)

    def update(self, x: Tensor, received: Tensor, scalers: tuple[Tensor, Tensor]) -> Tensor:
        """Return what is added to the features, (n_atoms, width).

        Args:
            x: (n_atoms, width), features.
            received: (n_atoms, 4 * width), aggregates.
            scalers: amplification and attenuation, (n_atoms, 1) each.
        """
        amplification, attenuation = scalers
        everything = [x, received, amplification * received, attenuation * received]
        change: Tensor = self.outwards(silu(self.inwards(torch.cat(everything, dim=-1))))
        return change


def of_sums(sums: Tensor, count: Tensor) -> Tensor:
    """Return mean, deviation and soft extremes of weighted sets, (n_atoms, 4 * width).

    Args:
        sums: (n_atoms, 4 * width), weighted sums of `pna_messages.powers` over the neighbors.
        count: (n_atoms, 1), sum of the weights, the atom itself included.
    """
    total, squares, rising, falling = sums.chunk(4, dim=-1)
    mean = total / count
    deviation = (squares / count - mean.square() + ROUNDING**2).sqrt()
    largest = torch.log((1 + rising) / count) / SHARPNESS
    smallest = -torch.log((1 + falling) / count) / SHARPNESS
    return torch.cat([mean, deviation - ROUNDING, largest, smallest], dim=-1)


SMALLEST_VARIANCE = 1e-5
"""Added to the variance under the root, as in the authors' code."""

__all__ = ["PNA", "PublishedPNA"]
