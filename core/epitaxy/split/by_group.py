"""Splits that keep groups whole, in one dataset and across several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError
from epitaxy.split.assign import by_hash, check_enough, evenly, part_fractions, part_sizes, to_sizes
from epitaxy.split.labels import Groups, group_labels, labels_of_all
from epitaxy.split.parts import PARTS, Split

Assignment = Literal["sizes", "hash"]


def split_by_group(
    dataset: Dataset,
    groups: Groups = "composition",
    *,
    valid: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
    assignment: Assignment = "sizes",
) -> Split:
    """Divide so that structures of one group stay together, in all three parts.

    Args:
        dataset: what to divide.
        groups: name of a tag, "spacegroup" (made by `epitaxy groups`), "composition" (reduced
            formula), "none", or one label per structure. Structures without the tag are groups
            of their own.
        valid: part for validation: a fraction below 1 or a number of structures.
        test: part for the test: a fraction below 1 or a number of structures.
        seed: of the choice of groups.
        assignment: "sizes" takes groups in random order and puts them where they bring the sizes
            nearest to those asked for, large groups into the training part. "hash" decides by
            the label of a group and the seed alone: a group stays where it is when the dataset
            grows, and is in the same part of every other dataset; sizes are then met on average
            only.

    Raises:
        SplitError: there are too few groups, or labels of the wrong number.
        DataError: there is no such tag.
    """
    labels, name = group_labels(dataset, groups)
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if assignment == "hash":
        fractions = part_fractions(valid, test, "sizes by hash are met on average")
        part_of = by_hash(names.tolist(), valid=fractions[0], test=fractions[1], seed=seed)
    elif assignment == "sizes":
        n_valid, n_test = part_sizes(len(dataset), valid, test, "structures")
        needed = 1 + (n_valid > 0) + (n_test > 0)
        check_enough(len(names), needed, name, tags=dataset.tags)
        part_of = to_sizes(counts, valid=n_valid, test=n_test, seed=seed, name=name)
    else:
        raise SplitError(f"assignment {assignment!r}: use sizes or hash")
    part_of_row = part_of[codes]
    if not (part_of_row == 0).any():
        raise SplitError(
            f"none of {len(names)} groups by {name} came into the training part: use assignment "
            "sizes, another seed, or smaller parts"
        )
    return split_of(
        dataset,
        part_of_row,
        {
            "method": "group",
            "groups": name,
            "valid": valid,
            "test": test,
            "seed": seed,
            "assignment": assignment,
        },
    )


def split_together(
    datasets: Sequence[Dataset],
    *,
    groups: str | Sequence[Sequence[str] | np.ndarray] = "composition",
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    assignment: Assignment = "sizes",
) -> list[Split]:
    """Divide several datasets so that a group is in the same part of all of them.

    Train on one database and test on another, or transfer between levels of theory, without the
    test of one being in the training of the other.

    Args:
        datasets: what to divide.
        groups: name of a tag, "spacegroup", "composition", or labels for each dataset.
        valid: fraction for validation.
        test: fraction for the test.
        seed: of the choice of groups.
        assignment: "sizes" divides groups that datasets share, and those of each alone, in the
            same proportions; "hash" decides by label and seed alone.

    Raises:
        SplitError: there are too few groups, labels of the wrong number, or sizes that are not
            fractions.
        DataError: there is no such tag, or it was made with different engines or tolerances.
    """
    if not datasets:
        raise SplitError("no datasets to split")
    labels, name = labels_of_all(datasets, groups)
    fractions = part_fractions(valid, test, "of each dataset")
    names, codes = np.unique(np.concatenate(labels), return_inverse=True)
    owner = np.repeat(np.arange(len(datasets)), [len(dataset) for dataset in datasets])
    if assignment == "hash":
        part_of = by_hash(names.tolist(), valid=fractions[0], test=fractions[1], seed=seed)
    elif assignment == "sizes":
        counts = np.zeros((len(names), len(datasets)), dtype=np.int64)
        np.add.at(counts, (codes, owner), 1)
        _, sharing = np.unique(counts > 0, axis=0, return_inverse=True)
        part_of = evenly(
            counts,
            sharing.reshape(-1),
            valid=fractions[0],
            test=fractions[1],
            seed=seed,
            name=name,
        )
    else:
        raise SplitError(f"assignment {assignment!r}: use sizes or hash")
    digests = [dataset.digest for dataset in datasets]
    method = {
        "method": "group",
        "groups": name,
        "valid": valid,
        "test": test,
        "seed": seed,
        "assignment": assignment,
    }
    if len(datasets) > 1:
        method["together"] = digests
    part_of_row = part_of[codes]
    return [
        split_of(dataset, part_of_row[owner == k], method) for k, dataset in enumerate(datasets)
    ]


def split_of(dataset: Dataset, part_of_row: np.ndarray, method: dict[str, object]) -> Split:
    """Return the split with the part of each row given, (n,) index into `PARTS`."""
    rows = {name: (part_of_row == k).nonzero()[0] for k, name in enumerate(PARTS)}
    return Split(
        dataset, train=rows["train"], valid=rows["valid"], test=rows["test"], method=method
    )


def with_valid(
    dataset: Dataset,
    is_test: np.ndarray,
    codes: np.ndarray,
    *,
    valid: float | int,
    seed: int,
    name: str,
) -> np.ndarray:
    """Take whole groups for validation out of what is not in the test.

    Args:
        dataset: what is divided.
        is_test: (n,) bool, rows of the test.
        codes: (n,) int, the group of each row.
        valid: fraction of the rest, or a number of structures.
        seed: of the choice of groups.
        name: what the groups are called.

    Returns:
        (n,) index into `PARTS`.

    Raises:
        SplitError: nothing or too little is left.
    """
    rest = (~is_test).nonzero()[0]
    if not len(rest):
        raise SplitError(f"all {len(dataset)} structures are in the test: nothing to train on")
    part_of_row = np.where(is_test, PARTS.index("test"), PARTS.index("train"))
    if valid:
        n_valid, _ = part_sizes(len(rest), valid, 0, "structures")
        _, inner, counts = np.unique(codes[rest], return_inverse=True, return_counts=True)
        part_of = to_sizes(counts, valid=n_valid, test=0, seed=seed, name=name)
        part_of_row[rest] = part_of[inner]
    return part_of_row
