"""Fingerprints of spectra and how similar they are: what needs numpy and scipy only."""

from __future__ import annotations

from epitaxy.spectra.fingerprint import (
    DEFAULT_GRID,
    OLD_GRID,
    PHONON_GRID,
    WIDE_GRID,
    Coverage,
    Grid,
    coverage,
    fingerprints,
    states_per_column,
)
from epitaxy.spectra.similarity import intersections, tanimoto

__all__ = [
    "DEFAULT_GRID",
    "OLD_GRID",
    "PHONON_GRID",
    "WIDE_GRID",
    "Coverage",
    "Grid",
    "coverage",
    "fingerprints",
    "intersections",
    "states_per_column",
    "tanimoto",
]
