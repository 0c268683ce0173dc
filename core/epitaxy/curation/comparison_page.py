"""A comparison as one HTML page that needs nothing else, and as a few lines of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from epitaxy.curation.comparison import Comparison, Side
from epitaxy.curation.offsets import MAD_TO_SIGMA, Estimate, Paired
from epitaxy.errors import StoreError
from epitaxy.evaluation.page import as_svg, html_page, html_table
from epitaxy.quantities import readable_unit

_COLORS = ("#1f6f8b", "#c8553d")
_MANY_ELEMENTS = 24
_MANY_ELEMENTS_SAID = 6


def write_comparison(comparison: Comparison, directory: str | Path) -> tuple[Path, Path]:
    """Write comparison.json and comparison.html into a folder and return their paths.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StoreError: the disk refuses the files.
    """
    directory = Path(directory)
    texts = {
        "comparison.json": json.dumps(comparison.to_json(), indent=1, ensure_ascii=False) + "\n",
        "comparison.html": page(comparison),
    }
    from epitaxy.stores.new_file import new_file

    for name, text in texts.items():
        with new_file(directory / name, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")
    return directory / "comparison.json", directory / "comparison.html"


def check_folder(directory: Path, *, overwrite: bool) -> None:
    """Refuse a folder with a comparison, and what is no folder.

    Raises:
        StoreError: one of the two.
    """
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory}: is not a folder; choose another name")
    if (directory / "comparison.json").exists() and not overwrite:
        raise StoreError(
            f"{directory}: there is a comparison already; use --overwrite to replace it"
        )


# --- text ---


def summary_lines(comparison: Comparison) -> list[str]:
    """Return what matters most, as lines for a terminal."""
    first, second = comparison.first, comparison.second
    target = comparison.options["target"]
    lines = [f"warning: {warning}" for warning in comparison.warnings]
    lines += [
        f"{side.name}: {side.n_structures:,} structures in {side.n_groups:,} groups by "
        f"{comparison.options['group']}, {side.n_labelled:,} with {target}"
        for side in (first, second)
    ]
    lines.append(
        f"shared groups: {comparison.n_shared:,} = {comparison.share_of_first:.1%} of "
        f"{first.name}, {comparison.share_of_second:.1%} of {second.name}, Jaccard "
        f"{comparison.jaccard:.1%}"
    )
    paired = comparison.paired
    if paired is None:
        return lines
    factor, unit = readable_unit(comparison.unit)
    lines.append(
        f"{target}, {second.name} minus {first.name}, {comparison.options['value']} of each of "
        f"{paired.n:,} shared groups:"
    )
    lines += [f"  {name}: {text}" for name, text in _paired_rows(paired, factor, unit)]
    if comparison.metals is not None:
        lines.append(f"  {_metals(comparison)}")
    if comparison.gapped is not None:
        gapped = comparison.gapped
        lines.append(
            f"  where both have a gap ({gapped.n:,}): mean {_said(gapped.mean, factor)}, "
            f"Hodges-Lehmann {_said(gapped.hodges_lehmann, factor)}, slope {_maybe(gapped.slope)}"
        )
    clear = [e for e in comparison.elements if e.contrast is not None][:_MANY_ELEMENTS_SAID]
    if clear:
        said = ", ".join(f"{e.symbol} {e.mean.value * factor:+.3g} ({e.n:,})" for e in clear)
        lines.append(f"  elements with the clearest offsets: {said} {unit}")
    for worst in comparison.disagreements[:3]:
        lines.append(
            f"  far apart: {worst.group}: {worst.first * factor:.3g} ({worst.first_id}) and "
            f"{worst.second * factor:.3g} {unit} ({worst.second_id})"
        )
    return lines


def _paired_rows(paired: Paired, factor: float, unit: str) -> list[tuple[str, str]]:
    return [
        ("mean, 95 % interval of normal theory", f"{_said(paired.mean, factor)} {unit}"),
        ("mean, bootstrap over groups", f"{_said(paired.mean_bootstrap, factor)} {unit}"),
        ("median, bootstrap over groups", f"{_said(paired.median, factor)} {unit}"),
        ("Hodges-Lehmann", f"{_said(paired.hodges_lehmann, factor)} {unit}"),
        (
            "spread",
            f"RMSE {paired.rmse * factor:.4g}, mean absolute {paired.mean_absolute * factor:.4g}, "
            f"standard deviation {paired.deviation * factor:.4g}, MAD {paired.mad * factor:.4g} "
            f"(x 1.4826 = {paired.mad * MAD_TO_SIGMA * factor:.4g}) {unit}",
        ),
        (
            "correlation",
            f"Pearson {_maybe(paired.pearson)}, Spearman {_maybe(paired.spearman)}; slope "
            f"{_maybe(paired.slope)}, intercept "
            f"{_maybe(None if paired.intercept is None else paired.intercept * factor)} {unit}",
        ),
    ]


def _metals(comparison: Comparison) -> str:
    metals = comparison.metals or {}
    first, second = comparison.first.name, comparison.second.name
    return (
        f"metals on both sides {metals['both_metal']:,}, only in {first} "
        f"{metals['only_first_metal']:,}, only in {second} {metals['only_second_metal']:,}; gap on "
        f"both sides {metals['both_gapped']:,}"
    )


def _said(estimate: Estimate, factor: float) -> str:
    low, high = estimate.low * factor, estimate.high * factor
    return f"{estimate.value * factor:+.4g} [{low:+.4g}, {high:+.4g}]"


def _maybe(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


# --- page ---


def page(comparison: Comparison) -> str:
    """Return the page as HTML with its figures inside."""
    first, second = escape(comparison.first.name), escape(comparison.second.name)
    target = escape(comparison.options["target"])
    factor, unit = readable_unit(comparison.unit)
    parts = [
        f"<h1>{target}: {first} and {second}</h1>",
        f"<p>Groups by {escape(comparison.options['group'])}; a group with several values on a "
        f"side counts once, with their {escape(comparison.options['value'])}. Differences are "
        f"{second} minus {first}. Unit: {escape(unit) or 'none'}.</p>",
        *(f'<p class="warning">{escape(warning)}</p>' for warning in comparison.warnings),
        "<h2>What is shared</h2>",
        _sides_table(comparison),
        f"<p>Shared groups: {comparison.n_shared:,}; Jaccard {comparison.jaccard:.2%}.</p>",
        "<h2>Distributions</h2>",
        _quantile_table(comparison, factor),
    ]
    parts.append(f'<div class="figures">{"".join(_figures(comparison))}</div>')
    if comparison.paired is not None:
        parts += ["<h2>Offset</h2>", _paired_table(comparison, factor, unit)]
    if comparison.metals is not None:
        parts.append(f"<p>{escape(_metals(comparison))}.</p>")
    if comparison.elements:
        parts += ["<h2>Elements</h2>", _element_table(comparison, factor, unit)]
    if comparison.disagreements:
        parts += ["<h2>Largest disagreements</h2>", _worst_table(comparison, factor, unit)]
    facts = comparison.to_json()
    parts += [
        "<h2>How it was made</h2>",
        f"<p><code>epitaxy {escape(str(facts['epitaxy']))}; "
        f"{escape(json.dumps(comparison.options))}</code></p>",
        f"<p>digests: <code>{comparison.first.digest}</code>, "
        f"<code>{comparison.second.digest}</code></p>",
    ]
    return html_page(
        f"{comparison.first.name} and {comparison.second.name}: {comparison.options['target']}",
        parts,
    )


def _sides_table(comparison: Comparison) -> str:
    sides = (comparison.first, comparison.second)
    shares = (comparison.share_of_first, comparison.share_of_second)
    factor, unit = readable_unit(comparison.unit)
    rows = [
        ["structures", *(f"{side.n_structures:,}" for side in sides)],
        ["groups", *(f"{side.n_groups:,}" for side in sides)],
        ["shared groups", *(f"{comparison.n_shared:,} ({share:.1%})" for share in shares)],
        ["structures in shared groups", *(f"{side.n_shared:,}" for side in sides)],
        ["with the target", *(f"{side.n_labelled:,}" for side in sides)],
        ["without a group", *(f"{side.n_without_group:,}" for side in sides)],
        ["level of theory", *("; ".join(side.methods) for side in sides)],
        [
            f"median spread inside shared groups, {unit}",
            *(
                _maybe(None if side.inside_groups is None else side.inside_groups * factor)
                for side in sides
            ),
        ],
    ]
    return html_table(["", *(side.name for side in sides)], rows)


def _quantile_table(comparison: Comparison, factor: float) -> str:
    rows = []
    for side in (comparison.first, comparison.second):
        for what, found in (("all", side.all), ("shared groups", side.shared)):
            if found is not None:
                numbers = [found.mean, found.deviation, *found.quantiles]
                cells = (f"{number * factor:.4g}" for number in numbers)
                rows.append([f"{side.name}, {what}", f"{found.n:,}", *cells])
    heading = ["", "n", "mean", "deviation", "lowest", "5 %", "25 %", "median", "75 %", "95 %"]
    return html_table([*heading, "highest"], rows)


def _paired_table(comparison: Comparison, factor: float, unit: str) -> str:
    assert comparison.paired is not None
    columns: list[Mapping[str, str]] = [dict(_paired_rows(comparison.paired, factor, unit))]
    heading = ["", f"all shared groups ({comparison.paired.n:,})"]
    if comparison.gapped is not None:
        columns.append(dict(_paired_rows(comparison.gapped, factor, unit)))
        heading.append(f"both have a gap ({comparison.gapped.n:,})")
    return html_table(heading, [[name, *(c[name] for c in columns)] for name in columns[0]])


def _element_table(comparison: Comparison, factor: float, unit: str) -> str:
    rows = [
        [
            element.symbol,
            f"{element.n:,}",
            _said(element.mean, factor),
            "-" if element.contrast is None else _said(element.contrast, factor),
        ]
        for element in comparison.elements[:_MANY_ELEMENTS]
    ]
    n_more = len(comparison.elements) - len(rows)
    more = f"<p>{n_more} more are in comparison.json.</p>" if n_more > 0 else ""
    heading = ["element", "shared groups", f"mean difference, {unit}", "with minus without it"]
    return html_table(heading, rows) + more


def _worst_table(comparison: Comparison, factor: float, unit: str) -> str:
    first, second = comparison.first.name, comparison.second.name
    rows = [
        [
            worst.group,
            f"{worst.first * factor:.4g}",
            f"{worst.second * factor:.4g}",
            f"{worst.difference * factor:+.4g}",
            f"{worst.first_id} (of {worst.n_first})",
            f"{worst.second_id} (of {worst.n_second})",
        ]
        for worst in comparison.disagreements
    ]
    heading = ["group", f"{first}, {unit}", f"{second}, {unit}", "difference"]
    return html_table([*heading, f"id in {first}", f"id in {second}"], rows)


# --- figures ---


def _figures(comparison: Comparison) -> list[str]:
    found = [_histogram(comparison, "all"), _histogram(comparison, "shared")]
    if len(comparison.pairs) > 1:
        found += [_parity(comparison), _differences(comparison)]
    return [figure for figure in found if figure]


def _histogram(comparison: Comparison, which: str) -> str:
    axes, axis = _axes(comparison)
    edges = np.array(comparison.bin_edges) * readable_unit(comparison.unit)[0]
    sides: list[Side] = [comparison.first, comparison.second]
    for side, color in zip(sides, _COLORS, strict=True):
        found = side.all if which == "all" else side.shared
        if found is None:
            return ""
        density = np.array(found.counts) / found.n
        axes.stairs(density, edges, color=color, fill=True, alpha=0.25)
        axes.stairs(density, edges, color=color, label=f"{side.name} ({found.n:,})")
    axes.set(xlabel=axis, ylabel="fraction of values", yscale="log")
    axes.set_title("all values" if which == "all" else "values in shared groups")
    axes.legend(frameon=False)
    return as_svg(axes.figure)


def _parity(comparison: Comparison) -> str:
    from matplotlib.colors import LogNorm

    axes, axis = _axes(comparison)
    factor = readable_unit(comparison.unit)[0]
    ends = np.quantile(comparison.pairs, (0.001, 0.999)) * factor
    pad = 0.03 * (ends[1] - ends[0]) or 1.0
    low, high = float(ends[0] - pad), float(ends[1] + pad)
    inside = (np.abs(comparison.pairs * factor - 0.5 * (low + high)) <= 0.5 * (high - low)).all(1)
    x, y = comparison.pairs[inside].T * factor
    image = axes.hexbin(
        x, y, gridsize=45, extent=(low, high, low, high), norm=LogNorm(), cmap="viridis", mincnt=1
    )
    axes.axline((low, low), slope=1.0, color="0.4", linewidth=0.8)
    axes.set(
        xlabel=f"{comparison.first.name}: {axis}",
        ylabel=f"{comparison.second.name}: {axis}",
        xlim=(low, high),
        ylim=(low, high),
        title="shared groups",
    )
    axes.figure.colorbar(image, label="groups")
    return as_svg(axes.figure)


def _differences(comparison: Comparison) -> str:
    axes, axis = _axes(comparison)
    difference = (comparison.pairs[:, 1] - comparison.pairs[:, 0]) * readable_unit(comparison.unit)[
        0
    ]
    low, high = np.quantile(difference, (0.005, 0.995))
    if high > low:
        axes.hist(difference, bins=np.linspace(low, high, 61), color="0.6")
    axes.axvline(0.0, color="k", linewidth=0.8)
    if comparison.paired is not None:
        mean = comparison.paired.mean.value * readable_unit(comparison.unit)[0]
        axes.axvline(mean, color=_COLORS[1], label=f"mean {mean:+.3g}")
        axes.legend(frameon=False)
    axes.set(xlabel=f"difference, {axis}", ylabel="groups", yscale="log")
    axes.set_title(f"{comparison.second.name} minus {comparison.first.name}")
    return as_svg(axes.figure)


def _axes(comparison: Comparison):  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    unit = readable_unit(comparison.unit)[1]
    target = str(comparison.options["target"]).replace("_", " ")
    return figure.add_subplot(), f"{target} ({unit})" if unit else target
