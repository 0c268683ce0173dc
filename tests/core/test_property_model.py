"""Many targets, many branches, one body."""

import numpy as np
import pytest
import torch

from epitaxy.composition import composition_entry
from epitaxy.dataset import Dataset
from epitaxy.errors import CapabilityError, ConfigError, OptionError
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.heads import HeadOptions, Set2Set, mean_pooling, softmax_per_structure
from epitaxy.models import build_model
from epitaxy.multitask import MultitaskNetwork
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.training.options import TrainingOptions

BODY = {"use": "painn", "width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5}
OPTIONS = TrainingOptions(epochs=30, batch_size=8, lr=0.01, n_threads=1, ema_decay=0.0)


def model(**options):
    return build_model(Spec("property", {"body": BODY, **options}), Registry.from_entry_points())


@pytest.fixture
def alloys(make_metals) -> Dataset:
    """Cells with an intensive target, a claim, atomic numbers and gaps in all of them."""
    dataset = make_metals(48)
    n_copper = np.array([(entry.numbers == 29).mean() for entry in dataset])
    charges = np.where(dataset.gather().numbers == 29, 0.5, -0.5)
    known = np.arange(48) % 4 != 0
    return (
        dataset.with_target("formation_energy", 0.3 * n_copper - 1.0, known)
        .with_target("is_metal", (n_copper > 0.5).astype(float))
        .with_target("charges", charges)
    )


def test_all_kinds_of_targets_are_learnt_at_once(alloys, tmp_path) -> None:
    learner = model(targets=["formation_energy", "is_metal", "charges", "energy", "dipole"])
    with_dipole = alloys.with_target("dipole", np.tile([0.1, 0.0, -0.1], (48, 1)))
    rows = np.arange(40)
    metrics = learner.fit(with_dipole[rows], with_dipole[40:], run=Run(tmp_path, training=OPTIONS))
    assert metrics["valid_formation_energy_mae"] < 0.05
    assert metrics["valid_is_metal_accuracy"] == 1.0
    assert metrics["valid_charges_mae"] < 0.05
    assert metrics["valid_energy_mae"] < 0.1
    found = learner.predict(with_dipole)
    assert found.mean["forces"].shape == (int(alloys.n_atoms.sum()), 3)
    assert found.mean["dipole"].shape == (48, 3)
    assert ((found.mean["is_metal"] >= 0) & (found.mean["is_metal"] <= 1)).all()

    (tmp_path / "saved").mkdir()
    learner.save(tmp_path / "saved")
    again = type(learner).load(tmp_path / "saved").predict(with_dipole)
    for name, values in found.mean.items():
        np.testing.assert_array_equal(again.mean[name], values)


def test_a_gaussian_head_tells_noisy_structures_from_quiet_ones(make_metals, tmp_path) -> None:
    dataset = make_metals(96)
    rng = np.random.default_rng(1)
    noisy = np.array([(entry.numbers == 29).mean() > 0.5 for entry in dataset])
    values = np.where(noisy, rng.normal(0, 1.0, 96), rng.normal(0, 0.01, 96))
    dataset = dataset.with_target("band_gap", values)
    learner = model(targets={"band_gap": {"likelihood": "gaussian"}})
    learner.fit(dataset, dataset[:0], run=Run(tmp_path, training=OPTIONS.replace(epochs=60)))
    std = learner.predict(dataset).std["band_gap"]
    assert std[noisy].mean() > 3 * std[~noisy].mean()
    assert learner.capabilities.uncertainty


@pytest.mark.parametrize("branch_with", ["heads", "embedding", "both"])
def test_branches_learn_levels_of_theory_that_disagree(make_metals, tmp_path, branch_with) -> None:
    first, second = make_metals(32, seed=1), make_metals(32, seed=2)
    entries = [*first, *second]
    dataset = Dataset.from_entries(entries).with_tag("level", ["PBE"] * 32 + ["LDA"] * 32)
    numbers = np.array([(entry.numbers == 29).mean() for entry in entries])
    dataset = dataset.with_target("formation_energy", numbers * np.repeat([1.0, -1.0], 32))
    learner = model(
        targets=["formation_energy"], branch_by="level", branch_with=branch_with, weights="learned"
    )
    options = OPTIONS.replace(epochs=60)
    metrics = learner.fit(dataset, dataset[::4], run=Run(tmp_path, training=options))
    assert metrics["valid_formation_energy_mae"] < 0.08
    assert learner.branches == ("LDA", "PBE")
    with pytest.raises(CapabilityError, match="LDA"):
        learner.predict(dataset.with_tag("level", ["SCAN"] * 64))
    pbe = learner.select("PBE").predict(dataset[32:]).mean["formation_energy"]
    assert np.corrcoef(pbe, numbers[32:])[0, 1] > 0.9


def test_the_potential_of_a_branch_gives_the_same_energies_and_forces(make_metals, tmp_path):
    dataset = make_metals(24).with_tag("level", ["a", "b"] * 12)
    learner = model(targets=["energy"], branch_by="level")
    options = OPTIONS.replace(epochs=2, stress_weight=1.0)
    learner.fit(dataset, dataset[:4], run=Run(tmp_path, training=options))
    with pytest.raises(CapabilityError, match="select"):
        _ = learner.potential
    rows = np.arange(1, 24, 2)
    found = learner.predict(dataset[rows])
    potential = learner.select("b").potential.eval()
    graph = build_batch_from_atoms(
        [dataset[int(i)].to_atoms() for i in rows], cutoff=3.5, dtype=torch.float32
    )
    outputs = potential(graph, forces=True, stress=True)
    np.testing.assert_allclose(outputs.energy.numpy(), found.mean["energy"], rtol=1e-6)
    np.testing.assert_allclose(outputs.forces.numpy(), found.mean["forces"], atol=1e-5)
    np.testing.assert_allclose(outputs.stress.numpy(), found.mean["stress"], atol=1e-6)


def rotation(seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def test_vectors_and_tensors_turn_with_the_structure(make_metals) -> None:
    torch.manual_seed(0)
    body = Registry.from_entry_points().build("model", BODY)
    targets = dict.fromkeys(("dipole", "polarizability", "stress", "forces"), HeadOptions())
    network = MultitaskNetwork(body, targets=targets, elements=[13, 29]).double()
    atoms = make_metals(3)[2].to_atoms()
    turned = atoms.copy()
    R = rotation()
    turned.set_cell(atoms.cell.array @ R.T, scale_atoms=True)
    branch = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        one, other = (
            network(build_batch_from_atoms([a], cutoff=3.5, dtype=torch.float64), branch)
            for a in (atoms, turned)
        )
    for name in ("dipole", "forces"):
        np.testing.assert_allclose(
            other[name].mean.numpy(), one[name].mean.numpy() @ R.T, atol=1e-9
        )
    for name in ("polarizability", "stress"):
        before, after = (_full(x[name].mean[0].numpy()) for x in (one, other))
        np.testing.assert_allclose(after, R @ before @ R.T, atol=1e-9)


def _full(voigt: np.ndarray) -> np.ndarray:
    return voigt[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]


def test_poolings_do_not_depend_on_order_or_batch() -> None:
    torch.manual_seed(1)
    x = torch.randn(7, 4, dtype=torch.float64)
    sets = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    order = torch.tensor([2, 0, 1, 6, 5, 4, 3])
    w = torch.rand(7, dtype=torch.float64)
    readout = Set2Set(4, n_hidden=5).double()
    both = readout(x, sets, 2, w)
    torch.testing.assert_close(readout(x[order], sets, 2, w[order]), both)
    torch.testing.assert_close(readout(x[:3], sets[:3], 1, w[:3])[0], both[0])
    a = softmax_per_structure(x, sets, 2)
    torch.testing.assert_close(a[:3].sum(0), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(mean_pooling(x, sets, 2)[1], x[3:].mean(0))


def test_what_cannot_be_learnt_is_refused_before_training(alloys, tmp_path) -> None:
    run = Run(tmp_path, training=OPTIONS)
    with pytest.raises(ConfigError, match="none of the 48 training structures has band_gap"):
        model(targets=["band_gap"]).fit(alloys, alloys[:0], run=run)
    claims = alloys.with_target("is_metal", np.linspace(0, 1, 48))
    with pytest.raises(ConfigError, match="other than 0 and 1"):
        model(targets=["is_metal"]).fit(claims, claims[:0], run=run)
    with pytest.raises(ConfigError, match="is_metal is a claim"):
        model(targets={"is_metal": {"likelihood": "point"}}).fit(alloys, alloys[:0], run=run)
    with pytest.raises(OptionError, match="extensive"):
        model(targets={"energy": {"pooling": "mean"}}).fit(alloys, alloys[:0], run=run)
    formulas = Dataset.from_entries(
        [composition_entry("Fe2O3", targets={"band_gap": 2.0}), *[alloys[0]]]
    )
    with pytest.raises(CapabilityError, match="no structure"):
        model(targets=["band_gap"]).fit(formulas, formulas[:0], run=run)
    assert not list(tmp_path.iterdir())
