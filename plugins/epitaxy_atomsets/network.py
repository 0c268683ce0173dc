"""The network: phi on each member of a set, a readout over the set, rho on what is read.

Chen and Ong, npj Comput. Mater. 7, 173 (2021), eqs. 4-9. Parameters: 13,633 on V0, 14,657 on V1
to V3, 17,697 without transfer (an embedding of 95 x 32 that is learnt).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from epitaxy.errors import OptionError
from epitaxy.heads import Set2Set, mean_pooling

Activation = Literal["relu", "softplus"]
Readout = Literal["mean", "set2set"]


class Sets(NamedTuple):
    """A batch of sets.

    Attributes:
        members: (n_members,) int64, row of an embedding, or (n_members, width), features.
        weights: (n_members,), part of the set that a member is.
        sets: (n_members,) int64, the set that a member belongs to.
        n_sets: number of sets.
    """

    members: Tensor
    weights: Tensor
    sets: Tensor
    n_sets: int


class AtomSetsNetwork(nn.Module):
    """Sets of features -> one number per set.

    Args:
        n_in: width of the features.
        phi: widths of the layers before the readout; none: members are whole structures and
            there is no readout.
        rho: widths of the layers after it.
        activation: "relu" or "softplus".
        readout: "mean" (eq. 4) or "set2set" (eqs. 5-9).
        n_hidden: width of set2set.
        n_steps: T of set2set.
        n_rows: rows of an embedding of elements; 0 for none.
        tune: whether the embedding is learnt.
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        n_in: int,
        *,
        phi: Sequence[int],
        rho: Sequence[int],
        activation: Activation,
        readout: Readout,
        n_hidden: int,
        n_steps: int,
        n_rows: int = 0,
        tune: bool = False,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in (*phi, *rho, n_hidden, n_steps)):
            raise OptionError(
                f"atomsets: phi={tuple(phi)}, rho={tuple(rho)}, n_hidden={n_hidden}, "
                f"n_steps={n_steps}: expected numbers of 1 or more"
            )
        self.register_buffer("center", torch.zeros(n_in))
        self.register_buffer("spread", torch.ones(n_in))
        self.embedding = nn.Embedding(n_rows, n_in) if n_rows else None
        if self.embedding is not None:
            self.embedding.weight.requires_grad_(tune)
        self.phi = _layers(n_in, phi, activation)
        width = phi[-1] if phi else n_in
        self.readout: Set2Set | None = None
        if phi and readout == "set2set":
            self.readout = Set2Set(width, n_steps=n_steps, n_hidden=n_hidden)
            width = 2 * n_hidden
        self.rho = _layers(width, rho, activation)
        self.last = nn.Linear(rho[-1] if rho else width, 1)
        self.has_members = bool(phi)

    def forward(self, batch: Sets) -> Tensor:
        """Return one number per set, (n_sets,)."""
        x = batch.members if self.embedding is None else self.embedding(batch.members)
        x = self.phi((x - self.center) / self.spread)
        if self.has_members:
            read = mean_pooling if self.readout is None else self.readout
            x = read(x, batch.sets, batch.n_sets, batch.weights)
        numbers: Tensor = self.last(self.rho(x)).squeeze(-1)
        return numbers

    def n_parameters(self) -> int:
        """Return how many numbers are learnt."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _layers(n_in: int, widths: Sequence[int], activation: Activation) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise([n_in, *widths]):
        layers += [nn.Linear(before, after), nn.ReLU() if activation == "relu" else nn.Softplus()]
    return nn.Sequential(*layers)
