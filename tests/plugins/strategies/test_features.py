"""A small model learns from the features of a parent."""

from pathlib import Path

import numpy as np
import pytest
import torch

from epitaxy.artifact import load_artifact, save_artifact
from epitaxy.errors import CapabilityError, OptionError
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import split_random
from epitaxy.training.options import TrainingOptions

PAINN = {"width": 8, "n_layers": 2, "n_radial": 4, "cutoff": 3.5}
OPTIONS = TrainingOptions(epochs=4, batch_size=8, lr=0.01, n_threads=1, ema_decay=0.0)
REGISTRY = Registry.from_entry_points()
ATOMSETS = Spec("atomsets", {"targets": ["energy"]})


@pytest.fixture
def split(make_metals):
    return split_random(make_metals(24, seed=5), valid=4, test=4, seed=0)


@pytest.fixture
def parent(make_metals, tmp_path):
    """Return a potential that has seen the metals."""
    given = split_random(make_metals(16), valid=4, test=0, seed=0)
    run = Run(tmp_path / "parent-run", training=OPTIONS)
    model = REGISTRY.build("strategy", "direct")(Spec("painn", PAINN), given, run=run)
    return save_artifact(model, tmp_path / "parent")


def learn(spec, split, run, **options):
    strategy = REGISTRY.build("strategy", {"use": "features", **options})
    return strategy(spec, split, run=run)


@pytest.mark.parametrize("level", ["V0", "V1", "V2", "V0-stats"])
def test_atomsets_learns_on_any_network_with_features(parent, split, tmp_path, level):
    run = Run(tmp_path / "run", training=OPTIONS)
    model = learn(ATOMSETS, split, run, parent=str(parent), level=level)
    found = model.predict(split.test).mean["energy"]
    assert np.isfinite(found).all()
    saved = load_artifact(save_artifact(model, tmp_path / "child"))
    assert saved.manifest["lineage"]["level"] == level
    np.testing.assert_array_equal(saved.model.predict(split.test).mean["energy"], found)


def test_a_model_of_tables_reads_the_same_features(parent, split, tmp_path):
    pytest.importorskip("sklearn")
    run = Run(tmp_path / "run", training=OPTIONS)
    forest = Spec("random_forest", {"targets": ["energy"], "n_trees": 10})
    model = learn(forest, split, run, parent=str(parent), level="V1")
    found = model.predict(split.test).mean["energy"]
    saved = load_artifact(save_artifact(model, tmp_path / "child", spec=forest_spec(model, forest)))
    np.testing.assert_array_equal(saved.model.predict(split.test).mean["energy"], found)


def forest_spec(model, spec):
    return getattr(model, "spec", None) or spec


def test_features_are_kept_for_the_next_run(parent, split, tmp_path):
    cache = tmp_path / "cache"
    for name in ("first", "second"):
        run = Run(tmp_path / name, training=OPTIONS)
        learn(ATOMSETS, split, run, parent=str(parent), level="V1", cache=str(cache))
        files = {p: p.stat().st_mtime_ns for p in cache.rglob("V1.npy")}
        if name == "first":
            before = files
    assert len(before) == 2  # training and validation
    assert files == before


def test_the_control_runs_without_the_parent(parent, split, tmp_path):
    run = Run(tmp_path / "run", training=OPTIONS)
    model = learn(ATOMSETS, split, run, parent=str(parent), level="V1", control=True)
    assert (tmp_path / "run" / "control" / "metrics.jsonl").is_file()
    assert set(model.lineage["control"]) == {"without_parent", "with_parent"}


def test_the_parent_is_not_changed(parent, split, tmp_path):
    before = {n: p.clone() for n, p in load_artifact(parent).model.potential.state_dict().items()}
    learn(ATOMSETS, split, Run(tmp_path / "run", training=OPTIONS), parent=str(parent), level="V2")
    after = load_artifact(parent).model.potential.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize(
    ("spec", "options", "error", "text"),
    [
        (ATOMSETS, {"level": "u1"}, CapabilityError, r"no features 'u1'; it has V0, V1, V2"),
        (ATOMSETS.replace(level="V2", parent="x"), {"level": "V1"}, OptionError, "strategy only"),
        (Spec("painn", PAINN), {"level": "V1"}, CapabilityError, "mode: head"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    parent, split, tmp_path, spec, options, error, text
):
    folder = Path(tmp_path / "run")
    with pytest.raises(error, match=text):
        learn(spec, split, Run(folder, training=OPTIONS), parent=str(parent), **options)
    assert not folder.exists()


def test_elements_that_the_parent_lacks_are_named(parent, make_metals, tmp_path):
    from ase.build import bulk

    from epitaxy import Dataset, Entry

    entries = [
        Entry.from_atoms(bulk("Fe", a=2.8 + 0.01 * k), targets={"energy": -8.0}, id=f"fe{k}")
        for k in range(6)
    ]
    iron = split_random(Dataset.from_entries(entries), valid=2, test=0, seed=0)
    for level in ("V0", "V1"):
        with pytest.raises(CapabilityError, match="not seen Fe"):
            learn(ATOMSETS, iron, Run(tmp_path / "run"), parent=str(parent), level=level)
