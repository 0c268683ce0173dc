"""Training speed of PaiNN, EGNN and PNA on silicon, plain and compiled, in one run.

    .venv/bin/python bench/training_step.py [--networks egnn pna] [--device cpu cuda] [FILE]

The conditions are those in which HydraGNN's networks were measured beside it: one thread, the 214
silicon structures of mlearn's training set (FILE, Si_training.json.xz), width 64, 3 layers, cutoff
5 Å, batches of 8, float32, energies and forces, AdamW; 8 radial functions, and for EGNN the squared
distance alone as in HydraGNN. Without that file, silicon cells of 64 atoms, rattled, stand in. A
step is: outputs, loss, backward, optimizer; graphs are built before, on the device. Seconds are CPU
seconds, on a GPU wall seconds. Epochs of the two routes are taken in turn, the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from device import add_device, checked, seconds
from torch import nn

from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.graphs.evaluator import Evaluator, make_evaluator
from epitaxy.potential import Potential
from epitaxy_graphs.egnn import EGNN
from epitaxy_graphs.painn import PaiNN
from epitaxy_graphs.pna import PNA

NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any], float]] = {
    "painn": (PaiNN, {"n_radial": 8}, 29.4),
    "egnn": (EGNN, {"n_radial": 0}, 47.0),
    "pna": (PNA, {"n_radial": 8}, 28.0),
}
"""Network, options beyond the common ones, and the structures per CPU-second of the fastest epoch
of HydraGNN's PAINN, EGNN and PNAPlus (commit d251f81) seen on one machine. Only numbers of one run
can be compared; docs/benchmarks/speed.md has those, the conditions and the spread."""
COMMON: dict[str, Any] = {"width": 64, "n_layers": 3, "cutoff": 5.0, "elements": [14]}
BATCH = 8
ROUNDS = 4
FILE = Path(__file__).parents[2] / "shared/data/mlearn/Si_training.json.xz"

Batch = tuple[GraphBatch, torch.Tensor, torch.Tensor]


def read(path: Path) -> list[tuple[Atoms, float, np.ndarray]]:
    """Return structures, energies (eV) and forces (eV/Å) of an mlearn file."""
    frames = []
    for frame in json.loads(lzma.decompress(path.read_bytes())):
        structure, outputs = frame["structure"], frame["outputs"]
        atoms = Atoms(
            [site["species"][0]["element"] for site in structure["sites"]],
            positions=[site["xyz"] for site in structure["sites"]],
            cell=structure["lattice"]["matrix"],
            pbc=True,
        )
        frames.append((atoms, float(outputs["energy"]), np.array(outputs["forces"])))
    return frames


def stand_in() -> list[tuple[Atoms, float, np.ndarray]]:
    """Return 64 rattled cells of 64 atoms with labels that mean nothing."""
    frames = []
    for seed in range(64):
        atoms = bulk("Si", cubic=True) * 2
        atoms.rattle(0.1, seed=seed)
        frames.append((atoms, -5.4 * 64, np.zeros((64, 3))))
    return frames


def batches(frames: list[tuple[Atoms, float, np.ndarray]], device: torch.device) -> list[Batch]:
    """Return shuffled batches as the network reads them."""
    order = np.random.default_rng(0).permutation(len(frames))
    packed = []
    for start in range(0, len(order), BATCH):
        chosen = [frames[index] for index in order[start : start + BATCH]]
        structures = [atoms for atoms, _, _ in chosen]
        graph = build_batch_from_atoms(structures, cutoff=5.0, device=device)
        energy = torch.tensor([energy for _, energy, _ in chosen], dtype=torch.float64)
        forces = torch.tensor(np.concatenate([forces for _, _, forces in chosen]))
        packed.append((graph, energy.to(device), forces.to(device, torch.float32)))
    return packed


def loss_of(evaluate: Evaluator, batch: Batch) -> torch.Tensor:
    """Return mean squared errors of energy per atom and of forces, added."""
    graph, energy, forces = batch
    outputs = evaluate(graph)
    assert outputs.forces is not None
    per_atom = (outputs.energy - energy) / graph.n_atoms_per_structure
    return per_atom.square().mean() + (outputs.forces - forces).square().mean()


def main() -> None:
    """Print structures per CPU-second of each network, plain and compiled, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path, default=FILE)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    add_device(parser)
    arguments = parser.parse_args()
    devices = checked(parser, arguments.device)
    torch.set_num_threads(1)
    real = arguments.file.exists()
    frames = read(arguments.file) if real else stand_in()
    packed = {device: batches(frames, device) for device in devices}
    prepared = packed[devices[0]]
    n_edges = sum(len(batch[0].centers) for batch in prepared)
    n_structures = sum(batch[0].n_structures for batch in prepared)
    print(
        f"width 64, 3 layers, cutoff 5 Å, batch {BATCH}, float32, 1 thread, energies and forces\n"
        f"{'mlearn Si training set' if real else 'stand-in structures'}: "
        f"{n_structures} structures, {n_edges} directed edges"
    )
    for name in arguments.networks:
        for device in devices:
            measure(name, packed[device], device)


def measure(name: str, prepared: list[Batch], device: torch.device) -> None:
    """Print the speed of one network on one device."""
    torch.manual_seed(0)
    kind, options, hydragnn = NETWORKS[name]
    network = kind(**COMMON, **options)
    potential = Potential(network, elements=[14], reference_energies=[-5.4], scale=1.0)
    potential = potential.to(device).train()
    optimizer = torch.optim.AdamW(potential.parameters(), lr=1e-4)
    plain = make_evaluator(potential)
    compiled = make_evaluator(potential, compile=True)
    wall, cpu = time.perf_counter(), time.process_time()
    found, expected = (loss_of(evaluate, prepared[0]) for evaluate in (compiled, plain))
    gradients = [
        torch.autograd.grad(loss, list(network.parameters())) for loss in (found, expected)
    ]
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients, strict=True))
    print(
        f"{name} on {device}, {options}, "
        f"{sum(p.numel() for p in network.parameters())} parameters; "
        f"first compiled step: {time.perf_counter() - wall:.0f} s wall, "
        f"{time.process_time() - cpu:.0f} s CPU in this process; loss {float(found.detach()):.6f}, "
        f"plain {float(expected.detach()):.6f}; gradients differ by {worst:.0e} of the largest"
    )
    best = {"plain": 0.0, "compiled": 0.0}
    routes = {"plain": (plain, prepared[:6]), "compiled": (compiled, prepared)}
    for _ in range(ROUNDS):
        for route, (evaluate, chosen) in routes.items():
            start = seconds(device)
            for batch in chosen:
                optimizer.zero_grad()
                loss_of(evaluate, batch).backward()
                optimizer.step()
            taken = seconds(device) - start
            done = sum(batch[0].n_structures for batch in chosen)
            best[route] = max(best[route], done / taken)
    second = "CPU-second" if device.type == "cpu" else "second"
    for route, speed in best.items():
        beside = f", {speed / hydragnn:.1f} x HydraGNN's {hydragnn}" if device.type == "cpu" else ""
        print(
            f"  {route:9s} {speed:6.1f} structures per {second}, "
            f"{speed / best['plain']:.1f} x plain{beside}"
        )


if __name__ == "__main__":
    main()
