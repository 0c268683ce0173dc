"""Pairs of spectral fingerprints per second, against nomad-dos-fingerprints on the same spectra.

    .venv/bin/python bench/similarity.py [--spectra N]

15 densities of states of NOMAD (../shared/data/dos), each at several rigid shifts, on the grid
of nomad-dos-fingerprints 1.0.2 and on the default grid; then all pairs of the 14,243 phonon
spectra of JARVIS. The peer is compared where it is installed (`pip install --no-deps
nomad-dos-fingerprints==1.0.2 bitarray`). With NumPy 2.4 it returns empty fingerprints without a
word, because np.trapz is gone: here, in this process only, the name is put back.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.spectra import DEFAULT_GRID, OLD_GRID, Grid, coverage, fingerprints, tanimoto
from epitaxy_dos.matrix import blocks
from epitaxy_dos.spectra import fingerprints_of
from epitaxy_dos.table import read_table

DATA = Path(__file__).parents[2] / "shared" / "data"
EV = 1.602176565e-19  # J, as in the peer
WANTED_PAIRS = 1e6  # per second and core
WANTED_RATIO = 100
SAME = 1e-12


def spectra(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return n spectra: energies, eV, and states/eV."""
    packed = (DATA / "dos" / "nomad_dos_fingerprint_test_data.json.xz").read_bytes()
    real = [e for e in json.loads(lzma.decompress(packed)).values() if isinstance(e, dict)]
    made = []
    for i in range(n):
        entry = real[i % len(real)]
        energies = np.array(entry["dos_energies"]) / EV + 0.013 * (i // len(real))
        made.append((energies, np.sum(entry["dos_values"], axis=0) * EV))
    return made


def ours(found: list[tuple[np.ndarray, np.ndarray]], grid: Grid) -> np.ndarray:
    """Return the heights of all of them."""
    return np.concatenate([fingerprints(e, d, grid=grid) for e, d in found])


def timed(work: Callable[[], Any], *, repeat: int = 1) -> tuple[Any, float]:
    """Return what `work` gives, and the shortest processor time of some runs."""
    shortest = np.inf
    for _ in range(repeat):
        start = time.process_time()
        result = work()
        shortest = min(shortest, time.process_time() - start)
    return result, shortest


def main(n: int) -> None:
    """Measure and print."""
    found = spectra(n)
    covered = sum(coverage(e, OLD_GRID).fraction == 1 for e, _ in found)
    print(f"{n} spectra, {covered} cover the grid; {len(found[0][0])} energies each")
    heights, seconds = timed(lambda: ours(found, DEFAULT_GRID))
    print(f"fingerprint {seconds / n * 1e3:.2f} ms each, of its own energies")
    shared = np.arange(-1000, 1001) / 100
    many = np.stack([np.interp(shared, e, d) for e, d in found])
    _, seconds = timed(lambda: fingerprints(shared, many), repeat=3)
    print(f"fingerprint {seconds / n * 1e3:.3f} ms each, 2001 energies that all share")
    large = np.concatenate([heights] * (3000 // n + 1))[:3000]
    _, seconds = timed(lambda: tanimoto(large, large), repeat=3)
    rate = len(large) ** 2 / seconds
    print(
        f"similarity  {rate:.3g} pairs/s per core, default grid, 3000 x 3000; wanted "
        f"{WANTED_PAIRS:.0e}: {'reached' if rate >= WANTED_PAIRS else 'MISSED'}"
    )
    against_peer(found)
    phonons()


def against_peer(found: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Compare with nomad-dos-fingerprints on its own grid."""
    trapezoid: Any = np.trapezoid
    np.trapz = trapezoid  # type: ignore[attr-defined]
    try:
        from nomad_dos_fingerprints import DOSFingerprint
    except ImportError:
        print("nomad-dos-fingerprints is not installed: not compared")
        return
    theirs, their_making = timed(
        lambda: [DOSFingerprint().calculate(e * EV, d[None] / EV) for e, d in found]
    )
    if not all(one.bins for one in theirs):
        print("nomad-dos-fingerprints gives empty fingerprints here: not compared")
        return
    heights, our_making = timed(lambda: ours(found, OLD_GRID))
    # Version 1 cuts the last pixel off before it compares.
    heights[:, -1] = np.minimum(heights[:, -1], OLD_GRID.n_pixels - 1)
    expected, their_time = timed(lambda: np.array([a.get_similarities(theirs) for a in theirs]))
    similarity, our_time = timed(lambda: tanimoto(heights, heights), repeat=5)
    ratio, difference = their_time / our_time, float(np.abs(similarity - expected).max())
    pairs = len(found) ** 2
    print(
        f"nomad-dos-fingerprints: similarity {their_time / pairs * 1e6:.1f} us per pair, ours "
        f"{our_time / pairs * 1e6:.3f}: {ratio:,.0f} times; wanted {WANTED_RATIO}: "
        f"{'reached' if ratio >= WANTED_RATIO else 'MISSED'}"
    )
    print(
        f"  largest difference of {pairs:,} similarities {difference:.1e}; wanted {SAME:.0e}: "
        f"{'reached' if difference <= SAME else 'MISSED'}"
    )
    print(f"  fingerprints: {their_making / our_making:.0f} times faster")


def phonons() -> None:
    """Compare all phonon spectra with each other."""
    path = DATA / "jarvis_leaderboard" / "edos_pdos_ph_dos.json.zip"
    found = fingerprints_of(read_table(path), target="phonon_dos")
    start, used = time.monotonic(), time.process_time()
    total = sum(float(block.sum()) for _, block in blocks(found))
    wall, used = time.monotonic() - start, time.process_time() - used
    n = len(found)
    print(
        f"all pairs of {n:,} phonon spectra ({found.grid.n_columns} columns): {wall:.1f} s, "
        f"{used:.1f} s of processor, mean similarity {total / n**2:.3f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spectra", type=int, default=900)
    main(parser.parse_args().spectra)
