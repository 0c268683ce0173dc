"""MEGNet with the readout of the released code, and the direction of its edges."""

import functools

import pytest
import torch
from ase.build import bulk

from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.heads import mean_pooling
from epitaxy.testing import Check
from epitaxy.testing.body_checks import body_checks
from epitaxy_graphs import megnet
from epitaxy_graphs.megnet import MEGNet, ReleasedSet2Set

SMALL = {"embedding_width": 8, "hidden": (16, 8), "n_gaussians": 20, "n_readout": 4}


@pytest.mark.parametrize(
    "check",
    body_checks(functools.partial(MEGNet, readout="released", n_passes=2, **SMALL)),
    ids=str,
)
def test_the_released_readout_passes_the_physics_checks(check: Check) -> None:
    check()


def test_the_released_readout_forgets_its_cell() -> None:
    torch.manual_seed(0)
    readout = ReleasedSet2Set(4, n_steps=3, n_hidden=4)
    x, owner = torch.randn(5, 4), torch.zeros(5, dtype=torch.int64)
    before = readout(x, owner, 1)
    with torch.no_grad():
        readout.gates.bias[4:8] += 3.0  # the gate that keeps the cell
        readout.gates.weight[4:8] -= 1.0
    torch.testing.assert_close(readout(x, owner, 1), before)


def test_the_direction_of_edges_matters_for_compounds_only(monkeypatch) -> None:
    """The trap of weights read the wrong way round: elements look right."""
    torch.manual_seed(0)
    network = MEGNet(**SMALL).eval()
    elements, compound = (
        build_batch_from_atoms([atoms], cutoff=5.0, dtype=torch.float32)
        for atoms in (bulk("Si"), bulk("NaCl", "rocksalt", a=5.69))
    )
    network.requires_grad_(False)
    right = network(elements), network(compound)
    monkeypatch.setattr(megnet, "mean_pooling", at_the_other_end)
    at_the_other_end.neighbors = elements.neighbors
    torch.testing.assert_close(network(elements), right[0])
    at_the_other_end.neighbors = compound.neighbors
    assert float((network(compound) - right[1]).abs()) > 1e-6


def at_the_other_end(x, index, n, weights=None):
    """Average edges at their sending atom, everything else as it is."""
    is_by_edge = len(index) == len(at_the_other_end.neighbors) and int(index.max()) > 0
    return mean_pooling(x, at_the_other_end.neighbors if is_by_edge else index, n, weights)
