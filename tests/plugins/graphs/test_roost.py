"""ROOST sees compositions, whole or fractional, with or without a structure, and nothing else."""

import json

import numpy as np
import pytest
import torch
from ase.build import bulk

from epitaxy.composition import TAG, composition_entry
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import CapabilityError, ConfigError, OptionError, StructureError
from epitaxy.graphs.builder import build_batch, build_batch_from_atoms
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.training.batches import Graphs
from epitaxy.training.options import TrainingOptions
from epitaxy_graphs.roost import Roost, compositions_of

OPTIONS = TrainingOptions(epochs=25, batch_size=16, lr=0.003, n_threads=1, ema_decay=0.0)
SMALL = {"width": 12, "n_layers": 2, "n_heads": 2, "hidden": 24}


def roost(**options) -> Roost:
    torch.manual_seed(0)
    return Roost(**{**SMALL, **options}).double().eval()


def of_formulas(network: Roost, *formulas: str) -> np.ndarray:
    dataset = Dataset.from_entries([composition_entry(f, targets={}) for f in formulas])
    graph = build_batch(dataset, cutoff=network.cutoff, dtype=torch.float64)
    with torch.no_grad():
        return network.structure_features(graph).numpy()


def test_a_composition_is_a_complete_graph_of_its_elements() -> None:
    dataset = Dataset.from_entries([composition_entry(f, targets={}) for f in ("BaTiO3", "Cu")])
    rows = compositions_of(build_batch(dataset, cutoff=0.0, dtype=torch.float64))
    assert rows.numbers.tolist() == [8, 22, 56, 29]
    assert rows.fractions.tolist() == [0.6, 0.2, 0.2, 1.0]
    pairs = list(zip(rows.centers.tolist(), rows.neighbors.tolist(), strict=True))
    assert pairs == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (3, 3)]


def test_the_stoichiometry_matters_and_the_size_of_the_cell_does_not() -> None:
    network = roost()
    alumina, twice, other = of_formulas(network, "Al2O3", "Al4O6", "AlO")
    np.testing.assert_allclose(alumina, twice, rtol=1e-12)
    assert np.abs(alumina - other).max() > 1e-4

    salt = bulk("NaCl", "rocksalt", a=5.6)
    graph = build_batch_from_atoms([salt, salt * (2, 2, 1)], cutoff=0.0, dtype=torch.float64)
    cell, supercell = network.structure_features(graph).detach().numpy()
    np.testing.assert_allclose(cell, supercell, rtol=1e-12)
    np.testing.assert_allclose(cell, of_formulas(network, "ClNa")[0], rtol=1e-12)


def test_fractions_are_exact_however_finely_a_formula_divides_them() -> None:
    """Atoms of an entry stand for thousandths at best; the formula in its tag is not rounded."""
    formulas = ["Fe0.98765C0.01235", "Fe98765C1235", "Fe0.987C0.013"]
    dataset = Dataset.from_entries([composition_entry(f, targets={}) for f in formulas])
    graph = build_batch(dataset, cutoff=0.0, dtype=torch.float64)
    fractions = compositions_of(graph).fractions.numpy().reshape(3, 2)
    np.testing.assert_allclose(fractions[:2], [[0.01235, 0.98765]] * 2, rtol=1e-12)
    fine, scaled, coarse = of_formulas(roost(), *formulas)
    np.testing.assert_allclose(fine, scaled, rtol=1e-12)
    assert np.abs(fine - coarse).max() > 1e-7


def test_formulas_and_structures_share_a_batch() -> None:
    network = roost()
    salt = bulk("NaCl", "rocksalt", a=5.6)
    entry = Entry(
        numbers=salt.numbers, positions=salt.positions, cell=salt.cell.array, pbc=salt.pbc
    )
    dataset = Dataset.from_entries([composition_entry("Na0.5Cl0.5", targets={}), entry])
    graph = build_batch(dataset, [1, 0], cutoff=0.0, dtype=torch.float64)
    first, second = network.structure_features(graph).detach().numpy()
    np.testing.assert_allclose(first, second, rtol=1e-12)


def test_kept_graphs_are_those_that_are_built_anew() -> None:
    formulas = ["Fe0.98765C0.01235", "NaCl", "Cu"]
    dataset = Dataset.from_entries([composition_entry(f, targets={}) for f in formulas])
    rows = np.array([2, 0, 0])
    kept, anew = (
        Graphs(
            dataset,
            cutoff=0.0,
            dtype=torch.float64,
            device=torch.device("cpu"),
            cache_bytes=cache_bytes,
        ).batch(rows)
        for cache_bytes in (10**9, 0)
    )
    for one, other in zip(kept, anew, strict=True):
        torch.testing.assert_close(one, other)
    assert kept.amounts is not None
    assert float(kept.amounts.sum()) == pytest.approx(3.0)


