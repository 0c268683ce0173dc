"""A child begins with the weights of its parent."""

import numpy as np
import pytest

from epitaxy.artifact import load_artifact, read_manifest, save_artifact
from epitaxy.dataset import Dataset
from epitaxy.errors import CapabilityError, ConfigError, OptionError
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import Split, split_random
from epitaxy.training.options import TrainingOptions

PAINN = {"width": 8, "n_layers": 2, "n_radial": 4, "cutoff": 3.5}
OPTIONS = TrainingOptions(epochs=4, batch_size=8, lr=0.01, n_threads=1, ema_decay=0.0)
REGISTRY = Registry.from_entry_points()


@pytest.fixture
def parents(make_metals, tmp_path):
    """Artifacts of a potential and of a property model, both on the same metals."""
    split = split_random(make_metals(32), valid=6, test=0, seed=0)
    made = {}
    for name, spec in (
        ("potential", Spec("painn", PAINN)),
        ("property", Spec("property", {"body": {"use": "painn", **PAINN}, "targets": ["energy"]})),
    ):
        run = Run(tmp_path / name, training=OPTIONS)
        model = REGISTRY.build("strategy", "direct")(spec, split, run=run)
        made[name] = (
            spec,
            save_artifact(model, tmp_path / f"{name}-artifact", spec=spec, split=split),
        )
    return made


def transfer(spec, split, run, **options):
    strategy = REGISTRY.build("strategy", {"use": "transfer", **options})
    return strategy(spec, split, run=run)


def weights_of(model):
    module = getattr(model, "network", None) or model.potential
    return {n: p.detach().clone() for n, p in module.named_parameters()}


@pytest.mark.parametrize("kind", ["potential", "property"])
@pytest.mark.parametrize("mode", ["full", "head", "adapters"])
def test_what_is_frozen_keeps_the_weights_of_the_parent(parents, make_metals, tmp_path, kind, mode):
    spec, parent = parents[kind]
    split = split_random(make_metals(24, seed=5), valid=4, test=0, seed=0)
    child = transfer(
        spec, split, Run(tmp_path / "run", training=OPTIONS), parent=str(parent), mode=mode
    )
    before, after = weights_of(load_artifact(parent).model), weights_of(child)
    assert set(before) == set(after)
    changed = {n for n in before if not np.array_equal(before[n].numpy(), after[n].numpy())}
    in_head = {n for n in before if ".head." in f".{n}" or n.startswith(("heads.", "head."))}
    assert changed & in_head
    if mode == "head":
        assert changed <= in_head
    if mode == "adapters":
        assert any("weight" in n for n in changed - in_head)
        assert not any("table" in n for n in changed - in_head)
        for n in changed - in_head:  # a change of low rank
            assert np.linalg.matrix_rank((after[n] - before[n]).numpy(), tol=1e-4) <= 8
    save_artifact(child, tmp_path / "child", spec=spec, split=split)
    lineage = read_manifest(tmp_path / "child")["lineage"]
    assert lineage["mode"] == mode
    assert lineage["parent_sha256"] == read_manifest(parent)["manifest_sha256"]


def test_a_trained_parent_is_better_than_nothing_after_one_epoch(parents, make_metals, tmp_path):
    spec, parent = parents["potential"]
    split = split_random(make_metals(24, seed=5), valid=8, test=0, seed=0)
    short = OPTIONS.replace(epochs=1, lr=1e-6)
    child = transfer(
        spec, split, Run(tmp_path / "a", training=short), parent=str(parent), scale="keep"
    )
    known = load_artifact(parent).model.predict(split.valid).mean["forces"]
    np.testing.assert_allclose(child.predict(split.valid).mean["forces"], known, atol=1e-3)


def test_layers_by_name_have_their_own_rates(parents, make_metals, tmp_path) -> None:
    spec, parent = parents["potential"]
    split = split_random(make_metals(24, seed=5), valid=4, test=0, seed=0)
    layers = {"embedding": 0, "network.messages.0": 0, "body": 0.1, "head": 1}
    run = Run(tmp_path / "run", training=OPTIONS)
    child = transfer(spec, split, run, parent=str(parent), mode="layers", layers=layers)
    before, after = weights_of(load_artifact(parent).model), weights_of(child)
    frozen = [n for n in before if "embedding" in n or "messages.0" in n]
    assert frozen
    assert all(np.array_equal(before[n], after[n]) for n in frozen)
    assert not np.array_equal(
        before["network.messages.1.hidden.weight"], after["network.messages.1.hidden.weight"]
    )
    with pytest.raises(ConfigError, match=r"nothing is called 'network\.message'"):
        transfer(
            spec,
            split,
            Run(tmp_path / "b"),
            parent=str(parent),
            mode="layers",
            layers={"network.message": 0},
        )


