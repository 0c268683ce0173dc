"""The part of a dataset that one process of several loads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epitaxy.dataset import Dataset


@dataclass(frozen=True)
class Share:
    """A part of a dataset.

    Attributes:
        dataset: the part.
        n_structures: of the whole.
        fingerprint: tells wholes apart; found without reading columns.
        digest: call for the digest of the whole.
    """

    dataset: Dataset
    n_structures: int
    fingerprint: str
    digest: Callable[[], str]


def open_share(source: Dataset | str | Path, rank: int, n_ranks: int) -> Share:
    """Return the consecutive rows that one of `n_ranks` processes loads.

    Args:
        source: a dataset, or the path of one.
        rank: from 0.
        n_ranks: processes that load the dataset together.

    Raises:
        StoreError: see `Dataset.open`.
    """
    whole = source if isinstance(source, Dataset) else Dataset.open(source)
    n = len(whole)
    part = whole[n * rank // n_ranks : n * (rank + 1) // n_ranks]
    if whole.path is None:
        digest = whole.digest
        return Share(part, n, digest, lambda: digest)  # the whole need not stay in memory
    return Share(part, n, _fingerprint(whole), lambda: whole.digest)


def _fingerprint(dataset: Dataset) -> str:
    """Return a digest that tells mapped datasets apart; no column is read for it."""
    if dataset._digest is not None:
        return dataset.digest
    from epitaxy.stores.memory_map import read_manifest

    # A selection of a dataset on disk: what is stored, and which rows of it.
    assert dataset.path is not None
    base = str(read_manifest(dataset.path)["digest"])
    rows = np.arange(len(dataset)) if dataset._rows is None else dataset._rows
    return hashlib.sha256(base.encode() + rows.tobytes()).hexdigest()
