"""EGNN: its equations, its options, and the compiled route."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from epitaxy.errors import OptionError
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.testing.model_checks import network_checks
from epitaxy_graphs.egnn import EGNN
from epitaxy_graphs.egnn_hydragnn import HydraGNNEGNN


def small(**options) -> EGNN:
    torch.manual_seed(1)
    return EGNN(**{"width": 8, "n_layers": 2, "n_radial": 5, "cutoff": 4.0, **options})


def crystal() -> Atoms:
    atoms = bulk("SiC", "zincblende", a=4.3, cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def graph_of(*atoms: Atoms, cutoff: float = 4.0):
    return build_batch_from_atoms(list(atoms), cutoff=cutoff, dtype=torch.float64)


VARIANTS = {
    "squared distance": {"n_radial": 0},
    "attention": {"attention": True},
    "moving atoms": {"move_atoms": True, "n_layers": 3},
    "everything": {"n_radial": 0, "attention": True, "move_atoms": True},
}
CHECKS = [
    check
    for name, options in VARIANTS.items()
    for check in network_checks(lambda options=options: small(**options), prefix=f"{name}: ")
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_every_variant_keeps_the_physics(check):
    check()


def test_a_layer_is_what_the_equations_say():
    """Eqs. 3, 5 and 6 written atom by atom, on a crystal with periodic images."""
    network = small(n_layers=1, n_radial=0, attention=True).double()
    graph = graph_of(crystal())
    before, after = network.features(graph)
    layer = network.layers[0]
    for atom in (0, 5):
        received = torch.zeros(8, dtype=torch.float64)
        for edge in torch.where(graph.centers == atom)[0]:
            r = graph.vectors[edge].norm()
            both = [before[atom], before[graph.neighbors[edge]], (r**2 / 16.0)[None]]
            inner = torch.nn.functional.silu(layer.pair(torch.cat(both)))
            message = torch.nn.functional.silu(layer.message(inner))
            message = torch.sigmoid(layer.attention(message)) * message
            received += 0.5 * (torch.cos(torch.pi * r / 4.0) + 1) * message
        expected = before[atom] + layer.update(torch.cat([before[atom], received]))
        np.testing.assert_allclose(after[atom].detach(), expected.detach(), rtol=1e-12)


def test_moved_atoms_change_what_the_next_layer_sees():
    still, moving = small(), small(move_atoms=True)
    moving.load_state_dict(still.state_dict(), strict=False)
    graph = graph_of(molecule("CH3OH"))
    difference = moving.double()(graph) - still.double()(graph)
    assert float(difference.detach().abs().max()) > 1e-7


@pytest.mark.parametrize("wrong", [{"width": 1}, {"n_radial": -1}, {"cutoff": 0.0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match="expected width"):
        small(**wrong)


def test_hydragnns_network_gives_the_numbers_of_hydragnn():
    """Weights 0.4 cos(1.7 k) in both; numbers of HydraGNN d251f81, SiC and CH4, cutoff 4 Å."""
    sizes = {"shared": [6, 6], "energy": [6, 4], "forces": [6, 6]}
    network = HydraGNNEGNN(width=6, n_layers=3, **sizes).double()
    start = 0
    with torch.no_grad():
        for parameter in network.parameters():
            k = torch.arange(start, start + parameter.numel(), dtype=torch.float64)
            parameter.copy_(0.4 * torch.cos(1.7 * k).view_as(parameter))
            start += parameter.numel()
    structures = [bulk("SiC", "zincblende", a=4.3), molecule("CH4")]
    graph = graph_of(*structures)
    positions = torch.tensor(np.concatenate([atoms.positions for atoms in structures]))
    inputs = torch.cat([graph.numbers[:, None] / 10, positions], dim=1)
    energy, forces = network(inputs, graph)
    np.testing.assert_allclose(
        energy.detach(), [-0.3016655828119655, -0.2839871544571383], rtol=1e-12
    )
    expected = [[-0.5027048246476848, -0.29305625290051074, 0.688916662547745]]
    expected += [[-0.502814916718886, -0.29276677136232043, 0.6886132211796956]]
    expected += [[-0.530451096214572, -0.22031325065226165, 0.612747278252108]]
    np.testing.assert_allclose(forces[:3].detach(), expected, rtol=1e-12)
