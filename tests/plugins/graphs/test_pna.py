"""PNA: its aggregations, smooth and published."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from epitaxy.errors import OptionError
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy_graphs.pna import PNA, PublishedPNA, of_sums
from epitaxy_graphs.pna_messages import powers


def small(network: type[PNA] = PNA, **options) -> PNA:
    torch.manual_seed(1)
    return network(**{"width": 8, "n_layers": 2, "n_radial": 5, "cutoff": 4.0, **options}).double()


def graph_of(*atoms: Atoms):
    return build_batch_from_atoms(list(atoms), cutoff=4.0, dtype=torch.float64)


def crystal() -> Atoms:
    atoms = bulk("SiC", "zincblende", a=4.3, cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def smooth_aggregates(messages: list[float]) -> list[float]:
    """Aggregate messages of weight 1 and the zero of the atom itself."""
    sums = powers(torch.tensor(messages, dtype=torch.float64)[:, None]).sum(0, keepdim=True)
    count = torch.tensor([[1.0 + len(messages)]], dtype=torch.float64)
    return of_sums(sums, count)[0].tolist()


def test_smooth_aggregates_are_those_of_the_set_with_the_atom_itself():
    values = np.array([1.0, -2.0, 0.5, 0.0])  # the last is the atom's own
    mean, deviation, largest, smallest = smooth_aggregates([1.0, -2.0, 0.5])
    assert mean == pytest.approx(values.mean())
    assert deviation == pytest.approx(math.hypot(values.std(), 0.1) - 0.1)
    for found, sign in ((largest, 4.0), (smallest, -4.0)):
        exponents = sign * values / np.sqrt(1 + (sign * values / 20) ** 2)  # bounded
        assert found == pytest.approx(np.log(np.exp(exponents).mean()) / sign)
    assert values.mean() < largest < values.max()
    assert values.min() < smallest < values.mean()


def test_an_atom_that_hears_nothing_gets_zeros():
    assert smooth_aggregates([0.0, 0.0]) == [0.0] * 4


def test_huge_messages_do_not_overflow():
    sums = powers(torch.tensor([[1e4], [-1e4]])).sum(0, keepdim=True)
    assert of_sums(sums, torch.tensor([[3.0]])).isfinite().all()


def test_published_aggregates_are_mean_deviation_maximum_and_minimum():
    network = small(PublishedPNA)
    graph = graph_of(crystal(), Atoms("C"))
    messages = torch.randn(len(graph.centers), 3, dtype=torch.float64)
    count = network.count(messages, graph)
    found = network.aggregates(messages, messages[:, :1], count, graph).chunk(4, dim=-1)
    for atom in range(len(graph.numbers) - 1):
        own = messages[graph.centers == atom].numpy()
        expected = own.mean(0), np.sqrt(own.var(0) + 1e-5), own.max(0), own.min(0)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one[atom], other, rtol=1e-10)
    assert float(found[2][-1].abs().max()) == 0  # the lone atom


@pytest.mark.parametrize(("network", "offset"), [(PNA, 2.0), (PublishedPNA, 1.0)])
def test_scalers_are_one_at_the_mean_number_of_neighbors(network, offset):
    """Eq. 5: amplification log(d + 1) / delta, attenuation its inverse."""
    built = small(network, mean_neighbors=6.0)
    own = offset - 1  # whether the count holds the atom itself
    for heard in (6.0, 12.0):
        amplification, attenuation = built.scalers(torch.tensor([[heard + own]]))
        expected = math.log(heard + offset) / math.log(6.0 + offset)
        assert float(amplification) == pytest.approx(expected, rel=1e-6)
        assert float(attenuation) == pytest.approx(1 / expected, rel=1e-6)


def test_published_and_smooth_have_the_same_parameters():
    one, other = small(), small(PublishedPNA)
    other.load_state_dict(one.state_dict())
    graph = graph_of(crystal(), molecule("CH3OH"))
    assert not torch.allclose(one(graph), other(graph))
    assert not PublishedPNA.has_forces


@pytest.mark.parametrize("wrong", [{"width": 1}, {"n_radial": 0}, {"mean_neighbors": 0.0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match="expected width"):
        small(**wrong)
