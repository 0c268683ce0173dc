"""A study as files: the matrix, lists, figures, and one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np

from epitaxy.errors import StoreError
from epitaxy.evaluation.page import as_svg, html_page, html_table
from epitaxy.stores.new_file import new_file
from epitaxy_dos.convergence import Curve
from epitaxy_dos.matrix import nearest, similarity_matrix
from epitaxy_dos.plots import (
    curves_figure,
    matrix_figure,
    middle_of,
    save_png,
    spectra_figure,
)
from epitaxy_dos.settings import ordered
from epitaxy_dos.statistics import Effect
from epitaxy_dos.study import Study
from epitaxy_dos.table import Spectra

_MOST_GROUPS = 24
_MOST_CLUSTERS = 20
_MOST_CURVES = 40
_MOST_NAMED = 10
_FILES = (
    "similarity.json",
    "matrix.npy",
    "neighbors.npz",
    "figure.png",
    "curves.png",
    "clusters.json",
    "entries.csv",
    "report.html",
)
"""All that a study may write."""


def write_study(
    dataset: Spectra,
    study: Study,
    directory: str | Path,
    *,
    matrix: bool = True,
    n_neighbors: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Write everything about a study into a folder and return the paths, the page first.

    Args:
        dataset: of the study.
        study: what was found.
        directory: folder; made if it is not there.
        matrix: write matrix.npy, (n, n) float32, rows as in entries.csv.
        n_neighbors: write neighbors.npz with so many of the most similar entries of each; 0 not.
        overwrite: replace an earlier study; files that it has and this one has not are removed.

    Raises:
        StoreError: the folder holds a study and `overwrite` is false, or the disk refuses.
        MissingDependencyError: matplotlib is not installed.
    """
    directory = Path(directory)
    check_folder(directory, overwrite=overwrite)
    written = []
    if matrix:
        written.append(directory / "matrix.npy")
        similarity_matrix(
            study.fingerprints,
            path=written[-1],
            n_workers=study.options.n_workers,
            overwrite=overwrite,
        )
    if n_neighbors:
        found = nearest(study.fingerprints, k=n_neighbors, n_workers=study.options.n_workers)
        written.append(directory / "neighbors.npz")
        with new_file(written[-1], overwrite=overwrite) as partial, partial.open("wb") as stream:
            np.savez(stream, index=found.index, similarity=found.similarity)
    figures = {"figure.png": matrix_figure(study)}
    if study.curves:
        figures["curves.png"] = curves_figure(study)
    for name, figure in figures.items():
        with new_file(directory / name, overwrite=overwrite) as partial:
            save_png(figure, partial)
        written.append(directory / name)
    clusters = {"kind": study.clusters.kind, "threshold": study.clusters.threshold}
    texts = {
        "similarity.json": json.dumps(study.to_json(), indent=1, ensure_ascii=False) + "\n",
        "clusters.json": json.dumps(
            {**clusters, "clusters": study.cluster_lists()}, indent=1, ensure_ascii=False
        )
        + "\n",
        "entries.csv": entries_table(study),
        "report.html": page(dataset, study),
    }
    for name, text in texts.items():
        with new_file(directory / name, overwrite=overwrite) as partial:
            partial.write_text(text, encoding="utf-8")
        written.insert(0, directory / name)
    for name in set(_FILES) - {path.name for path in written}:
        (directory / name).unlink(missing_ok=True)  # rows of an earlier study
    return written


def check_folder(directory: Path, *, overwrite: bool) -> None:
    """Refuse a folder with files of a study, whole or broken off, and what is no folder.

    Raises:
        StoreError: one of the two.
    """
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory}: is not a folder; choose another name")
    taken = [name for name in _FILES if (directory / name).exists()]
    if taken and not overwrite:
        raise StoreError(
            f"{directory}: there is a study already ({', '.join(taken)}); use --overwrite to "
            "replace it"
        )


