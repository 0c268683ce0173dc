"""The conformance kit fails for networks broken on purpose, and only for those.

Our networks pass it in tests/plugins/test_conformance.py, with all other components.
"""

import pytest
import torch
from torch import nn

from epitaxy.graphs.batch import GraphBatch
from epitaxy.testing import Check
from epitaxy.testing.model_checks import network_checks
from epitaxy_graphs.painn import PaiNN


class Altered(nn.Module):
    """A sound network whose graph or result is spoilt on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = PaiNN(width=8, n_layers=2, n_radial=5, cutoff=4.0)
        self.cutoff = 4.0

    def before(self, graph: GraphBatch) -> GraphBatch:
        return graph

    def after(self, energies: torch.Tensor, graph: GraphBatch) -> torch.Tensor:
        return energies

    def forward(self, graph: GraphBatch) -> torch.Tensor:
        return self.after(self.inner(self.before(graph)), graph)

    def parts(self):
        return self.inner.parts()

    def features(self, graph: GraphBatch):
        return self.inner.features(graph)


class UsesComponents(Altered):
    def after(self, energies, graph):
        return energies.index_add(0, graph.centers, 0.01 * graph.vectors[:, 0].cos())


class DetachesGeometry(Altered):
    def after(self, energies, graph):
        return energies + energies.detach() ** 2 + 0.1 * energies


class SeesTheBatch(Altered):
    def after(self, energies, graph):
        return energies - 0.1 * energies.mean()


class HasAHardCutoff(Altered):
    def after(self, energies, graph):
        distance = graph.vectors.square().sum(-1).sqrt()
        return energies.index_add(0, graph.centers, 0.1 / distance)


class CountsAtoms(Altered):
    def after(self, energies, graph):
        return energies * graph.n_atoms_per_structure[graph.structures]


class ForgetsToMove(Altered):
    def before(self, graph):
        return graph._replace(vectors=graph.vectors.detach())


class WritesIntoTheGraph(Altered):
    def before(self, graph):
        graph.numbers.clamp_(max=8)
        return graph


class LeavesAParameterOut(Altered):
    def parts(self):
        parts = dict(self.inner.parts())
        return {**parts, "body": nn.Identity()}


class HasACone(Altered):
    def after(self, energies, graph):
        towards = torch.zeros_like(graph.vectors[: graph.numbers.shape[0]])
        distance = graph.vectors.square().sum(-1, keepdim=True)
        weight = (distance - 16.0).clamp(max=0.0) ** 3
        towards = towards.index_add(0, graph.centers, 1e-3 * weight * graph.vectors)
        return energies + (towards.square().sum(-1) + 1e-12).sqrt()


class IsAlwaysSingle(Altered):
    def after(self, energies, graph):
        return energies.float()


@pytest.mark.parametrize(
    ("network", "caught_by"),
    [
        (UsesComponents, "follow a rotation"),
        (DetachesGeometry, "minus the gradient"),
        (DetachesGeometry, "strain derivative"),
        (SeesTheBatch, "batch equals single"),
        (HasAHardCutoff, "continuous at the cutoff"),
        (HasACone, "smooth around a symmetric site"),
        (CountsAtoms, "multiple of the energy"),
        (ForgetsToMove, "minus the gradient"),
        (WritesIntoTheGraph, "left as it was"),
        (LeavesAParameterOut, "hold every parameter"),
        (IsAlwaysSingle, "one number per atom"),
    ],
)
def test_the_kit_catches_a_network_that_is_broken_on_purpose(network, caught_by):
    (check,) = [c for c in network_checks(network) if caught_by in c.name]
    status, reason = check.outcome()
    assert status == "failed", f"{check.name} passed"
    assert reason


@pytest.mark.parametrize("check", network_checks(Altered), ids=str)
def test_the_same_network_without_the_fault_passes(check: Check) -> None:
    check()
