"""The official cross-validation folds of MatBench, made again from the number of rows.

MatBench v0.1 fixes five outer folds per task: scikit-learn's `KFold` for regression and
`StratifiedKFold` for classification, shuffled with one random state. They follow from the
number of rows, and for classification from the labels, in the official order of rows.

Source: Dunn et al., npj Comput. Mater. 6, 138 (2020); `matbench.constants` and
`matbench.metadata` of the package matbench.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from epitaxy.errors import MissingDependencyError, SplitError

N_FOLDS = 5
"""Outer folds of every MatBench task."""

RANDOM_STATE = 18012019
"""Random state of MatBench's folds."""

MATBENCH_ROWS: Mapping[str, int] = MappingProxyType(
    {
        "steels": 312,
        "jdft2d": 636,
        "phonons": 1265,
        "expt-gap": 4604,
        "dielectric": 4764,
        "expt-is-metal": 4921,
        "glass": 5680,
        "log-gvrh": 10_987,
        "log-kvrh": 10_987,
        "perovskites": 18_928,
        "mp-gap": 106_113,
        "mp-is-metal": 106_113,
        "mp-e-form": 132_752,
    }
)
"""Task as in the official ids ("mb-phonons-0001") -> number of its rows."""

_CLASSIFICATIONS = ("expt-is-metal", "glass", "mp-is-metal")
_ID = re.compile(r"mb-([a-z0-9-]+)-([0-9]+)")

Fold = tuple[np.ndarray, np.ndarray]
"""Rows to train with and rows to test with, both int64 and sorted."""


def matbench_folds(n: int, labels: Sequence[Any] | np.ndarray | None = None) -> list[Fold]:
    """Return MatBench's five folds as (train rows, test rows).

    Every row is in the test part of exactly one fold. With n and labels of an official task, in
    its official order, the folds are the official ones.

    Args:
        n: number of rows of the task.
        labels: (n,) classes of a classification task; None for regression.

    Raises:
        SplitError: there are fewer rows than folds, the labels are not one per row, or a class
            has fewer rows than there are folds.
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import KFold, StratifiedKFold
    except ImportError as error:
        raise MissingDependencyError(
            "MatBench's folds need scikit-learn: pip install 'epitaxy[benchmarks]'"
        ) from error

    if n < N_FOLDS:
        raise SplitError(f"{n} rows cannot be divided into {N_FOLDS} folds")
    rows = np.zeros(n)
    if labels is None:
        folds = KFold(n_splits=N_FOLDS, shuffle=True, random_state=RANDOM_STATE).split(rows)
    else:
        classes = np.asarray(labels)
        if classes.shape != (n,):
            raise SplitError(f"labels have shape {classes.shape}, one for each of {n} rows needed")
        values, counts = np.unique(classes, return_counts=True)
        if counts.min() < N_FOLDS:
            rare = values[counts.argmin()]
            raise SplitError(
                f"class {rare} has {counts.min()} rows, at least {N_FOLDS} are needed; "
                "leave the labels out if the task is a regression"
            )
        shuffled = StratifiedKFold(n_splits=N_FOLDS, shuffle=True, random_state=RANDOM_STATE)
        folds = shuffled.split(rows, classes)
    return [(train.astype(np.int64), test.astype(np.int64)) for train, test in folds]


def matbench_fold_of_ids(
    ids: Sequence[str], labels: Sequence[Any] | np.ndarray | None = None
) -> np.ndarray:
    """Return the official fold (0 to 4) in which each entry is tested, (len(ids),) int64.

    The folds are those of the whole official task, whatever the order of the ids and whichever of
    a regression's rows are there.

    Args:
        ids: official ids of one task, for example "mb-phonons-0001".
        labels: (len(ids),) classes; needed for a classification.

    Raises:
        SplitError: an id is not official, of another task or there twice; or the task is a
            classification whose labels are not given or whose rows are not all there.
    """
    rows = np.empty(len(ids), dtype=np.int64)
    tasks = set()
    for index, name in enumerate(ids):
        match = _ID.fullmatch(name)
        if match is None or match[1] not in MATBENCH_ROWS:
            raise SplitError(
                f"{name!r} is not an id of MatBench such as 'mb-phonons-0001': official folds "
                "are those of its own entries (`epitaxy ingest matbench_phonons.json.gz`)"
            )
        tasks.add(match[1])
        rows[index] = int(match[2]) - 1
    if len(tasks) != 1:
        raise SplitError(f"ids of {len(tasks)} MatBench tasks: {', '.join(sorted(tasks))}")
    task = tasks.pop()
    n_rows = MATBENCH_ROWS[task]
    if len(np.unique(rows)) < len(rows) or rows.min() < 0 or rows.max() >= n_rows:
        raise SplitError(f"ids of {task} occur twice, or are not between 1 and {n_rows}")
    classes = None
    if task in _CLASSIFICATIONS:
        if labels is None:
            raise SplitError(f"{task} is a classification: its folds follow from the classes")
        if len(rows) < n_rows:
            raise SplitError(
                f"{len(rows)} of the {n_rows} rows of {task} are here; its folds follow from the "
                "classes of all: ingest again with --keep-duplicates"
            )
        classes = np.empty(n_rows, dtype=np.asarray(labels).dtype)
        classes[rows] = np.asarray(labels)
    fold_of_row = np.empty(n_rows, dtype=np.int64)
    for fold, (_, test) in enumerate(matbench_folds(n_rows, classes)):
        fold_of_row[test] = fold
    return fold_of_row[rows]