@pytest.mark.parametrize("kind", ["potential", "property"])
def test_validation_may_hold_elements_that_the_parent_knows(make_metals, tmp_path, kind) -> None:
    three, two = make_metals(32, elements=("Cu", "Al", "Ni")), make_metals(16, seed=5)
    spec = Spec("painn", PAINN)
    if kind == "property":
        spec = Spec("property", {"body": {"use": "painn", **PAINN}, "targets": ["energy"]})
    whole = split_random(three, valid=6, test=0, seed=0)
    model = REGISTRY.build("strategy", "direct")(spec, whole, run=Run(tmp_path / "a"))
    parent = str(save_artifact(model, tmp_path / "parent", spec=spec, split=whole))
    joined = Dataset.from_entries([*two, *three])
    rows = np.arange(len(joined))
    split = Split(joined, train=rows[:16], valid=rows[16:26], test=rows[:0])
    assert 28 in split.valid.elements - split.train.elements
    with pytest.raises(OptionError, match="knows nothing about Ni"):
        transfer(spec, split, Run(tmp_path / "b"), parent=parent, control=True)
    child = transfer(spec, split, Run(tmp_path / "b", training=OPTIONS), parent=parent)
    assert child.capabilities.elements == {13, 28, 29}
    nickel = [row for row, entry in enumerate(three) if 28 in entry.numbers]
    error = child.predict(three[nickel]).mean["energy"] - three[nickel].target("energy")[0]
    assert np.isfinite(error).all()
    assert np.abs(error).max() < 4 * 2  # eV per cell of four: its energy is 5 eV/atom off zero


def test_a_rank_must_fit_the_matrices_and_the_mode(parents, make_metals, tmp_path) -> None:
    spec, parent = parents["potential"]
    split = split_random(make_metals(12, seed=5), valid=2, test=0, seed=0)
    run = Run(tmp_path / "run", training=OPTIONS)
    for options, message in (
        ({"mode": "adapters", "rank": 9999}, "rank is 9999; allowed: 1 to 8"),
        ({"mode": "adapters", "rank": 0}, "rank is 0; allowed: 1 to 8"),
        ({"mode": "full", "rank": 4}, "mode 'full' has no adapters"),
    ):
        with pytest.raises(OptionError, match=message):
            transfer(spec, split, run, parent=str(parent), **options)
    assert not (tmp_path / "run").exists()


def test_parents_that_do_not_fit_are_refused_before_training(parents, make_metals, tmp_path):
    spec, parent = parents["potential"]
    split = split_random(make_metals(12, seed=5), valid=2, test=0, seed=0)
    run = Run(tmp_path / "run", training=OPTIONS)
    for change, message in (({"cutoff": 4.0}, "cutoff"), ({"width": 16}, "shape|fit")):
        with pytest.raises(ConfigError, match=message):
            transfer(spec.replace(**change), split, run, parent=str(parent))
    other = split_random(make_metals(12, elements=("Cu", "Ni")), valid=2, test=0, seed=0)
    with pytest.raises(CapabilityError, match="has not seen Ni"):
        transfer(spec, other, run, parent=str(parent))
    with pytest.raises(OptionError, match="mode: layers needs layers"):
        transfer(spec, split, run, parent=str(parent), mode="layers")
    with pytest.raises(OptionError, match="but mode is 'full'"):
        transfer(spec, split, run, parent=str(parent), layers={"head": 1})
    child = transfer(
        spec,
        other,
        Run(tmp_path / "new", training=OPTIONS),
        parent=str(parent),
        new_elements="initialise",
    )
    assert child.lineage["unseen_elements"] == [28]


def test_another_property_is_warned_about_and_gets_a_control(parents, make_metals, tmp_path):
    _, parent = parents["property"]
    dataset = make_metals(24, seed=5)
    dataset = dataset.with_target("band_gap", np.linspace(0, 1, 24))
    split = split_random(dataset, valid=4, test=0, seed=0)
    spec = Spec("property", {"body": {"use": "painn", **PAINN}, "targets": ["band_gap"]})
    child = transfer(spec, split, Run(tmp_path / "run", training=OPTIONS), parent=str(parent))
    assert set(child.lineage["control"]) == {"from_scratch", "transferred"}
    assert (tmp_path / "run" / "control" / "metrics.jsonl").exists()


