"""Figures: the matrix with its groups, convergence curves, spectra of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy_dos.spectra import ENERGIES
from epitaxy_dos.study import Study
from epitaxy_dos.table import Spectra

_MOST_LABELS = 48
_MOST_LINES = 130
_MOST_IDS = 40
_LABELS_OF_ONE_POINT = 330
"""Lines of text, one point high, that fit beside the matrix."""
_COLORS = (
    "#1f6f8b",
    "#c8553d",
    "#5a8f3c",
    "#8d5a97",
    "#d9a021",
    "#4a4e69",
    "#2a9d8f",
    "#b56576",
)
_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^v<>P"


def matrix_figure(study: Study) -> Any:
    """Return the matrix as an image, groups separated by lines and named at the axes.

    The outermost setting is named at the left and below, with the thicker lines; the next one
    at the right and above, as in figure 4 of Speckhard et al., Faraday Discuss. 2024
    (doi:10.1039/d4fd00102h).
    """
    from matplotlib.figure import Figure

    n = len(study.ids)
    figure = Figure(figsize=(7.6, 6.4), layout="constrained")
    axes = figure.add_subplot()
    shrunk = len(study.image) < n
    low = float(np.floor(10 * study.image.min()) / 10) if n > 1 else 0.0
    high = float(np.ceil(20 * np.quantile(study.image, 0.999)) / 20) if shrunk else 1.0
    image = axes.imshow(
        study.image,
        cmap="viridis",
        vmin=min(low, high - 0.1),
        vmax=high,
        extent=(0, n, n, 0),
        interpolation="antialiased" if shrunk else "nearest",
    )
    label = "similarity (Tanimoto)" + (f", means of {-(-n // len(study.image))} entries" * shrunk)
    bar = figure.colorbar(image, label=label, shrink=0.85, pad=0.02)
    bar.outline.set_visible(False)
    levels = [study.settings[name] for name in study.group_names]
    for depth in range(min(2, len(levels))):
        bounds, words = _runs(levels[: depth + 1])
        if len(bounds) - 2 <= _MOST_LINES:
            for bound in bounds[1:-1]:
                width = 1.3 if depth == 0 else 0.5
                axes.axhline(bound, color="white", linewidth=width)
                axes.axvline(bound, color="white", linewidth=width)
        if len(words) <= _MOST_LABELS:
            _name(axes, bounds, words, study.group_names[depth], second=bool(depth), n=n)
    if not levels or len(_runs(levels[:1])[1]) > _MOST_LABELS:
        order = [name for name in study.settings if name not in study.group_names]
        said = "entry" + (f", sorted by {', '.join(order)}" if order else "")
        axes.set(xlabel=said, ylabel=said)
        if n <= _MOST_IDS:
            axes.set_xticks(np.arange(n) + 0.5, study.ids, rotation=90, fontsize=7)
            axes.set_yticks(np.arange(n) + 0.5, study.ids, fontsize=7)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def curves_figure(study: Study) -> Any:
    """Return a panel for each parameter: similarity to the best-converged entry."""
    from matplotlib.figure import Figure

    parameters = list(dict.fromkeys(curve.parameter for curve in study.curves))
    figure = Figure(figsize=(5.2 * max(1, len(parameters)), 4.0), layout="constrained")
    for column, parameter in enumerate(parameters):
        axes = figure.add_subplot(1, len(parameters), column + 1)
        chosen = [curve for curve in study.curves if curve.parameter == parameter]
        # Those that lead to a reference by many steps are named; the others would hide them.
        said = sorted(chosen, key=lambda c: (not c.has_reference, -len(c.values)))
        said = said[: len(_COLORS)]
        for curve in chosen:
            if curve not in said:
                axes.plot(curve.values, curve.similarity, color="0.6", linewidth=0.6, alpha=0.6)
        for i, curve in enumerate(c for c in chosen if c in said):
            axes.plot(curve.values, curve.similarity, label=curve.label or None, **_style(i))
        if len(said) < len(chosen):
            axes.plot([], [], color="0.6", linewidth=0.6, label=f"{len(chosen) - len(said)} more")
        values = np.unique(np.concatenate([curve.values for curve in chosen]))
        texts = {v: t for c in chosen for v, t in zip(c.values, c.texts, strict=True)}
        if len(values) > 2 and values[0] > 0 and values[-1] / values[0] > 20:
            axes.set_xscale("log")
        if len(values) <= 12:
            axes.set_xticks(values, [texts[v] for v in values])
            axes.set_xticks([], minor=True)
            if sum(len(texts[v]) for v in values) > 40:
                axes.tick_params(axis="x", rotation=45)
        axes.axhline(study.options.threshold, color="0.4", linewidth=0.8, linestyle=":")
        said_parameter = parameter.replace("_", " ")
        if any(texts[v] != f"{v:g}" and "x" in texts[v] for v in values) and len(values) > 12:
            said_parameter += ", points of the mesh"
        axes.set(xlabel=said_parameter, ylabel="similarity to the best-converged")
        axes.spines[["top", "right"]].set_visible(False)
        if len(chosen) > 1 and any(curve.label for curve in said):
            axes.legend(edgecolor="none", framealpha=0.8, fontsize=7 if len(said) > 6 else 8)
    return figure


def spectra_figure(dataset: Spectra, study: Study, *, n_clusters: int = 6) -> Any:
    """Return the spectrum that is most like its cluster, for the largest clusters."""
    from matplotlib.figure import Figure

    found = study.fingerprints
    energies = ENERGIES[found.target]
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for number in range(min(n_clusters, len(study.clusters.sizes))):
        middle = middle_of(study, number)
        values, _ = dataset.target(found.target, [int(found.rows[middle])])
        size = int(study.clusters.sizes[number])
        label = f"{study.ids[middle]} ({size:,} {'entry' if size == 1 else 'entries'})"
        dos = values[0]
        if found.per == "atom":
            dos = dos / dataset.n_atoms[int(found.rows[middle])]
        axes.plot(energies, dos, label=label, linewidth=1.0, color=_COLORS[number])
    edges = found.grid.edges
    axes.set_xlim(max(edges[0], energies[0]), min(edges[-1], energies[-1]))
    axes.set_ylim(bottom=0)
    unit = "eV" if found.target == "dos" else "1/cm"
    states = "states/eV" + (" per atom" if found.per == "atom" else "")
    axes.set(
        xlabel=f"energy ({unit})" if found.target == "dos" else f"frequency ({unit})",
        ylabel=states if found.target == "dos" else "phonon density of states",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def middle_of(study: Study, cluster: int, *, most: int = 500) -> int:
    """Return the entry of a cluster that is most similar to the others (of the first `most`)."""
    from epitaxy_dos.matrix import similarities

    members = np.nonzero(study.clusters.labels == cluster)[0][:most]
    total = similarities(study.fingerprints, study.fingerprints, rows=members, columns=members)
    return int(members[np.argmax(total.sum(axis=1))])


def save_png(figure: Any, path: Path) -> None:
    """Write a figure at a resolution that shows single entries."""
    figure.savefig(path, format="png", dpi=200, metadata={"Software": None})


def _runs(levels: Sequence[np.ndarray]) -> tuple[list[int], list[str]]:
    """Return the bounds of runs in which all settings stay the same, and the last one's texts."""
    n = len(levels[0])
    changes = np.zeros(n - 1, dtype=bool)
    for texts in levels:
        changes |= texts[1:] != texts[:-1]
    bounds = [0, *(np.nonzero(changes)[0] + 1).tolist(), n]
    return bounds, [str(levels[-1][start]) for start in bounds[:-1]]


