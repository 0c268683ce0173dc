"""The random forest as arrays against scikit-learn, saved without pickle, with honest spread."""

from pathlib import Path

import numpy as np
import pytest

from epitaxy.composition import composition_entry
from epitaxy.dataset import Dataset
from epitaxy.errors import CapabilityError, ConfigError
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy_tabular.tabular_model import TabularModel

REGISTRY = Registry.from_entry_points()
NONE = slice(0, 0)


def oxides(n: int = 120, *, seed: int = 0) -> Dataset:
    """Return formulas whose gap grows with oxygen and shrinks with iron."""
    rng = np.random.default_rng(seed)
    entries = []
    for index in range(n):
        a, b, o = (int(x) for x in rng.integers(1, 9, 3))
        total = a + b + o
        gap = 6.0 * o / total - 2.0 * b / total + 0.05 * float(rng.normal())
        entries.append(
            composition_entry(
                f"Ti{a}Fe{b}O{o}",
                targets={"band_gap": gap, "is_metal": float(gap < 1.0)},
                id=str(index),
            )
        )
    return Dataset.from_entries(entries)


def trained(dataset: Dataset, folder: Path, **options: object) -> TabularModel:
    spec = {"use": "random_forest", "n_trees": 20, **options}
    model = build_model(Spec.from_config(spec), REGISTRY)
    assert isinstance(model, TabularModel)
    model.fit(dataset, dataset[NONE], run=Run(folder, seed=3, registry=REGISTRY))
    return model


def test_several_targets_are_learnt_a_claim_as_a_probability(tmp_path: Path) -> None:
    data = oxides()
    model = trained(data[:100], tmp_path)
    found = model.predict(data[100:])
    gap, metal = (data[100:].target(name)[0] for name in ("band_gap", "is_metal"))
    assert np.abs(found.mean["band_gap"] - gap).mean() < 0.4 * np.abs(gap - gap.mean()).mean()
    assert ((found.mean["is_metal"] > 0.5) == metal).mean() > 0.8
    assert found.mean["is_metal"].min() >= 0
    assert found.mean["is_metal"].max() <= 1
    assert set(found.std or {}) == {"band_gap"}
    assert model.capabilities.composition_only
    assert model.capabilities.elements == {8, 22, 26}


def test_loading_what_was_saved_gives_the_same_bits_without_a_pickle(tmp_path: Path) -> None:
    data = oxides()
    model = trained(data[:100], tmp_path / "run")
    place = tmp_path / "model"
    place.mkdir()
    model.save(place)
    assert [path.name for path in place.iterdir()] == ["weights.safetensors"]
    before, after = model.predict(data), TabularModel.load(place, registry=REGISTRY).predict(data)
    for name in before.mean:
        assert np.array_equal(before.mean[name], after.mean[name])
    assert before.std is not None
    assert after.std is not None
    assert np.array_equal(before.std["band_gap"], after.std["band_gap"])


def test_the_spread_is_that_of_the_trees_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestRegressor

    from epitaxy_tabular.learner import sklearn_seed

    data = oxides()
    run = Run(tmp_path, seed=3, registry=REGISTRY)
    model = trained(data[:100], tmp_path, targets=["band_gap"])
    table = REGISTRY.build("featurizer", "element_statistics").matrix(data)
    table = table[:, (table[:100] != table[:1]).any(axis=0)]
    forest = RandomForestRegressor(
        n_estimators=20, max_features=0.33, random_state=sklearn_seed(run, "forest band_gap")
    )
    forest.fit(table[:100], data[:100].target("band_gap")[0])
    each = np.array([tree.predict(table) for tree in forest.estimators_])
    found = model.predict(data)
    assert np.allclose(found.mean["band_gap"], each.mean(axis=0), rtol=1e-12)
    assert found.std is not None
    assert np.allclose(found.std["band_gap"], each.std(axis=0), atol=1e-9)


def test_the_same_seed_gives_the_same_forest_whatever_the_threads(tmp_path: Path) -> None:
    from epitaxy.training.options import TrainingOptions

    data = oxides()
    found = []
    for n_threads in (1, 2):
        model = build_model(Spec.from_config({"use": "random_forest", "n_trees": 12}), REGISTRY)
        options = TrainingOptions(n_threads=n_threads)
        model.fit(data, data[NONE], run=Run(tmp_path / str(n_threads), training=options))
        found.append(model.predict(data).mean["band_gap"])
    assert np.array_equal(*found)


