"""Low-rank adapters: W + (alpha / rank) B A, with W frozen and B, A learnt.

Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685, eq. 3. After
training the product is added to W, so the saved model has its usual shape and speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from epitaxy.errors import CapabilityError, OptionError


class LowRank(nn.Module):
    """The change of one weight matrix.

    Args:
        weight: (n_out, n_in), the matrix to adapt.
        rank: of the change.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        rank = min(rank, n_out, n_in)
        self.down = nn.Parameter(weight.new_empty((rank, n_in)))
        self.up = nn.Parameter(weight.new_zeros((n_out, rank)))  # the change begins at zero
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted matrix."""
        return weight + self.up @ self.down


def add_adapters(module: nn.Module, *, rank: int) -> list[str]:
    """Put an adapter on every linear layer; return the names of the frozen matrices.

    Args:
        module: whose layers to adapt.
        rank: of the change of each matrix.
    """
    for layer in linear_layers(module):
        with torch.random.fork_rng(devices=[]):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return [
        n for n, _ in module.named_parameters() if n.endswith("parametrizations.weight.original")
    ]


def check_rank(modules: Sequence[nn.Module], *, rank: int | None) -> None:
    """Check the rank of the changes of all matrices.

    Args:
        modules: whose linear layers get adapters.
        rank: of the change of each matrix, of a smaller matrix its own; None if not given.

    Raises:
        OptionError: it is below 1, or above what the largest matrix has.
        CapabilityError: there is no linear layer.
    """
    shapes = {tuple(layer.weight.shape) for module in modules for layer in linear_layers(module)}
    if not shapes:
        raise CapabilityError("mode: adapters needs linear layers, and this body has none")
    largest = max(shapes, key=min)
    if rank is not None and not 1 <= rank <= min(largest):
        raise OptionError(
            f"rank is {rank}; allowed: 1 to {min(largest)}, the rank of the largest matrix of the "
            f"body ({largest[0]} x {largest[1]}); mode: full changes all of each matrix"
        )


def merge_adapters(module: nn.Module) -> None:
    """Write the adapted matrices into the layers and take the adapters off."""
    for layer in linear_layers(module):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a module."""
    return [m for m in module.modules() if isinstance(m, nn.Linear)]
