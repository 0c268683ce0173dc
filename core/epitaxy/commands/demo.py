"""`epitaxy demo`: the main job on the embedded silicon data, by the verbs that a user types."""

from __future__ import annotations

import json
import shlex
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.errors import ConfigError, EpitaxyError

if TYPE_CHECKING:
    import numpy as np

    from epitaxy.evaluation.eos import EquationOfState

TRAINING_KINDS = ("rattled", "strained", "polymorph", "vacancy")
"""What the model learns from; the equation of state of diamond is kept as a physical test."""

MARKER = ".epitaxy-demo"
WRITTEN = (
    *(MARKER, "silicon.yaml", "silicon-pbe", "training", "evaluation", "eos", "md"),
    *("diamond.extxyz", "diamond-64.extxyz", "demo.png", "summary.json"),
)
"""All that a demo writes: all that --overwrite removes."""

EOS_STRAIN = 0.06
"""Largest relative change of the volume in the equation of state, as in Lejaeghere et al.,
Science 351, aad3000 (2016)."""

CONFIG = """\
# A small PaiNN ensemble on the embedded silicon data. Every key: docs/training.md.
dataset: {dataset}
split: {{method: random, valid: 0.1, test: 0.15, seed: 0}}
model: {{use: painn, width: 64, n_layers: 2, n_radial: 8, cutoff: 5.0, elements: [14]}}
strategy: {{use: ensemble, n_members: {n_members}, n_parallel: 2}}
training:
  epochs: {epochs}
  batch_size: 8
  lr: 0.002
  schedule: cosine
  energy_weight: 10
  forces_weight: 1
  stress_weight: 100
  ema_decay: 0.99
seed: 0
output: {output}
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("epitaxy-demo"), help="folder to write to"
    )
    parser.add_argument("--epochs", type=int, default=80, help="passes over the data (80)")
    parser.add_argument("--members", type=int, default=4, help="models in the ensemble (4)")
    parser.add_argument("--steps", type=int, default=300, help="steps of molecular dynamics (300)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo")


def run(args: Namespace) -> int:
    """Run the demo; the exit status is 1 if the physics is not reproduced."""
    folder: Path = args.output
    _make_room(folder, overwrite=args.overwrite)
    start = time.monotonic()
    stored, training = folder / "silicon-pbe", folder / "training"
    config = folder / "silicon.yaml"
    config.write_text(
        CONFIG.format(
            dataset=json.dumps(str(stored)),
            output=json.dumps(str(training)),
            epochs=args.epochs,
            n_members=args.members,
        )
    )
    step("Read and check the embedded silicon frames (PBE), without the equation of state")
    kinds = f"kind=[{', '.join(TRAINING_KINDS)}]"
    do("ingest", "silicon", "--option", "xc=PBE", "--option", kinds, "-o", stored)

    step("Train an ensemble of small PaiNN networks")
    do("train", config)
    artifact = training / "artifact"
    trained = time.monotonic() - start

    step("Compare it with the test part that it never saw")
    split = training / "split.json"
    do(
        "evaluate",
        artifact,
        stored,
        "--split",
        split,
        "--group",
        "kind",
        "-o",
        folder / "evaluation",
    )

    step("Equation of state of the diamond phase, against the DFT one")
    structure = folder / "diamond.extxyz"
    frames = dft_frames()
    reference = reference_eos(*frames)
    write_cell(reference.volume, structure)
    points = "13"
    do("eos", artifact, structure, "--strain", EOS_STRAIN, "--points", points, "-o", folder / "eos")
    predicted = predicted_eos(folder / "eos")

    step("Molecular dynamics of 64 atoms at 600 K, with an error bar at each step")
    supercell = folder / "diamond-64.extxyz"
    write_supercell(structure, supercell)
    md_options = ("--temperature", 600, "--steps", args.steps, "--ensemble", "nvt", "--seed", 0)
    do("md", artifact, supercell, *md_options, "-o", folder / "md")

    draw(folder, stored, split, reference, frames)
    return summarize(folder, reference, predicted, trained, time.monotonic() - start)


def _make_room(folder: Path, *, overwrite: bool) -> None:
    """Make the folder, or empty it of what an earlier demo wrote, and of nothing else."""
    import shutil

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give the name of a folder with -o")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and not overwrite:
        raise ConfigError(
            f"{folder} is not empty; give another folder with -o, or --overwrite to replace an "
            f"earlier demo"
        )
    if there and MARKER not in there:
        raise ConfigError(f"{folder} holds no earlier demo ({MARKER} is not there): not touched")
    if strange := sorted(there - set(WRITTEN)):
        raise ConfigError(
            f"{folder} holds {strange[0]}, which no demo wrote: move it away or give another "
            f"folder with -o"
        )
    for name in there:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("written by `epitaxy demo`, which may replace this folder\n")


def step(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


def do(*words: object) -> None:
    """Print a command line and run it.

    Raises:
        EpitaxyError: the command did not succeed.
    """
    from epitaxy.cli import main

    arguments = [str(word) for word in words]
    print(f"$ epitaxy {shlex.join(arguments)}", flush=True)
    status = main(arguments)
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise EpitaxyError(f"`epitaxy {arguments[0]}` ended with status {status}, see above")


def dft_frames() -> tuple[np.ndarray, np.ndarray]:
    """Return volumes (n,) Å^3 and DFT energies (n,) eV of the cubic 8-atom diamond cell."""
    import numpy as np

    from epitaxy.dataset import Dataset
    from epitaxy.registry import Registry

    source = {"use": "silicon", "xc": "PBE", "kind": ["eos"]}
    frames = Dataset.from_entries(Registry.from_entry_points().build("source", source))
    volumes = np.array([abs(np.linalg.det(frame.cell)) for frame in frames])
    return volumes, frames.target("energy")[0]


def reference_eos(volumes: np.ndarray, energies: np.ndarray) -> EquationOfState:
    """Fit the DFT energies within the same range of volumes as the model's."""
    from epitaxy.evaluation.eos import fit_equation_of_state

    rough = fit_equation_of_state(volumes, energies).volume
    near = abs(volumes / rough - 1) <= EOS_STRAIN + 1e-6
    return fit_equation_of_state(volumes[near], energies[near])


