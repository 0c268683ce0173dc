"""Features of compositions: element fractions, and statistics of element properties."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy_tabular.fractions import N_ELEMENTS, Fractions, element_fractions

STATISTICS = ("minimum", "maximum", "range", "mean", "deviation", "mode")
_NORMS = (2, 3, 5)


class ElementFractions:
    """Fraction of each of the 118 elements: the one-hot vectors of the atoms, averaged.

    An element that no training entry holds has a column of zeros there, so that nothing can be
    learnt about it: models refuse such entries (`extrapolates` is false).
    """

    composition_only = True
    extrapolates = False

    def fit(self, dataset: Dataset) -> None:
        """Learn nothing."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each column."""
        from ase.data import chemical_symbols

        return tuple(f"fraction of {s}" for s in chemical_symbols[1 : N_ELEMENTS + 1])

    def matrix(self, dataset: Dataset) -> np.ndarray:
        """Return the features of all entries, (n, 118) float64.

        Raises:
            EntryError: a formula cannot be read.
        """
        return element_fractions(dataset).dense()

    def __call__(self, entry: Entry) -> Mapping[str, np.ndarray]:
        """Return {"fractions": (118,) float64}."""
        return {"fractions": self.matrix(Dataset.from_entries([entry]))[0]}


class ElementStatistics:
    """Statistics over the composition of 27 properties of the elements ("Magpie"-like).

    Of each property: minimum, maximum, range, mean and mean absolute deviation (weighted by
    composition) and the value of the most frequent element (the smallest, if several are).
    Besides these the number of elements and the 2-, 3- and 5-norm of the fractions. Elements
    that the training set lacks have properties too, so that models can extrapolate to them.

    Source: Ward et al., npj Comput. Mater. 2, 16028 (2016), section "Attributes"; the values are
    those of pymatgen and ASE (`epitaxy_tabular.elements`).
    """

    composition_only = True
    extrapolates = True

    def fit(self, dataset: Dataset) -> None:
        """Learn nothing."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each column."""
        from epitaxy_tabular.elements import PROPERTIES

        statistics = [f"{kind} of {name}" for kind in STATISTICS for name in PROPERTIES]
        return (*statistics, "number of elements", *(f"{p}-norm of fractions" for p in _NORMS))

    def matrix(self, dataset: Dataset) -> np.ndarray:
        """Return the features of all entries, (n, 166) float64.

        Raises:
            EntryError: a formula cannot be read.
        """
        return statistics(element_fractions(dataset))

    def __call__(self, entry: Entry) -> Mapping[str, np.ndarray]:
        """Return {"statistics": (166,) float64}."""
        return {"statistics": self.matrix(Dataset.from_entries([entry]))[0]}


def statistics(composition: Fractions) -> np.ndarray:
    """Return the columns of `ElementStatistics`, (n, 166) float64."""
    from epitaxy_tabular.elements import element_table

    n_entries = len(composition.ptr) - 1
    if n_entries == 0:
        return np.zeros((0, len(ElementStatistics().names)))
    starts, entry = composition.ptr[:-1], composition.entry
    weights = composition.fractions[:, None]
    values = element_table()[composition.numbers - 1]  # (n_pairs, n_properties)
    low = np.minimum.reduceat(values, starts)
    high = np.maximum.reduceat(values, starts)
    mean = np.add.reduceat(weights * values, starts)
    deviation = np.add.reduceat(weights * np.abs(values - mean[entry]), starts)
    largest = np.maximum.reduceat(composition.fractions, starts)
    is_mode = np.isclose(composition.fractions, largest[entry])
    mode = np.minimum.reduceat(np.where(is_mode[:, None], values, np.inf), starts)
    norms = [np.add.reduceat(composition.fractions**p, starts) ** (1 / p) for p in _NORMS]
    columns = [low, high, high - low, mean, deviation, mode]
    return np.column_stack([*columns, np.diff(composition.ptr), *norms])
