"""What the calculator costs beyond the network, and what batches gain.

    .venv/bin/python bench/calculator.py [--device cpu cuda]

Overhead: the time of ``atoms.get_forces()`` after a move, as in molecular dynamics, less that of
the network's forward and backward on the same graph. A cheap network is used for the difference
(with a costly one it would drown in noise); PaiNN gives the ratio. One thread, minima over many.
"""

from __future__ import annotations

import argparse
import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from device import add_device, checked, wall_seconds
from torch import Tensor, nn

from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.potential import Potential
from epitaxy_calculator.calculator import PotentialCalculator
from epitaxy_graphs.painn import PaiNN

CUTOFF = 5.0  # Å
GOALS = {8: 0.3, 512: 2.0}  # ms


class Cheap(nn.Module):
    """A network that costs almost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.cutoff = CUTOFF
        self.strength = nn.Parameter(torch.ones(1))

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return a sum over neighbors."""
        squared = (graph.vectors * graph.vectors).sum(dim=1)
        pair = self.strength * (1 - squared / CUTOFF**2) ** 3
        return pair.new_zeros(len(graph.numbers)).index_add(0, graph.centers, pair)


def potential(network: nn.Module) -> Potential:
    """Return a potential of silicon around a network."""
    return Potential(network, elements=[14], reference_energies={14: -5.4}, scale=0.5)


def painn(seed: int = 0, *, width: int = 64) -> Potential:
    """Return a PaiNN with random weights."""
    torch.manual_seed(seed)
    return potential(PaiNN(width=width, n_layers=3, n_radial=8, cutoff=CUTOFF))


def fastest(*calls: Callable[[], object], n: int, device: torch.device) -> list[float]:
    """Return the smallest time of each call in ms; the calls take turns, so load hits all alike."""
    times = [float("inf")] * len(calls)
    for _ in range(n):
        for index, call in enumerate(calls):
            start = wall_seconds(device)
            call()
            times[index] = min(times[index], wall_seconds(device) - start)
    return [1e3 * t for t in times]


def mover(atoms: Atoms, calculator: PotentialCalculator) -> Callable[[], object]:
    """Return a call that moves the atoms a little and asks for forces."""
    rng = np.random.default_rng(0)
    given = atoms.copy()
    given.calc = calculator
    places = [atoms.positions + rng.normal(0, 0.02, (len(atoms), 3)) for _ in range(16)]
    count = [0]

    def move() -> object:
        count[0] += 1
        given.positions[:] = places[count[0] % len(places)]
        return given.get_forces()

    return move


def network_alone(calculator: PotentialCalculator, graph: GraphBatch) -> Callable[[], object]:
    """Return the network's forward and backward by the edge vectors."""
    network = calculator.members.potentials[0].network

    def call() -> object:
        vectors = graph.vectors.detach().requires_grad_()
        return torch.autograd.grad(network(graph._replace(vectors=vectors)).sum(), vectors)

    return call


