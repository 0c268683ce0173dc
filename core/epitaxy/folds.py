"""The official cross-validation folds of MatBench, made again from the number of rows.

MatBench v0.1 fixes five outer folds per task: scikit-learn's `KFold` for regression and
`StratifiedKFold` for classification, shuffled with one random state. They follow from the
number of rows, and for classification from the labels, in the official order of rows.

Source: Dunn et al., npj Comput. Mater. 6, 138 (2020); `matbench.constants` and
`matbench.metadata` of the package matbench.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epitaxy.errors import MissingDependencyError, SplitError

N_FOLDS = 5
"""Outer folds of every MatBench task."""

RANDOM_STATE = 18012019
"""Random state of MatBench's folds."""

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
