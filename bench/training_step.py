"""Training speed of PaiNN on silicon, plain and compiled, in one run.

    .venv/bin/python bench/training_step.py [path of mlearn's Si_training.json.xz]

The conditions are those in which HydraGNN's PAINN was measured beside it: one thread, the 214
silicon structures of mlearn's training set, width 64, 3 layers, 8 radial functions, cutoff 5 Å,
batches of 8, float32, energies and forces, AdamW. Without that file, silicon cells of 64 atoms,
rattled, stand in. A step is: outputs, loss, backward, optimizer;
graphs are built before. Epochs of the two routes are taken in turn, the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.graphs.evaluator import Evaluator, make_evaluator
from epitaxy.potential import Potential
from epitaxy_graphs.painn import PaiNN

HYDRAGNN = 29.4
"""Structures per CPU-second: the fastest epoch of HydraGNN's PAINN (commit d251f81) seen beside
this benchmark on one machine; docs/benchmarks/speed.md has the conditions and the spread."""
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


def batches(frames: list[tuple[Atoms, float, np.ndarray]]) -> list[Batch]:
    """Return shuffled batches as the network reads them."""
    order = np.random.default_rng(0).permutation(len(frames))
    packed = []
    for start in range(0, len(order), BATCH):
        chosen = [frames[index] for index in order[start : start + BATCH]]
        graph = build_batch_from_atoms([atoms for atoms, _, _ in chosen], cutoff=5.0)
        energy = torch.tensor([energy for _, energy, _ in chosen], dtype=torch.float64)
        forces = torch.tensor(np.concatenate([forces for _, _, forces in chosen]))
        packed.append((graph, energy, forces.to(torch.float32)))
    return packed


def loss_of(evaluate: Evaluator, batch: Batch) -> torch.Tensor:
    """Return mean squared errors of energy per atom and of forces, added."""
    graph, energy, forces = batch
    outputs = evaluate(graph)
    assert outputs.forces is not None
    per_atom = (outputs.energy - energy) / graph.n_atoms_per_structure
    return per_atom.square().mean() + (outputs.forces - forces).square().mean()


def main() -> None:
    """Print structures per CPU-second, plain and compiled, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path, default=FILE)
    path = parser.parse_args().file
    torch.set_num_threads(1)
    torch.manual_seed(0)
    real = path.exists()
    prepared = batches(read(path) if real else stand_in())
    network = PaiNN(width=64, n_layers=3, n_radial=8, cutoff=5.0, elements=[14])
    potential = Potential(network, elements=[14], reference_energies=[-5.4], scale=1.0).train()
    optimizer = torch.optim.AdamW(potential.parameters(), lr=1e-4)
    plain = make_evaluator(potential)
    compiled = make_evaluator(potential, compile=True)

    n_edges = sum(len(batch[0].centers) for batch in prepared)
    n_structures = sum(batch[0].n_structures for batch in prepared)
    print(
        f"PaiNN, width 64, 3 layers, 8 radial functions, cutoff 5 Å, batch {BATCH}, float32, "
        f"1 thread\n{'mlearn Si training set' if real else 'stand-in structures'}: "
        f"{n_structures} structures, {n_edges} directed edges"
    )
    wall, cpu = time.perf_counter(), time.process_time()
    found, expected = (loss_of(evaluate, prepared[0]) for evaluate in (compiled, plain))
    gradients = [
        torch.autograd.grad(loss, list(network.parameters())) for loss in (found, expected)
    ]
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients, strict=True))
    print(
        f"first compiled step: {time.perf_counter() - wall:.0f} s wall, "
        f"{time.process_time() - cpu:.0f} s CPU in this process; loss {float(found.detach()):.6f}, "
        f"plain {float(expected.detach()):.6f}; gradients differ by {worst:.0e} of the largest"
    )
    best = {"plain": 0.0, "compiled": 0.0}
    routes = {"plain": (plain, prepared[:6]), "compiled": (compiled, prepared)}
    for _ in range(ROUNDS):
        for name, (evaluate, chosen) in routes.items():
            start = time.process_time()
            for batch in chosen:
                optimizer.zero_grad()
                loss_of(evaluate, batch).backward()
                optimizer.step()
            taken = time.process_time() - start
            done = sum(batch[0].n_structures for batch in chosen)
            best[name] = max(best[name], done / taken)
    for name, speed in best.items():
        print(
            f"{name:9s} {speed:6.1f} structures per CPU-second, "
            f"{speed / best['plain']:.1f} x plain, {speed / HYDRAGNN:.1f} x HydraGNN's {HYDRAGNN}"
        )


if __name__ == "__main__":
    main()
