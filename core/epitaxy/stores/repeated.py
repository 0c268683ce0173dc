"""Structures that several datasets hold, found by one hash of eight bytes per structure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from epitaxy.composition import TAG as FORMULA_TAG
from epitaxy.dataset import Dataset
from epitaxy.stores.columns import Columns, blocks

DISTANCE = 1e-5  # Å, positions and cells are rounded to multiples of this


def n_shared(datasets: Iterable[Dataset]) -> int:
    """Return how many structures are in more than one dataset, at the same level of theory.

    Structures are the same if atoms, periodicity, and cell and positions rounded to `DISTANCE`
    are; their order counts. Formulas without a structure are not looked at, and neither is what
    one dataset holds twice.
    """
    found = [structure_hashes(dataset) for dataset in datasets]
    together = np.concatenate([np.zeros(0, dtype=np.uint64), *found])
    together.sort()
    return len(np.unique(together[1:][together[1:] == together[:-1]]))


def structure_hashes(dataset: Dataset) -> np.ndarray:
    """Return the distinct hashes of the structures of a dataset, (k,) uint64, sorted."""
    parts = [_of(block) for block in blocks(dataset._columns, dataset._rows)]
    distinct: np.ndarray = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *parts]))
    return distinct


def _of(block: Columns) -> np.ndarray:
    n = len(block)
    starts = np.asarray(block.atom_ptr[:-1])
    n_atoms = np.diff(block.atom_ptr)
    within = np.arange(len(block.numbers)) - np.repeat(starts - block.atom_ptr[0], n_atoms)
    words = np.empty((len(block.numbers), 4), dtype=np.uint64)
    words[:, 0] = block.numbers
    words[:, 1:] = _rounded(block.positions)
    places = _mixed((4 * within[:, None] + np.arange(4)).astype(np.uint64))
    of_atoms = _mixed(words ^ places).sum(axis=1, dtype=np.uint64)
    # Sums wrap around, so the difference of running sums is the sum of each structure.
    running = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(of_atoms, dtype=np.uint64)])
    ends = np.asarray(block.atom_ptr) - block.atom_ptr[0]
    methods = np.array(
        [_text_hash(f"{m.code}|{m.xc_functional}|{m.settings}") for m in block.methods],
        dtype=np.uint64,
    )
    frame = np.empty((n, 14), dtype=np.uint64)
    frame[:, :9] = _rounded(block.cells).reshape(n, 9)
    frame[:, 9:12] = block.pbc
    frame[:, 12] = methods[block.method_codes]
    frame[:, 13] = running[ends[1:]] - running[ends[:-1]]
    hashes: np.ndarray = _mixed(frame ^ _mixed(np.arange(14, dtype=np.uint64))).sum(
        axis=1, dtype=np.uint64
    )
    formula = block.tags.get(FORMULA_TAG)
    return hashes if formula is None else hashes[np.asarray(formula.codes) < 0]


def _rounded(lengths: np.ndarray) -> np.ndarray:
    """Return the bits of lengths in whole multiples of `DISTANCE`."""
    with np.errstate(all="ignore"):
        whole = np.rint(np.asarray(lengths, dtype=np.float64) / DISTANCE) + 0.0  # no -0
    bits: np.ndarray = whole.view(np.uint64)
    return bits


def _mixed(words: np.ndarray) -> np.ndarray:
    """Scatter bits, by the last step of SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = words ^ (words >> np.uint64(31))
    return mixed


def _text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
