"""CGAT sees which atoms are neighbors in which order: no distances, no volume."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import CapabilityError, OptionError
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.heads import HeadOptions
from epitaxy.models import build_model
from epitaxy.multitask import MultitaskNetwork
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.testing.body_checks import body_checks
from epitaxy.training.options import TrainingOptions
from epitaxy_graphs.cgat import CGAT
from epitaxy_graphs.hypernetwork import Hypernetwork

SMALL = {
    "width": 12,
    "edge_width": 10,
    "n_layers": 2,
    "n_heads": 2,
    "n_neighbors": 12,
    "head_widths": (24, 12),
    "cutoff": 6.0,
}
RELEASED = {"node_update": "released", "edge_update": "released"}


def cgat(**options) -> CGAT:
    torch.manual_seed(0)
    return CGAT(**{**SMALL, **options}).double().eval()


def of(network: CGAT, *atoms: Atoms) -> np.ndarray:
    graph = build_batch_from_atoms(atoms, cutoff=network.cutoff, dtype=torch.float64)
    with torch.no_grad():
        return network.structure_features(graph).numpy()


def n_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def rattled_salt(scale: float = 1.0) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.set_cell(scale * atoms.cell.array, scale_atoms=True)
    return atoms


def test_the_volume_does_not_matter() -> None:
    small, large = of(cgat(), rattled_salt(), rattled_salt(1.1))
    np.testing.assert_allclose(small, large, rtol=1e-12)


def test_structures_of_one_composition_are_told_apart() -> None:
    salt, blende, caesium = of(
        cgat(),
        bulk("NaCl", "rocksalt", a=5.0),
        bulk("NaCl", "zincblende", a=5.0),
        bulk("NaCl", "cesiumchloride", a=3.0),
    )
    assert min(np.abs(salt - blende).max(), np.abs(salt - caesium).max()) > 1e-3


@pytest.mark.parametrize("updates", [{}, RELEASED], ids=["paper", "released"])
def test_both_forms_of_the_updates_are_sound(updates) -> None:
    for check in body_checks(lambda: CGAT(**SMALL, **updates)):
        check()


def test_the_edge_attention_of_the_released_code_is_never_trained() -> None:
    """As one backward pass of that code shows, at its defaults."""
    defaults = {"edge_width": 128, "n_heads": 5, **RELEASED}
    with torch.device("meta"):
        network = CGAT(**defaults)
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    dead = [name for name in network.untrained_parameters if ".edge." in name]
    assert sum(sizes[name] for name in dead) == 6_605_824


def test_the_paper_head_is_used_for_a_mean_and_its_error() -> None:
    body = cgat()
    alone = n_parameters(body)
    head = {"formation_energy": HeadOptions(likelihood="gaussian")}
    assert n_parameters(MultitaskNetwork(body, targets=head, elements=[11, 17])) == alone


def test_the_weights_of_a_hypernetwork_depend_on_each_row_alone() -> None:
    torch.manual_seed(0)
    network = Hypernetwork(5).double()
    x, conditions = torch.randn(2, 4, 5, dtype=torch.float64)
    y = network(x, conditions)
    for row in range(4):
        z = x[row]
        for k, layer in enumerate(network.layers):
            numbers = layer(conditions[row])
            z = numbers[:25].reshape(5, 5) @ z + numbers[25:]
            if k < 3:
                z = torch.tanh((z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt())
        torch.testing.assert_close(y[row], z)


def orderings() -> Dataset:
    """CuAu on one lattice; the target is how many of the nearest neighbors are unlike."""
    rng = np.random.default_rng(0)
    entries = []
    for row in range(96):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True) * (2, 1, 1)
        atoms.numbers[rng.permutation(8)[:4]] = 79
        i, j = neighbor_list("ij", atoms, 3.0)
        unlike = float((atoms.numbers[i] != atoms.numbers[j]).mean())
        entries.append(Entry.from_atoms(atoms, id=str(row), targets={"formation_energy": -unlike}))
    return Dataset.from_entries(entries)


def learner(**body):
    spec = {
        "body": {"use": "cgat", **SMALL, **body},
        "targets": {"formation_energy": {"likelihood": "gaussian"}},
    }
    return build_model(Spec("property", spec), Registry.from_entry_points())


def test_a_property_of_the_ordering_is_learnt(tmp_path) -> None:
    ordered = orderings()
    model = learner()
    options = TrainingOptions(epochs=40, batch_size=8, lr=0.003, n_threads=1, ema_decay=0.0)
    model.fit(ordered[:72], ordered[72:80], run=Run(tmp_path, training=options))
    found = model.predict(ordered[80:])
    truth, _ = ordered[80:].target("formation_energy")
    errors = np.abs(found.mean["formation_energy"] - truth)
    assert errors.mean() < 0.3 * np.abs(truth - truth.mean()).mean()
    assert not model.capabilities.forces
    assert model.capabilities.uncertainty

    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = type(model).load(tmp_path / "saved").predict(ordered[80:])
    for name, values in found.mean.items():
        np.testing.assert_array_equal(again.mean[name], values)


def test_a_table_of_element_vectors_serves_atoms_and_composition(tmp_path) -> None:
    file = tmp_path / "vectors.json"
    file.write_text(json.dumps({"Na": [0.1, 0.2, 0.3], "Cl": [1.0, -1.0, 0.5]}))
    network = cgat(element_vectors=str(file))
    assert np.isfinite(of(network, rattled_salt())).all()
    with pytest.raises(CapabilityError, match="no vector for Cu"):
        of(network, bulk("Cu"))


def test_it_is_no_potential(tmp_path) -> None:
    with pytest.raises(CapabilityError, match="use: property"):
        build_model(Spec("cgat", dict(SMALL)), Registry.from_entry_points())


@pytest.mark.parametrize("wrong", [{"width": 1}, {"n_heads": 0}, {"cutoff": 0.0}])
def test_options_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(OptionError, match="expected a width of 2 or more"):
        CGAT(**{**SMALL, **wrong})
