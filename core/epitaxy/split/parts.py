"""The three parts of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError

PARTS = ("train", "valid", "test")


class Split:
    """Three parts of one dataset that share no structure.

    Args:
        dataset: the dataset that is divided.
        train: rows of `dataset` to learn from, (n_train,) int.
        valid: rows to choose by (early stopping, options), (n_valid,) int.
        test: rows to touch once, at the end, (n_test,) int.
        method: how the parts were chosen, plain values.

    Raises:
        SplitError: a structure is in two parts, or twice in one, or not in the dataset.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        train: np.ndarray,
        valid: np.ndarray,
        test: np.ndarray,
        method: Mapping[str, Any] | None = None,
    ):
        self.dataset = dataset
        self.rows = {
            name: np.asarray(rows, dtype=np.int64).reshape(-1)
            for name, rows in zip(PARTS, (train, valid, test), strict=True)
        }
        self.method = dict(method or {})
        self._check()
        self.train = dataset[self.rows["train"]]
        self.valid = dataset[self.rows["valid"]]
        self.test = dataset[self.rows["test"]]

    def _check(self) -> None:
        n = len(self.dataset)
        owner = np.full(n, -1)
        for k, (name, rows) in enumerate(self.rows.items()):
            if len(rows) and (rows.min() < 0 or rows.max() >= n):
                wrong = rows[(rows < 0) | (rows >= n)][0]
                raise SplitError(f"{name}: row {wrong} is not in a dataset of {n} structures")
            unique, counts = np.unique(rows, return_counts=True)
            if (counts > 1).any():
                repeated = [self.dataset.ids[int(i)] for i in unique[counts > 1]]
                raise SplitError(f"{name}: {some(repeated)} given more than once")
            taken = owner[rows] >= 0
            if taken.any():
                other = PARTS[int(owner[rows[taken][0]])]
                shared = [self.dataset.ids[int(i)] for i in rows[taken]]
                raise SplitError(
                    f"{len(shared)} structures are both in {other} and in {name}: {some(shared)}; "
                    "each may be in one part only"
                )
            owner[rows] = k

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in self.rows.items())
        return f"<Split of {len(self.dataset)} structures: {sizes}>"

    @property
    def digest(self) -> str:
        """sha256 over the data and which structures are in which part."""
        hashed = hashlib.sha256(self.dataset.digest.encode())
        for name, rows in self.rows.items():
            hashed.update(f"{name} {len(rows)}".encode())
            hashed.update(rows.tobytes())
        return hashed.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, to the side, then renamed.

        Structures are named by their ids where these are unique, by their row otherwise.

        Raises:
            SplitError: the disk refuses; what was there stays as it was.
        """
        from epitaxy.split.saved import save_split

        save_split(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, dataset: Dataset) -> Split:
        """Read what `save` wrote and apply it to the same dataset.

        Raises:
            SplitError: the file is not a split, is of a newer format or was edited, or
                `dataset` is not the one that was split.
        """
        from epitaxy.split.saved import load_split

        return load_split(Path(path), dataset)


def some(names: Sequence[str], limit: int = 5) -> str:
    """Return the first of some names, and how many more there are."""
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
