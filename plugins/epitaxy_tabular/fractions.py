"""Element fractions of whole datasets, of structures and of formulas alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from epitaxy.composition import TAG, parse_formula
from epitaxy.dataset import Dataset

N_ELEMENTS = 118
_STRUCTURES_AT_ONCE = 50_000


class Fractions(NamedTuple):
    """Which elements each entry holds, as a list of pairs sorted by entry.

    Attributes:
        ptr: (n + 1,) int64; the pairs of entry i are ptr[i] to ptr[i + 1].
        numbers: (n_pairs,) int64, atomic numbers, ascending within an entry.
        fractions: (n_pairs,) float64; those of an entry add up to 1.
    """

    ptr: np.ndarray
    numbers: np.ndarray
    fractions: np.ndarray

    @property
    def entry(self) -> np.ndarray:
        """(n_pairs,) int64, the entry of each pair."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))

    def dense(self) -> np.ndarray:
        """Return (n, 118) float64, fraction of each element by atomic number from 1."""
        table = np.zeros((len(self.ptr) - 1, N_ELEMENTS))
        table[self.entry, self.numbers - 1] = self.fractions
        return table


def element_fractions(dataset: Dataset) -> Fractions:
    """Return the element fractions of every entry.

    A formula counts as it was given in the tag `composition`, with all its digits; a structure
    counts by its atoms.

    Raises:
        EntryError: a formula cannot be read.
    """
    formulas = dataset.tag(TAG) if TAG in dataset.tags else np.zeros(len(dataset), dtype=str)
    counts = np.zeros((len(dataset), N_ELEMENTS + 1))
    from_atoms = (formulas == "").nonzero()[0]
    for start in range(0, len(from_atoms), _STRUCTURES_AT_ONCE):
        rows = from_atoms[start : start + _STRUCTURES_AT_ONCE]
        some = dataset.gather(rows)
        where = np.repeat(np.arange(len(rows)), some.n_atoms) * (N_ELEMENTS + 1) + some.numbers
        counts[rows] = np.bincount(where, minlength=len(rows) * (N_ELEMENTS + 1)).reshape(
            len(rows), N_ELEMENTS + 1
        )
    for row in (formulas != "").nonzero()[0]:
        for number, amount in parse_formula(str(formulas[row])).items():
            counts[row, number] = amount
    entry, numbers = counts.nonzero()
    ptr = np.concatenate([[0], np.cumsum(np.count_nonzero(counts, axis=1))]).astype(np.int64)
    fractions = counts[entry, numbers] / counts.sum(axis=1)[entry]
    return Fractions(ptr, numbers.astype(np.int64), fractions)
