"""What the experiments have in common: means with intervals, a JSON file and a picture."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def interval(values: Sequence[float], *, n_resamples: int = 2000) -> tuple[float, float, float]:
    """Return the mean and the 95 % bootstrap interval over seeds."""
    array = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    means = array[rng.integers(len(array), size=(n_resamples, len(array)))].mean(axis=1)
    return float(array.mean()), *(float(x) for x in np.quantile(means, [0.025, 0.975]))


def paired_gain(better: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean relative gain over a baseline, seed by seed, with its interval."""
    return interval([1 - b / a for b, a in zip(better, baseline, strict=True)])


def write(path: Path, config: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write what was done and what came out."""
    document = {
        "config": dict(config),
        "results": dict(results),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("epitaxy", "torch", "numpy")},
        },
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def plot(
    path: Path, curves: Mapping[str, Mapping[float, Sequence[float]]], *, x: str, y: str
) -> None:
    """Draw mean and spread over seeds against a size, one line per arm, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for name, points in curves.items():
        sizes = sorted(points)
        means = [interval(points[n]) for n in sizes]
        low = [m - a for m, a, _ in means]
        high = [b - m for m, _, b in means]
        axes.errorbar(sizes, [m for m, _, _ in means], yerr=[low, high], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