def overhead(device: torch.device) -> None:
    """Print ms beyond the network for two sizes, with and without the skin."""
    print("overhead beyond the network's forward and backward, ms (energy, forces and stress)")
    print("atoms  skin   call  network  overhead  goal   with PaiNN: call / network")
    for repeat in (1, 4):
        atoms = bulk("Si", cubic=True) * ((repeat,) * 3)
        atoms.rattle(0.05, seed=1)
        graph = build_batch_from_atoms([atoms], cutoff=CUTOFF, dtype=torch.float32, device=device)
        n = 1000 if repeat == 1 else 200
        for skin in (0.0, 0.5, 1.0, 1.5):
            cheap = PotentialCalculator(potential(Cheap()), skin=skin, device=str(device))
            moved, alone = mover(atoms, cheap), network_alone(cheap, graph)
            call, network = fastest(moved, alone, n=n, device=device)
            ratio = ""
            if skin == 1.0:
                real = PotentialCalculator(painn(), skin=skin, device=str(device))
                moved, alone = mover(atoms, real), network_alone(real, graph)
                both = fastest(moved, alone, n=max(n // 20, 8), device=device)
                ratio = f"{both[0]:.1f} / {both[1]:.1f} = {both[0] / both[1]:.2f}"
            print(
                f"{len(atoms):5}  {skin:4.1f}  {call:5.2f}  {network:7.2f}  "
                f"{call - network:8.2f}  {GOALS[len(atoms)]:4.1f}   {ratio}"
            )


def batches(device: torch.device) -> None:
    """Print ms per 8-atom cell, one by one and together, for three widths of PaiNN."""
    structures = []
    for seed in range(64):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.1, seed=seed)
        structures.append(atoms)
    sizes = (1_000, 4_000, 16_000)
    print("\n64 cells of 8 atoms, ms per cell: one by one; predict with edges at once (goal 3 x)")
    cases = [(width, compile) for compile in (False, True) for width in (16, 32, 64)]
    for width, compile in cases:
        calculator = PotentialCalculator(painn(width=width), compile=compile, device=str(device))

        def one_by_one(calculator: PotentialCalculator = calculator) -> None:
            for atoms in structures:
                calculator.calculate(atoms)

        together = []
        for edges in sizes:
            batched = copy.deepcopy(calculator)
            batched.edges_per_batch = edges
            batched.predict(structures)  # compiles
            together.append(functools.partial(batched.predict, structures))
        single, *spent = fastest(one_by_one, *together, n=6, device=device)
        print(
            f"  width {width:2}{', compiled' if compile else ''}: {single / 64:.2f}; "
            + ", ".join(
                f"{edges:,}: {t / 64:.2f} ({single / t:.1f} x)"
                for edges, t in zip(sizes, spent, strict=True)
            )
        )


def ensembles(device: torch.device) -> None:
    """Print what four members cost: a loop over a shared graph, and torch.func.vmap."""
    from torch.func import functional_call, stack_module_state, vmap

    print("\nensemble of 4 PaiNN, ms per call: loop over a shared graph, vmap over stacked weights")
    for repeat in (1, 2):
        atoms = bulk("Si", cubic=True) * ((repeat,) * 3)
        graph = build_batch_from_atoms([atoms], cutoff=CUTOFF, dtype=torch.float32, device=device)
        members = [painn(seed) for seed in range(4)]
        calculator = PotentialCalculator(members, device=str(device))
        networks = [p.network for p in calculator.members.potentials]
        parameters, buffers = stack_module_state(networks)
        base = copy.deepcopy(networks[0]).to("meta")
        one = network_alone(calculator, graph)

        def energy(
            parameters: dict[str, Tensor],
            buffers: dict[str, Tensor],
            vectors: Tensor,
            graph: GraphBatch = graph,
            base: nn.Module = base,
        ) -> Tensor:
            found: Tensor = functional_call(
                base, (parameters, buffers), (graph._replace(vectors=vectors),)
            )
            return found.sum()

        gradient = vmap(torch.func.grad(energy, argnums=2), in_dims=(0, 0, None))

        def loop(networks: list[nn.Module] = networks, graph: GraphBatch = graph) -> None:
            for network in networks:
                vectors = graph.vectors.detach().requires_grad_()
                torch.autograd.grad(network(graph._replace(vectors=vectors)).sum(), vectors)

        mapped = functools.partial(gradient, parameters, buffers, graph.vectors)
        try:
            mapped()
            single, looped, together = fastest(one, loop, mapped, n=12, device=device)
            print(
                f"{len(atoms):5} atoms: one member {single:.1f}, loop {looped:.1f}, "
                f"vmap {together:.1f} ({looped / together:.2f} x)"
            )
        except Exception as error:
            reason = str(error).splitlines()[0]
            single, looped = fastest(one, loop, n=12, device=device)
            print(f"{len(atoms):5} atoms: one {single:.1f}, loop {looped:.1f}; no vmap: {reason}")


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser()
    add_device(parser)
    devices = checked(parser, parser.parse_args().device)
    torch.set_num_threads(1)
    for device in devices:
        print(f"on {device}")
        overhead(device)
        batches(device)
        ensembles(device)


if __name__ == "__main__":
    main()