def _name(
    axes: Any, bounds: Sequence[int], words: Sequence[str], name: str, *, second: bool, n: int
) -> None:
    size = 9 if len(words) <= 12 else 7 if len(words) <= 26 else 5.5
    middles, words = _apart(bounds, words, n * size / _LABELS_OF_ONE_POINT)
    said = name.replace("_", " ")
    long = max(map(len, words)) * len(words) > 90
    if not second:
        axes.set_yticks(middles, words, fontsize=size)
        axes.set_xticks(middles, words, fontsize=size, rotation=90 if long else 0)
        axes.set(xlabel=said, ylabel=said)
        return
    right, above = axes.secondary_yaxis("right"), axes.secondary_xaxis("top")
    right.set_yticks(middles, words, fontsize=size)
    above.set_xticks(middles, words, fontsize=size, rotation=90 if long else 0)
    right.set_ylabel(said)
    above.set_xlabel(said)
    for axis in (right, above):
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)


def _apart(
    bounds: Sequence[int], words: Sequence[str], distance: float
) -> tuple[list[float], list[str]]:
    """Return the middles and names of runs that can be named side by side, large runs first."""
    middles = [(a + b) / 2 for a, b in pairwise(bounds)]
    sizes = [b - a for a, b in pairwise(bounds)]
    named: list[int] = []
    for i in sorted(range(len(words)), key=lambda i: -sizes[i]):
        if all(abs(middles[i] - middles[j]) >= distance for j in named):
            named.append(i)
    return [middles[i] for i in sorted(named)], [words[i] for i in sorted(named)]


def _style(i: int) -> dict[str, Any]:
    return {
        "color": _COLORS[i % len(_COLORS)],
        "linestyle": _STYLES[i // len(_COLORS) % len(_STYLES)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "markersize": 4,
        "linewidth": 1.2,
    }
