"""SchNet and PaiNN: sizes, physics, published counts."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from epitaxy.errors import OptionError
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.potential import Potential
from epitaxy_graphs.painn import PaiNN
from epitaxy_graphs.schnet import SchNet

NETWORKS = {
    "painn": lambda **options: PaiNN(width=8, n_layers=2, n_radial=6, cutoff=4.0, **options),
    "schnet": lambda **options: SchNet(width=8, n_layers=2, n_radial=12, cutoff=4.0, **options),
}


def n_parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def potential_of(name: str, elements: tuple[int, ...] = (1, 8, 14)) -> Potential:
    torch.manual_seed(0)
    network = NETWORKS[name](elements=elements).double()
    references = dict.fromkeys(elements, -3.0)
    return Potential(network, elements=elements, reference_energies=references, scale=0.7).eval()


def evaluate(potential: Potential, *atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    graph = build_batch_from_atoms(atoms, cutoff=potential.cutoff, dtype=torch.float64)
    outputs = potential(graph, forces=True, stress=True)
    return outputs.energy.numpy(), outputs.forces.numpy(), outputs.stress.numpy()


def silica() -> Atoms:
    rng = np.random.default_rng(3)
    cell = np.array([[4.1, 0.3, 0.0], [-0.5, 3.9, 0.4], [0.2, 0.1, 4.4]])
    numbers = [14, 8, 8, 14, 8, 8]
    return Atoms(numbers, scaled_positions=rng.random((6, 3)), cell=cell, pbc=True)


def test_schnet_has_the_published_86017_parameters():
    """Width 64, 3 blocks, 150 Gaussians, 81 elements: the "85,000" of the transfer study."""
    network = SchNet(width=64, n_layers=3, n_radial=150, elements=range(1, 82))
    assert n_parameters(network) == 86_017
    everything = SchNet(width=64, n_layers=3, n_radial=150, elements=range(1, 101))
    assert n_parameters(everything) == 87_233


def test_painn_has_the_published_589k_parameters():
    """Width 128, 3 layers, 20 radial functions, 100 elements, as in schnetpack 2.2."""
    assert n_parameters(PaiNN(elements=range(1, 101))) == 589_057


@pytest.mark.parametrize("name", NETWORKS)
def test_forces_are_minus_the_gradient_of_the_energy(name):
    potential, atoms = potential_of(name), silica()
    _, forces, _ = evaluate(potential, atoms)
    step = 1e-4
    numeric = np.zeros_like(forces)
    for atom in range(len(atoms)):
        for axis in range(3):
            energies = []
            for factor in (-2, -1, 1, 2):
                moved = atoms.copy()
                moved.positions[atom, axis] += factor * step
                energies.append(evaluate(potential, moved)[0][0])
            far_low, low, high, far_high = energies
            numeric[atom, axis] = -(8 * (high - low) - (far_high - far_low)) / (12 * step)
    assert np.abs(forces).max() > 1e-2
    np.testing.assert_allclose(forces, numeric, rtol=1e-6, atol=1e-6 * np.abs(forces).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_stress_is_the_strain_derivative_of_the_energy(name):
    potential, atoms = potential_of(name), silica()
    _, _, stress = evaluate(potential, atoms)
    step = 1e-4
    numeric = np.zeros(6)
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for factor in (-2, -1, 1, 2):
            strain = np.eye(3)
            strain[a, b] += factor * step / 2
            strain[b, a] += factor * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(evaluate(potential, strained)[0][0])
        far_low, low, high, far_high = energies
        numeric[voigt] = (8 * (high - low) - (far_high - far_low)) / (12 * step)
    numeric /= atoms.get_volume()
    np.testing.assert_allclose(stress[0], numeric, rtol=1e-6, atol=1e-6 * np.abs(stress).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_energy_follows_rotation_and_permutation(name):
    potential, atoms = potential_of(name), silica()
    energy, forces, _ = evaluate(potential, atoms)
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, -1), rotate_cell=True)
    turned.positions += [3.0, -7.0, 11.0]
    order = np.array([3, 1, 5, 0, 2, 4])
    again, turned_forces, _ = evaluate(potential, turned[order])
    np.testing.assert_allclose(again, energy, rtol=1e-12)
    rotation = np.linalg.solve(atoms.cell.array, turned.cell.array)
    np.testing.assert_allclose(turned_forces, (forces @ rotation)[order], atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_isolated_atom_and_a_perfect_crystal_have_no_forces(name):
    potential = potential_of(name)
    lone = Atoms("H", positions=[[1.0, 2.0, 3.0]])
    crystal = bulk("Si")
    energy, forces, stress = evaluate(potential, lone, crystal)
    assert np.isfinite(energy).all()
    np.testing.assert_allclose(forces, 0.0, atol=1e-12)
    assert np.isnan(stress[0]).all()
    assert np.isfinite(stress[1]).all()
    alone, _, _ = evaluate(potential, lone)
    np.testing.assert_allclose(alone[0], energy[0], rtol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_energy_and_force_are_continuous_when_an_atom_crosses_the_cutoff(name):
    potential = potential_of(name)
    atoms = Atoms("SiO", positions=[[0, 0, 0], [potential.cutoff, 0, 0]])
    inside, outside = atoms.copy(), atoms.copy()
    inside.positions[1, 0] -= 1e-5
    outside.positions[1, 0] += 1e-5
    energy, forces, _ = evaluate(potential, inside, outside)
    assert abs(energy[0] - energy[1]) < 1e-9
    assert np.abs(forces[:2] - forces[2:]).max() < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_given_for_every_layer_and_parts_cover_all_parameters(name):
    network = potential_of(name).network
    graph = build_batch_from_atoms([silica()], cutoff=4.0, dtype=torch.float64)
    features = network.features(graph)
    assert [tuple(layer.shape) for layer in features] == [(6, 8)] * 3
    parts = network.parts()
    assert list(parts) == ["embedding", "body", "head"]
    held = {id(p) for part in parts.values() for p in part.parameters()}
    assert held == {id(p) for p in network.parameters()}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("wrong", [{"elements": [0, 14]}, {"elements": []}])
def test_elements_outside_the_periodic_table_are_refused(name, wrong):
    with pytest.raises(OptionError, match="between 1 and 118"):
        NETWORKS[name](**wrong)


@pytest.mark.parametrize("network", [PaiNN, SchNet])
def test_options_out_of_range_are_refused(network):
    with pytest.raises(OptionError, match="cutoff > 0"):
        network(cutoff=0.0)