def write_cell(volume: float, target: Path) -> None:
    """Write the cubic 8-atom diamond cell of that volume (Å^3)."""
    import ase.io
    from ase.build import bulk

    ase.io.write(target, bulk("Si", "diamond", a=volume ** (1 / 3), cubic=True))


def predicted_eos(folder: Path) -> tuple[float, float]:
    """Return the volume (Å^3) and the bulk modulus (GPa) that `epitaxy eos` found."""
    found = json.loads((folder / "eos.json").read_text())
    return found["volume_A3"], found["bulk_modulus_GPa"]


def write_supercell(structure: Path, target: Path) -> None:
    """Write the cubic 8-atom cell, twice in each direction."""
    import ase.io

    atoms = ase.io.read(structure)
    ase.io.write(target, atoms.repeat((2, 2, 2)))


def draw(
    folder: Path,
    stored: Path,
    split: Path,
    reference: EquationOfState,
    frames: tuple[np.ndarray, np.ndarray],
) -> None:
    """Write demo.png, the picture of the README."""
    from epitaxy.artifact import load_artifact
    from epitaxy.commands.demo_picture import plot_demo
    from epitaxy.dataset import Dataset
    from epitaxy.evaluation.metrics import evaluate
    from epitaxy.split import Split

    test = Split.load(split, Dataset.open(stored)).test
    model = load_artifact(folder / "training" / "artifact").model
    plot_demo(
        folder / "demo.png",
        evaluation=evaluate(model.predict(test), test),
        reference=reference,
        labels=frames,
        n_atoms=8,
        folder=folder,
    )


def summarize(
    folder: Path,
    reference: EquationOfState,
    predicted: tuple[float, float],
    trained: float,
    total: float,
) -> int:
    """Print the physics, where everything is, and return 1 if the physics is off."""
    lattice = [volume ** (1 / 3) for volume in (reference.volume, predicted[0])]
    modulus = [reference.bulk_modulus_gpa, predicted[1]]
    rows = [
        ("lattice parameter (Å)", lattice, 0.005),
        ("bulk modulus (GPa)", modulus, 0.10),
    ]
    step("Summary")
    numbers: dict[str, Any] = {"seconds_to_trained": trained, "seconds": total}
    good = True
    print(f"{'diamond silicon':24}{'DFT':>10}{'model':>10}{'off by':>10}{'allowed':>10}")
    for name, (dft, model), allowed in rows:
        off = model / dft - 1
        good &= abs(off) <= allowed
        print(f"{name:24}{dft:10.4g}{model:10.4g}{off:+10.2%}{allowed:10.1%}")
        numbers[name] = {"dft": dft, "model": model, "relative_error": off, "allowed": allowed}
    (folder / "summary.json").write_text(json.dumps(numbers, indent=2) + "\n")
    print(f"trained after {trained:.0f} s, everything done after {total:.0f} s")
    print("\nWhat to look at:")
    for name, meaning in (
        ("demo.png", "everything in one picture"),
        ("training/artifact/card.md", "the model card"),
        ("evaluation/parity.png", "predictions with error bars against DFT"),
        ("evaluation/calibration.png", "whether the error bars can be trusted"),
        ("eos/eos.png", "energy against volume"),
        ("md/md.png", "temperature, energy and uncertainty along the trajectory"),
        ("md/md.extxyz", "the trajectory (open it with `ase gui`)"),
        ("silicon.yaml", "the configuration of the training"),
        ("summary.json", "the numbers above"),
    ):
        if (folder / name).exists():
            print(f"  {folder / name}: {meaning}")
    print("\nUse the model:")
    print("  from epitaxy.calculator import load")
    print(f"  atoms.calc = load({str(folder / 'training' / 'artifact')!r})")
    if not good:
        print("\nThe physics is not reproduced: train longer (--epochs) or with more members.")
    return 0 if good else 1
