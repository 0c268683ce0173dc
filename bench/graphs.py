"""Graph building against the bare kernel that finds the pairs.

    .venv/bin/python bench/graphs.py [--device cpu cuda]

Silicon, cutoff 5 Å, one thread, float32 graphs. Times are CPU seconds (`time.process_time`),
the smallest of many calls, kernel and whole path taken in turn. The whole path begins with a
`Dataset` and ends with a `GraphBatch`: gather, checks, pairs, vectors, tensors. The largest
structures come first, as in a process that has run for a while: glibc then keeps freed memory
instead of asking the kernel of the system for the same pages in every call. For a GPU the whole
path ends there, and its time, transfer included, is wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from ase.build import bulk
from device import add_device, checked, seconds
from pymatgen.optimization.neighbors import find_points_in_spheres

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.graphs.builder import build_batch

CUTOFF = 5.0
SECONDS = 2.0  # spent on each line
CASES = ((8, 1), (4, 1), (2, 32), (2, 8), (1, 32))  # cells along each axis, structures per batch


def best_of_both(
    one: Callable[[], object], other: Callable[[], object], device: torch.device
) -> tuple[float, float]:
    """Return the smallest time of each of two calls, made in turn: CPU time, on a GPU wall time."""
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for call, taken in zip((one, other), times, strict=True):
            before = seconds(device)
            call()
            taken.append(seconds(device) - before)
    return min(times[0]), min(times[1])


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser()
    add_device(parser)
    devices = checked(parser, parser.parse_args().device)
    torch.set_num_threads(1)
    print(f"graph building, Si, cutoff {CUTOFF} Å, 1 thread; time per structure")
    print("  atoms  batch  device    kernel us  whole path us  ratio (goal 1.5)")
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

        for device in devices:

            def whole(dataset: Dataset = dataset, device: torch.device = device) -> None:
                build_batch(dataset, cutoff=CUTOFF, device=device)

            both = best_of_both(kernel, whole, device)
            bare, ours = (1e6 * t / n_structures for t in both)
            print(
                f"{len(entries[0]):7d} {n_structures:6d}  {device!s:8s} {bare:10.1f} "
                f"{ours:14.1f} {ours / bare:6.2f}"
            )


if __name__ == "__main__":
    main()
