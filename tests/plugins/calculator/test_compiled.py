"""Compiled evaluation gives what the plain one gives, or is refused."""

import copy
import pickle

import numpy as np
import pytest
import torch

from epitaxy.errors import CapabilityError
from epitaxy.potential import Potential
from epitaxy_calculator.calculator import PotentialCalculator
from epitaxy_graphs.schnet import SchNet

from .conftest import painn, pair_potential, rattled_silicon, unlike_structures

pytestmark = pytest.mark.slow  # compiling takes some ten seconds


def schnet() -> Potential:
    torch.manual_seed(3)
    network = SchNet(width=16, n_layers=2, n_radial=8, cutoff=4.0)
    return Potential(
        network, elements=[1, 6, 8, 14], reference_energies=dict.fromkeys((1, 6, 8, 14), -1.0)
    )


@pytest.mark.parametrize("make", [painn, schnet], ids=["painn", "schnet"])
def test_compiled_results_equal_plain_results(make) -> None:
    plain = PotentialCalculator([make(), make()], dtype="float64")
    compiled = PotentialCalculator([make(), make()], dtype="float64", compile=True)
    structures = [s for s in unlike_structures() if set(s.numbers) <= plain.members.elements]
    assert structures
    for expected, found in zip(
        plain.predict(structures), compiled.predict(structures), strict=True
    ):
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-8, err_msg=name)
    atoms = rattled_silicon()
    for calculator in (compiled, copy.deepcopy(compiled)):
        np.testing.assert_allclose(
            calculator.get_forces(atoms), plain.get_forces(atoms), rtol=1e-8, atol=1e-8
        )
        np.testing.assert_allclose(
            calculator.get_stress(atoms), plain.get_stress(atoms), rtol=1e-8, atol=1e-10
        )


def test_a_pickle_stays_compiled() -> None:
    calculator = pickle.loads(pickle.dumps(PotentialCalculator(painn(), compile=True)))
    assert calculator.compile


def test_a_wrong_compiled_program_is_refused() -> None:
    potential = pair_potential()
    network = potential.network
    network.compiled = lambda graph: 1.1 * network(graph)
    calculator = PotentialCalculator([potential], compile=True)
    with pytest.raises(CapabilityError, match="compile=False"):
        calculator.get_forces(rattled_silicon())
