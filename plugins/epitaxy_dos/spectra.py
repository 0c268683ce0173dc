"""The spectra of a dataset as fingerprints: which entries, on which grid, covered how far."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.errors import DataError, OptionError
from epitaxy.quantities import quantity
from epitaxy.spectra import (
    DEFAULT_GRID,
    OLD_GRID,
    PHONON_GRID,
    WIDE_GRID,
    Grid,
    coverage,
    fingerprints,
)

if TYPE_CHECKING:
    from epitaxy_dos.table import Spectra

GRIDS = {"default": DEFAULT_GRID, "wide": WIDE_GRID, "old": OLD_GRID, "phonon": PHONON_GRID}
"""Grids with a short name."""

ENERGIES = {
    "dos": np.arange(-1000, 1001) / 100,
    "phonon_dos": np.linspace(0.0, 1000.0, 66),
}
"""Quantity -> (n_points,) where its spectrum is known: eV, or 1/cm for phonons."""

RANGE = re.compile(r"computed from (-?\d+\.?\d*) to (-?\d+\.?\d*) eV")
"""How the tag `dos_reference` says that a spectrum does not reach over the whole range."""

_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Fingerprints of the entries of a dataset.

    Attributes:
        heights: (n, n_columns) uint8.
        rows: (n,) int64, rows of the dataset that have a spectrum.
        grid: that they are on.
        covered: (n, 2) int64, first and last + 1 column that each spectrum covers.
        fraction: (n,) part of the grid that each spectrum covers.
        target: quantity.
        per: "cell", or "atom" if the states were divided by the number of atoms.
        n_without: entries without a spectrum.
        empty: ids that were left out because nothing of them reaches the smallest pixel.
    """

    heights: np.ndarray
    rows: np.ndarray
    grid: Grid
    covered: np.ndarray
    fraction: np.ndarray
    target: str
    per: str
    n_without: int = 0
    empty: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """How many fingerprints there are."""
        return len(self.heights)

    @property
    def is_complete(self) -> bool:
        """Whether every spectrum covers the whole grid."""
        return bool((self.fraction == 1.0).all())

    def take(self, order: np.ndarray) -> Fingerprints:
        """Return some fingerprints, in another order."""
        return Fingerprints(
            heights=self.heights[order],
            rows=self.rows[order],
            grid=self.grid,
            covered=self.covered[order],
            fraction=self.fraction[order],
            target=self.target,
            per=self.per,
            n_without=self.n_without,
            empty=self.empty,
        )


def grid_of(text: str, target: str) -> Grid:
    """Return a grid by its short name or id; "" is the usual one for the target.

    Raises:
        OptionError: neither; the message shows what is allowed.
    """
    if not text:
        return PHONON_GRID if target == "phonon_dos" else DEFAULT_GRID
    if text in GRIDS:
        return GRIDS[text]
    try:
        return Grid.parse(text)
    except OptionError as error:
        raise OptionError(f"{error}; or a short name: {', '.join(GRIDS)}") from error


def fingerprints_of(
    dataset: Spectra,
    *,
    target: str = "dos",
    grid: Grid | None = None,
    per: str = "cell",
    leave_out_empty: bool = False,
) -> Fingerprints:
    """Return the fingerprints of all entries that have a spectrum.

    Args:
        dataset: with the target.
        target: "dos" or "phonon_dos".
        grid: columns and pixels; None for the usual one of the target.
        per: "cell" as the spectra are, "atom" to divide them by the number of atoms, so that
            cells of different sizes can be compared.
        leave_out_empty: name entries with an empty fingerprint instead of refusing them.

    Raises:
        DataError: no entry has the target, or a fingerprint would be empty.
        OptionError: the target is no spectrum, or `per` is neither of the two.
    """
    if target not in ENERGIES:
        raise OptionError(f"{target!r} is no spectrum; there are {', '.join(ENERGIES)}")
    if per not in ("cell", "atom"):
        raise OptionError(f"per {per!r}: allowed are 'cell' and 'atom'")
    if per == "atom" and not quantity(target).extensive:
        raise OptionError(f"{target} does not grow with the cell: leave per='cell'")
    grid = grid or grid_of("", target)
    energies = ENERGIES[target]
    heights, rows, empty = [], [], []
    n_without = 0
    for first in range(0, len(dataset), _AT_ONCE):
        part = dataset[first : first + _AT_ONCE]
        values, mask = part.target(target)
        n_without += int((~mask).sum())
        (present,) = np.nonzero(mask)
        if per == "atom":
            values = values / part.n_atoms[:, None]
        for row, one in _safely(energies, values[present], present, grid, part, leave_out_empty):
            if one is None:
                empty.append(part.ids[row])
            else:
                heights.append(one)
                rows.append(first + row)
    if not heights:
        raise DataError(f"no entry has a {target} with a fingerprint on the grid {grid.id}")
    found = np.array(rows, dtype=np.int64)
    covered, fraction = _covered(dataset, found, target, grid)
    return Fingerprints(
        heights=np.array(heights, dtype=np.uint8),
        rows=found,
        grid=grid,
        covered=covered,
        fraction=fraction,
        target=target,
        per=per,
        n_without=n_without,
        empty=tuple(empty),
    )


def _safely(
    energies: np.ndarray,
    values: np.ndarray,
    rows: np.ndarray,
    grid: Grid,
    part: Spectra,
    leave_out_empty: bool,
) -> list[tuple[int, np.ndarray | None]]:
    """Return (row, heights or None) of some spectra; one by one only if one of them is empty."""
    if not len(rows):
        return []
    try:
        return list(zip(rows.tolist(), fingerprints(energies, values, grid=grid), strict=True))
    except DataError:
        found: list[tuple[int, np.ndarray | None]] = []
        for row, value in zip(rows.tolist(), values, strict=True):
            try:
                found.append((row, fingerprints(energies, value, grid=grid)[0]))
            except DataError as error:
                if not leave_out_empty or "empty" not in str(error):
                    raise DataError(f"{part.ids[row]}: {error}") from error
                found.append((row, None))
        return found


def _covered(
    dataset: Spectra, rows: np.ndarray, target: str, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Return which columns each spectrum covers, as far as its tag says, and the fraction."""
    energies = ENERGIES[target]
    whole = coverage(energies, grid)
    covered = np.tile([whole.start, whole.stop], (len(rows), 1))
    fraction = np.full(len(rows), whole.fraction)
    if target != "dos" or "dos_reference" not in dataset.tags:
        return covered, fraction
    words, where = np.unique(dataset.tag("dos_reference")[rows], return_inverse=True)
    for i, word in enumerate(words):
        limits = RANGE.search(str(word))
        if limits:
            known = coverage(np.array([float(x) for x in limits.groups()]), grid)
            covered[where == i] = known.start, known.stop
            fraction[where == i] = known.fraction
    return covered, fraction
