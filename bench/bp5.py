"""The BP5 store: loading, starting up, number of files and system calls, memory on import.

    .venv/bin/python bench/bp5.py

Random structures of 10 to 50 atoms with energy and forces. Loading and reading with numpy are
made in turn and the smallest times count, in CPU time too, because on a shared machine wall time
is mostly noise. Everything is in the page cache, so this is the overhead of the format, not the
speed of a disk. System calls are counted with strace where it is installed and allowed, less
those of the same program that reads nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.stores.bp5 import open_share, write_bp5
from epitaxy.stores.memory_map import Writer

COLUMNS = ("numbers", "positions", "cells", "pbc", "atom_ptr", "method", "origin")
COLUMNS += ("target-energy", "target-forces", "mask-energy", "mask-forces", "ids.text", "ids.ptr")
CALLS = "open,openat,stat,lstat,newfstatat,statx,access,getdents64"
N_TURNS = 9


def structures(n: int) -> Iterator[Entry]:
    """Yield random structures with labels."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(10, 51, n)
    for i in range(n):
        k = int(sizes[i])
        yield Entry(
            numbers=np.full(k, 14, dtype=np.uint8),
            positions=rng.random((k, 3)),
            cell=np.eye(3) * 10,
            pbc=np.ones(3, dtype=bool),
            targets={"energy": np.float64(i), "forces": rng.random((k, 3))},
            id=f"random-{i}",
        )


