"""How certain the mean of a few repetitions is."""

from __future__ import annotations

import math

import numpy as np

LEVEL = 0.95  # of all intervals
Interval = tuple[float, float]


def student_interval(values: np.ndarray) -> Interval | None:
    """Return the 95 % interval of a mean by Student's t; None with one value.

    Bootstrap percentiles of so few values are too narrow: of three they are the least and the
    largest at most.

    Args:
        values: (n,) float64, one per seed.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    reach = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1)) / math.sqrt(
        len(values)
    )
    return float(values.mean()) - reach, float(values.mean()) + reach
