"""Splits structure by structure: at random, or by given ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError
from epitaxy.split.assign import part_sizes
from epitaxy.split.parts import Split, some


def split_random(
    dataset: Dataset, *, valid: float | int = 0.1, test: float | int = 0.1, seed: int = 0
) -> Split:
    """Divide at random, each structure for itself.

    Copies and relatives of one structure land in different parts: right for frames of one
    simulation, misleading for a database of materials (`split_by_group`).

    Args:
        dataset: what to divide.
        valid: part for validation: a fraction below 1 or a number of structures.
        test: part for the test: a fraction below 1 or a number of structures.
        seed: of the permutation; the same seed gives the same split on any machine.

    Raises:
        SplitError: the parts are negative or leave nothing to train on.
    """
    n = len(dataset)
    n_valid, n_test = part_sizes(n, valid, test, "structures")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(n)
    return Split(
        dataset,
        test=np.sort(order[:n_test]),
        valid=np.sort(order[n_test : n_test + n_valid]),
        train=np.sort(order[n_test + n_valid :]),
        method={"method": "random", "valid": valid, "test": test, "seed": seed},
    )


def split_by_ids(
    dataset: Dataset,
    *,
    train: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
) -> Split:
    """Divide by given ids.

    Args:
        dataset: what to divide.
        train: ids to train on; all that are in no other part by default.
        valid: ids to validate on.
        test: ids to test on.

    Raises:
        SplitError: ids are unknown, ambiguous or in two parts; the message names them.
    """
    row_of: dict[str, int] = {}
    ambiguous: set[str] = set()
    for i, name in enumerate(dataset.ids):
        if name in row_of:
            ambiguous.add(name)
        row_of[name] = i
    given = {"train": train, "valid": valid, "test": test}
    rows: dict[str, np.ndarray] = {}
    for part, names in given.items():
        if names is None:
            continue
        if unknown := [name for name in names if name not in row_of]:
            raise SplitError(
                f"{part}: {len(unknown)} ids are not in the dataset: {some(unknown)}; "
                f"it has ids like {some(list(dataset.ids[:2]))}"
            )
        if double := [name for name in names if name in ambiguous]:
            raise SplitError(
                f"{part}: the dataset has several structures called {some(double)}; ingest it "
                "with unique ids or split by rows"
            )
        rows[part] = np.array([row_of[name] for name in names], dtype=np.int64)
    if train is None:
        used = np.concatenate([rows["valid"], rows["test"]])
        rows["train"] = np.setdiff1d(np.arange(len(dataset)), used)
    if not len(rows["train"]):
        raise SplitError("nothing is left to train on")
    return Split(
        dataset,
        train=rows["train"],
        valid=rows["valid"],
        test=rows["test"],
        method={"method": "ids"},
    )
