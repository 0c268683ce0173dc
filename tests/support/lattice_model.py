"""Densities of states of a small exact model: boron nitride's honeycomb, tight binding.

Real physics at no cost: two bands with a gap, a mesh of k-points that converges, a hopping that
plays the functional and a second small change that plays the basis.
"""

from __future__ import annotations

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method

GRID = np.arange(-1000, 1001) / 100


def honeycomb_dos(n_k: int, *, hopping: float = 2.7, gap: float = 4.0) -> np.ndarray:
    """Return the density of states (2001,), states/eV, zero at the valence band maximum."""
    k = (np.arange(n_k) + 0.5) / n_k
    a, b = np.meshgrid(k, k)
    factor = np.abs(1 + np.exp(2j * np.pi * a) + np.exp(2j * np.pi * b)).ravel()
    band = np.sqrt(gap**2 / 4 + (hopping * factor) ** 2)
    levels = np.concatenate([-band, band]) + gap / 2
    width = 0.1
    shape = np.exp(-0.5 * ((GRID[:, None] - levels) / width) ** 2).sum(axis=1)
    return np.asarray(2 * shape / n_k**2 / width / np.sqrt(2 * np.pi))


def convergence_dataset(
    *,
    functionals: tuple[str, ...] = ("LDA", "PBE"),
    meshes: tuple[int, ...] = (2, 4, 8, 16, 24),
    cutoffs: tuple[int, ...] = (300, 500),
    as_tags: bool = False,
) -> Dataset:
    """Return a dataset of one structure computed with all combinations of settings."""
    entries = []
    for xc in functionals:
        for n_k in meshes:
            for cutoff in cutoffs:
                hopping = {"LDA": 2.9, "PBE": 2.75}[xc] + 3.0 / cutoff
                settings = {"cutoff": f"{cutoff} eV", "k-mesh": f"{n_k}x{n_k}x1"}
                phrases = "; ".join(f"{name} {value}" for name, value in settings.items())
                entries.append(
                    Entry(
                        numbers=np.array([5, 7], dtype=np.uint8),
                        positions=np.array([[0.0, 0.0, 0.0], [1.25, 0.7217, 0.0]]),
                        cell=np.array([[2.5, 0.0, 0.0], [1.25, 2.165, 0.0], [0.0, 0.0, 12.0]]),
                        pbc=np.ones(3, dtype=bool),
                        targets={"dos": honeycomb_dos(n_k, hopping=hopping)},
                        id=f"{xc}-{n_k}-{cutoff}",
                        method=Method("tight binding", xc, "" if as_tags else phrases),
                        tags=settings if as_tags else {},
                    )
                )
    return Dataset.from_entries(entries)
