"""A smooth pair potential with known forces, small networks, and the verbs that use them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write
from torch import Tensor, nn

from epitaxy.cli import main
from epitaxy.graphs.batch import GraphBatch
from epitaxy.potential import Potential
from epitaxy.registry import Registry
from epitaxy.testing.calculator_checks import write_sample_artifact
from epitaxy_calculator import inputs
from epitaxy_calculator.calculator import PotentialCalculator
from epitaxy_graphs.painn import PaiNN

SILICON, CARBON = 14, 6


class PairNetwork(nn.Module):
    """Attraction between all pairs that fades smoothly at the cutoff, plus a repulsive core."""

    def __init__(self, *, cutoff: float = 5.0, strength: float = 1.0) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.strength = nn.Parameter(torch.tensor(float(strength)))

    def forward(self, graph: GraphBatch) -> Tensor:
        squared = (graph.vectors * graph.vectors).sum(dim=1)
        fade = (1 - squared / self.cutoff**2).clamp(min=0.0) ** 3
        element = 1 + 0.1 * (graph.numbers[graph.neighbors] == CARBON).to(squared.dtype)
        pair = self.strength * element * fade * (2 * torch.exp(-squared / 2) * 8 - 1)
        zeros = pair.new_zeros(graph.numbers.shape[0])
        return zeros.index_add(0, graph.centers, pair)


def pair_potential(strength: float = 1.0, *, cutoff: float = 5.0) -> Potential:
    network = PairNetwork(cutoff=cutoff, strength=strength)
    return Potential(
        network,
        elements=[CARBON, SILICON],
        reference_energies={CARBON: -9.0, SILICON: -5.0},
        scale=0.5,
    )


def painn(seed: int = 0) -> Potential:
    torch.manual_seed(seed)
    network = PaiNN(width=16, n_layers=2, n_radial=6, cutoff=4.5, elements=[CARBON, SILICON])
    return Potential(
        network,
        elements=[CARBON, SILICON],
        reference_energies={CARBON: -9.0, SILICON: -5.0},
        scale=0.5,
    )


@pytest.fixture
def make() -> Callable[..., PotentialCalculator]:
    """Make a float64 calculator of the pair potential; options as PotentialCalculator."""

    def build(**options: object) -> PotentialCalculator:
        return PotentialCalculator(pair_potential(), **{"dtype": "float64", **options})

    return build


@pytest.fixture
def ensemble() -> PotentialCalculator:
    """Three pair potentials of different strength."""
    return PotentialCalculator([pair_potential(s) for s in (0.9, 1.0, 1.2)], dtype="float64")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two untrained networks."""
    folder = tmp_path_factory.mktemp("model") / "artifact"
    return write_sample_artifact(folder, registry=Registry.from_entry_points(), n_members=2)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the verbs use pair potentials, which have a sane minimum, for any artifact."""

    def use(*strengths: float) -> None:
        def load(args) -> PotentialCalculator:
            return PotentialCalculator([pair_potential(s) for s in strengths], dtype="float64")

        monkeypatch.setattr(inputs, "load_calculator", load)

    return use


@pytest.fixture
def silicon(tmp_path: Path) -> Path:
    write(tmp_path / "si.xyz", rattled_silicon(amplitude=0.05))
    return tmp_path / "si.xyz"


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def verb(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def rattled_silicon(repeat: int = 1, *, seed: int = 0, amplitude: float = 0.1) -> Atoms:
    atoms = bulk("Si", cubic=True) * ((repeat,) * 3)
    atoms.rattle(amplitude, seed=seed)
    return atoms


def unlike_structures() -> list[Atoms]:
    """Cells, molecules, slabs, mixed elements, one atom, skewed: nothing in common."""
    rng = np.random.default_rng(7)
    primitive = bulk("Si")
    skewed = bulk("Si", cubic=True)
    skewed.set_cell(skewed.cell.array @ [[1, 0.4, 0], [0, 1, 0.3], [0, 0, 1]], scale_atoms=True)
    slab = bulk("Si", cubic=True)
    slab.pbc = (True, True, False)
    carbide = bulk("SiC", "zincblende", a=4.36, cubic=True)
    carbide.rattle(0.05, seed=2)
    return [
        rattled_silicon(),
        Atoms("Si", pbc=False),
        primitive,
        Atoms("SiC", positions=[[0, 0, 0], [0, 0, 1.9]]),
        skewed,
        slab,
        carbide,
        rattled_silicon(seed=3),
        Atoms("C5", positions=rng.uniform(0, 6, (5, 3))),
        Atoms("Si", cell=np.eye(3) * 2.4, pbc=True),
    ]
