"""Random batches of 32 structures: from memory maps, other processes, BP5 and single files.

    .venv/bin/python bench/stores.py                 all of it, about 3 minutes
    .venv/bin/python bench/stores.py map             one part: map, ranks, prefetch or large

Wall times, one thread per process, everything in the page cache: what is measured is the way of
reading, not a disk. All processes are on one machine, so what travels between ranks travels
through its memory, not over a network. Ways that are compared take turns, a few batches each,
and the ratio is the median over the turns.

map        a memory-mapped dataset against `take` on the same arrays, with and without working out
           which atoms a batch has
ranks      1, 2 and 4 processes that all fetch at once: the store over MPI windows, the memory
           map, BP5, and one file per structure (pickle, extxyz)
prefetch   steps of fetching and computing, in turn and overlapped
large      one transfer of 2.2 GB (needs 10 GB of memory)
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Method, Origin
from epitaxy.stores.columns import Columns, Strings, Target
from epitaxy.stores.distributed import DistributedStore, world

BATCH = 32
SIZES = {"2 to 6 atoms": (2, 6), "10 to 50 atoms": (10, 50), "100 to 300 atoms": (100, 300)}
LABELS = ("energy", "forces")


def make(n: int, fewest: int, most: int) -> Dataset:
    """Return structures with random numbers in all columns."""
    rng = np.random.default_rng(0)
    ptr = np.concatenate([[0], rng.integers(fewest, most + 1, n).cumsum()])
    n_atoms = int(ptr[-1])
    return Dataset(
        Columns(
            atom_ptr=ptr,
            numbers=rng.integers(1, 90, n_atoms).astype(np.uint8),
            positions=rng.random((n_atoms, 3)),
            cells=10.0 * np.eye(3) + rng.random((n, 3, 3)),
            pbc=np.ones((n, 3), dtype=bool),
            ids=Strings.of(f"structure-{i}" for i in range(n)),
            method_codes=np.zeros(n, dtype=np.int32),
            origin_codes=np.zeros(n, dtype=np.int32),
            methods=(Method(xc_functional="PBE"),),
            origins=(Origin(),),
            targets={
                "energy": Target(rng.random(n), np.ones(n, dtype=bool)),
                "forces": Target(rng.random((n_atoms, 3)), np.ones(n, dtype=bool)),
            },
        )
    )


def turns(
    ways: Mapping[str, Callable[..., object]],
    n: int,
    *,
    seed: int,
    seconds: float = 4.0,
    batches_per_turn: int = 20,
    prepare: Mapping[str, Callable[[np.ndarray], object]] | None = None,
) -> dict[str, np.ndarray]:
    """Return seconds per batch of each way in each turn; every way gets batches of its own.

    What `prepare` makes of the rows of a batch is not timed, and is a second argument.
    """
    rng = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in ways}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times[next(iter(ways))]) < 3:
        for name, take in ways.items():
            batches = rng.integers(0, n, (batches_per_turn, BATCH))
            ready = prepare[name] if prepare and name in prepare else None
            calls = [(rows, ready(rows)) if ready else (rows,) for rows in batches]
            before = time.perf_counter()
            for call in calls:
                take(*call)
            times[name].append((time.perf_counter() - before) / batches_per_turn)
    return {name: np.array(taken) for name, taken in times.items()}


def columns_of(batch: Dataset) -> None:
    """Take everything that a training takes of a batch."""
    batch.gather()
    for name in LABELS:
        batch.target(name)


# --- the memory map ---


def atoms_of(ptr: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return which atoms a batch has, as plain numpy does it."""
    starts = ptr[rows]
    counts = ptr[rows + 1] - starts
    ends = counts.cumsum()
    return np.repeat(starts - ends + counts, counts) + np.arange(ends[-1])


