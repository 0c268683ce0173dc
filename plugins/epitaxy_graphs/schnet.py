"""SchNet: continuous-filter convolutions over interatomic distances.

Schütt, Kindermans, Sauceda, Chmiela, Tkatchenko, Müller, "SchNet: A continuous-filter
convolutional neural network for modeling quantum interactions", arXiv 1706.08566. The layout
is that of PyTorch Geometric (same parameters, same count), on our own periodic graphs and with
a cosine cutoff on every filter, so that energies and forces stay continuous.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn.functional import softplus

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.graphs.radial import cosine_cutoff, distances, gaussian_basis


class SchNet(nn.Module):
    """A network of atoms that exchange messages weighted by learnt functions of distance.

    Args:
        width: features per atom.
        n_layers: interaction blocks.
        n_radial: Gaussians that expand the distance.
        cutoff: largest distance of interacting atoms, Å.
        n_filters: features of the convolution; `width` if None.
        elements: atomic numbers that get an embedding, for example [14]; all 118 if None.

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        n_layers: int = 6,
        n_radial: int = 50,
        cutoff: float = 6.0,
        n_filters: int | None = None,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or n_layers < 1 or n_radial < 2 or not cutoff > 0:
            raise OptionError(
                f"width={width}, n_layers={n_layers}, n_radial={n_radial}, cutoff={cutoff}: "
                f"expected width >= 2, n_layers >= 1, n_radial >= 2, cutoff > 0"
            )
        self.cutoff = cutoff
        self.n_radial = n_radial
        self.embedding = ElementEmbedding(width, elements)
        self.interactions = nn.ModuleList(
            Interaction(width, n_filters or width, n_radial) for _ in range(n_layers)
        )
        self.head = nn.Sequential(
            nn.Linear(width, width // 2), ShiftedSoftplus(), nn.Linear(width // 2, 1)
        )
        nn.init.normal_(self.embedding.table.weight)
        for module in [*self.interactions.modules(), *self.head.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return the atomic energies (n_atoms,)."""
        energies: Tensor = self.head(self.features(graph)[-1])
        return energies.squeeze(-1)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the atom features (n_atoms, width) after the embedding and each block."""
        distance = distances(graph.vectors)
        basis = gaussian_basis(distance, self.cutoff, self.n_radial)
        weight = cosine_cutoff(distance, self.cutoff).unsqueeze(-1)
        x = self.embedding(graph.numbers)
        layers = [x]
        for interaction in self.interactions:
            x = x + interaction(x, basis, weight, graph)
            layers.append(x)
        return tuple(layers)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        return {"embedding": self.embedding, "body": self.interactions, "head": self.head}


class Interaction(nn.Module):
    """One interaction block: atom-wise, convolution, atom-wise, nonlinearity, atom-wise (Fig. 2).

    The convolution is eq. 2 of the paper, ``x_i = sum_j x_j * W(r_i - r_j)``.
    """

    def __init__(self, width: int, n_filters: int, n_radial: int) -> None:
        super().__init__()
        self.filter = nn.Sequential(
            nn.Linear(n_radial, n_filters), ShiftedSoftplus(), nn.Linear(n_filters, n_filters)
        )
        self.inwards = nn.Linear(width, n_filters, bias=False)
        self.outwards = nn.Sequential(
            nn.Linear(n_filters, width), ShiftedSoftplus(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor, basis: Tensor, weight: Tensor, graph: GraphBatch) -> Tensor:
        """Return the update (n_atoms, width) of the features.

        Args:
            x: (n_atoms, width), atom features.
            basis: (n_edges, n_radial), expanded distances.
            weight: (n_edges, 1), smooth cutoff.
            graph: who is whose neighbor.
        """
        messages = self.inwards(x)[graph.neighbors] * (self.filter(basis) * weight)
        received = messages.new_zeros((x.shape[0], messages.shape[1]))
        update: Tensor = self.outwards(received.index_add(0, graph.centers, messages))
        return update


class ShiftedSoftplus(nn.Module):
    """``ln(0.5 e^x + 0.5)``: smooth, zero at zero (section 4.2 of the paper)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return softplus(x) - math.log(2.0)


__all__ = ["SchNet"]
