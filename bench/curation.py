"""Checks of 200,000 structures: seconds per operation and peak memory, each in its own process.

    .venv/bin/python bench/curation.py [--structures N]

Structures are made here: 4 to 39 atoms of eight elements on a shaken grid, energies with a spread
of 0.3 eV/atom around references, forces; a few energies and forces are far off on purpose.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method

ELEMENTS = np.array([3, 8, 12, 13, 14, 22, 26, 29])
REFERENCES = -np.arange(1.0, 9.0)  # eV/atom
PARTS = ("make", "operations", "clean", "ingest")


def structures(n: int) -> Iterator[Entry]:
    """Yield n structures, one after another."""
    rng = np.random.default_rng(0)
    method = Method(code="VASP", xc_functional="PBE")
    for i in range(n):
        n_atoms = int(rng.integers(4, 40))
        side = int(np.ceil(n_atoms ** (1 / 3)))
        length = 2.5 * side
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1)
        positions = grid.reshape(-1, 3)[:n_atoms] * 2.5 + rng.normal(scale=0.1, size=(n_atoms, 3))
        kinds = rng.integers(0, len(ELEMENTS), n_atoms)
        energy = REFERENCES[kinds].sum() + 0.3 * n_atoms * rng.normal()
        yield Entry(
            numbers=ELEMENTS[kinds].astype(np.uint8),
            positions=positions,
            cell=length * np.eye(3),
            pbc=np.ones(3, dtype=bool),
            targets={
                "energy": np.float64(energy + (50 * n_atoms if i % 40_000 == 7 else 0)),
                "forces": rng.normal(size=(n_atoms, 3)) * (200 if i % 30_000 == 5 else 1),
            },
            id=f"s{i}",
            method=method,
        )


def run(part: str, folder: Path, n: int) -> None:
    """Do one part and print what it took."""
    from epitaxy.curation.cleaning import clean
    from epitaxy.curation.ingest import ingest
    from epitaxy.curation.operations import apply
    from epitaxy.protocols import Card
    from epitaxy.stores.memory_map import Writer

    start = time.perf_counter()
    if part == "make":
        with Writer(folder / "raw") as writer:
            for entry in structures(n):
                writer.append(entry)
        print(f"{n:,} structures, {int(Dataset.open(folder / 'raw').n_atoms.sum()):,} atoms")
    elif part == "operations":
        dataset = Dataset.open(folder / "raw")
        for name in ("frames", "duplicates", "outliers", "consistency"):
            before = time.perf_counter()
            dataset = apply(dataset, name, {})
            counts = dataset.history[-1]["counts"]
            print(f"  {name}: {time.perf_counter() - before:.1f} s, {counts}")
    elif part == "clean":
        clean(Dataset.open(folder / "raw"), folder / "clean")
    else:

        class Streamed:
            card = Card(title="streamed", quantities=("energy", "forces"))

            def __iter__(self) -> Iterator[Entry]:
                return structures(n)

        ingest(Streamed(), folder / "ingested")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{part}: {time.perf_counter() - start:.1f} s, peak {peak:.0f} MB", flush=True)


def main() -> None:
    """Run every part in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=200_000)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        run(args.part, args.folder, args.structures)
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            command = [sys.executable, __file__, "--part", part, "--folder", folder]
            subprocess.run([*command, "--structures", str(args.structures)], check=True)


if __name__ == "__main__":
    main()
