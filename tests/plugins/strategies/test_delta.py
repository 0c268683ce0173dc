"""A difference is learnt on top of a parent; the sum behaves as one model."""

import json
import shutil

import numpy as np
import pytest
from ase.build import bulk

from epitaxy.artifact import load_artifact, read_manifest, save_artifact
from epitaxy.calculator import load
from epitaxy.dataset import Dataset
from epitaxy.delta_model import DeltaModel
from epitaxy.entry import Method
from epitaxy.errors import ArtifactError, CapabilityError, ConfigError
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import split_random
from epitaxy.training.options import TrainingOptions

PAINN = Spec("painn", {"width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5})
SCHNET = Spec("schnet", {"width": 8, "n_layers": 1, "cutoff": 4.2})
OPTIONS = TrainingOptions(epochs=8, batch_size=4, lr=0.01, n_threads=1, ema_decay=0.0)
REGISTRY = Registry.from_entry_points()


class Notes:
    """A progress that remembers what it was told."""

    def __init__(self):
        self.said = []

    def started(self, name, n_epochs):
        pass

    epoch = finished = started

    def note(self, message):
        self.said.append(message)

    def close(self):
        pass


def with_level(dataset, name, *, shift=0.0, stiffness=1.0):
    """Give a dataset another level of theory: energies scaled and shifted by element."""
    from dataclasses import replace

    entries = []
    for entry in dataset:
        targets = {n: stiffness * np.asarray(v) for n, v in entry.targets.items()}
        targets["energy"] = targets["energy"] + shift * float((entry.numbers == 29).sum())
        method = Method(code="ASE EMT", xc_functional=name)
        entries.append(replace(entry, targets=targets, method=method))
    return Dataset.from_entries(entries)


@pytest.fixture(scope="module")
def low(make_metals, tmp_path_factory):
    """Return the artifact of a potential of the lower level, PBE."""
    place = tmp_path_factory.mktemp("low")
    split = split_random(with_level(make_metals(48), "PBE"), valid=6, test=0, seed=0)
    long = OPTIONS.replace(epochs=25)
    model = REGISTRY.build("strategy", "direct")(PAINN, split, run=Run(place, training=long))
    return save_artifact(model, place / "artifact", spec=PAINN, split=split)


@pytest.fixture(scope="module")
def split(make_metals):
    high = with_level(make_metals(24, seed=5), "SCAN", shift=2.5, stiffness=1.1)
    return split_random(high, valid=4, test=4, seed=0)


def learn(spec, split, run, **options):
    strategy = REGISTRY.build("strategy", {"use": "delta", **options})
    return strategy(spec, split, run=run)


def test_the_sum_is_better_than_either_alone(low, split, tmp_path) -> None:
    notes = Notes()
    run = Run(tmp_path / "run", training=OPTIONS, progress=notes)
    model = learn(PAINN, split, run, parent=str(low))
    assert any("SCAN less PBE" in line for line in notes.said)
    label = split.test.target("forces")[0]

    def error(found):
        return np.abs(found.predict(split.test).mean["forces"] - label).mean()

    scratch = REGISTRY.build("strategy", "direct")(
        PAINN, split, run=Run(tmp_path / "scratch", training=OPTIONS)
    )
    assert error(model) < error(scratch)
    assert error(model) < error(load_artifact(low).model)
    alone = model.lineage["parent_alone"]
    assert alone["energy_mae"] > 1.0  # the shift by 2.5 eV per Cu
    assert alone["energy_mae_with_element_shifts"] < 0.1


@pytest.mark.parametrize("spec", [PAINN, SCHNET], ids=["same cutoff", "other cutoff"])
def test_the_sum_is_a_potential_in_the_calculator(low, split, tmp_path, spec) -> None:
    short = OPTIONS.replace(epochs=1)
    model = learn(spec, split, Run(tmp_path / "run", training=short), parent=str(low))
    path = save_artifact(model, tmp_path / "sum", spec=REGISTRY.resolve("model", spec), split=split)
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = load(path, dtype="float64")
    energy, forces, stress = (
        atoms.get_potential_energy(),
        atoms.get_forces(),
        atoms.get_stress(voigt=True),
    )
    parts = []
    for part in ("low", "difference"):
        atoms.calc = load(path / part, dtype="float64")
        parts.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    for whole, (first, second) in zip(
        (energy, forces, stress), zip(*parts, strict=True), strict=True
    ):
        np.testing.assert_allclose(whole, first + second, atol=1e-9)
    atoms.calc = load(path, dtype="float64")
    step = 1e-4
    moved = []
    for sign in (1, -1):
        atoms.positions[1, 2] += sign * step
        moved.append(atoms.get_potential_energy())
        atoms.positions[1, 2] -= sign * step
    assert -(moved[0] - moved[1]) / (2 * step) == pytest.approx(forces[1, 2], abs=1e-6)


def test_the_artifact_is_self_contained(low, split, tmp_path) -> None:
    copy = tmp_path / "parent"
    shutil.copytree(low, copy)
    run = Run(tmp_path / "run", training=OPTIONS.replace(epochs=1))
    model = learn(PAINN, split, run, parent=str(copy))
    path = save_artifact(model, tmp_path / "sum", spec=PAINN, split=split, run=run)
    expected = model.predict(split.test).mean
    shutil.rmtree(copy)
    moved = path.rename(tmp_path / "moved")
    loaded = load_artifact(moved)
    assert isinstance(loaded.model, DeltaModel)
    for name, values in expected.items():
        np.testing.assert_array_equal(loaded.model.predict(split.test).mean[name], values)
    lineage = loaded.manifest["lineage"]
    assert lineage["parent_sha256"] == read_manifest(low)["manifest_sha256"]
    assert (lineage["low"], lineage["high"]) == (["PBE"], ["SCAN"])
    again = save_artifact(loaded.model, tmp_path / "again")
    np.testing.assert_array_equal(
        load_artifact(again).model.predict(split.test).mean["energy"], expected["energy"]
    )
    weights = moved / "low" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"low/weights\.safetensors"):
        load_artifact(moved)


def test_a_parent_that_was_replaced_during_training_is_not_saved(low, split, tmp_path) -> None:
    copy = tmp_path / "parent"
    shutil.copytree(low, copy)
    model = learn(
        PAINN, split, Run(tmp_path / "r", training=OPTIONS.replace(epochs=1)), parent=str(copy)
    )
    save_artifact(load_artifact(low).model, copy, overwrite=True)
    with pytest.raises(ArtifactError, match="was replaced"):
        save_artifact(model, tmp_path / "sum", spec=PAINN)


def test_ensembles_may_be_parents_and_children(low, split, tmp_path) -> None:
    short = OPTIONS.replace(epochs=1)
    pair = REGISTRY.build("strategy", {"use": "ensemble", "n_members": 2})
    parent = save_artifact(
        pair(PAINN, split, run=Run(tmp_path / "pair", training=short)), tmp_path / "parent"
    )
    strategy = REGISTRY.build(
        "strategy",
        {"use": "ensemble", "n_members": 2, "member": {"use": "delta", "parent": str(parent)}},
    )
    model = strategy(PAINN, split, run=Run(tmp_path / "run", training=short))
    path = save_artifact(model, tmp_path / "sums")
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.calc = load(path)
    atoms.get_potential_energy()
    assert atoms.calc.results["energy_std"] > 0
    with pytest.raises(ConfigError, match="into the ensemble"):
        learn(PAINN, split, Run(tmp_path / "x"), parent=str(parent), learner={"use": "ensemble"})


def test_a_property_may_be_a_difference_too(make_metals, tmp_path) -> None:
    def dataset(seed, gap):
        metals = make_metals(24, seed=seed)
        return metals.with_target("band_gap", gap(metals.gather().cells[:, 0, 0]))

    body = {"use": "painn", **PAINN.options}
    spec = Spec("property", {"body": body, "targets": ["band_gap"]})
    short = OPTIONS.replace(epochs=2)
    first = split_random(dataset(0, lambda a: a - 3), valid=4, test=0, seed=0)
    direct = REGISTRY.build("strategy", "direct")
    low = direct(spec, first, run=Run(tmp_path / "low", training=short))
    parent = save_artifact(low, tmp_path / "parent", split=first)
    second = split_random(dataset(5, lambda a: 2 * a - 3), valid=4, test=4, seed=0)
    model = learn(spec, second, Run(tmp_path / "run", training=short), parent=str(parent))
    path = save_artifact(model, tmp_path / "sum", spec=spec, split=second)
    whole = load_artifact(path).model.predict(second.test).mean["band_gap"]
    parts = [
        load_artifact(path / part).model.predict(second.test).mean["band_gap"]
        for part in ("low", "difference")
    ]
    np.testing.assert_allclose(whole, parts[0] + parts[1], atol=1e-6)
    with pytest.raises(CapabilityError, match="no potential"):
        load(path)
    with pytest.raises(CapabilityError, match=r"learn .*energy"):
        learn(PAINN, second, Run(tmp_path / "x"), parent=str(parent))


def test_branches_of_the_parent_must_be_chosen(make_metals, split, tmp_path) -> None:
    metals = make_metals(24)
    body = {"use": "painn", **PAINN.options}
    spec = Spec("property", {"body": body, "targets": ["energy"], "branch_by": "group"})
    both = split_random(metals, valid=4, test=0, seed=0)
    short = OPTIONS.replace(epochs=1)
    direct = REGISTRY.build("strategy", "direct")
    parent = save_artifact(
        direct(spec, both, run=Run(tmp_path / "low", training=short)), tmp_path / "parent"
    )
    with pytest.raises(CapabilityError, match="'cold', 'hot'"):
        learn(PAINN, split, Run(tmp_path / "x"), parent=str(parent))
    with pytest.raises(CapabilityError, match="no branch 'warm'"):
        learn(PAINN, split, Run(tmp_path / "x"), parent=str(parent), branch="warm")
    model = learn(
        PAINN, split, Run(tmp_path / "y", training=short), parent=str(parent), branch="hot"
    )
    path = save_artifact(model, tmp_path / "sum", spec=PAINN, split=split)
    assert json.loads((path / "delta.json").read_text())["branch"] == "hot"
    np.testing.assert_array_equal(
        load_artifact(path).model.predict(split.test).mean["energy"],
        model.predict(split.test).mean["energy"],
    )


def test_what_does_not_fit_is_refused_before_training(low, make_metals, tmp_path) -> None:
    other = split_random(make_metals(12, elements=("Cu", "Ni")), valid=2, test=2, seed=0)
    run = Run(tmp_path / "run", training=OPTIONS)
    with pytest.raises(CapabilityError, match="has not seen Ni"):
        learn(PAINN, other, run, parent=str(low))
    with pytest.raises(ArtifactError):
        learn(PAINN, other, run, parent=str(tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_claims_are_refused_with_what_to_do_instead(low, make_metals, tmp_path) -> None:
    metals = make_metals(12).with_target("is_metal", np.arange(12) % 2 * 1.0)
    split = split_random(metals, valid=2, test=2, seed=0)
    body = {"use": "painn", **PAINN.options}
    spec = Spec("property", {"body": body, "targets": ["is_metal"]})
    run = Run(tmp_path / "run", training=OPTIONS)
    with pytest.raises(CapabilityError, match=r"is_metal is a claim .* transfer or features"):
        learn(spec, split, run, parent=str(low))
    assert not (tmp_path / "run").exists()


def test_without_validation_structures_the_last_weights_are_kept(low, make_metals, tmp_path):
    alone = split_random(with_level(make_metals(12, seed=3), "SCAN"), valid=0, test=0, seed=0)
    run = Run(tmp_path / "run", training=OPTIONS.replace(epochs=1))
    model = learn(PAINN, alone, run, parent=str(low))
    assert model.lineage["parent_alone"] == {}
    assert len(model.predict(alone.train).mean["energy"]) == 12


def test_the_same_level_twice_is_said(low, make_metals, tmp_path) -> None:
    notes = Notes()
    same = split_random(with_level(make_metals(12, seed=3), "PBE"), valid=2, test=0, seed=0)
    run = Run(tmp_path / "run", training=OPTIONS.replace(epochs=1), progress=notes)
    learn(PAINN, same, run, parent=str(low))
    assert any("both of PBE" in line for line in notes.said)


def test_a_difference_may_begin_with_the_weights_of_a_parent(low, split, tmp_path) -> None:
    run = Run(tmp_path / "run", training=OPTIONS.replace(epochs=1))
    learner = {"use": "transfer", "parent": str(low), "mode": "head"}
    model = learn(PAINN, split, run, parent=str(low), learner=learner)
    assert model.lineage["difference"]["mode"] == "head"
