"""Robust lines through the origin, with an error that knows that pairs share frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Line:
    """A robust line through the origin.

    Attributes:
        slope: of y against x.
        error: standard error of the slope.
        explained: part of the weighted squares of y that the line explains.
        n_pairs: number of points.
        n_frames: number of frames that take part in them.
    """

    slope: float
    error: float
    explained: float
    n_pairs: int
    n_frames: int

    def facts(self) -> dict[str, Any]:
        """Return what a `Finding` keeps."""
        return {
            "slope": self.slope,
            "slope_error": self.error,
            "explained": self.explained,
            "n_pairs": self.n_pairs,
        }


def fit_line(y: np.ndarray, x: np.ndarray, rows: np.ndarray) -> Line:
    """Fit y = slope x robustly (Huber 1964); the error is a jackknife over ten sets of frames."""
    slope, weights = _robust_slope(y, x)
    explained = 1 - _ratio((weights * (y - slope * x) ** 2).sum(), (weights * y**2).sum())
    block = rows[:, 0].astype(np.int64) % 10
    without = [_robust_slope(y[block != k], x[block != k])[0] for k in np.unique(block)]
    n = len(without)
    error = float(np.sqrt((n - 1) / n * ((np.array(without) - np.mean(without)) ** 2).sum()))
    return Line(slope, error, explained, len(y), len(np.unique(rows)))


def _robust_slope(y: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray]:
    weights = np.ones_like(y)
    slope = _ratio((x * y).sum(), (x * x).sum())
    for _ in range(50):
        weights = huber_weights(y - slope * x)
        new = _ratio((weights * x * y).sum(), (weights * x * x).sum())
        if abs(new - slope) <= 1e-6 * abs(slope):
            return new, weights
        slope = new
    return slope, weights


def huber_weights(residuals: np.ndarray) -> np.ndarray:
    """Return the weights of Huber's estimator at twice the median absolute deviation."""
    misfit = np.abs(residuals)
    limit = 2.0 * 1.4826 * float(np.median(misfit)) + 1e-12
    return np.asarray(np.minimum(1.0, limit / np.maximum(misfit, 1e-300)))


def _ratio(upper: float, lower: float) -> float:
    return float(upper / lower) if lower > 0 else 0.0