def test_missing_labels_are_left_out(tmp_path: Path) -> None:
    data = oxides()
    values, mask = data.target("band_gap")
    values, mask = values.copy(), mask.copy()
    values[:40], mask[:40] = 1e6, False
    model = trained(data.with_target("band_gap", values, mask), tmp_path)
    assert model.predict(data).mean["band_gap"].max() < 10


def test_an_element_that_was_not_trained_is_refused_or_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = oxides()
    other = Dataset.from_entries([composition_entry("ZrO2", targets={"band_gap": 1.0})])
    one_hot = trained(data, tmp_path / "1", features="element_fractions")
    with pytest.raises(CapabilityError, match="no training entry held Zr"):
        one_hot.predict(other)
    assert np.isfinite(trained(data, tmp_path / "2").predict(other).mean["band_gap"]).all()
    assert "held Zr: predictions for them extrapolate" in caplog.text
    with pytest.raises(CapabilityError, match="Zr"):
        trained(data, tmp_path / "3", unseen="refuse").predict(other)


def test_structures_and_formulas_are_the_same_to_it(tmp_path: Path) -> None:
    from ase.build import bulk

    from epitaxy.entry import Entry

    model = trained(oxides(), tmp_path, targets=["band_gap"], unseen="warn")
    rock = Dataset.from_entries([Entry.from_atoms(bulk("FeO", "rocksalt", a=4.3) * (2, 1, 1))])
    formula = Dataset.from_entries([composition_entry("FeO", targets={})])
    assert model.predict(rock).mean["band_gap"] == model.predict(formula).mean["band_gap"]


def test_an_extensive_target_is_learnt_per_atom(tmp_path: Path) -> None:
    entries = [
        composition_entry(f"Ti{a}O{b}", targets={"energy": -8.0 * a - 5.0 * b}, id=f"{a}-{b}")
        for a in range(1, 9)
        for b in range(1, 9)
        if np.gcd(a, b) == 1
    ]
    data = Dataset.from_entries(entries)
    model = trained(data, tmp_path)
    energy = data.target("energy")[0]
    assert np.allclose(model.predict(data).mean["energy"], energy, rtol=0.1)


def test_a_wrong_target_is_named_before_any_work(tmp_path: Path) -> None:
    data = oxides()
    with pytest.raises(ConfigError, match="forces is not one number per structure"):
        build_model(Spec.from_config({"use": "random_forest", "targets": ["forces"]}), REGISTRY)
    with pytest.raises(ConfigError, match="none of the 120 training entries has bulk_modulus"):
        trained(data, tmp_path, targets=["bulk_modulus"])
    wrong = data.with_target("is_metal", np.full(120, 0.5))
    with pytest.raises(ConfigError, match=r"labels must be 0 or 1; the training set has 0\.5"):
        trained(wrong, tmp_path, targets=["is_metal"])


def test_growing_stops_when_the_time_is_over(tmp_path: Path) -> None:
    from epitaxy.training.options import TrainingOptions

    model = build_model(Spec.from_config({"use": "random_forest", "n_trees": 50}), REGISTRY)
    data = oxides()
    options = TrainingOptions(max_seconds=1e-9)
    model.fit(data, data[NONE], run=Run(tmp_path, training=options))
    place = tmp_path / "model"
    place.mkdir(parents=True)
    model.save(place)
    from epitaxy_tabular.saved import read_arrays

    assert len(read_arrays(place)[1]["band_gap/roots"]) == 5


def test_an_entry_is_predicted_alone_as_among_others(tmp_path: Path) -> None:
    data = oxides()
    model = trained(data, tmp_path)
    found = model.predict(data)
    alone = model.predict(data[7:8])
    for name in ("band_gap", "is_metal"):
        assert alone.mean[name][0] == found.mean[name][7]
    assert alone.std is not None
    assert found.std is not None
    assert alone.std["band_gap"][0] == found.std["band_gap"][7]
    assert 0 <= found.mean["is_metal"].min() <= found.mean["is_metal"].max() <= 1
