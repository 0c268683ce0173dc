"""How similar fingerprints are: the Tanimoto coefficient, from column heights alone.

With heights h and k of two fingerprints, columns being filled from below,

    common pixels  c = sum min(h_i, k_i)
    similarity     T = c / (sum h + sum k - c)

which is the number of pixels that are filled in both over that filled in either. All counts
are whole numbers, so nothing is rounded before the one division. T is 1 for equal fingerprints
and 0 for those that share no pixel; 1 - T is a metric (Lipkus, J. Math. Chem. 26, 263 (1999)).

Source: Willett, Barnard, Downs, J. Chem. Inf. Comput. Sci. 38, 983 (1998),
doi:10.1021/ci9800211; for spectra Kuban et al., Sci. Data 9, 646 (2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from epitaxy.errors import DataError

_ROWS, _COLUMNS = 128, 1024
"""A block of pairs whose counts stay in the processor's cache."""

_BYTE = 255

_NEVER = np.inf
"""Size that an empty fingerprint is given, so that its similarity is 0, not 0 / 0."""


def tanimoto(
    a: np.ndarray,
    b: np.ndarray,
    *,
    covered_a: np.ndarray | None = None,
    covered_b: np.ndarray | None = None,
) -> np.ndarray:
    """Return the similarity of each fingerprint of `a` with each of `b`.

    Args:
        a: (n, n_columns) uint8, heights from `fingerprints`.
        b: (m, n_columns) uint8, on the same grid.
        covered_a: (n, 2) first and last + 1 column that each spectrum covers (`coverage`); each
            pair is then compared where both are known. None: all columns.
        covered_b: (m, 2), the same for `b`.

    Returns:
        (n, m) float64 from 0 to 1; 0 where neither has a filled pixel.

    Raises:
        DataError: the fingerprints are not on the same grid, or are not heights.
    """
    a, b = _heights(a), _heights(b)
    _check_widths(a, b)
    if covered_a is None and covered_b is None:
        return _similarity(a, b)
    ranges_a, ranges_b = _ranges(covered_a, a), _ranges(covered_b, b)
    similarity = np.empty((len(a), len(b)))
    kinds_a, member_a = np.unique(ranges_a, axis=0, return_inverse=True)
    kinds_b, member_b = np.unique(ranges_b, axis=0, return_inverse=True)
    for i, (start_a, stop_a) in enumerate(kinds_a.tolist()):
        (rows,) = np.nonzero(member_a.reshape(-1) == i)
        for j, (start_b, stop_b) in enumerate(kinds_b.tolist()):
            (columns,) = np.nonzero(member_b.reshape(-1) == j)
            both = slice(max(start_a, start_b), max(min(stop_a, stop_b), max(start_a, start_b)))
            similarity[np.ix_(rows, columns)] = _similarity(a[rows, both], b[columns, both])
    return similarity


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how many filled pixels each fingerprint of `a` shares with each of `b`.

    Args:
        a: (n, n_columns) uint8.
        b: (m, n_columns) uint8.

    Returns:
        (n, m) uint16 or uint32, whichever holds the largest possible count.
    """
    a, b = _heights(a), _heights(b)
    _check_widths(a, b)
    common = np.empty((len(a), len(b)), dtype=_kind(a, b))
    for rows, columns, counts in _counts(a, b):
        common[rows, columns] = counts
    return common


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    similarity = np.empty((len(a), len(b)))
    sizes_a = a.sum(axis=1, dtype=np.float64)[:, None]
    sizes_b = b.sum(axis=1, dtype=np.float64)
    if len(b) and (sizes_b == 0).any():
        sizes_b = np.where(sizes_b == 0, _NEVER, sizes_b)
    either = np.empty((min(_ROWS, len(a)), min(_COLUMNS, len(b))))
    for rows, columns, counts in _counts(a, b):
        union = either[: counts.shape[0], : counts.shape[1]]
        np.add(sizes_a[rows], sizes_b[columns], out=union)
        np.subtract(union, counts, out=union)
        np.divide(counts, union, out=similarity[rows, columns])
    return similarity


def _counts(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield the shared pixels of blocks of pairs: rows, columns, counts (overwritten later).

    Exact and fast: minima of bytes are added up in bytes as long as they cannot overflow, column
    by column, in blocks that stay in the processor's cache.
    """
    n_columns = a.shape[1]
    group = max(1, _BYTE // _highest(a, b))
    across, down = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    shape = min(_ROWS, len(a)), min(_COLUMNS, len(b))
    lower, added = (np.empty(shape, dtype=np.uint8) for _ in range(2))
    counted = np.empty(shape, dtype=_kind(a, b))
    for first in range(0, len(a), _ROWS):
        rows = slice(first, min(first + _ROWS, len(a)))
        left = across[:, rows, None]
        for start in range(0, len(b), _COLUMNS):
            columns = slice(start, min(start + _COLUMNS, len(b)))
            right = down[:, None, columns]
            size = (slice(rows.stop - rows.start), slice(columns.stop - columns.start))
            some, total, counts = lower[size], added[size], counted[size]
            counts[:] = 0
            for column in range(0, n_columns, group):
                np.minimum(left[column], right[column], out=total)
                for next_column in range(column + 1, min(column + group, n_columns)):
                    np.minimum(left[next_column], right[next_column], out=some)
                    np.add(total, some, out=total)
                np.add(counts, total, out=counts)
            yield rows, columns, counts


def _highest(a: np.ndarray, b: np.ndarray) -> int:
    return int(max(a.max(initial=1), b.max(initial=1)))


def _kind(a: np.ndarray, b: np.ndarray) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type that holds every count."""
    largest = a.shape[1] * _highest(a, b)
    return np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32


def _heights(fingerprints: np.ndarray) -> np.ndarray:
    array = np.asarray(fingerprints)
    if array.ndim != 2 or array.dtype != np.uint8:
        raise DataError(
            f"fingerprints of shape {array.shape} and type {array.dtype}; allowed are column "
            "heights (n, n_columns) of type uint8, as `epitaxy.spectra.fingerprints` gives them"
        )
    return array


def _check_widths(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"fingerprints of {a.shape[1]} and of {b.shape[1]} columns: they are on different "
            "grids; compute both with the same one"
        )


def _ranges(covered: np.ndarray | None, fingerprints: np.ndarray) -> np.ndarray:
    whole = np.tile([0, fingerprints.shape[1]], (len(fingerprints), 1))
    if covered is None:
        return whole
    ranges = np.asarray(covered)
    if ranges.shape != whole.shape:
        raise DataError(f"covered columns of shape {ranges.shape}; allowed is {whole.shape}")
    return ranges
