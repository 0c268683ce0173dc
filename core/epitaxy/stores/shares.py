"""The part of a dataset that one process of several loads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.stores.formats import MANIFEST, dataset_format

BP5 = "epitaxy-dataset-bp5"


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
        MissingDependencyError: it is a BP5 dataset and adios2 is not installed.
    """
    if isinstance(source, Dataset):
        path, is_whole = source.path, source._rows is None
    else:
        path, is_whole = Path(source), True
    if path is not None and is_whole and dataset_format(path) == BP5:
        share = _share_of_bp5(path, rank, n_ranks)
        if isinstance(source, Dataset):
            history = source.history
            own = Dataset(share.dataset._columns, rows=share.dataset._rows, history=history)
            share = replace(share, dataset=own)
        return share
    whole = source if isinstance(source, Dataset) else Dataset.open(source)
    n = len(whole)
    part = whole[n * rank // n_ranks : n * (rank + 1) // n_ranks]
    if whole.path is None:
        digest = whole.digest
        return Share(part, n, digest, lambda: digest)  # the whole need not stay in memory
    return Share(part, n, _fingerprint(whole), lambda: whole.digest)


def _share_of_bp5(path: Path, rank: int, n_ranks: int) -> Share:
    """Read the manifest and the files that hold the share; the others are not looked at."""
    from epitaxy.stores import bp5
    from epitaxy.stores.bp5_index import read_index

    index = read_index(path)
    ids = "".join(part.id for part in index.parts)
    return Share(
        dataset=bp5.open_share(path, rank, n_ranks),
        n_structures=index.n_structures,
        fingerprint=index.digest or hashlib.sha256(ids.encode()).hexdigest(),
        digest=lambda: index.digest or Dataset.open(path).digest,
    )


def _fingerprint(dataset: Dataset) -> str:
    """Return a digest that tells stored datasets apart; no column is read for it."""
    if dataset._digest is not None:
        return dataset.digest
    # A selection of a dataset on disk: what is stored, and which rows of it.
    assert dataset.path is not None
    stored = (dataset.path / MANIFEST).read_bytes()
    rows = np.arange(len(dataset)) if dataset._rows is None else dataset._rows
    return hashlib.sha256(hashlib.sha256(stored).digest() + rows.tobytes()).hexdigest()
