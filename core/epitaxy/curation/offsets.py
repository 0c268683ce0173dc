"""How two series of paired values differ: offset with confidence intervals, spread, slope."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CONFIDENCE_Z = 1.959963984540054  # two-sided 95 % of the normal distribution
MAD_TO_SIGMA = 1.482602218505602
"""Median absolute deviation to standard deviation, for normal noise (Rousseeuw and Croux 1993)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences ``second - first`` over pairs.

    Attributes:
        n: pairs.
        mean: with the interval of normal theory.
        mean_bootstrap: the same mean with the interval of resampled pairs.
        median: with the interval of resampled pairs.
        hodges_lehmann: median of all means of two differences, with the interval of the
            Wilcoxon test (Hodges and Lehmann 1963).
        mean_absolute: mean of |difference|.
        rmse: root mean square difference.
        deviation: standard deviation of the differences.
        mad: median absolute deviation from the median.
        pearson: correlation; None where a side is constant.
        spearman: correlation of ranks.
        slope: of the least-squares line second = intercept + slope * first.
        intercept: of that line.
    """

    n: int
    mean: Estimate
    mean_bootstrap: Estimate
    median: Estimate
    hodges_lehmann: Estimate
    mean_absolute: float
    rmse: float
    deviation: float
    mad: float
    pearson: float | None
    spearman: float | None
    slope: float | None
    intercept: float | None


def paired_statistics(
    first: np.ndarray, second: np.ndarray, *, n_resamples: int = 1000, seed: int = 0
) -> Paired:
    """Return the statistics of ``second - first``.

    Args:
        first: (n,) values, n >= 2.
        second: (n,) values of the same things.
        n_resamples: of the bootstrap (Efron 1979; percentile intervals).
        seed: of the bootstrap.
    """
    from scipy.stats import rankdata

    d = second - first
    n = len(d)
    mean, deviation, median = float(d.mean()), float(d.std(ddof=1)), float(np.median(d))
    means, medians = _resampled(d, n_resamples, np.random.default_rng(seed))
    slope = intercept = pearson = spearman = None
    if np.ptp(first) > 0:
        a, b = first - first.mean(), second - second.mean()
        slope = float(a @ b / (a @ a))
        intercept = float(second.mean() - slope * first.mean())
        if np.ptp(second) > 0:
            pearson = float(a @ b / np.sqrt((a @ a) * (b @ b)))
            spearman = float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
    return Paired(
        n=n,
        mean=mean_estimate(d),
        mean_bootstrap=Estimate(mean, *_interval(means)),
        median=Estimate(median, *_interval(medians)),
        hodges_lehmann=hodges_lehmann(d),
        mean_absolute=float(np.abs(d).mean()),
        rmse=float(np.sqrt((d * d).mean())),
        deviation=deviation,
        mad=float(np.median(np.abs(d - median))),
        pearson=pearson,
        spearman=spearman,
        slope=slope,
        intercept=intercept,
    )


def mean_estimate(differences: np.ndarray) -> Estimate:
    """Return the mean with Student's 95 % interval, (n,) with n >= 2."""
    from scipy.stats import t

    n = len(differences)
    mean = float(differences.mean())
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half)


def hodges_lehmann(differences: np.ndarray) -> Estimate:
    """Return the median of all n (n + 1) / 2 means of two differences, and its interval.

    The means are never listed: those below a value are counted, and the value is found by
    bisection, so a million differences take seconds.

    Source: Hodges and Lehmann, Ann. Math. Stat. 34, 598 (1963); interval: Hollander, Wolfe and
    Chicken, Nonparametric Statistical Methods (2014), eq. 3.39, normal approximation.
    """
    d = np.sort(np.asarray(differences, dtype=np.float64))
    n = len(d)
    total = n * (n + 1) / 2
    half = _CONFIDENCE_Z * np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    wanted = {
        "value": total / 2,
        "low": max(1.0, np.floor(total / 2 - half)),
        "high": min(total, np.ceil(total / 2 + half)),
    }
    found = {name: _walsh_quantile(d, rank) for name, rank in wanted.items()}
    return Estimate(found["value"], found["low"], found["high"])


def _walsh_quantile(d: np.ndarray, rank: float) -> float:
    """Return the smallest x that at least `rank` means of two of the sorted d do not exceed."""
    low, high = float(d[0]), float(d[-1])
    index = np.arange(len(d))
    if _count_not_above(d, index, low) >= rank:
        return low
    tolerance = 1e-13 * max(abs(low), abs(high))
    while high - low > tolerance:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if _count_not_above(d, index, middle) >= rank:
            high = middle
        else:
            low = middle
    return 0.0 if abs(high) <= tolerance else high


def _count_not_above(d: np.ndarray, index: np.ndarray, x: float) -> int:
    """Count the pairs i <= j with (d_i + d_j) / 2 <= x."""
    ends = np.searchsorted(d, 2.0 * x - d, side="right")
    return int(np.maximum(ends - index, 0).sum())


def _resampled(
    d: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return means and medians of resampled differences, one set at a time in memory."""
    means, medians = np.empty(n_resamples), np.empty(n_resamples)
    # In sorted data the median of a resample is where half of its indices lie.
    ordered = np.sort(d)
    low, high = (len(d) - 1) // 2, len(d) // 2
    for k in range(n_resamples):
        chosen = rng.integers(0, len(d), len(d), dtype=np.int32)
        means[k] = ordered[chosen].mean()
        parted = np.partition(chosen, (low, high))
        medians[k] = 0.5 * (ordered[parted[low]] + ordered[parted[high]])
    return means, medians


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
