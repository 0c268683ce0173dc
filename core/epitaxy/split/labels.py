"""The group of every structure, in one dataset or in several that are split together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epitaxy.composition import compositions
from epitaxy.curation.groups import KINDS, find_tag
from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError

Groups = str | Sequence[str] | np.ndarray
"""A tag, "spacegroup", "matched" or "prototype" (`epitaxy groups`), "composition", "none", or one
label per structure."""

GIVEN = "given labels"


def group_labels(dataset: Dataset, groups: Groups) -> tuple[np.ndarray, str]:
    """Return one label per structure, (n,) str, and what the labels are called.

    Raises:
        SplitError: labels of the wrong number, or made labels that some structures lack.
        DataError: there is no such tag.
    """
    labels, name = labels_of_all([dataset], groups if isinstance(groups, str) else [groups])
    return labels[0], name


def labels_of_all(
    datasets: Sequence[Dataset], groups: str | Sequence[Sequence[str] | np.ndarray]
) -> tuple[list[np.ndarray], str]:
    """Return the labels of several datasets, equal for equal groups, and what they are called.

    Args:
        datasets: one or several.
        groups: a name as in `Groups`, or labels for each dataset.

    Raises:
        SplitError: labels of the wrong number, or made labels that some structures lack.
        DataError: there is no such tag, or it was made with different engines or tolerances.
    """
    if not isinstance(groups, str):
        if len(groups) != len(datasets):
            raise SplitError(f"groups: labels for {len(groups)} of {len(datasets)} datasets")
        given = [np.asarray(labels).astype(str) for labels in groups]
        for labels, dataset in zip(given, datasets, strict=True):
            if labels.shape != (len(dataset),):
                raise SplitError(f"groups: {labels.shape} labels for {len(dataset)} structures")
        return given, GIVEN
    if groups == "composition":
        return [compositions(dataset) for dataset in datasets], groups
    if groups == "none":
        return [_own_labels(dataset, k) for k, dataset in enumerate(datasets)], groups
    tag = find_tag(datasets, groups)
    return [_tagged(dataset, tag, k) for k, dataset in enumerate(datasets)], tag


def _tagged(dataset: Dataset, tag: str, index: int) -> np.ndarray:
    labels = dataset.tag(tag)
    missing = labels == ""
    if not missing.any():
        return labels
    if tag.partition("@")[0] in KINDS:
        raise SplitError(
            f"{int(missing.sum()):,} of {len(dataset):,} structures have no {tag}: they were "
            f"added after `epitaxy groups`, run it again"
        )
    return np.where(missing, _own_labels(dataset, index), labels)


def _own_labels(dataset: Dataset, index: int) -> np.ndarray:
    """Return a group for each structure alone: its id, where that is unique."""
    ids = list(dataset.ids)
    if len(set(ids)) == len(ids):
        return np.array([f"\0{name}" for name in ids], dtype=str)
    return np.array([f"\0{index}:{row}" for row in range(len(ids))], dtype=str)
