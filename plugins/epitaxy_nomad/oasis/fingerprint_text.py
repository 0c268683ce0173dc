"""Spectral fingerprints as the reference implementation writes them, and back.

Version 1 of nomad-dos-fingerprints (grids dg_cut, what NOMAD stored so far) writes the pixels of
all covered columns as bits, eight to a byte, in hexadecimal; version 2 as lengths of runs,
``12t44f...``. Columns that the spectrum does not cover wholly are left out; ``indices`` says which
are there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from epitaxy.errors import DataError
from epitaxy.spectra import Coverage, Grid


@dataclass(frozen=True, slots=True)
class Written:
    """A fingerprint as NOMAD's section `DosFingerprint` holds it.

    Attributes:
        bins: the pixels.
        indices: first column, and one more than the last.
        stepsize: eV; narrowest column.
        filling_factor: part of the pixels that is filled.
        grid_id: name of the grid.
    """

    bins: str
    indices: tuple[int, int]
    stepsize: float
    filling_factor: float
    grid_id: str


def written(heights: np.ndarray, covered: Coverage, grid: Grid) -> Written:
    """Return a fingerprint (n_columns,) uint8 as text."""
    columns = heights[covered.start : covered.stop]
    pixels = columns[:, None] > np.arange(grid.n_pixels)[None, :]
    flat = pixels.reshape(-1)
    bins = np.packbits(flat).tobytes().hex() if grid.kind == "dg_cut" else _runs(flat)
    return Written(
        bins=bins,
        indices=(covered.start, covered.stop),
        stepsize=0.05 if grid.kind == "dg_cut" else grid.narrowest,
        filling_factor=float(flat.mean()),
        grid_id=reference_id(grid),
    )


def heights_of(bins: str, indices: tuple[int, int], grid: Grid) -> np.ndarray:
    """Return the fingerprint (n_columns,) uint8 from its text.

    Raises:
        DataError: the text does not fit the grid.
    """
    start, stop = int(indices[0]), int(indices[1])
    n_bits = (stop - start) * grid.n_pixels
    if grid.kind == "dg_cut":
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(bins), dtype=np.uint8))[:n_bits]
    else:
        runs = re.findall(r"(\d+)([tf])", bins)
        bits = np.repeat([c == "t" for _, c in runs], [int(n) for n, _ in runs])
    if not 0 <= start <= stop <= grid.n_columns or len(bits) != n_bits:
        raise DataError(
            f"a fingerprint of {len(bits)} pixels for columns {start} to {stop} does not fit the "
            f"grid {grid.id} with {grid.n_columns} columns of {grid.n_pixels} pixels"
        )
    heights = np.zeros(grid.n_columns, dtype=np.uint8)
    heights[start:stop] = bits.reshape(-1, grid.n_pixels).sum(axis=1)
    return heights


def reference_id(grid: Grid) -> str:
    """Return the name of a grid as the reference implementation writes it."""
    if grid.kind != "dg_cut":
        return grid.id
    limits = (float(grid.minimum), float(grid.maximum))
    return f"dg_cut:{grid.n_pixels}:{float(grid.reference)}:{float(grid.width)}:{limits}"


def _runs(bits: np.ndarray) -> str:
    if not len(bits):
        return ""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(bits.astype(np.int8))) + 1])
    lengths = np.diff([*starts, len(bits)])
    return "".join(f"{n}{'t' if bits[i] else 'f'}" for i, n in zip(starts, lengths, strict=True))
