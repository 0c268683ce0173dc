"""The compiled route gives the same loss and the same gradients as plain autograd."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.graphs.evaluator import make_evaluator
from epitaxy.potential import Outputs, Potential
from epitaxy_graphs.egnn import EGNN
from epitaxy_graphs.painn import PaiNN
from epitaxy_graphs.pna import PNA
from epitaxy_graphs.schnet import SchNet


@pytest.fixture
def no_compiler():
    """Run kernels as plain torch: the formulas are the same, without minutes of compiling."""
    with torch.compiler.set_stance("force_eager"):
        yield


# All routes of the kernels.
EGNNS = {
    "plain": {},
    "squared distance": {"n_radial": 0},
    "attention": {"attention": True},
    "moving atoms": {"move_atoms": True, "n_layers": 3},
}


def egnn(width: int, **options) -> EGNN:
    torch.manual_seed(1)
    return EGNN(**{"width": width, "n_layers": 2, "n_radial": 5, "cutoff": 4.0, **options})


def structures() -> list[Atoms]:
    atoms = [bulk("Si", cubic=True), bulk("SiC", "zincblende", a=4.3), molecule("CH4")]
    for seed, one in enumerate(atoms):
        one.rattle(0.1, seed=seed)
    return [*atoms, Atoms("C")]


def potential_of(network: torch.nn.Module, dtype: torch.dtype) -> Potential:
    references = {1: -1.0, 6: -5.0, 14: -4.0}
    return (
        Potential(network, elements=references, reference_energies=references, scale=0.8)
        .to(dtype)
        .train()
    )


def loss_of(outputs: Outputs) -> torch.Tensor:
    """A loss that weighs every output differently."""
    stress = outputs.stress[:2]
    weights = torch.linspace(0.5, 1.5, outputs.forces.numel(), dtype=outputs.forces.dtype)
    forces = (outputs.forces.flatten() * weights - 0.3).square().mean()
    return outputs.energy.square().mean() + forces + 30 * (stress - 0.01).square().mean()


def gradients(potential: Potential, loss: torch.Tensor) -> list[np.ndarray]:
    potential.zero_grad()
    loss.backward()
    return [p.grad.double().numpy().copy() for p in potential.parameters() if p.grad is not None]


def compare(network: torch.nn.Module, dtype: torch.dtype, rtol: float) -> None:
    potential = potential_of(network, dtype)
    graph = build_batch_from_atoms(structures(), cutoff=potential.cutoff, dtype=dtype)
    plain = potential(graph, forces=True, stress=True)
    fast = make_evaluator(potential, stress=True, compile=True)(graph)
    for one, other in zip(plain, fast, strict=True):
        expected = one.detach().double().numpy()
        np.testing.assert_allclose(
            other.detach().double().numpy(), expected, atol=rtol * np.nanmax(np.abs(expected))
        )
    expected_gradients = gradients(potential, loss_of(plain))
    for one, other in zip(expected_gradients, gradients(potential, loss_of(fast)), strict=True):
        np.testing.assert_allclose(other, one, atol=rtol * np.abs(one).max(), rtol=0)
    assert len(expected_gradients) > 10


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("n_layers", [1, 3])
def test_message_kernels_have_the_exact_derivatives(n_layers):
    torch.manual_seed(1)
    compare(PaiNN(width=6, n_layers=n_layers, n_radial=5, cutoff=4.0), torch.float64, 1e-10)


@pytest.mark.usefixtures("no_compiler")
def test_message_kernels_agree_with_the_plain_network_in_float32():
    torch.manual_seed(1)
    compare(PaiNN(width=6, n_layers=2, n_radial=5, cutoff=4.0), torch.float32, 1e-4)


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("options", EGNNS.values(), ids=list(EGNNS))
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_edge_kernels_have_the_exact_derivatives(options, dtype, rtol):
    compare(egnn(6, **options), dtype, rtol)


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_kernels_of_several_aggregations_have_the_exact_derivatives(dtype, rtol):
    torch.manual_seed(1)
    compare(PNA(width=6, n_layers=2, n_radial=5, cutoff=4.0), dtype, rtol)


@pytest.mark.usefixtures("no_compiler")
def test_frozen_parameters_get_no_gradient_and_stay_fixed():
    torch.manual_seed(1)
    network = PaiNN(width=6, n_layers=2, n_radial=5, cutoff=4.0)
    for parameter in network.parts()["body"].parameters():
        parameter.requires_grad_(False)
    potential = potential_of(network, torch.float64)
    graph = build_batch_from_atoms(structures(), cutoff=4.0, dtype=torch.float64)
    expected = gradients(potential, loss_of(potential(graph, forces=True, stress=True)))
    evaluate = make_evaluator(potential, stress=True, compile=True)
    found = gradients(potential, loss_of(evaluate(graph)))
    assert len(found) == len(expected) == 5
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-10 * np.abs(one).max())


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("atoms", [[Atoms("C")], [Atoms("CC", positions=[[0, 0, 0], [9, 0, 0]])]])
@pytest.mark.parametrize("network", [PaiNN, EGNN, PNA])
def test_batches_without_edges_work(atoms, network):
    potential = potential_of(network(width=6, n_layers=1, n_radial=3, cutoff=4.0), torch.float64)
    graph = build_batch_from_atoms(atoms, cutoff=4.0, dtype=torch.float64)
    outputs = make_evaluator(potential, compile=True)(graph)
    outputs.energy.sum().backward()
    assert (outputs.forces == 0).all()


@pytest.mark.usefixtures("no_compiler")
def test_evaluation_mode_gives_the_same_forces_by_either_route():
    torch.manual_seed(1)
    network = PaiNN(width=6, n_layers=2, n_radial=5, cutoff=4.0)
    potential = potential_of(network, torch.float64).eval()
    graph = build_batch_from_atoms(structures(), cutoff=4.0, dtype=torch.float64)
    with torch.no_grad():
        plain = potential(graph, stress=True)
        fast = potential(graph, stress=True, compiled=True)
    torch.testing.assert_close(fast.forces, plain.forces, rtol=0, atol=1e-12)
    torch.testing.assert_close(fast.stress, plain.stress, rtol=0, atol=1e-12, equal_nan=True)
    assert not fast.forces.requires_grad


@pytest.mark.slow
def test_compiled_painn_agrees_with_plain_painn():
    torch.manual_seed(1)
    compare(PaiNN(width=16, n_layers=2, n_radial=5, cutoff=4.0), torch.float64, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("options", EGNNS.values(), ids=list(EGNNS))
def test_compiled_egnn_agrees_with_plain_egnn(options):
    compare(egnn(16, **options), torch.float64, 1e-9)


@pytest.mark.slow
def test_compiled_pna_agrees_with_plain_pna():
    torch.manual_seed(1)
    compare(PNA(width=16, n_layers=2, n_radial=5, cutoff=4.0), torch.float64, 1e-9)


@pytest.mark.slow
def test_a_network_without_kernels_is_compiled_as_a_whole():
    torch.manual_seed(1)
    compare(SchNet(width=8, n_layers=2, n_radial=9, cutoff=4.0), torch.float64, 1e-9)
