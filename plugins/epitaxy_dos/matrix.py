"""The similarity of every calculation with every other: in blocks, in threads, on disk if large.

Nothing here needs the matrix in memory: rows are computed block by block and handed to whoever
wants them. On the default grid one core compares some 5e7 pairs per second, so that computing a
block again is cheaper than keeping it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epitaxy.errors import OptionError
from epitaxy.spectra import tanimoto
from epitaxy.stores.new_file import new_file
from epitaxy_dos.spectra import Fingerprints

_BLOCK_VALUES = 4_000_000
"""Similarities of a block: 32 MB."""


def blocks(
    fingerprints: Fingerprints,
    *,
    others: Fingerprints | None = None,
    n_workers: int = 0,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of the matrix in their order: (which rows, similarities (k, m) float64).

    Memory is bounded: one block per worker, and one more.

    Args:
        fingerprints: (n) of the rows.
        others: (m) of the columns; None for the same ones.
        n_workers: threads; 0 for as many as the process may use.

    Raises:
        OptionError: the number of workers is negative.
    """
    if n_workers < 0:
        raise OptionError(f"n_workers={n_workers}: 1 or more, 0 for all processors")
    n_workers = n_workers or _processors()
    columns = fingerprints if others is None else others
    height = max(1, min(1024, _BLOCK_VALUES // max(1, len(columns))))
    slices = [
        slice(i, min(i + height, len(fingerprints))) for i in range(0, len(fingerprints), height)
    ]

    def compute(rows: slice) -> np.ndarray:
        return similarities(fingerprints, columns, rows=rows)

    with ThreadPoolExecutor(n_workers) as pool:
        waiting: deque[tuple[slice, Future[np.ndarray]]] = deque()
        for rows in slices:
            waiting.append((rows, pool.submit(compute, rows)))
            if len(waiting) > n_workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def similarities(
    fingerprints: Fingerprints,
    others: Fingerprints,
    *,
    rows: slice | np.ndarray | None = None,
    columns: slice | np.ndarray | None = None,
) -> np.ndarray:
    """Return part of the matrix, (k, m) float64, each pair compared where both are known."""
    chosen = slice(None) if rows is None else rows
    against = slice(None) if columns is None else columns
    if fingerprints.is_complete and others.is_complete:
        return tanimoto(fingerprints.heights[chosen], others.heights[against])
    return tanimoto(
        fingerprints.heights[chosen],
        others.heights[against],
        covered_a=fingerprints.covered[chosen],
        covered_b=others.covered[against],
    )


def similarity_matrix(
    fingerprints: Fingerprints,
    *,
    path: Path | None = None,
    n_workers: int = 0,
    overwrite: bool = False,
) -> np.ndarray:
    """Return all similarities, (n, n) float32, mapped from a file if `path` is given.

    float32 holds every similarity to 6e-8; the counts behind it are exact.

    Raises:
        StoreError: the file exists and `overwrite` is false, or the disk refuses it.
    """
    n = len(fingerprints)
    if path is None:
        matrix = np.empty((n, n), dtype=np.float32)
        for rows, block in blocks(fingerprints, n_workers=n_workers):
            matrix[rows] = block
        return matrix
    with new_file(path, overwrite=overwrite) as partial, partial.open("wb") as stream:
        heading = {"descr": "<f4", "fortran_order": False, "shape": (n, n)}
        np.lib.format.write_array_header_1_0(stream, heading)
        for _, block in blocks(fingerprints, n_workers=n_workers):
            stream.write(block.astype("<f4").tobytes())
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The most similar entries of each entry, without itself.

    Attributes:
        index: (n, k) int64, numbers of the fingerprints, most similar first.
        similarity: (n, k) float64.
    """

    index: np.ndarray
    similarity: np.ndarray


def nearest(fingerprints: Fingerprints, *, k: int = 10, n_workers: int = 0) -> Neighbors:
    """Return the `k` most similar entries of each; the matrix itself is not kept.

    Raises:
        OptionError: `k` is not positive.
    """
    if k < 1:
        raise OptionError(f"{k} neighbors: 1 at least")
    n = len(fingerprints)
    k = min(k, n - 1)
    index = np.zeros((n, k), dtype=np.int64)
    similarity = np.zeros((n, k))
    for rows, block in blocks(fingerprints, n_workers=n_workers):
        here = np.arange(rows.start, rows.stop)
        block[np.arange(len(block)), here] = -1.0
        if k:
            some = np.argpartition(-block, k - 1, axis=1)[:, :k]
            values = np.take_along_axis(block, some, axis=1)
            # Equal similarities stand in the order of the entries.
            order = np.lexsort((some, -values), axis=1)
            index[rows] = np.take_along_axis(some, order, axis=1)
            similarity[rows] = np.take_along_axis(values, order, axis=1)
    return Neighbors(index, similarity)


def picture(fingerprints: Fingerprints, *, size: int = 1200, n_workers: int = 0) -> np.ndarray:
    """Return the matrix as an image (m, m) float32 with m <= size: means of square blocks."""
    n = len(fingerprints)
    m = min(n, size)
    edges = np.linspace(0, n, m + 1).astype(int)
    counts = np.diff(edges).astype(float)
    sums = np.zeros((m, m))
    which = np.repeat(np.arange(m), np.diff(edges))
    for rows, block in blocks(fingerprints, n_workers=n_workers):
        narrow = np.add.reduceat(block, edges[:-1], axis=1)
        np.add.at(sums, which[rows], narrow)
    means: np.ndarray = (sums / counts[:, None] / counts[None, :]).astype(np.float32)
    return means
