"""Which elements drive the offset between two datasets."""

from __future__ import annotations

import numpy as np

from epitaxy.composition import parse_formula
from epitaxy.curation.comparison import ElementOffset
from epitaxy.curation.offsets import Estimate, mean_estimate

FEWEST = 10
"""Shared groups with an element that an offset is given for."""


def element_offsets(formulas: np.ndarray, difference: np.ndarray) -> tuple[ElementOffset, ...]:
    """Return the mean difference of each element's groups, the surest contrast first.

    Args:
        formulas: (n,) str, of the shared groups.
        difference: (n,) second minus first.
    """
    from ase.data import chemical_symbols

    n = len(difference)
    members: dict[int, list[int]] = {}
    for row, formula in enumerate(formulas):
        for z in parse_formula(str(formula)):
            members.setdefault(z, []).append(row)
    found = []
    for z, rows in members.items():
        if len(rows) < FEWEST:
            continue
        inside = np.zeros(n, dtype=bool)
        inside[rows] = True
        with_it, without = difference[inside], difference[~inside]
        contrast = _contrast(with_it, without) if len(without) >= FEWEST else None
        found.append(
            ElementOffset(chemical_symbols[z], len(rows), mean_estimate(with_it), contrast)
        )
    return tuple(sorted(found, key=_clarity, reverse=True))


def _contrast(with_it: np.ndarray, without: np.ndarray) -> Estimate:
    """Return the difference of two means with Welch's 95 % interval (Biometrika 34, 28 (1947))."""
    from scipy.stats import t

    errors = [x.var(ddof=1) / len(x) for x in (with_it, without)]
    value, error = float(with_it.mean() - without.mean()), float(np.sqrt(sum(errors)))
    if not error:
        return Estimate(value, value, value)
    freedom = sum(errors) ** 2 / sum(
        e * e / (len(x) - 1) for e, x in zip(errors, (with_it, without), strict=True)
    )
    half = float(t.ppf(0.975, freedom)) * error
    return Estimate(value, value - half, value + half)


def _clarity(element: ElementOffset) -> float:
    """The end of an element's interval that is nearer to no contrast; 0 if it holds zero."""
    found = element.contrast
    if found is None:
        return 0.0
    return max(0.0, abs(found.value) - 0.5 * (found.high - found.low))