def bench_map(folder: Path) -> None:
    """Compare the memory map with bare numpy."""
    print("memory map against bare numpy gathers of the same bytes, batches of 32; goal 0.8")
    print("  structures            bare us  index+bare us  epitaxy us   speed  with index")
    for size, (fewest, most) in SIZES.items():
        n = min(100_000, 8_000_000 // (fewest + most))
        make(n, fewest, most).save(folder / "map", overwrite=True)
        times = against_numpy(Dataset.open(folder / "map"))
        bare, indexed, ours = (times[name] for name in ("bare", "indexed", "ours"))
        print(
            f"  {size:18s} {1e6 * np.median(bare):10.1f} {1e6 * np.median(indexed):14.1f} "
            f"{1e6 * np.median(ours):11.1f} {np.median(bare / ours):7.2f} "
            f"{np.median(indexed / ours):11.2f}",
            flush=True,
        )


def against_numpy(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return the times of the two ways of numpy and of ours."""
    columns = dataset._columns
    ptr, energy, forces = columns.atom_ptr, columns.targets["energy"], columns.targets["forces"]

    def bare(rows: np.ndarray, atoms: np.ndarray) -> None:
        for values in (columns.numbers, columns.positions, forces.values):
            values.take(atoms, axis=0)
        for values in (columns.cells, columns.pbc, energy.values, energy.mask, forces.mask):
            values.take(rows, axis=0)

    return turns(
        {
            "bare": bare,
            "ours": lambda rows: columns_of(dataset[rows]),
            "indexed": lambda rows: bare(rows, atoms_of(ptr, rows)),
        },
        len(dataset),
        seed=1,
        prepare={"bare": lambda rows: atoms_of(ptr, rows)},
    )


# --- many processes ---


def bench_ranks(folder: Path) -> None:
    """Start this file under mpiexec with 1, 2 and 4 ranks."""
    from ase.io import write

    from epitaxy.stores.bp5 import write_bp5

    print("structures per second of all ranks together, batches of 32, all ranks at once")
    for size in ("10 to 50 atoms", "100 to 300 atoms"):
        place = folder / f"ranks {size}"
        n = 10_000 if size.startswith("10 ") else 2_000
        dataset = make(n, *SIZES[size])
        dataset.save(place / "map")
        write_bp5(dataset, place / "bp5")
        (place / "pickle").mkdir()
        (place / "extxyz").mkdir()
        for i, entry in enumerate(dataset):
            arrays = {"numbers": entry.numbers, "positions": entry.positions, "cell": entry.cell}
            arrays |= {"pbc": entry.pbc, **entry.targets}
            copies = {name: np.array(array) for name, array in arrays.items()}
            (place / "pickle" / str(i)).write_bytes(pickle.dumps(copies, protocol=5))
            if i < 1000:
                write(place / "extxyz" / f"{i}.xyz", entry.to_atoms(), format="extxyz")
        for n_ranks in (1, 2, 4):
            launch(n_ranks, "one-of-ranks", place)


def launch(n_ranks: int, *arguments: object) -> None:
    """Run this file under this environment's mpiexec."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [sys.executable, "-m", "mpi4py", __file__, *map(str, arguments)]
    subprocess.run([mpiexec, "-n", str(n_ranks), *command], check=True)


def one_of_ranks(place: Path) -> None:
    """Fetch batches in every way on each rank, and print the sums on rank 0."""
    from ase.io import read

    from epitaxy.stores.adios import ColumnFileReader

    comm = world()
    rank, n_ranks = comm.Get_rank(), comm.Get_size()
    mapped = Dataset.open(place / "map")
    n, ptr = len(mapped), mapped.atom_ptr
    bp5 = ColumnFileReader(place / "bp5" / "part-00000.bp")

    def from_pickles(rows: np.ndarray) -> None:
        found = [pickle.loads((place / "pickle" / str(row)).read_bytes()) for row in rows]
        for name in found[0]:
            np.array([one[name] for one in found]) if name in ("cell", "pbc", "energy") else (
                np.concatenate([one[name] for one in found])
            )

    def from_extxyz(rows: np.ndarray) -> None:
        for row in rows % min(n, 1000):
            atoms = read(place / "extxyz" / f"{row}.xyz", format="extxyz")
            atoms.get_forces()

    def from_bp5(rows: np.ndarray) -> None:
        k, counts = len(rows), mapped.n_atoms[rows]
        ends = counts.cumsum()
        n_atoms = int(ends[-1])
        per_atom = {
            "numbers": np.empty(n_atoms, dtype=np.uint8),
            "positions": np.empty((n_atoms, 3)),
            "target:forces": np.empty((n_atoms, 3)),
        }
        others = {"cells": np.empty((k, 3, 3)), "pbc": np.empty((k, 3), dtype=np.uint8),
                  "target:energy": np.empty(k)}  # fmt: skip
        for i, row in enumerate(rows):
            for name, out in per_atom.items():
                bp5.read(name, out[ends[i] - counts[i] : ends[i]], start=int(ptr[row]))
            for name, out in others.items():
                bp5.read(name, out[i : i + 1], start=int(row))

    with DistributedStore(mapped, comm=comm) as store:
        fast = {
            "store": lambda rows: columns_of(store.batch(rows)),
            "map": lambda rows: columns_of(mapped[rows]),
        }
        slow = {"bp5": from_bp5, "pickle": from_pickles, "extxyz": from_extxyz}
        comm.Barrier()
        times = turns(fast, n, seed=rank, seconds=2.0, batches_per_turn=50)
        comm.Barrier()
        times |= turns(slow, n, seed=rank, seconds=3.0, batches_per_turn=4)
        speeds = {name: BATCH / float(np.mean(taken)) for name, taken in times.items()}
        together = comm.gather(speeds)
        if rank == 0:
            total = {name: sum(one[name] for one in together) for name in speeds}
            print(
                f"  {place.name[6:]:17s} {n_ranks} ranks: "
                + ", ".join(f"{name} {speed:,.0f}" for name, speed in total.items())
                + f"; store / pickle files {total['store'] / total['pickle']:.1f}, "
                f"/ extxyz files {total['store'] / total['extxyz']:.0f}, "
                f"/ BP5 {total['store'] / total['bp5']:.1f}, "
                f"/ map {total['store'] / total['map']:.2f}",
                flush=True,
            )


# --- overlap ---


def bench_prefetch(folder: Path) -> None:
    """Start the overlap under mpiexec."""
    make(20_000, 10, 50).save(folder / "prefetch")
    print("fetching and computing (matrix products), ms per step")
    for n_ranks in (2, 4):
        launch(n_ranks, "one-of-prefetch", folder / "prefetch")


def one_of_prefetch(path: Path) -> None:
    """Time steps of fetching and computing on rank 0 while the other ranks wait or work too."""
    comm = world()
    rng = np.random.default_rng(comm.Get_rank())
    matrix = rng.random((200, 200))

    def compute() -> None:
        for _ in range(4):
            matrix @ matrix

    with DistributedStore(path, comm=comm) as store:
        for are_all_busy in (False, True):
            taken: dict[str, list[float]] = {}
            comm.Barrier()
            for _ in range(4 if are_all_busy or comm.Get_rank() == 0 else 0):
                batches = rng.integers(0, len(store), (50, 8 * BATCH))
                for name, loop in {
                    "computing": lambda batches=batches: batches,
                    "batch": lambda batches=batches: map(store.batch, batches),
                    "prefetch": lambda batches=batches: store.prefetch(batches),
                    "in background": lambda batches=batches: store.prefetch(
                        batches, in_background=True
                    ),
                }.items():
                    start = time.perf_counter()
                    for _ in loop():
                        compute()
                    taken.setdefault(name, []).append((time.perf_counter() - start) / 50)
            idle = comm.Ibarrier()
            while not idle.Test():
                time.sleep(0.01)  # a barrier would keep a core busy
            if comm.Get_rank() == 0:
                who = "all ranks work" if are_all_busy else "the others wait"
                parts = [f"{name} {1e3 * np.median(t):.2f}" for name, t in taken.items()]
                print(f"  {comm.Get_size()} ranks, {who}: {', '.join(parts)}", flush=True)


# --- one transfer of more than 2 GB ---


def bench_large(folder: Path) -> None:
    """Start the large transfer under mpiexec."""
    make(20, 4_600_000, 4_600_000).save(folder / "large")  # 49 bytes per atom
    launch(2, "one-of-large", folder / "large")


def one_of_large(path: Path) -> None:
    """Fetch more than 2 GB that lie side by side on the other rank."""
    comm = world()
    mapped = Dataset.open(path)
    with DistributedStore(path, comm=comm) as store:
        if comm.Get_rank() == 1:
            start = time.perf_counter()
            batch = store.batch(slice(0, 10))
            taken = time.perf_counter() - start
            same = all(
                np.array_equal(batch.target("forces", [i])[0], mapped.target("forces", [i])[0])
                for i in range(10)
            )
            n_gets, n_bytes = store.traffic
            print(
                f"one batch of {n_bytes / 1e9:.2f} GB in {n_gets} transfers: "
                f"{taken:.1f} s, {'the same' if same else 'NOT THE SAME'} as the memory map"
            )


PARTS = {"map": bench_map, "ranks": bench_ranks, "prefetch": bench_prefetch, "large": bench_large}
ONE_OF = {
    "one-of-ranks": one_of_ranks,
    "one-of-prefetch": one_of_prefetch,
    "one-of-large": one_of_large,
}


def main(names: list[str]) -> None:
    """Run the named parts; all but the large transfer by default."""
    if names and names[0] in ONE_OF:
        ONE_OF[names[0]](Path(names[1]))
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in names or ("map", "ranks", "prefetch"):
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