def test_a_tag_that_contradicts_its_atoms_is_named() -> None:
    dataset = Dataset.from_entries([composition_entry("NaCl", targets={}, id="salt")])
    with pytest.raises(StructureError, match=r"salt: its tag composition is 'KCl'"):
        build_batch(dataset.with_tag(TAG, ["KCl"]), cutoff=0.0)


def test_a_table_of_element_vectors_is_read_and_travels_with_the_weights(tmp_path) -> None:
    file = tmp_path / "vectors.json"
    file.write_text(json.dumps({"Na": [0.1, 0.2, 0.3], "Cl": [1.0, -1.0, 0.5]}))
    network = roost(element_vectors=str(file))
    assert network.encoder.embedding.layer.in_features == 3
    before = of_formulas(network, "NaCl")
    with pytest.raises(CapabilityError, match="no vector for K"):
        of_formulas(network, "KCl")

    file.write_text(json.dumps({"Na": [0.0, 0.0, 9.0], "Cl": [9.0, 0.0, 0.0]}))
    changed = roost(element_vectors=str(file))
    changed.load_state_dict(network.state_dict())
    np.testing.assert_array_equal(of_formulas(changed, "NaCl"), before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("{", "expected JSON"),
        ("[1]", "holds no table"),
        ('{"Na": [1], "Xx": [2]}', "'Xx' is no chemical element"),
        ('{"Na": [1, 2], "Cl": [2]}', "the vector of Cl is not 2 finite numbers"),
        ('{"Na": 3}', "the vector of Na"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, text, message) -> None:
    file = tmp_path / "vectors.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(OptionError, match=message):
        roost(element_vectors=str(file))


def mixtures() -> Dataset:
    """Formulas of four elements with a smooth function of their fractions."""
    rng = np.random.default_rng(0)
    entries = []
    for _ in range(160):
        cu, ni, al, o = rng.dirichlet(np.ones(4)).round(4) + 1e-4
        value = -2.0 * o * al - 0.5 * cu * ni + 0.3 * cu
        formula = f"Cu{cu:.4f}Ni{ni:.4f}Al{al:.4f}O{o:.4f}"
        entries.append(composition_entry(formula, targets={"formation_energy": value}))
    return Dataset.from_entries(entries)


def learner(targets, **body):
    spec = {"body": {"use": "roost", **SMALL, **body}, "targets": targets}
    return build_model(Spec("property", spec), Registry.from_entry_points())


@pytest.mark.parametrize("elements_as", ["properties", "learnt"])
def test_a_property_of_formulas_without_structures_is_learnt(tmp_path, elements_as) -> None:
    mixed = mixtures()
    model = learner({"formation_energy": {"likelihood": "gaussian"}}, elements_as=elements_as)
    model.fit(mixed[:120], mixed[120:140], run=Run(tmp_path, training=OPTIONS))
    assert model.capabilities.composition_only
    assert not model.capabilities.forces
    found = model.predict(mixed[140:])
    truth, _ = mixed[140:].target("formation_energy")
    errors = np.abs(found.mean["formation_energy"] - truth)
    assert (
        errors.mean()
        < 0.25 * np.abs(truth - mixed[:120].target("formation_energy")[0].mean()).mean()
    )
    assert (found.std["formation_energy"] > 0).all()

    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = type(model).load(tmp_path / "saved")
    assert again.capabilities.composition_only
    np.testing.assert_array_equal(
        again.predict(mixed[140:]).mean["formation_energy"], found.mean["formation_energy"]
    )


def test_targets_that_need_positions_are_refused(tmp_path) -> None:
    mixed = mixtures()
    for name in ("forces", "charges", "dipole"):
        with pytest.raises(ConfigError, match=f"{name} cannot follow from the composition"):
            learner([name]).fit(mixed, mixed[:0], run=Run(tmp_path, training=OPTIONS))


def test_a_body_that_sees_positions_still_refuses_formulas(tmp_path) -> None:
    mixed = mixtures()
    spec = Spec("property", {"body": {"use": "painn", "width": 8}, "targets": ["formation_energy"]})
    model = build_model(spec, Registry.from_entry_points())
    with pytest.raises(CapabilityError, match="a formula but no structure"):
        model.fit(mixed, mixed[:0], run=Run(tmp_path, training=OPTIONS))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="width of 2 or more"):
        Roost(width=1)
