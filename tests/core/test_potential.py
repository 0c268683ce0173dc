"""Reference energies, scale, coverage, precision; forces and stress of a known pair energy."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from torch import nn

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import CapabilityError, TrainingError
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.potential import Potential, fit_energy_scale, fit_reference_energies


class PairEnergy(nn.Module):
    """Lennard-Jones with sigma 2.2 Å and epsilon 1: what ASE computes with `smooth`."""

    def __init__(self, cutoff: float = 4.0) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, graph):
        c6 = (2.2**2 / graph.vectors.square().sum(-1)) ** 3
        shift = (2.2 / self.cutoff) ** 12 - (2.2 / self.cutoff) ** 6
        pair = 2.0 * (c6**2 - c6) - 2.0 * shift
        zeros = graph.vectors.new_zeros(graph.numbers.shape[0])
        return self.weight * zeros.index_add(0, graph.centers, pair)


def dataset_of(*labelled: tuple[Atoms, dict]) -> Dataset:
    return Dataset.from_entries(
        [
            Entry.from_atoms(atoms, targets=targets, id=str(i))
            for i, (atoms, targets) in enumerate(labelled)
        ]
    )


def test_energy_forces_and_stress_are_those_that_ase_computes():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=2)
    shear = np.array([[1, 0.03, 0], [0, 1, 0.01], [0, 0, 1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    atoms.calc = LennardJones(sigma=2.2, epsilon=1.0, rc=4.0)
    potential = Potential(
        PairEnergy(), elements=[29], reference_energies=[-3.5], scale=2.0
    ).double()
    graph = build_batch_from_atoms([atoms], cutoff=4.0, dtype=torch.float64)
    outputs = potential.eval()(graph, forces=True, stress=True)
    expected = 2.0 * atoms.get_potential_energy() - 3.5 * len(atoms)
    assert float(outputs.energy) == pytest.approx(expected, rel=1e-12)
    assert float(outputs.energies.sum()) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(outputs.forces, 2.0 * atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(outputs.stress[0], 2.0 * atoms.get_stress(), atol=1e-12)


def test_energies_are_summed_in_float64_whatever_the_network_computes_in():
    potential = Potential(PairEnergy(), elements=[29], reference_energies=[-12345.678901234])
    graph = build_batch_from_atoms([bulk("Cu", cubic=True)], cutoff=1.0)
    energy = potential.float().eval()(graph, forces=False).energy
    assert energy.dtype == torch.float64
    assert float(energy) == pytest.approx(4 * -12345.678901234, abs=1e-9)
    assert potential.half().double().reference_energies[29] == -12345.678901234


def test_forces_can_be_trained_on_only_in_training_mode():
    graph = build_batch_from_atoms([molecule("H2O")], cutoff=4.0)
    potential = Potential(PairEnergy(), elements=[1, 8], reference_energies=[0.0, 0.0])
    assert potential.train()(graph).forces.requires_grad
    with torch.no_grad():
        outputs = potential.eval()(graph)
    assert not outputs.forces.requires_grad
    assert not outputs.energy.requires_grad


def test_stress_of_a_molecule_is_nan_and_does_not_spoil_the_gradient_of_the_others():
    graph = build_batch_from_atoms([molecule("H2O"), bulk("Cu", cubic=True)], cutoff=4.0)
    potential = Potential(PairEnergy(), elements=[1, 8, 29], reference_energies=[0.0] * 3).train()
    outputs = potential(graph, stress=True)
    assert outputs.stress[0].isnan().all()
    outputs.stress[1].square().sum().backward()
    assert potential.network.weight.grad.isfinite()


def test_functional_gradient_agrees_with_autograd():
    graph = build_batch_from_atoms([molecule("H2O")], cutoff=4.0, dtype=torch.float64)
    potential = Potential(PairEnergy(), elements=[1, 8], reference_energies=[-1.0, -2.0]).double()
    energy, energies, gradient = potential.energy_and_gradient(graph)
    outputs = potential.eval()(graph)
    torch.testing.assert_close(energy.detach(), outputs.energy)
    torch.testing.assert_close(energies.detach(), outputs.energies)
    from epitaxy.potential import forces_from

    torch.testing.assert_close(forces_from(gradient, graph).detach(), outputs.forces)


def test_an_element_that_was_not_trained_on_is_refused_by_name():
    potential = Potential(PairEnergy(), elements=[14], reference_energies={14: -5.0})
    graph = build_batch_from_atoms([molecule("H2O")], cutoff=4.0)
    with pytest.raises(CapabilityError, match=r"elements H, O are not covered.* trained on Si"):
        potential(graph)


def test_reference_energies_of_exact_sums_are_found():
    exact = {1: -3.25, 8: -7.5, 14: -100.125}
    labelled = [
        (atoms, {"energy": sum(exact[z] for z in atoms.numbers)})
        for atoms in (molecule("H2O"), molecule("SiH4"), molecule("SiO"), molecule("H2"))
    ]
    found = fit_reference_energies(dataset_of(*labelled))
    assert list(found) == [1, 8, 14]
    assert found == pytest.approx(exact, abs=1e-9)


def test_compositions_that_do_not_tell_elements_apart_get_the_smallest_solution():
    salt = bulk("NaCl", "rocksalt", a=5.64)
    found = fit_reference_energies(
        dataset_of((salt, {"energy": -6.0}), (salt * 2, {"energy": -48.0}))
    )
    assert found == pytest.approx({11: -3.0, 17: -3.0})


def test_frames_without_an_energy_do_not_enter_but_their_elements_are_covered():
    frames = dataset_of(
        (bulk("Si"), {"energy": -10.0}), (molecule("H2O"), {"forces": np.zeros((3, 3))})
    )
    assert fit_reference_energies(frames) == pytest.approx({1: 0.0, 8: 0.0, 14: -5.0})


def test_references_without_any_energy_are_refused():
    frames = dataset_of((molecule("H2O"), {"forces": np.zeros((3, 3))}))
    with pytest.raises(TrainingError, match="none of the 1 training structures has an energy"):
        fit_reference_energies(frames)


def test_the_scale_is_the_root_mean_square_force_component():
    forces = np.array([[1.0, -2.0, 2.0], [0.0, 0.0, 0.0]])
    frames = dataset_of(
        (molecule("H2"), {"energy": -1.0, "forces": forces}), (Atoms("H"), {"energy": 50.0})
    )
    assert fit_energy_scale(frames, {1: 0.0}) == pytest.approx(np.sqrt(9 / 6))


def test_the_scale_without_forces_is_the_spread_of_energies_per_atom():
    frames = dataset_of((molecule("H2"), {"energy": -3.0}), (Atoms("H"), {"energy": 2.5}))
    assert fit_energy_scale(frames, {1: 0.5}) == pytest.approx(2.0)
    assert fit_energy_scale(dataset_of((Atoms("H"), {"energy": 2.5})), {1: 2.5}) == 1.0
