"""Packing calculations of 41 files and 30 MB for an upload, against plain zipfile and `zip`.

    .venv/bin/python bench/packing.py [--calculations N] [--workers W]

The files are those of figure 6 of the paper in number and size: text tables and binary arrays of
random numbers. Both sides read the same files from the page cache and write one zip file; ours
hashes every file on the way and looks whether it changed. They take turns; the ratio is the
median over the turns of plain time over our time: 1 is as fast.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from epitaxy_nomad.campaign.find import Calculation, Rules, survey
from epitaxy_nomad.campaign.pack import PartStream

N_FILES, N_BYTES = 41, 30_000_000
BINARY_SHARE = 0.7  # of the bytes: densities and wave functions against tables
TURNS = 3
END = "     General timing and accounting informations for this job:\n"


def write_calculations(folder: Path, n: int) -> list[Calculation]:
    """Write n calculations and return them as they are found."""
    rng = np.random.default_rng(0)
    sizes = rng.dirichlet(np.ones(N_FILES - 1)) * N_BYTES
    for i in range(n):
        place = folder / f"structure-{i:03d}"
        place.mkdir()
        (place / "OUTCAR").write_text(f" vasp.6.4.2\n{END}")
        n_binary = 0.0
        for j, size in enumerate(np.sort(sizes)[::-1]):
            n_values = int(size) // 8
            if n_binary <= BINARY_SHARE * sizes[: j + 1].sum():
                (place / f"array-{j:02d}.bin").write_bytes(rng.random(n_values).tobytes())
                n_binary += size
            else:
                text = np.char.mod("%.5f", rng.random(n_values))
                (place / f"table-{j:02d}.dat").write_text("\n".join(text.tolist()))
    return survey(folder).calculations


def ours(calculations: list[Calculation], level: int, goal: Path) -> None:
    """Write a zip file as it is sent."""
    with goal.open("wb") as file:
        for piece in PartStream(calculations, Rules(), level=level):
            file.write(piece)


def plain(calculations: list[Calculation], level: int, goal: Path) -> None:
    """Write a zip file with the standard library."""
    method = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with zipfile.ZipFile(goal, "w", method, compresslevel=level or None) as archive:
        for calculation in calculations:
            for path in sorted(calculation.folder.iterdir()):
                archive.write(path, f"{calculation.name}/{path.name}")


def program(calculations: list[Calculation], level: int, goal: Path) -> None:
    """Write a zip file with `zip`."""
    goal.unlink(missing_ok=True)
    source = calculations[0].folder.parent
    subprocess.run(["zip", "-q", "-r", f"-{level}", goal, "."], cwd=source, check=True)


def seconds(work: Callable[[], None]) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the speeds and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calculations", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, goal = Path(name) / "source", Path(name) / "goal.zip"
        source.mkdir()
        calculations = write_calculations(source, args.calculations)
        n_bytes = sum(c.n_bytes for c in calculations)
        n_files = sum(c.n_files for c in calculations)
        print(f"{len(calculations)} calculations, {n_files} files, {n_bytes / 1e6:.0f} MB")
        ways: dict[str, Callable[[list[Calculation], int, Path], None]] = {"zipfile": plain}
        if shutil.which("zip"):
            ways["zip"] = program
        for level in (0, 1, 6):
            times: dict[str, list[float]] = {"ours": [], **{way: [] for way in ways}}
            for _ in range(TURNS):
                times["ours"].append(seconds(lambda: ours(calculations, level, goal)))  # noqa: B023
                size = goal.stat().st_size
                for way, pack in ways.items():
                    times[way].append(seconds(lambda: pack(calculations, level, goal)))  # noqa: B023
            said = f"level {level}: {n_bytes / 1e6 / statistics.median(times['ours']):4.0f} MB/s"
            said += f", {size / n_bytes:.2f} of the size"
            for way in ways:
                pairs = zip(times[way], times["ours"], strict=True)
                said += f"; ours against {way}: {statistics.median(p / o for p, o in pairs):.2f}"
            print(said, flush=True)
        one = seconds(lambda: [ours([c], 1, goal.with_suffix(f".{c.name}")) for c in calculations])  # type: ignore[func-returns-value, arg-type]
        with ThreadPoolExecutor(args.workers) as pool:
            work = [(c, goal.with_suffix(f".{c.name}")) for c in calculations]
            many = seconds(lambda: list(pool.map(lambda w: ours([w[0]], 1, w[1]), work)))  # type: ignore[arg-type, return-value]
        print(f"{args.workers} uploads at once, level 1: {one / many:.2f} times as fast as one")


if __name__ == "__main__":
    main()
