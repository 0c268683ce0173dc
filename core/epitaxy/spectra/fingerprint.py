"""Spectral fingerprints: the states of each column of a grid, in pixels.

A fingerprint of Kuban et al. is an image of 0 and 1: each column of energy is filled from
below up to the states that it holds. The height of each column says it all, in one byte.

Source: Kuban, Rigamonti, Scheidgen, Draxl, Sci. Data 9, 646 (2022),
doi:10.1038/s41597-022-01754-z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from epitaxy.errors import DataError
from epitaxy.spectra.grid import DEFAULT_GRID, OLD_GRID, PHONON_GRID, WIDE_GRID, Grid

__all__ = [
    "DEFAULT_GRID",
    "OLD_GRID",
    "PHONON_GRID",
    "WIDE_GRID",
    "Coverage",
    "Grid",
    "coverage",
    "fingerprints",
    "states_per_column",
]

_SAME = 1e-9
"""eV; energies that differ by less than this are the same."""

_AT_ONCE = 4096
"""Spectra whose states are held in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which columns of a grid lie wholly inside the energies of a spectrum.

    Attributes:
        start: first such column.
        stop: one more than the last.
        fraction: part of the grid's energy range that they are, 0 to 1.
    """

    start: int
    stop: int
    fraction: float


def coverage(energies: np.ndarray, grid: Grid = DEFAULT_GRID) -> Coverage:
    """Return which columns of `grid` a spectrum at `energies` (n_points,) covers.

    Raises:
        DataError: energies are not at least two increasing finite numbers.
    """
    energies = _increasing(energies)
    inside = (grid.edges >= energies[0] - _SAME) & (grid.edges <= energies[-1] + _SAME)
    (found,) = np.nonzero(inside)
    if len(found) < 2:
        return Coverage(0, 0, 0.0)
    start, stop = int(found[0]), int(found[-1])
    whole = grid.edges[-1] - grid.edges[0]
    return Coverage(start, stop, float((grid.edges[stop] - grid.edges[start]) / whole))


def states_per_column(
    energies: np.ndarray, dos: np.ndarray, *, grid: Grid = DEFAULT_GRID
) -> np.ndarray:
    """Integrate spectra over the columns of a grid: exactly, for a straight line between points.

    Args:
        energies: (n_points,), eV, increasing; spacing may vary.
        dos: (n, n_points) or (n_points,), states/eV.
        grid: the columns.

    Returns:
        (n, n_columns) float64, states; 0 in columns that the energies do not cover wholly.

    Raises:
        DataError: shapes do not fit, a number is not finite, or energies do not increase.
    """
    energies = _increasing(energies)
    dos = np.atleast_2d(np.asarray(dos, dtype=np.float64))
    if dos.ndim != 2 or dos.shape[1] != len(energies):
        raise DataError(
            f"spectra of shape {dos.shape} at {len(energies)} energies; allowed are "
            f"({len(energies)},) and (n, {len(energies)})"
        )
    finite = np.isfinite(dos).all(axis=1)
    if not finite.all():
        raise DataError(f"spectrum {int(np.argmin(finite))} has values that are not finite")
    weights = _weights(energies, grid)
    states = np.empty((len(dos), grid.n_columns))
    for first in range(0, len(dos), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        states[part] = (weights @ dos[part].T).T
    return states


def fingerprints(energies: np.ndarray, dos: np.ndarray, *, grid: Grid = DEFAULT_GRID) -> np.ndarray:
    """Return the fingerprints of spectra: the filled pixels of each column.

    Equal to the reference implementation (version 2.0.0) bit for bit, where a spectrum covers
    the grid. Where it does not, columns that it covers in part count as not covered; give the
    `coverage` of both to `tanimoto` to compare only what both cover.

    Args:
        energies: (n_points,), eV, relative to the valence band maximum or the Fermi energy.
        dos: (n, n_points) or (n_points,), states/eV of the cell, spins summed.
        grid: columns and pixels.

    Returns:
        (n, n_columns) uint8.

    Raises:
        DataError: a fingerprint would be empty, or the spectra are damaged; the message says
            which and why.
    """
    energies = _increasing(energies)
    covered = coverage(energies, grid)
    if covered.start == covered.stop:
        raise DataError(
            f"energies from {energies[0]:g} to {energies[-1]:g} cover no column of the grid, "
            f"which goes from {grid.edges[0]:g} to {grid.edges[-1]:g}: align them to the valence "
            "band maximum or the Fermi energy, in the grid's unit"
        )
    states = states_per_column(energies, dos, grid=grid)
    pixels = grid.pixels
    heights = np.zeros(states.shape, dtype=np.uint8)
    for column in range(covered.start, covered.stop):
        heights[:, column] = np.searchsorted(pixels[column], states[:, column], side="right")
    empty = ~heights.any(axis=1)
    if empty.any():
        number = int(np.argmax(empty))
        raise DataError(
            f"spectrum {number} has an empty fingerprint: at most {states[number].max():.3g} "
            f"states in a column whose smallest pixel is {pixels.min():.3g}. Are its values "
            "states/eV of the whole cell, and its energies aligned?"
        )
    return heights


def _increasing(energies: np.ndarray) -> np.ndarray:
    energies = np.asarray(energies, dtype=np.float64)
    if energies.ndim != 1 or len(energies) < 2:
        raise DataError(f"energies of shape {energies.shape}; allowed is (n_points,), at least 2")
    if not np.isfinite(energies).all() or (np.diff(energies) <= 0).any():
        raise DataError("energies of a spectrum must be finite and increase from point to point")
    return energies


def _weights(energies: np.ndarray, grid: Grid) -> csr_array:
    """Return the (n_columns, n_points) matrix that integrates a spectrum over each column.

    One row sums its points in their order, so a spectrum's states do not depend on the
    spectra that it is integrated with.
    """
    covered = coverage(energies, grid)
    edges = grid.edges[covered.start : covered.stop + 1]
    shape = (grid.n_columns, len(energies))
    if len(edges) < 2:
        return csr_array(shape)
    if grid.sampling:
        first, last = np.rint(edges[[0, -1]] / grid.sampling).astype(int)
        points = np.arange(first, last + 1) * grid.sampling
    else:
        inside = (energies > edges[0] + _SAME) & (energies < edges[-1] - _SAME)
        points = np.concatenate([edges, energies[inside]])
        points = np.sort(points)
        points = points[np.concatenate([[True], np.diff(points) > 0])]
    left = np.searchsorted(energies, points, side="right") - 1
    left = np.clip(left, 0, len(energies) - 2)
    share = (points - energies[left]) / (energies[left + 1] - energies[left])
    share = np.clip(share, 0.0, 1.0)
    half = np.diff(points) / 2
    middle = (points[1:] + points[:-1]) / 2
    column = np.searchsorted(edges, middle) - 1 + covered.start
    rows, points_index, values = [], [], []
    for end in (slice(None, -1), slice(1, None)):  # both ends of each piece of a line
        rows += [column, column]
        points_index += [left[end], left[end] + 1]
        values += [half * (1 - share[end]), half * share[end]]
    where = (np.concatenate(rows), np.concatenate(points_index))
    return csr_array((np.concatenate(values), where), shape=shape)