def seconds(call: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long a call takes."""
    start = clock()
    call()
    return clock() - start


def load_all(path: Path) -> int:
    """Load every column into memory; return the bytes."""
    columns = Dataset.open(path)._columns
    arrays = [columns.numbers, columns.positions, columns.cells, columns.pbc, columns.atom_ptr]
    arrays += [columns.method_codes, columns.origin_codes, columns.ids.text, columns.ids.ptr]
    for target in columns.targets.values():
        arrays += [target.values, target.mask]
    return sum(array.nbytes for array in arrays)


def bench_load(folder: Path, n: int) -> None:
    """Loading all columns against numpy reading the same bytes."""
    mapped = folder / "mapped"
    with Writer(mapped) as writer:
        writer.extend(structures(n))
    dataset = Dataset.open(mapped)
    for n_parts in (1, 8):
        write_bp5(dataset, folder / f"parts-{n_parts}", n_parts=n_parts)
    files = [mapped / f"{name}.npy" for name in COLUMNS]
    n_bytes = sum(file.stat().st_size for file in files)
    print(f"loading {n:,} structures, {n_bytes / 1e6:.0f} MB, into memory; {N_TURNS} turns")
    for n_parts in (1, 8):
        path = folder / f"parts-{n_parts}"
        for clock, said in ((time.process_time, "CPU"), (time.perf_counter, "wall")):
            ours, numpys = [], []
            for _ in range(N_TURNS):
                numpys.append(seconds(lambda: [np.load(file) for file in files], clock=clock))
                ours.append(seconds(lambda path=path: load_all(path), clock=clock))
            print(
                f"  {n_parts} part(s), {said:4s} time: BP5 {n_bytes / min(ours) / 1e9:5.2f} GB/s, "
                f"numpy {n_bytes / min(numpys) / 1e9:5.2f}; ratio {min(numpys) / min(ours):.2f}, "
                f"of the medians {np.median(numpys) / np.median(ours):.2f} (goal 0.8)"
            )
    stored = Dataset.open(folder / "parts-1")
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, n, 32) for _ in range(300)]
    for name, opened in (("memory map", dataset), ("BP5, columns in memory", stored)):
        opened.gather(batches[0])
        taken = seconds(lambda opened=opened: [opened.gather(rows) for rows in batches])
        print(f"  random batches of 32, {name}: {len(batches) / taken:,.0f} per second")
    from_file = seconds(lambda: [_from_file(folder / "parts-1", stored, rows) for rows in batches])
    print(f"  random batches of 32, each read from the BP5 file: {300 / from_file:,.0f} per second")


_READERS: dict[Path, object] = {}


def _from_file(path: Path, stored: Dataset, rows: np.ndarray) -> None:
    from epitaxy.stores.adios import ColumnFileReader

    reader = _READERS.setdefault(path, ColumnFileReader(path / "part-00000.bp"))
    assert isinstance(reader, ColumnFileReader)
    ptr = stored.atom_ptr
    for row in rows:
        n = int(ptr[row + 1] - ptr[row])
        reader.read("positions", np.empty((n, 3)), start=int(ptr[row]))
        reader.read("numbers", np.empty(n, np.uint8), start=int(ptr[row]))
        reader.read("cells", np.empty((1, 3, 3)), start=int(row))
        reader.read("pbc", np.empty((1, 3), np.uint8), start=int(row))


def bench_start(folder: Path) -> None:
    """Opening one of 8 shares against the size of the dataset and the number of parts."""
    print("opening the share of one of 8 ranks, ms (smallest of 20)")
    print("  structures  parts   open   open + load of the share")
    for n in (1_000, 10_000, 100_000):
        dataset = Dataset.from_entries(structures(n))
        for n_parts in (8, 64) if n == 100_000 else (8,):
            path = folder / "start"
            write_bp5(dataset, path, n_parts=n_parts, overwrite=True)
            opened = min(seconds(lambda p=path: open_share(p, 3, 8)) for _ in range(20))
            load = min(seconds(lambda p=path: open_share(p, 3, 8).gather()) for _ in range(5))
            print(f"  {n:10,} {n_parts:6d} {1e3 * opened:6.2f} {1e3 * load:8.2f}")


READ_FILES = """
import os, sys
import numpy as np
import epitaxy.dataset, epitaxy.quantities, epitaxy.stores.bp5, epitaxy.stores.adios
epitaxy.stores.adios.load_adios2()
kind, path = sys.argv[1:]
if kind == "files":
    for i in range(int(open(os.path.join(path, "n")).read())):
        with open(os.path.join(path, f"{i // 1000:03d}", f"{i:06d}.bin"), "rb") as stream:
            np.frombuffer(stream.read())
elif kind == "bp5":
    dataset = epitaxy.dataset.Dataset.open(path)
    dataset.gather()
    [dataset.target(name) for name in dataset.targets]
"""


def bench_files(folder: Path, n: int) -> None:
    """Number of files and of system calls that name files: one file per structure, and BP5."""
    many, few = folder / "many", folder / "few"
    shutil.rmtree(many, ignore_errors=True)
    for i, entry in enumerate(structures(n)):
        place = many / f"{i // 1000:03d}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{i:06d}.bin").write_bytes(
            entry.positions.tobytes() + entry.targets["forces"].tobytes()
        )
    (many / "n").write_text(str(n))
    write_bp5(structures(n), few, overwrite=True)
    n_files = {"files": n, "bp5": sum(1 for p in few.rglob("*") if p.is_file())}
    counts = {kind: _calls(kind, path) for kind, path in (("files", many), ("bp5", few))}
    print(f"{n:,} structures: files {n_files['files']:,} -> {n_files['bp5']}", end="")
    print(f" ({n_files['files'] / n_files['bp5']:,.0f} times fewer)")
    if None in counts.values():
        print("  system calls: not counted, strace cannot be used here")
    else:
        ratio = (counts["files"] or 0) / max(counts["bp5"] or 0, 1)
        print(
            f"  system calls that open or look up files, to read everything once: "
            f"{counts['files']:,} -> {counts['bp5']:,} ({ratio:,.0f} times fewer; strace, "
            "without those of the imports)"
        )
    shutil.rmtree(many)


def _calls(kind: str, path: Path) -> int | None:
    if shutil.which("strace") is None:
        return None
    found = []
    for what in (kind, "nothing"):
        with tempfile.NamedTemporaryFile() as log:
            command = ["strace", "-f", "-c", "-o", log.name, "-e", f"trace={CALLS}"]
            command += [sys.executable, "-c", READ_FILES, what, str(path)]
            if subprocess.run(command, capture_output=True).returncode:
                return None
            total = re.search(r"(\d+)(?:\s+\d+)?\s+total", Path(log.name).read_text())
            found.append(int(total[1]) if total else 0)
    return found[0] - found[1]


def bench_import(folder: Path) -> None:
    """Peak memory of writing structures that come one by one."""
    print("peak memory (VmHWM, from the first structure on) of a process that writes structures")
    print("  store        structures      MB on disk   seconds   peak MB   before the first MB")
    for store in ("memory map", "BP5"):
        for n in (20_000, 200_000):
            command = [sys.executable, __file__, "import", store, str(n), str(folder / "imported")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"  {store:12s} {n:10,} {done.stdout.rstrip()}", flush=True)
            shutil.rmtree(folder / "imported")


def import_one(store: str, n: int, path: Path) -> None:
    """Write `n` structures and print size, time and memory."""
    from epitaxy.stores.adios import load_adios2

    if store == "BP5":
        load_adios2()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: Linux only
    before = _peak()
    start = time.perf_counter()
    if store == "BP5":
        write_bp5(structures(n), path)
    else:
        with Writer(path) as writer:
            writer.extend(structures(n))
    taken = time.perf_counter() - start
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    print(f"{size:15.0f} {taken:9.1f} {_peak():9.0f} {before:15.0f}")


def _peak() -> float:
    """Return the largest resident memory so far, MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench_load(folder, 200_000)
        bench_start(folder)
        for n in (10_000, 100_000):
            bench_files(folder, n)
        bench_import(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["import"]:
        import_one(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
