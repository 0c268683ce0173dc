"""Duplicate groups of 60,000 structures, and how far moyopy and spglib agree.

    .venv/bin/python bench/groups.py [--structures N] [--workers W]

Real structures of ../shared/data (Castelli perovskites, Materials Project binaries, Alexandria,
WBM), repeated with 0.01 Å of noise until there are enough.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from epitaxy.curation.groups import duplicate_groups
from epitaxy.curation.matching import match_groups
from epitaxy.curation.prototypes import prototype_labels
from epitaxy.curation.spacegroup import spacegroup_numbers
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.split import leaks, split_by_group

DATA = Path(__file__).parents[2] / "shared" / "data"
NOISE = 0.01  # Å


def real_structures() -> Iterator[Entry]:
    """Yield the structures as they are in the files."""
    archive = zipfile.ZipFile(
        DATA / "castelli_perov5" / "jarvis_perov5_heat_ref_structures.json.zip"
    )
    for part in json.loads(archive.read(archive.namelist()[0])).values():
        for name, poscar in part.items():
            atoms = read(io.StringIO(poscar.replace("\\n", "\n")), format="vasp")
            yield Entry.from_atoms(atoms, id=f"perov-{name}", tags={"set": "Castelli perovskites"})
    for file, key, title in (
        ("mp-binary-pbe-elasticity-2025.1.json.gz", "mp_id", "Materials Project binaries"),
        ("alexandria-binary-pbe-phonon-2025.1.json.gz", "mp_id", "Alexandria binaries"),
        ("wbm-random-pbe52-equilibrium-2025.1.json.gz", "material_id", "WBM"),
    ):
        with gzip.open(DATA / "mp_matcalc" / file) as stream:
            rows = json.load(stream)
        for row in rows:
            sites, cell = row["structure"]["sites"], row["structure"]["lattice"]["matrix"]
            atoms = Atoms(
                [site["species"][0]["element"] for site in sites],
                scaled_positions=[site["abc"] for site in sites],
                cell=cell,
                pbc=True,
            )
            yield Entry.from_atoms(atoms, id=str(row[key]), tags={"set": title})


def repeated(entries: list[Entry], n: int) -> Iterator[Entry]:
    """Yield n entries: the real ones, then noisy copies."""
    rng = np.random.default_rng(0)
    for i in range(n):
        entry = entries[i % len(entries)]
        if i >= len(entries):
            atoms = entry.to_atoms()
            atoms.rattle(NOISE, rng=rng)
            entry = Entry.from_atoms(atoms, id=f"{entry.id}+{i}", tags=entry.tags)
        yield entry


def main() -> None:
    """Print the times and the agreement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--structures", type=int, default=60_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--agreement-only", action="store_true")
    args = parser.parse_args()
    real = list(real_structures())
    if not args.agreement_only:
        dataset = Dataset.from_entries(repeated(real, args.structures))
        print(f"{len(dataset):,} structures, {dataset.n_atoms.mean():.1f} atoms on average")
        start = time.perf_counter()
        labels = duplicate_groups(dataset, n_workers=args.workers)
        print(f"groups (moyopy): {time.perf_counter() - start:.1f} s, {len(set(labels)):,} groups")
        of_copy = labels[np.arange(len(labels)) % len(real)] == labels
        print(f"noisy copies with the label of their original: {of_copy[len(real) :].mean():.2%}")
        start = time.perf_counter()
        split = split_by_group(dataset, labels)
        print(f"split: {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        found = leaks(split, [labels])
        print(f"leak check: {time.perf_counter() - start:.1f} s, {found.n_equal} equal structures")
        start = time.perf_counter()
        spacegroup_numbers(dataset, engine="spglib", n_workers=args.workers)
        print(f"spacegroups (spglib): {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        prototypes = prototype_labels(dataset, n_workers=args.workers)
        print(
            f"prototypes (moyopy): {time.perf_counter() - start:.1f} s, {len(set(prototypes)):,}, "
            f"{(prototypes == 'failed').sum()} failed"
        )
        start = time.perf_counter()
        matched = match_groups(dataset, labels, n_workers=args.workers)
        print(
            f"matching: {time.perf_counter() - start:.1f} s, {len(set(matched.labels)):,} groups, "
            f"{matched.n_over_the_limit} over the limit"
        )
    dataset = Dataset.from_entries(real)
    sets = dataset.tag("set")
    for symprec in (0.01, 0.1):
        by = {
            engine: spacegroup_numbers(
                dataset, engine=engine, symprec=symprec, n_workers=args.workers
            )
            for engine in ("moyopy", "spglib")
        }
        failed = ", ".join(f"{engine} failed {(n == 0).sum()}" for engine, n in by.items())
        print(f"symprec {symprec}: {failed}")
        for name in np.unique(sets):
            same = (by["moyopy"] == by["spglib"])[sets == name]
            print(f"  {name}: {same.mean():.2%} of {len(same):,} agree")


if __name__ == "__main__":
    main()
