"""What a learning curve has found: fits, comparisons, table and plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.errors import DataError
from epitaxy.evaluation.learning_curve import (
    Equivalent,
    Paired,
    Point,
    PowerLaw,
    compare_arms,
    equivalent_rows,
    fit_power_law,
)

FORMAT, VERSION = "epitaxy-learning-curve", 1
ALL = "all"
_BESIDE = 1.012  # ratio of the places of two arms in the plot


@dataclass(frozen=True, slots=True)
class Findings:
    """What the points say about one set of test structures.

    Attributes:
        points: all trained models.
        fits: arm -> power law; arms whose errors have none are missing.
        comparisons: each other arm against the reference, by size and over all sizes.
        equivalents: structures that the reference needs for the errors of each other arm.
    """

    points: tuple[Point, ...]
    fits: Mapping[str, PowerLaw]
    comparisons: tuple[Paired, ...]
    equivalents: tuple[Equivalent, ...]

    @classmethod
    def of(cls, points: Sequence[Point], *, reference: str, extrapolate: bool = False) -> Findings:
        """Fit and compare.

        Args:
            points: of all arms.
            reference: arm that others are compared with.
            extrapolate: see `epitaxy.evaluation.learning_curve.equivalent_rows`.
        """
        arms = list(dict.fromkeys(p.arm for p in points))
        by_arm = {arm: [p for p in points if p.arm == arm] for arm in arms}
        fits = {}
        for arm, own in by_arm.items():
            try:
                fits[arm] = fit_power_law(own)
            except DataError:
                continue  # one size, or an error of zero: the points are shown without a line
        others = [arm for arm in arms if arm != reference]
        comparisons = [c for arm in others for c in compare_arms(by_arm[reference], by_arm[arm])]
        equivalents = [
            e
            for arm in others
            if reference in fits and arm in fits
            for e in equivalent_rows(by_arm[reference], by_arm[arm], extrapolate=extrapolate)
        ]
        return cls(tuple(points), fits, tuple(comparisons), tuple(equivalents))

    def table(self) -> dict[str, dict[int, tuple[float, float, int]]]:
        """Return arm -> size -> mean error, its standard deviation (n - 1) and number of seeds."""
        found: dict[str, dict[int, tuple[float, float, int]]] = {}
        for arm in dict.fromkeys(p.arm for p in self.points):
            for n in sorted({p.n_train for p in self.points if p.arm == arm}):
                e = np.array([p.error for p in self.points if (p.arm, p.n_train) == (arm, n)])
                spread = float(e.std(ddof=1)) if len(e) > 1 else math.nan
                found.setdefault(arm, {})[n] = (float(e.mean()), spread, len(e))
        return found


@dataclass(frozen=True, slots=True)
class CurveResult:
    """A finished learning curve.

    Attributes:
        metric: number on the test set that counts.
        unit: its unit.
        findings: "all", and by parts of the test set where it has some -> what they say.
        numbers: the content of every point's metrics.json.
        facts: digests, config and versions.
    """

    metric: str
    unit: str
    findings: Mapping[str, Findings]
    numbers: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        numbers: Sequence[Mapping[str, Any]],
        *,
        options: Mapping[str, Any],
        configs: Mapping[str, Any],
        facts: Mapping[str, Any],
        versions: Mapping[str, str],
    ) -> CurveResult:
        """Collect what the points have written.

        Args:
            numbers: content of the metrics.json of every point.
            options: the ``learning_curve`` section, complete.
            configs: arm -> the training that it means.
            facts: digests and sizes of the data.
            versions: of packages.

        Raises:
            ConfigError: no point has the metric.
        """
        metric = options["metric"] or _first_metric(numbers)
        target = metric.rpartition("_")[0]
        groups = _groups(numbers, metric)
        findings = {}
        for group in groups:
            points = [
                Point(
                    str(one["arm"]),
                    int(one["n_train"]),
                    int(one["seed"]),
                    _error(one, group, metric),
                )
                for one in numbers
            ]
            findings[group] = Findings.of(
                points, reference=options["reference"], extrapolate=options["extrapolate"]
            )
        unit = str(numbers[0]["units"].get(target, ""))
        return cls(
            metric,
            unit,
            findings,
            tuple(numbers),
            {"options": options, "configs": configs, "data": facts, "versions": versions},
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "metric": self.metric,
            "unit": self.unit,
            "findings": {
                group: {
                    "table": {
                        arm: {
                            str(n): {"mean": mean, "std": _finite(std), "n_seeds": n_seeds}
                            for n, (mean, std, n_seeds) in rows.items()
                        }
                        for arm, rows in found.table().items()
                    },
                    "fits": {
                        arm: {k: _finite(v) for k, v in asdict(fit).items()}
                        for arm, fit in found.fits.items()
                    },
                    "comparisons": [asdict(c) for c in found.comparisons],
                    "equivalents": [asdict(e) for e in found.equivalents],
                }
                for group, found in self.findings.items()
            },
            "points": [dict(one) for one in self.numbers],
            **self.facts,
        }

    def plot(self, path: Path) -> Path:
        """Draw the curves, log against log, with one standard deviation over the seeds."""
        from epitaxy.evaluation.plots import COLORS, new_figure, write_figure
        from epitaxy.quantities import readable_unit

        factor, unit = readable_unit(self.unit)
        figure, axes = new_figure(5.2, 4.2, columns=len(self.findings))
        for axis, (group, found) in zip(np.atleast_1d(axes), self.findings.items(), strict=True):
            for k, (arm, rows) in enumerate(found.table().items()):
                color = COLORS[k % len(COLORS)]
                # A little beside each other, so that bars of equal sizes can be told apart.
                sizes = np.array(list(rows)) * _BESIDE ** (k - (len(found.table()) - 1) / 2)
                means, spreads = np.array([row[:2] for row in rows.values()]).T * factor
                # A bar that reaches zero cannot be drawn on a logarithmic axis.
                low = np.minimum(np.nan_to_num(spreads), 0.9 * means)
                label = arm
                if (fit := found.fits.get(arm)) is not None:
                    label = f"{arm}: slope {fit.slope:.2f}"
                    grid = np.geomspace(*fit.sizes, 50)
                    axis.plot(grid, [fit.error(n) * factor for n in grid], color=color, lw=1.2)
                axis.errorbar(
                    sizes,
                    means,
                    yerr=[low, np.nan_to_num(spreads)],
                    fmt="o",
                    color=color,
                    capsize=3,
                    label=label,
                )
            axis.set_xscale("log")
            axis.set_yscale("log")
            _label_ticks(axis, sorted({p.n_train for p in found.points}))
            axis.set_xlabel("training structures")
            axis.set_ylabel(f"{self.metric}, {unit}" if unit else self.metric)
            if group != ALL:
                axis.set_title(group, fontsize=10)
            axis.legend(frameon=False, fontsize=9)
        return write_figure(figure, path)


def _label_ticks(axis: Any, sizes: Sequence[int]) -> None:
    """Mark the measured sizes, and errors with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _first_metric(numbers: Sequence[Mapping[str, Any]]) -> str:
    found = numbers[0]["metrics"]["test"]
    return str(next(name for name in found if name.endswith("_mae")))


def _groups(numbers: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Return "all", and the two parts of a forward test where all points have them."""
    parts = ("low-test", "high-test")
    has = all(
        metric in one["metrics"]["test"].get("by_group", {}).get(part, {})
        for one in numbers
        for part in parts
    )
    return [ALL, *parts] if has else [ALL]


def _error(one: Mapping[str, Any], group: str, metric: str) -> float:
    from epitaxy.errors import ConfigError

    tested = one["metrics"]["test"]
    found = tested if group == ALL else tested["by_group"][group]
    value = found.get(metric)
    if value is None:
        there = ", ".join(k for k in tested if k.endswith(("_mae", "_rmse")))
        raise ConfigError(
            f"learning_curve: metric {metric!r} is not among the numbers of {one['arm']}: {there}"
        )
    return float(value)


def _finite(value: Any) -> Any:
    """Return nan as None, which JSON knows."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, tuple):
        return [_finite(v) for v in value]
    return value
