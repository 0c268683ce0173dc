"""Graph building against the bare kernel that finds the pairs.

    .venv/bin/python bench/graphs.py

Silicon, cutoff 5 Å, one thread, float32 graphs. Times are CPU seconds (`time.process_time`),
the smallest of many calls, kernel and whole path taken in turn. The whole path begins with a
`Dataset` and ends with a `GraphBatch`: gather, checks, pairs, vectors, tensors. The largest
structures come first, as in a process that has run for a while: glibc then keeps freed memory
instead of asking the kernel of the system for the same pages in every call.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from ase.build import bulk
from pymatgen.optimization.neighbors import find_points_in_spheres

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.graphs.builder import build_batch

CUTOFF = 5.0
SECONDS = 2.0  # spent on each line
CASES = ((8, 1), (4, 1), (2, 32), (2, 8), (1, 32))  # cells along each axis, structures per batch


def best_of_both(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Return the smallest CPU time of each of two calls, made in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for call, taken in zip((one, other), times, strict=True):
            before = time.process_time()
            call()
            taken.append(time.process_time() - before)
    return min(times[0]), min(times[1])


def main() -> None:
    """Print one line per size."""
    torch.set_num_threads(1)
    print(f"graph building, Si, cutoff {CUTOFF} Å, 1 thread; CPU time per structure")
    print("  atoms  batch    kernel us  whole path us  ratio (goal 1.5)")
    for n_cells, n_structures in CASES:
        entries = []
        for seed in range(n_structures):
            atoms = bulk("Si", cubic=True) * (n_cells, n_cells, n_cells)
            atoms.rattle(0.05, seed=seed)
            entries.append(Entry.from_atoms(atoms, id=str(seed)))
        dataset = Dataset.from_entries(entries)
        periodic = np.ones(3, dtype=np.int64)

        def kernel(entries: list[Entry] = entries, periodic: np.ndarray = periodic) -> None:
            for entry in entries:
                find_points_in_spheres(
                    entry.positions, entry.positions, CUTOFF, periodic, entry.cell
                )

        def whole(dataset: Dataset = dataset) -> None:
            build_batch(dataset, cutoff=CUTOFF)

        bare, ours = (1e6 * t / n_structures for t in best_of_both(kernel, whole))
        print(
            f"{len(entries[0]):7d} {n_structures:6d} {bare:12.1f} {ours:14.1f} {ours / bare:6.2f}"
        )


if __name__ == "__main__":
    main()
