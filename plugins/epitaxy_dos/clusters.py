"""Homogeneous subsets: calculations that are similar to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epitaxy.errors import OptionError
from epitaxy_dos.matrix import similarities
from epitaxy_dos.spectra import Fingerprints

KINDS = ("complete", "average", "connected")

MOST_FOR_LINKAGE = 5000
"""Entries up to which a hierarchy of all pairs is affordable: 5000 need 0.5 GB."""

_ROWS = 512


@dataclass(frozen=True, slots=True)
class Clusters:
    """A partition of the entries.

    Attributes:
        labels: (n,) int64, number of each entry's cluster; 0 is the largest.
        kind: how they were found.
        threshold: of the similarity.
    """

    labels: np.ndarray
    kind: str
    threshold: float

    @property
    def sizes(self) -> np.ndarray:
        """(n_clusters,) entries of each, largest first."""
        return np.bincount(self.labels)


def find_clusters(
    fingerprints: Fingerprints, *, threshold: float = 0.9, kind: str = ""
) -> Clusters:
    """Group entries by their similarity.

    Args:
        fingerprints: (n).
        threshold: similarity, above 0 and up to 1.
        kind: "complete": every pair of a cluster is at least as similar as the threshold, so
            the cluster is homogeneous. "average": clusters are joined while the mean similarity
            between them is. "connected": a chain of similar pairs leads from each entry to each
            other; the ends may differ. "" for complete up to 5,000 entries, else connected.

    Raises:
        OptionError: threshold or kind is not allowed, or there are too many entries for it.
    """
    if not 0 < threshold <= 1:
        raise OptionError(f"threshold {threshold}: above 0 and up to 1")
    kind = kind or ("complete" if len(fingerprints) <= MOST_FOR_LINKAGE else "connected")
    if kind not in KINDS:
        raise OptionError(f"clusters of kind {kind!r}: there are {', '.join(KINDS)}")
    if kind == "connected":
        return Clusters(_largest_first(_connected(fingerprints, threshold)), kind, threshold)
    if len(fingerprints) > MOST_FOR_LINKAGE:
        raise OptionError(
            f"{kind} clusters of {len(fingerprints):,} entries need all pairs in memory; up to "
            f"{MOST_FOR_LINKAGE:,} are allowed: use 'connected'"
        )
    if len(fingerprints) == 1:
        return Clusters(np.zeros(1, dtype=np.int64), kind, threshold)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    matrix = similarities(fingerprints, fingerprints)
    np.fill_diagonal(matrix, 1.0)
    tree = linkage(squareform(1.0 - matrix, checks=False), method=kind)
    labels = fcluster(tree, 1.0 - threshold + 1e-12, criterion="distance")
    return Clusters(_largest_first(labels), kind, threshold)


def _connected(fingerprints: Fingerprints, threshold: float) -> np.ndarray:
    """Return connected components; every similarity is computed at most once and not kept."""
    labels = np.full(len(fingerprints), -1)
    left = np.arange(len(fingerprints))
    number = 0
    while len(left):
        frontier, left = left[:1], left[1:]
        labels[frontier] = number
        while len(frontier) and len(left):
            reached = np.zeros(len(left), dtype=bool)
            for first in range(0, len(frontier), _ROWS):
                (open_,) = np.nonzero(~reached)
                some = similarities(
                    fingerprints,
                    fingerprints,
                    rows=frontier[first : first + _ROWS],
                    columns=left[open_],
                )
                reached[open_] = (some >= threshold).any(axis=0)
            frontier, left = left[reached], left[~reached]
            labels[frontier] = number
        number += 1
    return labels


def _largest_first(labels: np.ndarray) -> np.ndarray:
    """Number clusters by their size, equal ones by their first entry."""
    _, first, where, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(sizes), dtype=np.int64)
    place[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    numbered: np.ndarray = place[where]
    return numbered
