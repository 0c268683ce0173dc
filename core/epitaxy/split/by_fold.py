"""Cross-validation: folds of whole groups, nested ones too, and folds that others have fixed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError
from epitaxy.split.assign import to_folds
from epitaxy.split.by_group import split_of, with_valid
from epitaxy.split.labels import Groups, group_labels
from epitaxy.split.parts import Split

MATBENCH = "matbench"
"""In place of a file: the official folds of a MatBench task, by its official ids."""


def split_kfold(
    dataset: Dataset,
    *,
    n_folds: int = 5,
    fold: int = 0,
    n_inner: int | None = None,
    inner: int = 0,
    groups: Groups = "composition",
    valid: float | int = 0.1,
    seed: int = 0,
) -> Split:
    """Divide for one turn of a cross-validation by whole groups.

    Over the folds every structure is in the test once. Nested: with `n_inner`, the
    structures outside the test are divided into folds again, and the validation part is one of
    them: choose options by the inner folds, then report the outer ones.

    Args:
        dataset: what to divide.
        n_folds: into how many folds.
        fold: which one is the test, from 0.
        n_inner: inner folds; without, `valid` is taken at random.
        inner: which inner fold is for validation, from 0.
        groups: what stays together, as in `split_by_group`.
        valid: part for validation: a fraction of the rest or a number of structures.
        seed: of the folds; the same for all turns.

    Raises:
        SplitError: there are fewer groups than folds, or no such fold.
    """
    for what, count, index in (("fold", n_folds, fold), ("inner", n_inner, inner)):
        if count is None:
            continue
        if count < 2:
            raise SplitError(f"{count} folds: give at least 2")
        if not 0 <= index < count:
            raise SplitError(f"{what} = {index}: there are folds 0 to {count - 1}")
    labels, name = group_labels(dataset, groups)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    is_test = to_folds(counts, n_folds=n_folds, seed=seed, name=name)[codes] == fold
    if n_inner is None:
        part_of_row = with_valid(dataset, is_test, codes, valid=valid, seed=seed, name=name)
    else:
        rest = (~is_test).nonzero()[0]
        _, inside, sizes = np.unique(codes[rest], return_inverse=True, return_counts=True)
        folds = to_folds(sizes, n_folds=n_inner, seed=seed, name=name)
        part_of_row = np.where(is_test, 2, 0)
        part_of_row[rest[folds[inside] == inner]] = 1
    method: dict[str, Any] = {"method": "kfold", "n_folds": n_folds, "fold": fold}
    method |= {"valid": valid} if n_inner is None else {"n_inner": n_inner, "inner": inner}
    return split_of(dataset, part_of_row, {**method, "groups": name, "seed": seed})


def split_by_folds(
    dataset: Dataset,
    folds: str | Path | Sequence[int] | np.ndarray,
    *,
    fold: int = 0,
    by: str | None = None,
    groups: Groups = "composition",
    valid: float | int = 0.1,
    seed: int = 0,
) -> Split:
    """Divide by folds that others have fixed; nothing moves to keep groups whole in the test.

    Args:
        dataset: what to divide.
        folds: a file; or "matbench": the official folds of a MatBench task, by the official ids
            of its entries (some may be missing, except in a classification); or the fold of each
            structure, (n,) int. A file is JSON, with the fold of each structure in order, or
            ``{"id": fold}``, or a list of folds that are lists of ids; or CSV with the columns id
            and fold.
        fold: which one is the test, from 0.
        by: with "matbench", the tag or target with the classes of a classification task.
        groups: what stays together between training and validation, as in `split_by_group`.
        valid: part for validation: a fraction of the rest or a number of structures.
        seed: of the choice of groups for validation.

    Raises:
        SplitError: the folds do not fit the dataset, or there is no such fold.
    """
    if isinstance(folds, str) and folds == MATBENCH:
        fold_of_row = _matbench(dataset, by)
    elif isinstance(folds, (str, Path)):
        fold_of_row = _read(Path(folds), dataset)
    else:
        fold_of_row = np.asarray(folds)
    if fold_of_row.shape != (len(dataset),) or fold_of_row.dtype.kind not in "iu":
        raise SplitError(
            f"folds: whole numbers for {len(dataset)} structures are needed, got "
            f"{fold_of_row.dtype} of shape {fold_of_row.shape}"
        )
    if not (fold_of_row == fold).any():
        known = ", ".join(map(str, np.unique(fold_of_row)[:20]))
        raise SplitError(f"fold = {fold}: there are the folds {known}")
    labels, name = group_labels(dataset, groups)
    _, codes = np.unique(labels, return_inverse=True)
    part_of_row = with_valid(dataset, fold_of_row == fold, codes, valid=valid, seed=seed, name=name)
    given = str(folds) if isinstance(folds, (str, Path)) else "given folds"
    method = {"method": "folds", "folds": given, "fold": fold, "groups": name}
    method |= {"valid": valid, "seed": seed}
    if by is not None:
        method["by"] = by
    return split_of(dataset, part_of_row, method)


def _matbench(dataset: Dataset, by: str | None) -> np.ndarray:
    from epitaxy.folds import matbench_fold_of_ids
    from epitaxy.split.by_target import target_values

    classes = None
    if by is not None:
        is_tag = by in dataset.tags and by not in dataset.targets
        classes = dataset.tag(by) if is_tag else target_values(dataset, by)
    return matbench_fold_of_ids(list(dataset.ids), classes)


def _read(path: Path, dataset: Dataset) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"{path}: the folds cannot be read: {error}") from error
    try:
        document = _csv(text) if path.suffix.lower() == ".csv" else json.loads(text)
    except ValueError as error:
        raise SplitError(f"{path}: neither JSON nor CSV with id and fold: {error}") from error
    if isinstance(document, Mapping) and set(document) == {"folds"}:
        document = document["folds"]
    if isinstance(document, list) and all(isinstance(fold, list) for fold in document):
        pairs = [(str(name), k) for k, names in enumerate(document) for name in names]
        if len(dict(pairs)) < len(pairs):
            raise SplitError(f"{path}: an id is in two folds, or twice in one")
        document = dict(pairs)
    if isinstance(document, Mapping):
        ids = list(dataset.ids)
        if missing := [name for name in ids if name not in document]:
            raise SplitError(
                f"{path}: no fold for {len(missing)} of {len(ids)} structures, for example "
                f"{missing[0]!r}"
            )
        document = [document[name] for name in ids]
    if not isinstance(document, list) or not all(type(fold) is int for fold in document):
        raise SplitError(f"{path}: expected the fold of each structure, as whole numbers")
    return np.array(document, dtype=np.int64)


def _csv(text: str) -> dict[str, int]:
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or not {"id", "fold"} <= set(rows[0]):
        raise ValueError("no columns id and fold")
    return {row["id"]: int(row["fold"]) for row in rows}