def entries_table(study: Study) -> str:
    """Return a line for each row of the matrix, as CSV."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    best = study.best
    table.writerow(
        [
            "row",
            "id",
            "structure",
            *study.settings,
            "cluster",
            "covered",
            *(["reference", "similarity_to_reference"] if best else []),
        ]
    )
    for i, name in enumerate(study.ids):
        row: list[object] = [i, name, study.structures[i]]
        row += [texts[i] for texts in study.settings.values()]
        row += [study.clusters.labels[i], f"{study.fingerprints.fraction[i]:.4f}"]
        if best:
            row += [study.ids[best.reference[i]], f"{best.similarity[i]:.6f}"]
        table.writerow(row)
    return stream.getvalue()


# --- text ---


def warnings(study: Study) -> list[str]:
    """Return what the user should know, one sentence each."""
    found = study.fingerprints
    said = []
    if found.n_without:
        n = found.n_without
        said.append(f"left out, without {found.target}: {n:,} {'entry' if n == 1 else 'entries'}")
    if found.empty:
        said.append(
            f"left out, with an empty fingerprint: {len(found.empty):,} ({_names(found.empty)})"
        )
    part = np.nonzero(found.fraction < 1)[0]
    if len(part):
        listed = [f"{study.ids[i]} ({found.fraction[i]:.0%})" for i in part]
        said.append(
            f"{len(part):,} of {len(found):,} spectra cover the grid in part, and are compared "
            f"where both are known: {_names(listed)}"
        )
    return said


def summary_lines(study: Study) -> list[str]:
    """Return what matters most, as lines for a terminal."""
    found, groups = study.fingerprints, study.groups
    sizes = study.clusters.sizes
    lines = [f"warning: {text}" for text in warnings(study)]
    lines.append(
        f"{len(found):,} spectra ({found.target}, per {found.per}) on the grid {found.grid.id}"
    )
    if len(groups.names) > 1:
        between = groups.mean[~np.eye(len(groups.names), dtype=bool)]
        lines.append(
            f"{len(groups.names):,} groups by {', '.join(study.group_names)}: mean similarity "
            f"inside {_mean(np.diag(groups.mean))}, between {_mean(between)}"
        )
    lines += [f"  {_effect_line(effect)}" for effect in study.effects]
    lines.append(
        f"{len(sizes):,} {study.clusters.kind} "
        f"{'cluster' if len(sizes) == 1 else 'clusters'} at {study.clusters.threshold:g}, sizes "
        f"{', '.join(f'{n:,}' for n in sizes[:8])}{' ...' if len(sizes) > 8 else ''}"
    )
    if study.best is not None:
        n_like = int((study.best.similarity >= study.options.threshold).sum())
        n_best = len(np.unique(study.best.reference))
        lines.append(
            f"{n_like:,} of {len(found):,} reach {study.options.threshold:g} against the "
            f"best-converged of their set; {n_best:,} of them {'is' if n_best == 1 else 'are'} it"
        )
    for curve in _best_first(study)[:_MOST_NAMED]:
        start = curve.converged_from(study.options.threshold)
        label = f" ({curve.label})" if curve.label else ""
        lines.append(
            f"  {curve.parameter}{label}: "
            + (f"converged from {start}" if start else "not converged")
            + f"; {curve.similarity[0]:.3f} at {curve.texts[0]}"
        )
    if len(study.curves) > _MOST_NAMED:
        lines.append(f"  {len(study.curves) - _MOST_NAMED:,} more curves are in similarity.json")
    return lines


def _best_first(study: Study) -> list[Curve]:
    """Return the curves that lead to a reference before those that do not."""
    return sorted(study.curves, key=lambda curve: not curve.has_reference)


def _effect_line(effect: Effect) -> str:
    text = (
        f"{effect.name}: same structure and same value {_number(effect.same)}, different values "
        f"{_number(effect.different)}"
    )
    if effect.n_only:
        text += f"; where nothing else differs {_number(effect.only)} ({effect.n_only:,} pairs)"
    return text


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _mean(values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    return _number(float(known.mean())) if len(known) else "-"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else "")


# --- page ---


def page(dataset: Spectra, study: Study) -> str:
    """Return the page as HTML with its figures inside."""
    found = study.fingerprints
    by = ", ".join(study.group_names)
    parts = [
        f"<h1>Similarity of {len(found):,} spectra</h1>",
        f"<p>Tanimoto similarity of the spectral fingerprints ({escape(found.target)}, per "
        f"{escape(found.per)}) of Kuban et al., <i>Sci. Data</i> <b>9</b>, 646 (2022): 1 for equal "
        "fingerprints, 0 for those without a pixel in common."
        + (f" Sorted by {escape(by)}." if by else "")
        + "</p>",
        *(f'<p class="warning">{escape(text)}</p>' for text in warnings(study)),
        as_svg(matrix_figure(study)),
    ]
    if len(study.groups.names) > 1:
        parts += ["<h2>Inside and between groups</h2>", _group_table(study)]
    if study.effects:
        parts += ["<h2>One setting at a time</h2>", _effect_table(study)]
    if study.curves:
        parts += ["<h2>Convergence</h2>", as_svg(curves_figure(study)), _curve_table(study)]
    parts += [
        "<h2>Homogeneous subsets</h2>",
        _cluster_table(study),
        as_svg(spectra_figure(dataset, study)),
        "<p>Each line is the entry that is most similar to the rest of its cluster.</p>",
        "<h2>How it was made</h2>",
        f"<p><code>epitaxy {escape(version('epitaxy'))}; "
        f"{escape(json.dumps(study.to_json()['options']))}</code></p>",
        f"<p>dataset: <code>{study.digest}</code></p>",
    ]
    return html_page(f"Similarity of {len(found):,} spectra", parts)


def _group_table(study: Study) -> str:
    groups = study.groups
    n = min(len(groups.names), _MOST_GROUPS)
    square = n <= 12
    heading = ["group", "entries", "mean inside", "lowest inside"]
    heading += [f"to {name}" for name in groups.names[:n]] if square else ["mean to others"]
    rows = []
    for i in range(n):
        others = np.delete(groups.mean[i], i)
        cells = [groups.names[i], f"{groups.sizes[i]:,}", _number(groups.mean[i, i])]
        cells.append(_number(groups.lowest[i, i]))
        cells += (
            [_number(x) if j != i else "" for j, x in enumerate(groups.mean[i, :n])]
            if square
            else [_mean(others)]
        )
        rows.append(cells)
    more = len(groups.names) - n
    return html_table(heading, rows) + _more(more)


def _effect_table(study: Study) -> str:
    rows = [
        [
            effect.name,
            _number(effect.same),
            _number(effect.different),
            _number(effect.only),
            _number(effect.lowest),
            f"{effect.n_only:,}",
        ]
        for effect in sorted(study.effects, key=lambda e: e.only if e.n_only else 2.0)
    ]
    heading = ["setting", "same value", "different values", "only this differs", "lowest", "pairs"]
    return html_table(heading, rows) + (
        f"<p>Mean similarity of pairs with the same {escape(study.options.structure)}: with the "
        "same value of the setting, with different ones, and where nothing else that was asked "
        "for differs. The lower the third, the more the setting changes the spectrum.</p>"
    )


def _curve_table(study: Study) -> str:
    threshold = study.options.threshold
    rows = [
        [
            f"{curve.parameter}{f' ({curve.label})' if curve.label else ''}",
            f"{curve.similarity[0]:.3f} at {curve.texts[0]}",
            curve.converged_from(threshold) or "not converged",
            study.ids[curve.reference],
        ]
        for curve in _best_first(study)[:_MOST_CURVES]
    ]
    heading = ["parameter", "at the start", f"{threshold:g} from", "compared with"]
    return html_table(heading, rows) + _more(len(study.curves) - len(rows))


def _cluster_table(study: Study) -> str:
    sizes = study.clusters.sizes
    rows = []
    for number in range(min(len(sizes), _MOST_CLUSTERS)):
        (members,) = np.nonzero(study.clusters.labels == number)
        cells = [str(number), f"{sizes[number]:,}", study.ids[middle_of(study, number)]]
        for texts in study.settings.values():
            words = ordered(texts[members])
            cells.append(", ".join(words) if len(words) <= 4 else f"{len(words):,} values")
        rows.append(cells)
    kinds = {
        "complete": "every pair of a cluster is",
        "average": "clusters are joined while their mean similarity is",
        "connected": "a chain of pairs leads from each entry to each other that are",
    }
    return (
        f"<p>{len(sizes):,} clusters: {kinds[study.clusters.kind]} at least "
        f"{study.clusters.threshold:g} similar.</p>"
        + html_table(["cluster", "entries", "in the middle", *study.settings], rows)
        + _more(len(sizes) - len(rows))
    )


def _more(n: int) -> str:
    return f"<p>{n:,} more are in the files beside this page.</p>" if n > 0 else ""
