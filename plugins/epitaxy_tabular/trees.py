"""Decision trees as plain arrays, and their evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """Many trees, their nodes stacked one tree after another.

    A row goes left at a node if its feature is at most the node's number. A leaf has feature -1,
    and its number is the value; its children are itself.

    Attributes:
        feature: (n_nodes,) int32, column that is compared; -1 for a leaf.
        number: (n_nodes,) float64, threshold, or the value of a leaf.
        left: (n_nodes,) int32, index of the next node over all trees.
        right: (n_nodes,) int32.
        roots: (n_trees,) int32.
        base: what is added to the trees.
        is_mean: the mean of the trees, whose spread is the uncertainty; else their sum.
        is_logistic: whether the result is a logit that becomes a probability.
        is_single: whether features are rounded to float32 before they are compared.
        has_std: whether the spread of the trees is given.
    """

    feature: np.ndarray
    number: np.ndarray
    left: np.ndarray
    right: np.ndarray
    roots: np.ndarray
    base: float = 0.0
    is_mean: bool = True
    is_logistic: bool = False
    is_single: bool = True
    has_std: bool = False

    kind = "trees"

    def values(self, features: np.ndarray) -> Iterable[np.ndarray]:
        """Yield the value of every tree for every row, (n,) each."""
        if self.is_single:
            features = features.astype(np.float32)
        width = features.shape[1]
        flat = np.ascontiguousarray(features).ravel()
        offset = np.arange(len(features)) * width
        column = np.maximum(self.feature, 0)
        for root in self.roots:
            node = np.full(len(features), root)
            while (self.feature[node] >= 0).any():
                goes_left = flat[offset + column[node]] <= self.number[node]
                node = np.where(goes_left, self.left[node], self.right[node])
            yield self.number[node]

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return mean and, if there is one, standard deviation of every row, (n,) each."""
        parts = [
            self._predict(features[start : start + ROWS_AT_ONCE])
            for start in range(0, max(len(features), 1), ROWS_AT_ONCE)
        ]
        mean = np.concatenate([part[0] for part in parts])
        return mean, np.concatenate([part[1] for part in parts]) if self.has_std else None

    def _predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total, shifted, squares = np.zeros((3, len(features)))
        first: np.ndarray | None = None
        for values in self.values(features):
            total += values
            if self.has_std:
                first = values if first is None else first  # squares of large numbers would cancel
                shifted += values - first
                squares += (values - first) ** 2
        if not self.is_mean:
            total += self.base
            return (1 / (1 + np.exp(-total)) if self.is_logistic else total), squares
        n_trees = len(self.roots)
        variance = squares / n_trees - (shifted / n_trees) ** 2
        return total / n_trees, np.sqrt(np.maximum(variance, 0.0))

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return everything as arrays."""
        flags = [self.is_mean, self.is_logistic, self.is_single, self.has_std]
        return {
            "feature": self.feature,
            "number": self.number,
            "left": self.left,
            "right": self.right,
            "roots": self.roots,
            "base": np.array([self.base]),
            "flags": np.array(flags, dtype=np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Trees:
        """Make the same again."""
        is_mean, is_logistic, is_single, has_std = (bool(x) for x in arrays["flags"])
        return cls(
            feature=arrays["feature"],
            number=arrays["number"],
            left=arrays["left"],
            right=arrays["right"],
            roots=arrays["roots"],
            base=float(arrays["base"][0]),
            is_mean=is_mean,
            is_logistic=is_logistic,
            is_single=is_single,
            has_std=has_std,
        )


class Nodes(TypedDict):
    """The nodes of several trees, as `Trees` holds them."""

    feature: np.ndarray
    number: np.ndarray
    left: np.ndarray
    right: np.ndarray
    roots: np.ndarray


def stacked(trees: Iterable[tuple[np.ndarray, ...]]) -> Nodes:
    """Return the nodes of several trees behind one another.

    Args:
        trees: of each (feature, number, left, right); a leaf has feature -1, children count from
            0 in each tree.
    """
    features, numbers, lefts, rights, roots = [], [], [], [], []
    start = 0
    for feature, number, left, right in trees:
        itself = np.arange(len(feature))
        is_leaf = feature < 0
        features.append(feature.astype(np.int32))
        numbers.append(number.astype(np.float64))
        lefts.append((np.where(is_leaf, itself, left) + start).astype(np.int32))
        rights.append((np.where(is_leaf, itself, right) + start).astype(np.int32))
        roots.append(start)
        start += len(feature)
    return {
        "feature": np.concatenate(features),
        "number": np.concatenate(numbers),
        "left": np.concatenate(lefts),
        "right": np.concatenate(rights),
        "roots": np.array(roots, dtype=np.int32),
    }
