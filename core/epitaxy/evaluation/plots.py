"""Parity and calibration plots as PNG files; matplotlib is loaded on first use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.errors import EpitaxyError
from epitaxy.quantities import readable_unit

if TYPE_CHECKING:
    from epitaxy.evaluation.calibration import Calibration
    from epitaxy.evaluation.metrics import Compared, Evaluation

# Okabe & Ito's palette, readable with every kind of colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MANY = 3000  # points above which markers become small and translucent


def new_figure(width: float = 5.0, height: float = 4.5, *, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure without a window and its axes (an array when `columns` > 1)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def write_figure(figure: Any, path: Path) -> Path:
    """Write a figure to a PNG file, whole or not at all, and return the path.

    Raises:
        EpitaxyError: the disk refuses to take the file; an earlier one stays.
    """
    side = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(side, format="png")
        side.replace(path)
    except OSError as error:
        raise EpitaxyError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        side.unlink(missing_ok=True)
    return path


def plot_parity(
    evaluation: Evaluation, path: Path, *, targets: Sequence[str] = (), groups: Sequence[str] = ()
) -> Path:
    """Plot predictions against labels, with error bars where the model gives them.

    Args:
        evaluation: the comparison to draw.
        path: PNG file to write.
        targets: which targets, in order; all that were compared if empty.
        groups: (n_structures,) group of each structure; colours the points.
    """
    names = [n for n in (targets or evaluation.compared) if n in evaluation.compared]
    figure, axes = new_figure(4.6, 4.4, columns=len(names))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        draw_parity(axis, evaluation, name, groups=groups)
    return write_figure(figure, path)


def draw_parity(
    axis: Any, evaluation: Evaluation, name: str, *, groups: Sequence[str] = ()
) -> None:
    """Draw the parity plot of one target on a matplotlib axis; arguments as `plot_parity`."""
    errors = evaluation.errors[name]
    _parity_panel(axis, evaluation.compared[name], groups)
    factor, unit = readable_unit(errors.unit)
    axis.set_title(f"{name}: MAE {errors.mae * factor:.3g} {unit}", fontsize=10)
    axis.set_xlabel(f"label ({errors.unit})")
    axis.set_ylabel(f"prediction ({errors.unit})")


def _parity_panel(axis: Any, pair: Compared, groups: Sequence[str]) -> None:
    n_columns = pair.label.reshape(len(pair.label), -1).shape[1]
    label, predicted = pair.label.ravel(), pair.predicted.ravel()
    std = None if pair.std is None else pair.std.ravel()
    structure = np.repeat(pair.structure, n_columns)
    owner = np.asarray(groups, dtype=str)[structure] if len(groups) else np.full(len(label), "")
    many = len(label) > _MANY
    low, high = min(label.min(), predicted.min()), max(label.max(), predicted.max())
    margin = 0.05 * (high - low or 1.0)
    ends = (low - margin, high + margin)
    axis.plot(ends, ends, color="0.6", lw=1, zorder=0)
    for k, value in enumerate(sorted(set(owner.tolist()))):
        rows = owner == value
        axis.errorbar(
            label[rows],
            predicted[rows],
            yerr=None if std is None else std[rows],
            fmt="o",
            ms=1.5 if many else 3.5,
            alpha=0.35 if many else 0.85,
            elinewidth=0.6,
            color=COLORS[k % len(COLORS)],
            label=value,
            rasterized=many,
        )
    if len(groups):
        axis.legend(fontsize=7, frameon=False, markerscale=2)
    axis.set_xlim(ends)
    axis.set_ylim(ends)
    axis.set_aspect("equal")


def plot_calibration(calibration: Mapping[str, Calibration], path: Path) -> Path:
    """Plot root mean square error against predicted std, bin by bin, for each target."""
    figure, axes = new_figure(4.4, 4.2, columns=len(calibration))
    for axis, (name, result) in zip(np.atleast_1d(axes), calibration.items(), strict=True):
        std, error = result.bins.T
        ends = (0.8 * float(result.bins.min()), 1.25 * float(result.bins.max()))
        axis.loglog(ends, ends, color="0.6", lw=1)
        axis.loglog(std, error, "o-", color=COLORS[0], ms=4)
        axis.set_xlabel("predicted std")
        axis.set_ylabel("root mean square error")
        axis.set_title(
            f"{name}: error/std {result.scale:.2g}, rank correlation {result.rank_correlation:.2f}",
            fontsize=9,
        )
    return write_figure(figure, path)
