"""From options to splits: what config files, the command line and repeated splits go through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError
from epitaxy.split.by_element import split_by_element
from epitaxy.split.by_fold import split_by_folds, split_kfold
from epitaxy.split.by_group import split_by_group, split_together
from epitaxy.split.by_target import split_forward, split_stratified
from epitaxy.split.options import SplitOptions, options_of
from epitaxy.split.parts import Split
from epitaxy.split.plain import split_by_ids, split_random


def divide(dataset: Dataset, options: SplitOptions) -> Split:
    """Divide a dataset as options say.

    Raises:
        SplitError: the dataset cannot be divided so.
        DataError: the groups or the target are not there.
    """
    if options.file is not None:
        return Split.load(options.file, dataset)
    given: dict[str, Any] = options.complete()
    seed = options.seed
    match options.method:
        case "random":
            return split_random(dataset, **given, seed=seed)
        case "group":
            return split_by_group(dataset, **given, seed=seed)
        case "stratified":
            return split_stratified(dataset, given.pop("by"), **given, seed=seed)
        case "element":
            return split_by_element(dataset, given.pop("elements"), **given, seed=seed)
        case "forward":
            return split_forward(dataset, given.pop("target"), **given, seed=seed)
        case "folds":
            return split_by_folds(dataset, given.pop("folds"), **given, seed=seed)
        case "kfold":
            return split_kfold(dataset, **given, seed=seed)
        case "ids":
            return _by_files(dataset, given)


def divide_together(datasets: Sequence[Dataset], options: SplitOptions) -> list[Split]:
    """Divide several datasets so that no group is in different parts of them.

    Raises:
        SplitError: the method is not for several datasets, or they cannot be divided so.
        DataError: the groups are not there, or were made with different engines or tolerances.
    """
    if len(datasets) == 1:
        return [divide(datasets[0], options)]
    if options.method != "group" or options.file is not None:
        raise SplitError(
            f"method {options.method} divides one dataset; several are divided together with "
            f"method group"
        )
    return split_together(datasets, **options.complete(), seed=options.seed)


def divide_again(split: Split, *, others: Sequence[Dataset] = ()) -> Split:
    """Divide the dataset of a split anew with the options that it records.

    Args:
        split: made by any method.
        others: for a split made together with other datasets, these, in any order.

    Raises:
        SplitError: the split does not record how it was made, or other datasets are needed.
    """
    options = options_of(split.method)
    together = split.method.get("together")
    if not together:
        return divide(split.dataset, options)
    by_digest = {dataset.digest: dataset for dataset in [*others, split.dataset]}
    if missing := [digest for digest in together if digest not in by_digest]:
        raise SplitError(
            f"this split was made together with {len(together) - 1} other datasets; "
            f"{len(missing)} of them are missing (digest {missing[0][:12]}…)"
        )
    splits = divide_together([by_digest[digest] for digest in together], options)
    index: int = together.index(split.dataset.digest)
    return splits[index]


def all_folds(options: SplitOptions) -> dict[str, SplitOptions]:
    """Return the options of every turn of a cross-validation by name: "fold-0", "fold-0-1" ..."""
    given = options.complete()
    turns = {}
    for fold in range(given["n_folds"]):
        for inner in range(given["n_inner"] or 1):
            name = f"fold-{fold}" if given["n_inner"] is None else f"fold-{fold}-{inner}"
            turn = replace(options, fold=fold)
            turns[name] = turn if given["n_inner"] is None else replace(turn, inner=inner)
    return turns


def _by_files(dataset: Dataset, files: dict[str, Any]) -> Split:
    ids = {part: None if file is None else read_ids(file) for part, file in files.items()}
    split = split_by_ids(
        dataset, train=ids["train"], valid=ids["valid"] or (), test=ids["test"] or ()
    )
    split.method |= {part: str(file) for part, file in files.items() if file is not None}
    return split


def read_ids(path: str | Path) -> list[str]:
    """Read a file of ids, one per line.

    Raises:
        SplitError: it cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"{path}: cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]
