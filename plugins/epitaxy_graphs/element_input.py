"""What an atom of an element starts as: a learnt vector, physical properties, or a user's table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from epitaxy.errors import CapabilityError, OptionError
from epitaxy.graphs.embedding import N_ELEMENTS, ElementEmbedding
from epitaxy_graphs.element_features import element_features

ElementInputName = Literal["learnt", "properties"]


class ElementInput(nn.Module):
    """Maps atomic numbers (n,) to features (n, width).

    Args:
        width: features per element.
        kind: "learnt", a row of a table per element, or "properties", a linear layer on 92 physical
            properties (`epitaxy_graphs.element_features`), which also places elements that were
            not trained on.
        vectors: path of a JSON file {symbol: [numbers]} (such as the 200 numbers of matscholar)
            that takes the place of the properties; "" for none.
        bias: whether the linear layer has one.
        elements: atomic numbers that get a learnt row; all 118 if None.

    Raises:
        OptionError: the file cannot be used.
    """

    table: Tensor
    has_row: Tensor

    def __init__(
        self,
        width: int,
        kind: ElementInputName = "properties",
        *,
        vectors: str = "",
        bias: bool = True,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.vectors = vectors
        self.layer: ElementEmbedding | nn.Linear
        self.is_learnt = kind == "learnt" and not vectors
        if self.is_learnt:
            self.layer = ElementEmbedding(width, elements)
            return
        table = read_vectors(vectors) if vectors else np.array(element_features())
        # A file may change or be gone: its numbers are saved with the weights.
        self.register_buffer("table", torch.tensor(table), persistent=bool(vectors))
        has_row = np.abs(table).max(axis=1) > 0
        self.register_buffer("has_row", torch.tensor(has_row), persistent=bool(vectors))
        self.layer = nn.Linear(table.shape[1], width, bias=bias)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the features of each atomic number.

        Raises:
            CapabilityError: the file has no vector for an element.
        """
        if self.is_learnt:
            learnt: Tensor = self.layer(numbers)
            return learnt
        if self.vectors and not bool(self.has_row[numbers].all()):
            from ase.data import chemical_symbols

            missing = sorted(set(numbers[~self.has_row[numbers]].tolist()))
            raise CapabilityError(
                f"element_vectors {self.vectors}: no vector for "
                f"{', '.join(chemical_symbols[z] for z in missing)}: add it, or leave these out"
            )
        given = self.table[numbers].to(next(self.layer.parameters()).dtype)
        features: Tensor = self.layer(given)
        return features


def read_vectors(path: str) -> np.ndarray:
    """Return (119, n) float64 from a JSON file {symbol: [n numbers]}; 0 where there is none.

    Raises:
        OptionError: the file is missing, or is no such table; the message says where.
    """
    from ase.data import atomic_numbers

    form = 'expected JSON such as {"H": [0.1, -0.3], "He": [0.2, 0.5]}'
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"element_vectors: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"element_vectors: {path}: {error}; {form}") from error
    if not isinstance(given, dict) or not given:
        raise OptionError(f"element_vectors: {path} holds no table; {form}")
    n_numbers = (
        len(next(iter(given.values()))) if isinstance(next(iter(given.values())), list) else 0
    )
    table = np.zeros((N_ELEMENTS + 1, n_numbers))
    for symbol, vector in given.items():
        if not 1 <= atomic_numbers.get(symbol, 0) <= N_ELEMENTS:
            raise OptionError(f"element_vectors: {path}: {symbol!r} is no chemical element; {form}")
        try:
            row = np.asarray(vector, dtype=np.float64)
        except (TypeError, ValueError):
            row = np.zeros(0)
        if row.shape != (n_numbers,) or not n_numbers or not np.isfinite(row).all():
            raise OptionError(
                f"element_vectors: {path}: the vector of {symbol} is not {n_numbers or 'some'} "
                f"finite numbers, as that of {next(iter(given))}; {form}"
            )
        table[atomic_numbers[symbol]] = row
    return table


__all__ = ["ElementInput", "ElementInputName", "read_vectors"]
