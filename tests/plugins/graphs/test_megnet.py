"""MEGNet with the readout of the released code."""

import functools

import pytest
import torch

from epitaxy.testing import Check
from epitaxy.testing.body_checks import body_checks
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