def test_transferred_members_form_an_ensemble(parents, make_metals, tmp_path) -> None:
    spec, parent = parents["potential"]
    split = split_random(make_metals(24, seed=5), valid=4, test=0, seed=0)
    strategy = REGISTRY.build(
        "strategy",
        {"use": "ensemble", "n_members": 2, "member": {"use": "transfer", "parent": str(parent)}},
    )
    model = strategy(spec, split, run=Run(tmp_path / "run", training=OPTIONS))
    assert model.predict(split.valid).std["energy"].max() > 0


@pytest.mark.parametrize(("mode", "changed"), [("head", False), ("full", True)])
def test_the_statistics_of_a_frozen_body_stay(make_metals, tmp_path, mode, changed) -> None:
    body = {"use": "cgcnn", "width": 8, "n_layers": 1, "cutoff": 3.5}
    spec = Spec("property", {"body": body, "targets": ["energy"]})
    first = split_random(make_metals(16), valid=4, test=0, seed=0)
    run = Run(tmp_path / "parent-run", training=OPTIONS)
    model = REGISTRY.build("strategy", "direct")(spec, first, run=run)
    parent = save_artifact(model, tmp_path / "parent", spec=spec, split=first)
    second = split_random(make_metals(16, seed=5), valid=4, test=0, seed=0)
    child = transfer(
        spec, second, Run(tmp_path / "run", training=OPTIONS), parent=str(parent), mode=mode
    )

    def statistics(network):
        return {n: b.numpy() for n, b in network.named_buffers() if "running_" in n}

    before, after = statistics(load_artifact(parent).model.network), statistics(child.network)
    assert before
    assert any(not np.array_equal(before[n], after[n]) for n in before) == changed


def test_ensembles_and_sums_are_no_parents_but_their_parts_are(
    parents, make_metals, tmp_path
) -> None:
    spec, parent = parents["potential"]
    split = split_random(make_metals(12, seed=5), valid=2, test=0, seed=0)
    short = OPTIONS.replace(epochs=1)
    for name, strategy, part, message in (
        ("pair", {"use": "ensemble", "n_members": 2}, "members/1", "is an ensemble"),
        ("sum", {"use": "delta", "parent": str(parent)}, "difference", "sum of two"),
    ):
        model = REGISTRY.build("strategy", strategy)(
            spec, split, run=Run(tmp_path / f"{name}-run", training=short)
        )
        path = save_artifact(model, tmp_path / name, spec=spec, split=split)
        with pytest.raises(ConfigError, match=message):
            transfer(spec, split, Run(tmp_path / "x"), parent=str(path))
        run = Run(tmp_path / f"{name}-child", training=short)
        assert transfer(spec, split, run, parent=str(path / part)).lineage["mode"] == "full"


def test_a_parent_that_does_not_fit_is_found_before_the_control_is_trained(
    parents, make_metals, tmp_path
) -> None:
    _, parent = parents["property"]
    dataset = make_metals(12, seed=5).with_target("band_gap", np.linspace(0, 1, 12))
    split = split_random(dataset, valid=2, test=0, seed=0)
    wide = {"use": "painn", **PAINN, "width": 16}
    spec = Spec("property", {"body": wide, "targets": ["band_gap"]})
    with pytest.raises(ConfigError, match="does not fit"):
        transfer(spec, split, Run(tmp_path / "run", training=OPTIONS), parent=str(parent))
    assert not (tmp_path / "run" / "control").exists()


def test_an_untrained_model_type_is_told_apart(parents) -> None:
    assert "start" in build_model(parents["potential"][0], REGISTRY).fit.__annotations__


@pytest.mark.slow
def test_frozen_weights_may_be_trained_around_with_compiled_code(parents, make_metals, tmp_path):
    spec, parent = parents["potential"]
    split = split_random(make_metals(24, seed=5), valid=4, test=0, seed=0)
    run = Run(tmp_path / "run", training=OPTIONS.replace(compile=True))
    child = transfer(spec, split, run, parent=str(parent), mode="head")
    before, after = weights_of(load_artifact(parent).model), weights_of(child)
    name = "network.messages.1.hidden.weight"
    assert np.array_equal(before[name], after[name])
