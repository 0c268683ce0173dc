"""What came out of training on several databases: errors and offsets, with intervals; plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.evaluation.intervals import Interval, student_interval


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of one seed each.

    Attributes:
        by_seed: in the order of the seeds, in the unit of the target.
    """

    by_seed: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.by_seed))

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean over the seeds (Student's t); None with one seed."""
        return student_interval(np.asarray(self.by_seed))

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "mean": self.mean,
            "interval": self.interval and list(self.interval),
            "by_seed": list(self.by_seed),
        }


@dataclass(frozen=True, slots=True)
class CrossResult:
    """What came out.

    Attributes:
        names: of the databases.
        unit: of all numbers.
        errors: (learnt on, tested on) -> mean absolute error.
        offsets: (learnt on, tested on) -> mean of prediction less label.
        flattered: name of the database that was divided in two ways; None if none was.
        ungrouped: error where groups are divided.
        grouped: error where they are not.
    """

    names: tuple[str, ...]
    unit: str
    errors: Mapping[tuple[str, str], Measured]
    offsets: Mapping[tuple[str, str], Measured]
    flattered: str | None = None
    ungrouped: Measured | None = None
    grouped: Measured | None = None

    @property
    def flatters_by(self) -> float | None:
        """Part of the error that dividing groups hides; None if no database was divided so."""
        if self.ungrouped is None or self.grouped is None:
            return None
        return 1 - self.ungrouped.mean / self.grouped.mean

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        pairs = [
            {
                "learnt_on": learnt,
                "tested_on": tested,
                "mae": self.errors[learnt, tested].to_mapping(),
                "offset": self.offsets[learnt, tested].to_mapping(),
                "times_own": self.errors[learnt, tested].mean / self.errors[learnt, learnt].mean,
            }
            for learnt in self.names
            for tested in self.names
        ]
        return {
            "unit": self.unit,
            "pairs": pairs,
            "groups": {
                "dataset": self.flattered,
                "ungrouped_mae": self.ungrouped and self.ungrouped.to_mapping(),
                "grouped_mae": self.grouped and self.grouped.to_mapping(),
                "flatters_by": self.flatters_by,
            },
        }

    def plot(self, path: Path) -> Path:
        """Draw the errors, one group of bars per training set."""
        from epitaxy.evaluation.plots import COLORS, new_figure, write_figure

        figure, axis = new_figure(5.2, 3.8)
        width = 0.8 / len(self.names)
        for k, tested in enumerate(self.names):
            found = [self.errors[learnt, tested] for learnt in self.names]
            means = np.array([one.mean for one in found])
            reach = [one.interval[1] - one.mean if one.interval else 0.0 for one in found]
            places = np.arange(len(self.names)) + (k - (len(self.names) - 1) / 2) * width
            axis.bar(places, means, 0.9 * width, yerr=reach, capsize=3, color=COLORS[k % 7])
            axis.plot([], [], "s", color=COLORS[k % 7], label=f"tested on {tested}")
        axis.set_xticks(range(len(self.names)), [f"learnt on {name}" for name in self.names])
        axis.set_ylabel(f"mean absolute error, {self.unit}")
        figure.legend(loc="outside upper center", ncols=len(self.names), frameon=False, fontsize=9)
        return write_figure(figure, path)
