"""Our artifacts and data sets in NOMAD's client: seconds to parse and normalise, first and later.

    .venv/bin/python bench/oasis.py [--repeats N]

The files are those of the example upload. "first" has NOMAD's own warm-up in it (imports of
normalizers, caches); the goal is less than 1 s for each later artifact. The last lines fingerprint
densities of states of 2,001 points in the schema that NOMAD's parsers write.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

EV = 1.602176634e-19  # J
MAINFILES = ("silicon-model/artifact/manifest.json", "silicon-data/manifest.json")


def main(n_repeats: int) -> None:
    """Measure and print."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # nomad-ml-workflows asks a hub for suggestions
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    start = time.perf_counter()
    from nomad import normalizing  # noqa: F401  (loads all normalizers)
    from nomad.client import normalize_all, parse
    from nomad.config import config

    print(f"import of NOMAD's client        {time.perf_counter() - start:7.2f} s")
    with tempfile.TemporaryDirectory() as place:
        points = config.plugins.entry_points.options
        points["epitaxy_nomad.oasis.entry_points:example_upload"].load(place)
        for name in MAINFILES:
            seconds = []
            for repeat in range(n_repeats + 1):
                folder = Path(place) / f"copy-{repeat}"
                shutil.copytree(Path(place) / name.partition("/")[0], folder)
                mainfile = folder / name.partition("/")[2]
                start = time.perf_counter()
                (archive,) = parse(str(mainfile))
                parsed = time.perf_counter()
                normalize_all(archive)
                normalized = time.perf_counter()
                archive.metadata.apply_archive_metadata(archive)
                seconds.append(
                    (parsed - start, normalized - parsed, time.perf_counter() - normalized)
                )
                shutil.rmtree(folder)
            kind = archive.metadata.entry_type
            print(f"{kind}, {len(archive.metadata.search_quantities)} search quantities")
            _row("first", seconds[:1])
            _row(f"later, median of {n_repeats}", seconds[1:])
    _fingerprints()


def _row(name: str, seconds: list[tuple[float, float, float]]) -> None:
    parts = [statistics.median(column) for column in zip(*seconds, strict=True)]
    print(
        f"  {name:24} {sum(parts):7.3f} s   (parse {parts[0]:.3f}, normalise {parts[1]:.3f}, "
        f"metadata {parts[2]:.3f})"
    )


def _fingerprints(n: int = 500) -> None:
    """Print how fast densities of states are fingerprinted in archives."""
    from nomad.datamodel import EntryArchive
    from runschema.calculation import BandGap, Calculation, Dos, DosValues
    from runschema.run import Run

    from epitaxy_nomad.oasis.fingerprints import FingerprintNormalizer

    rng = np.random.default_rng(0)
    energies = np.linspace(-15, 15, 2001)
    run = Run()
    for _ in range(n):
        calculation = Calculation()
        dos = Dos(energies=energies * EV)
        dos.total.append(DosValues(value=rng.uniform(0, 10, len(energies)) / EV))
        calculation.dos_electronic.append(dos)
        calculation.band_gap.append(BandGap(energy_highest_occupied=0.0))
        run.calculation.append(calculation)
    archive = EntryArchive()
    archive.run.append(run)
    normalizer = FingerprintNormalizer(grid="dg_cut:56:-2:7:(-10,5)")
    start = time.perf_counter()
    normalizer.normalize(archive)
    taken = time.perf_counter() - start
    print(f"fingerprints of {n} DOS          {taken:7.2f} s   ({1000 * taken / n:.2f} ms each)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=10)
    main(parser.parse_args().repeats)
