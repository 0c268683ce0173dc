"""Whether a standard deviation describes the error that is really made."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from epitaxy.errors import DataError


@dataclass(frozen=True, slots=True)
class Calibration:
    """How predicted standard deviations compare with errors.

    Attributes:
        n: number of values.
        scale: root mean square error over root mean square std: the factor by which the
            standard deviations fall short on average; 1 is perfect, above 1 overconfident. (The
            mean of (error/std)^2, which is also in use, has no finite expectation for the few
            members of an ensemble and is ruled by values that are zero by symmetry.)
        coverage: share of errors within one and two standard deviations; a normal
            distribution has 0.683 and 0.954.
        rank_correlation: Spearman correlation of std and absolute error: does the model
            know where it is wrong?
        expected_calibration_error: |rmse - rms std| of each bin, averaged over bins of equal
            size, over the rms std of all (after ENCE, Levi et al. 2022, doi 10.3390/s22155540,
            eq. 8, which divides bin by bin and diverges where std vanishes).
        bins: (n_bins, 2), root mean square std and error of each bin, by rising std.
    """

    n: int
    scale: float
    coverage: tuple[float, float]
    rank_correlation: float
    expected_calibration_error: float
    bins: np.ndarray


NORMAL_COVERAGE = tuple(2 * NormalDist().cdf(k) - 1 for k in (1.0, 2.0))


def calibrate(error: np.ndarray, std: np.ndarray, *, n_bins: int = 10) -> Calibration:
    """Compare errors with the standard deviations that were predicted for them.

    Args:
        error: prediction minus label, any shape.
        std: one standard deviation, the same shape; must not be negative.
        n_bins: bins of equal size for `bins` and the expected calibration error.

    Raises:
        DataError: the shapes differ, nothing is given or a standard deviation is negative.
    """
    if error.shape != std.shape or error.size == 0 or np.any(std < 0):
        raise DataError(
            f"cannot compare errors of shape {error.shape} with standard deviations of shape "
            f"{std.shape}: equal, non-empty shapes and no negative values are needed"
        )
    size = np.abs(error).ravel()
    sigma = std.ravel()
    order = np.argsort(sigma, kind="stable")
    chunks = np.array_split(order, min(n_bins, size.size))
    bins = np.array(
        [[np.sqrt(np.mean(sigma[c] ** 2)), np.sqrt(np.mean(size[c] ** 2))] for c in chunks]
    )
    # Members that agree exactly everywhere give no scale.
    overall = float(np.sqrt(np.mean(sigma**2)))
    return Calibration(
        n=size.size,
        scale=float(np.sqrt(np.mean(size**2))) / overall if overall > 0 else float("inf"),
        coverage=(float(np.mean(size <= sigma)), float(np.mean(size <= 2 * sigma))),
        rank_correlation=_spearman(sigma, size),
        expected_calibration_error=float(np.mean(np.abs(bins[:, 1] - bins[:, 0]))) / overall
        if overall > 0
        else float("inf"),
        bins=bins,
    )


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks = rankdata(first), rankdata(second)
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
