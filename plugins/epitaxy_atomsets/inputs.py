"""What the network reads: elements with fractions, atoms with features, or whole structures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from epitaxy.composition import TAG, parse_formula
from epitaxy.training.batches import ragged_index
from epitaxy_atomsets.network import Sets

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

STATISTICS = ("minimum", "maximum", "range", "mean", "mean absolute deviation", "mode")
_STRUCTURES_AT_ONCE = 50_000
_N_NUMBERS = 119


class Elements(NamedTuple):
    """The elements of each entry, a ragged array.

    Attributes:
        ptr: (n + 1,) int64, where each entry begins.
        numbers: (n_pairs,) int64, atomic numbers.
        fractions: (n_pairs,) float64, of an entry they add up to 1.
    """

    ptr: np.ndarray
    numbers: np.ndarray
    fractions: np.ndarray


def elements_of(dataset: Dataset) -> Elements:
    """Return the elements of every entry: of formulas as they were given, else by atoms.

    Raises:
        EntryError: a formula cannot be read.
    """
    n = len(dataset)
    formulas = dataset.tag(TAG) if TAG in dataset.tags else np.zeros(n, dtype="<U1")
    entries, numbers, amounts = [], [], []
    from_atoms = np.flatnonzero(formulas == "")
    for start in range(0, len(from_atoms), _STRUCTURES_AT_ONCE):
        rows = from_atoms[start : start + _STRUCTURES_AT_ONCE]
        some = dataset.gather(rows)
        pairs = np.repeat(rows, some.n_atoms) * _N_NUMBERS + some.numbers
        found, counts = np.unique(pairs, return_counts=True)
        entries.append(found // _N_NUMBERS)
        numbers.append(found % _N_NUMBERS)
        amounts.append(counts.astype(np.float64))
    with_formula = np.flatnonzero(formulas != "")
    parsed = [parse_formula(str(formulas[row])) for row in with_formula]
    entries.append(np.repeat(with_formula, [len(one) for one in parsed]))
    numbers.append(np.array([z for one in parsed for z in one], dtype=np.int64))
    amounts.append(np.array([x for one in parsed for x in one.values()], dtype=np.float64))
    entry, number, amount = (np.concatenate(x) for x in (entries, numbers, amounts))
    order = np.lexsort((number, entry))
    entry, number, amount = entry[order].astype(np.int64), number[order], amount[order]
    total = np.bincount(entry, amount, minlength=n)
    counts = np.bincount(entry, minlength=n)
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Elements(ptr, number.astype(np.int64), amount / total[entry])


def statistics(elements: Elements, table: np.ndarray) -> np.ndarray:
    """Return `STATISTICS` of the vectors of the elements of each entry, (n, 6 width) float32.

    Mean and deviation are weighted by fractions; the mode is the value of the most frequent
    element, the smallest if several are.
    """
    ptr, fractions = elements.ptr, elements.fractions[:, None]
    x = table[elements.numbers].astype(np.float64)
    if not len(x):
        return np.zeros((0, len(STATISTICS) * table.shape[1]), dtype=np.float32)
    starts, entry = ptr[:-1], np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    low, high = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    mean = np.add.reduceat(fractions * x, starts)
    deviation = np.add.reduceat(fractions * np.abs(x - mean[entry]), starts)
    largest = np.maximum.reduceat(elements.fractions, starts)[entry]
    frequent = (elements.fractions > largest - 1e-9)[:, None]
    mode = np.minimum.reduceat(np.where(frequent, x, np.inf), starts)
    found = np.concatenate([low, high, high - low, mean, deviation, mode], axis=1)
    return found.astype(np.float32)


class Inputs:
    """All sets of a dataset, taken by row numbers.

    Args:
        ptr: (n + 1,) int64, where the members of each entry begin.
        members: (n_members,) int64 or (n_members, width) float32; may be memory-mapped.
        weights: (n_members,), or None for equal ones.
        dtype: of features and weights.
        device: where batches live.
    """

    def __init__(
        self,
        ptr: np.ndarray,
        members: np.ndarray,
        weights: np.ndarray | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.members = members
        self._ptr = torch.from_numpy(np.array(ptr, dtype=np.int64))
        self._dtype, self._device = dtype, device
        is_row = members.ndim == 1
        self._rows = torch.from_numpy(np.array(members)) if is_row else None
        self._weights = None if weights is None else torch.from_numpy(weights).to(dtype)

    def batch(self, rows: np.ndarray) -> Sets:
        """Return the sets of some entries."""
        index = torch.as_tensor(rows)
        places = ragged_index(self._ptr, index)
        counts = self._ptr[index + 1] - self._ptr[index]
        if self._rows is not None:
            members = self._rows[places]
        else:
            members = torch.from_numpy(self.members[places.numpy()]).to(self._dtype)
        if self._weights is None:
            weights = torch.ones(len(places), dtype=self._dtype)
        else:
            weights = self._weights[places]
        owner = torch.repeat_interleave(counts, output_size=len(places))
        return Sets(
            members.to(self._device), weights.to(self._device), owner.to(self._device), len(rows)
        )
