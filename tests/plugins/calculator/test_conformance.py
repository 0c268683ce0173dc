"""The conformance kit passes for an ensemble and fails for calculators that are broken.

The calculator of a single artifact passes it in tests/plugins/test_conformance.py.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from ase.calculators.calculator import all_changes

from epitaxy.testing import Check
from epitaxy.testing.calculator_checks import calculator_checks, sample_structure
from epitaxy_calculator.calculator import PotentialCalculator

from .conftest import PairNetwork, painn, pair_potential


@pytest.mark.parametrize(
    "check",
    calculator_checks(
        lambda: PotentialCalculator([painn(0), painn(1)], dtype="float64"), sample_structure()
    ),
    ids=str,
)
def test_the_calculator_of_an_ensemble_conforms(check: Check) -> None:
    check()


class WithoutFreeEnergy(PotentialCalculator):
    implemented_properties: ClassVar[list[str]] = ["energy", "energies", "forces", "stress"]


class WrongResults(PotentialCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.change(self.results)

    def change(self, results) -> None:
        raise NotImplementedError


class WrongStressSign(WrongResults):
    def change(self, results) -> None:
        if "stress" in results:
            results["stress"] = -results["stress"]


class WrongVoigtOrder(WrongResults):
    def change(self, results) -> None:
        if "stress" in results:
            results["stress"] = results["stress"][[0, 1, 2, 5, 4, 3]]


class StressAsMatrix(WrongResults):
    def change(self, results) -> None:
        if "stress" in results:
            results["stress"] = results["stress"][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)


class EnergyAsArray(WrongResults):
    def change(self, results) -> None:
        results["energy"] = results["free_energy"] = np.float32(results["energy"])


class HalvedForces(WrongResults):
    def change(self, results) -> None:
        results["forces"] = 0.5 * results["forces"]


class WrongAtomicEnergies(WrongResults):
    def change(self, results) -> None:
        results["energies"] = results["energies"] + 0.1


class StressOfMolecules(WrongResults):
    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, [p for p in properties if p != "stress"], system_changes)

    def change(self, results) -> None:
        results.setdefault("stress", np.zeros(6))


class StaleCache(PotentialCalculator):
    def check_state(self, atoms, tol=1e-15):
        return [c for c in super().check_state(atoms, tol) if c != "positions"]


class StaleElements(PotentialCalculator):
    def check_state(self, atoms, tol=1e-15):
        return [c for c in super().check_state(atoms, tol) if c != "numbers"]


class NeverCaches(PotentialCalculator):
    def check_state(self, atoms, tol=1e-15):
        return list(all_changes)


class SharedResults(PotentialCalculator):
    def get_property(self, name, atoms=None, allow_calculation=True):
        super().get_property(name, atoms, allow_calculation)
        return self.results[name]


class WritesIntoAtoms(PotentialCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        atoms.wrap()
        atoms.positions[:] += 1e-3
        super().calculate(atoms, properties, system_changes)


class ChangesDefaultDtype(PotentialCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        torch.set_default_dtype(torch.float64)


class TakesAnything(PotentialCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
            self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}
        else:
            super().calculate(atoms, properties, system_changes)


class FrozenNeighbors(PotentialCalculator):
    """Keeps the first neighbor list whatever happens."""

    def _start(self) -> None:
        super()._start()
        valid = self._list.is_valid_for
        self._list.is_valid_for = lambda positions, cell, pbc: (
            valid(positions, cell, pbc)
            or (self._list.n_builds > 0 and len(self._list._positions) == len(positions))
        )


class AbruptNetwork(PairNetwork):
    def forward(self, graph):
        squared = (graph.vectors * graph.vectors).sum(dim=1)
        pair = torch.exp(-squared / 8)
        return pair.new_zeros(graph.numbers.shape[0]).index_add(0, graph.centers, pair)


class AlongAxis(PairNetwork):
    def forward(self, graph):
        stretched = graph.vectors * graph.vectors.new_tensor([1.0, 1.0, 0.9])
        return super().forward(graph._replace(vectors=stretched))


class DependsOnOrder(PairNetwork):
    def forward(self, graph):
        energies = super().forward(graph)
        return energies * (1 + 0.1 * torch.arange(len(energies), dtype=energies.dtype) % 3)


def of_network(network: type) -> Callable[[], PotentialCalculator]:
    def make() -> PotentialCalculator:
        potential = pair_potential()
        potential.network = network(cutoff=5.0, strength=1.0)
        return PotentialCalculator(potential, dtype="float64")

    return make


def of_class(calculator: type) -> Callable[[], PotentialCalculator]:
    return lambda: calculator(pair_potential(), dtype="float64")


BROKEN = [
    (of_class(WithoutFreeEnergy), "delivers what it lists"),
    (of_class(WrongStressSign), "stress is the strain derivative"),
    (of_class(WrongVoigtOrder), "stress is the strain derivative"),
    (of_class(StressAsMatrix), "types and shapes are those of ASE"),
    (of_class(EnergyAsArray), "types and shapes are those of ASE"),
    (of_class(HalvedForces), "forces are minus the gradient"),
    (of_class(HalvedForces), "dynamics conserve the energy"),
    (of_class(WrongAtomicEnergies), "energies sum to the energy"),
    (of_class(StressOfMolecules), "a molecule has no stress"),
    (of_class(StaleCache), "every change is noticed"),
    (of_class(StaleCache), "results are not shared"),
    (of_class(StaleElements), "every change is noticed"),
    (of_class(NeverCaches), "one evaluation serves all properties"),
    (of_class(SharedResults), "results are not shared"),
    (of_class(WritesIntoAtoms), "input is not changed"),
    (of_class(ChangesDefaultDtype), "global settings are left alone"),
    (of_class(TakesAnything), "unusable structures are refused"),
    (of_class(FrozenNeighbors), "every change is noticed"),
    (of_network(AbruptNetwork), "smooth through the cutoff"),
    (of_network(AlongAxis), "rotation"),
    (of_network(DependsOnOrder), "permutation"),
]


@pytest.mark.parametrize(("make", "name"), BROKEN)
def test_the_kit_finds_a_calculator_that_is_broken(make, name: str) -> None:
    (check,) = [
        c for c in calculator_checks(make, sample_structure()) if c.name == f"calculator: {name}"
    ]
    try:
        with pytest.raises(AssertionError):
            check()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "check",
    calculator_checks(of_class(PotentialCalculator), sample_structure()),
    ids=str,
)
def test_the_unbroken_original_conforms(check: Check) -> None:
    check()
