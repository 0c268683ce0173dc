"""Seconds per epoch of AtomSets on the 132,752 rows of MatBench's mp_e_form.

    .venv/bin/python bench/atomsets.py [--threads N ...] [--epochs N] [--device cpu cuda]

V0: the real formulas, ../shared/data/composition_tables. V1: features of atoms, memory-mapped; the
table has no structures, so those of the Materials Project binaries in ../shared/data/mp_matcalc are
repeated until there are as many. phi and rho 64-64, relu, batch 128, Adam, as in the paper, which
reports 10 s per epoch on a GTX 1080Ti. Batches are small: a second thread gains nothing, and where
the cores are busy with other work it loses much. set2set (width 512) takes a tenth of the rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from device import add_device, checked

from epitaxy.artifact import save_artifact
from epitaxy.dataset import Dataset
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.training.options import TrainingOptions
from epitaxy_atomsets.model import AtomSets
from epitaxy_benchmarks.composition_table import CompositionTableSource
from epitaxy_benchmarks.matcalc import MatcalcSource
from epitaxy_graphs.megnet_keras import convert, read_keras

DATA = Path(__file__).parents[2] / "shared" / "data"
N_ROWS = 132_752
WEIGHTS = DATA / "weights" / "megnet_mp2018_formation_energy_keras.hdf5"


def formulas() -> Dataset:
    """Return the table."""
    path = DATA / "composition_tables" / "matbench" / "mp_e_form.csv.xz"
    return Dataset.from_entries(CompositionTableSource(path=path))


def structures() -> Dataset:
    """Return as many structures."""
    source = MatcalcSource(
        path=DATA / "mp_matcalc" / "mp-binary-pbe-elasticity-2025.1.json.gz",
        labels=[DATA / "jarvis_leaderboard" / "megnet_e_form.json.zip"],
    )
    few = Dataset.from_entries([e for e in source if "formation_energy" in e.targets])
    return few[np.arange(N_ROWS) % len(few)]


def seconds_per_epoch(
    dataset: Dataset, model: AtomSets, folder: Path, options: TrainingOptions, device: str
):
    """Train and return the seconds of each epoch, and those before the first."""
    start = time.perf_counter()
    run = Run(folder, training=options, device=device)
    model.fit(dataset, dataset[:1000], run=run)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [len(dataset) / line["structures_per_second"] for line in lines]
    return epochs, time.perf_counter() - start - lines[-1]["seconds"]


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=3)
    add_device(parser)
    args = parser.parse_args()
    devices = [str(device) for device in checked(parser, args.device)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = read_keras(WEIGHTS)
        model = convert(found, target="formation_energy", registry=Registry.from_entry_points())
        parent = save_artifact(model, folder / "parent")
        sets = {"V0": formulas(), "V1": structures()}
        for level, dataset in sets.items():
            print(f"{level}: {len(dataset):,} rows, {dataset.n_atoms.mean():.1f} atoms on average")
        for n_threads, device in itertools.product(args.threads, devices):
            for level, readout in (("V0", "mean"), ("V1", "mean"), ("V0", "set2set")):
                dataset = sets[level]
                if readout == "set2set":
                    dataset = dataset[: N_ROWS // 10]
                options = TrainingOptions(
                    epochs=1 if readout == "set2set" else args.epochs,
                    batch_size=128,
                    optimizer="adam",
                    schedule="constant",
                    ema_decay=0.0,
                    gradient_clip=0.0,
                    n_threads=n_threads,
                )
                atomsets = AtomSets(
                    targets=["formation_energy"],
                    parent=parent,
                    level=level,
                    readout=readout,
                    unseen="initialise",
                    cache=folder / "cache",
                )
                place = folder / f"{level}-{readout}-{n_threads}-{device.replace(':', '-')}"
                cpu = time.process_time()
                times, before = seconds_per_epoch(dataset, atomsets, place, options, device)
                cpu = time.process_time() - cpu
                print(
                    f"{level} {readout:8} {len(dataset):,} rows, {n_threads} threads, {device}: "
                    f"best epoch {min(times):.1f} s, median {np.median(times):.1f} s; "
                    f"preparation {before:.1f} s, {cpu:.0f} CPU-seconds in all",
                    flush=True,
                )


if __name__ == "__main__":
    main()
