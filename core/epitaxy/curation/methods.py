"""Levels of theory as words, one per structure."""

from __future__ import annotations

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Method

UNKNOWN = "not recorded"


def method_label(method: Method) -> str:
    """Return a level of theory as text: "VASP, PBE" (code, functional, settings)."""
    words = (method.code, method.xc_functional, method.settings)
    return ", ".join(word for word in words if word) or UNKNOWN


def method_labels(dataset: Dataset) -> np.ndarray:
    """Return the level of theory of each structure, (n,) str."""
    words: dict[Method, str] = {method: method_label(method) for method in dataset.methods}
    if len(words) == 1:
        return np.full(len(dataset), next(iter(words.values())))
    return np.array([words[dataset.method(i)] for i in range(len(dataset))], dtype=str)


def labels_by(dataset: Dataset, by: str) -> np.ndarray:
    """Return the word by which structures are told apart, (n,) str.

    Args:
        dataset: structures.
        by: "method", or the name of a tag.
    """
    return method_labels(dataset) if by == "method" else dataset.tag(by)


def matches(label: str, name: str) -> bool:
    """Return whether a method is meant by a name: the whole label, or one of its words."""
    return label == name or name in label.split(", ")
