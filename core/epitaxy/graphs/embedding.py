"""A learnt vector for each chemical element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from epitaxy.errors import OptionError

N_ELEMENTS = 118
"""Hydrogen to oganesson."""


class ElementEmbedding(nn.Module):
    """Maps atomic numbers (n_atoms,) to features (n_atoms, width).

    Args:
        width: features per element.
        elements: atomic numbers that get a row, for example [14] for silicon; all 118 if None.

    Raises:
        OptionError: an atomic number is not between 1 and 118, or none is given.
    """

    row_of_number: Tensor

    def __init__(self, width: int, elements: Sequence[int] | None = None) -> None:
        super().__init__()
        numbers = sorted(set(elements)) if elements is not None else range(1, N_ELEMENTS + 1)
        wrong = [z for z in numbers if not 1 <= z <= N_ELEMENTS]
        if wrong or not numbers:
            raise OptionError(
                f"elements: got {list(elements or [])}; expected at least one atomic number "
                f"between 1 and {N_ELEMENTS}"
            )
        # Numbers without a row point past the table: looking them up is an error, not a guess.
        rows = torch.full((N_ELEMENTS + 1,), len(numbers), dtype=torch.int64)
        rows[list(numbers)] = torch.arange(len(numbers))
        self.register_buffer("row_of_number", rows, persistent=False)
        self.table = nn.Embedding(len(numbers), width)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the features of each atom."""
        features: Tensor = self.table(self.row_of_number[numbers])
        return features
