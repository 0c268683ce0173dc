"""One task of MatBench, read from a file and proved to be the official one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epitaxy.composition import TAG
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError, SplitError
from epitaxy.folds import Fold, matbench_folds
from epitaxy_benchmarks.composition_table import TABLES, CompositionTableSource
from epitaxy_benchmarks.matbench import TASKS, MatbenchSource, Task
from epitaxy_benchmarks.matbench_board import Board, board, folds_digest, targets_digest
from epitaxy_benchmarks.reading import plain_stem

_ENDINGS = ("", ".gz", ".xz", ".bz2", ".zip")
_SITE = "https://matbench.materialsproject.org"
_AGREES = 1e-4
"""Largest relative difference of the error of the mean from the board's, printed to 4 digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTask:
    """A task with its entries and folds.

    Attributes:
        name: for example "matbench_steels".
        facts: what is known about it.
        board: the published leaderboard.
        path: of the file.
        dataset: all rows, or a part with `limit`.
        folds: (train rows, test rows) of each fold.
        is_official: whether rows and folds are the official ones.
        has_structures: whether entries have structures, not formulas alone.
        mean_error: mean over the folds of the error of the training mean; None for a claim.
    """

    name: str
    facts: Task
    board: Board
    path: Path
    dataset: Dataset
    folds: list[Fold]
    is_official: bool
    has_structures: bool
    mean_error: float | None

    @property
    def labels(self) -> np.ndarray:
        """(n,) float64, what is to be predicted."""
        return self.dataset.target(self.facts.quantity)[0]


def find_file(task: str, path: Path) -> Path:
    """Return the file of a task: `path` itself, or the one of its known names in that folder.

    Raises:
        DataError: there is none; the message says which names are looked for and where such
            files come from.
    """
    if path.is_file():
        return path
    names = [f"{task}.json"] + [f"{name}.csv" for name, t in TABLES.items() if t.task == task]
    for name in names:
        for ending in _ENDINGS:
            if (path / f"{name}{ending}").is_file():
                return path / f"{name}{ending}"
    inputs = "structures" if TASKS[task].has_structures else "formulas"
    state = "has no file of" if path.is_dir() else "is not there, so there is no file of"
    raise DataError(
        f"{path} {state} {task}: looked for {', '.join(names)} (also .gz, .xz, .bz2, .zip). "
        f"{task}.json.gz with its {inputs} can be downloaded from {_SITE} (Benchmark Info); tables "
        f"of formulas are in the CrabNet package (folder data/matbench); name another place with "
        f"--path"
    )


def load_task(task: str, path: Path, *, limit: int | None = None) -> LoadedTask:
    """Read a task and check number of rows, folds and targets against the official ones.

    Args:
        task: for example "matbench_steels".
        path: its file, or a folder with it.
        limit: take so many random rows only, with folds of their own.

    Raises:
        DataError: the file is missing, damaged, of another task, or its rows or targets are not
            the official ones.
        SplitError: the folds are not the official ones.
    """
    facts, published = TASKS[task], board(task)
    file = find_file(task, path)
    dataset = _read(task, file)
    labels, mask = _labels(dataset, facts.quantity, file)
    if len(dataset) != facts.n_rows or not mask.all():
        raise DataError(
            f"{file}: {int(mask.sum()):,} labelled rows, the official {task} has {facts.n_rows:,}; "
            f"use the complete table in its official order"
        )
    folds = matbench_folds(len(dataset), labels if facts.is_classification else None)
    if folds_digest(folds) != published.folds_sha256:
        raise SplitError(
            f"{file}: the folds of {task} that follow from "
            f"{'its labels' if facts.is_classification else 'its rows'} have the sha256 "
            f"{folds_digest(folds)}, the official ones {published.folds_sha256}: the order of the "
            f"rows or the labels are not the official ones"
        )
    mean_error = None if facts.is_classification else _error_of_mean(labels, folds)
    dummy = published.entry("Dummy")
    if mean_error is not None and dummy is not None:
        official = dummy[0]
        if abs(mean_error - official) > _AGREES * max(1.0, official):
            raise DataError(
                f"{file}: the mean of the training parts has an error of {mean_error:.4f}, on the "
                f"board {official:.4f}: targets, units or the order of rows are not the official "
                f"ones"
            )
    if targets_digest(labels) != published.targets_sha256:
        raise DataError(
            f"{file}: rows of {task} are not in the official order, or targets are not the "
            f"official ones: their sha256 is {targets_digest(labels)}, that of the official ones "
            f"{published.targets_sha256}; take the file as it is downloaded"
        )
    has_structures = TAG not in dataset.tags
    if limit is not None and limit < len(dataset):
        rows = np.sort(np.random.default_rng(0).permutation(len(dataset))[:limit])
        dataset = dataset[rows]
        folds = matbench_folds(limit, labels[rows] if facts.is_classification else None)
        mean_error = None if facts.is_classification else _error_of_mean(labels[rows], folds)
    return LoadedTask(
        name=task,
        facts=facts,
        board=published,
        path=file,
        dataset=dataset,
        folds=folds,
        is_official=len(dataset) == facts.n_rows,
        has_structures=has_structures,
        mean_error=mean_error,
    )


def _read(task: str, file: Path) -> Dataset:
    """Read a file of a task.

    Raises:
        DataError: it is of another task, damaged or cut; only all of its rows are of use here.
    """
    try:
        return _entries(task, file)
    except DataError as error:
        reason, is_cut, _ = str(error).partition(" Get it anew, or keep")
        if not is_cut:
            raise
        raise DataError(f"{reason} Get it anew: {task} needs all of its rows") from error


def _entries(task: str, file: Path) -> Dataset:
    stem = plain_stem(file)
    if ".csv" in file.name:
        table = TABLES.get(stem)
        if table is not None and table.task != task:
            raise DataError(f"{file} is not a table of {task}: it is of {table.task or stem}")
        if table is None:
            raise DataError(
                f"{file}: no known table of {task}; name it "
                f"{next(name for name, t in TABLES.items() if t.task == task)}.csv"
            )
        return Dataset.from_entries(CompositionTableSource(path=file))
    if stem in TASKS and stem != task:
        raise DataError(f"{file} is of {stem}, not of {task}")
    return Dataset.from_entries(MatbenchSource(path=file, task=task))


def _labels(dataset: Dataset, quantity: str, file: Path) -> tuple[np.ndarray, np.ndarray]:
    if quantity not in dataset.targets:
        raise DataError(f"{file}: no row has a value of {quantity}")
    return dataset.target(quantity)


def _error_of_mean(labels: np.ndarray, folds: list[Fold]) -> float:
    return float(
        np.mean([np.abs(labels[test] - labels[train].mean()).mean() for train, test in folds])
    )
