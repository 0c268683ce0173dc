"""The networks have exactly as many parameters as those of the papers."""

import json

import pytest
import torch

from epitaxy.heads import HeadOptions
from epitaxy.multitask import MultitaskNetwork
from epitaxy_graphs.cgat import CGAT
from epitaxy_graphs.cgcnn import CGCNN
from epitaxy_graphs.egnn import EGNN
from epitaxy_graphs.egnn_hydragnn import TABLE_III, HydraGNNEGNN
from epitaxy_graphs.megnet import MEGNet
from epitaxy_graphs.mpeu import MPEU
from epitaxy_graphs.schnet import SchNet


def n_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def with_head(body: torch.nn.Module) -> MultitaskNetwork:
    """Put the paper's own head on a body, as a `property` model does."""
    return MultitaskNetwork(body, targets={"formation_energy": HeadOptions()}, elements=[1, 8])


def test_schnet_of_the_big_data_paper() -> None:
    network = SchNet(width=64, n_layers=3, n_radial=150, elements=range(1, 82))
    assert n_parameters(network) == 86_017


def test_cgcnn_with_the_settings_of_its_code() -> None:
    assert n_parameters(CGCNN()) == 80_833
    assert n_parameters(with_head(CGCNN())) == 80_833


def test_megnet_parent_of_atomsets() -> None:
    assert n_parameters(MEGNet(elements=range(1, 96))) == 167_761
    assert n_parameters(with_head(MEGNet(elements=range(1, 96)))) == 167_761


def test_mpeu_of_solids_and_molecules() -> None:
    assert n_parameters(MPEU(width=256, elements=range(1, 82))) == 2_555_264
    assert n_parameters(MPEU(width=64, elements=[1, 6, 7, 8, 9])) == 173_152
    assert n_parameters(with_head(MPEU(width=64, elements=[1, 6, 7, 8, 9]))) == 173_152


@pytest.mark.parametrize(
    ("sizes", "n_all"),
    [
        ({}, 117_599_692),
        ({"n_heads": 5, "edge_width": 128}, 61_245_260),
        ({"n_heads": 6, "edge_width": 128}, 63_956_812),
    ],
    ids=["paper", "defaults of the code", "six heads"],
)
def test_cgat_as_its_code_builds_it(tmp_path, sizes, n_all) -> None:
    """Elements are the 200 numbers of matscholar; nothing is allocated."""
    vectors = tmp_path / "vectors.json"
    vectors.write_text(json.dumps({"Na": [0.1] * 200}))
    with torch.device("meta"):
        network = CGAT(
            **sizes,
            node_update="released",
            edge_update="released",
            element_vectors=str(vectors),
        )
    assert n_parameters(network) == n_all
    assert n_parameters(network.head) == 3_018_633
    assert n_parameters(network.composition) == 553_023


def test_egnn_layers_of_the_qm9_network() -> None:
    """7 layers of width 128 with attention: 745,224 less input (2,048) and readout (49,665)."""
    network = EGNN(width=128, n_layers=7, n_radial=0, attention=True)
    assert n_parameters(network.layers) == 745_224 - 2_048 - 49_665


@pytest.mark.parametrize(
    ("size", "expected"), [("small", 58_404), ("medium", 14_539_004), ("large", 163_129_004)]
)
def test_egnn_of_hydragnn(size: str, expected: int) -> None:
    with torch.device("meta"):  # counted without memory
        assert n_parameters(HydraGNNEGNN(**TABLE_III[size])) == expected
