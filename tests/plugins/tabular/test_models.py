"""Boosting, perceptron, line and mean: against scikit-learn, on real data, saved to the bit."""

from pathlib import Path

import numpy as np
import pytest

from epitaxy.artifact import load_artifact, save_artifact
from epitaxy.composition import composition_entry
from epitaxy.dataset import Dataset
from epitaxy.errors import OptionError
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import Split
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()
TABLES = Path(__file__).parents[4] / "shared" / "data" / "composition_tables" / "matbench"
needs_tables = pytest.mark.skipif(
    not TABLES.exists(), reason="needs ../shared/data/composition_tables"
)
MODELS = ("random_forest", "gradient_boosting", "mlp", "linear", "dummy")
QUICK: dict[str, dict[str, object]] = {
    "random_forest": {"n_trees": 20},
    "gradient_boosting": {"n_trees": 75},
    "mlp": {"hidden": [16]},
}
TRAINING = TrainingOptions(epochs=30, batch_size=16, lr=0.01)


def oxides(n: int = 150, *, seed: int = 0) -> Dataset:
    """Return formulas whose gap is linear in the fractions, with a claim and a little noise."""
    rng = np.random.default_rng(seed)
    entries = []
    for index in range(n):
        a, b, o = (int(x) for x in rng.integers(1, 9, 3))
        gap = (6.0 * o - 2.0 * b) / (a + b + o) + 0.05 * float(rng.normal())
        targets = {"band_gap": gap, "is_metal": float(gap < 1.0)}
        entries.append(composition_entry(f"Ti{a}Fe{b}O{o}", targets=targets, id=str(index)))
    return Dataset.from_entries(entries)


def split(data: Dataset) -> Split:
    n = len(data)
    rows = np.arange(n)
    return Split(data, train=rows[: n - 50], valid=rows[n - 50 : n - 25], test=rows[n - 25 :])


def test_a_card_names_only_the_training_options_that_a_model_follows(tmp_path: Path) -> None:
    parts = split(oxides())
    run = Run(tmp_path / "run", training=TRAINING, registry=REGISTRY)
    for name, line in (
        ("linear", "- training: seed 0"),
        ("mlp", "- training: epochs 30, batch_size 16, lr 0.01, weight_decay 0.0, seed 0"),
    ):
        spec = Spec(name, QUICK.get(name, {}))
        model = build_model(spec, REGISTRY)
        model.fit(parts.train, parts.valid, run=run)
        path = save_artifact(model, tmp_path / name, spec=spec, split=parts, run=run)
        again = save_artifact(load_artifact(path).model, tmp_path / f"{name}-2", spec=spec, run=run)
        for card in (path / "card.md", again / "card.md"):
            assert line in card.read_text().splitlines()


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_predicts_the_same_bits(name: str, tmp_path: Path) -> None:
    parts = split(oxides())
    spec = Spec.from_config({"use": name, **QUICK.get(name, {})})
    run = Run(tmp_path / "run", training=TRAINING, registry=REGISTRY)
    model = build_model(spec, REGISTRY)
    model.fit(parts.train, parts.valid, run=run)
    path = save_artifact(model, tmp_path / "model", spec=spec, split=parts, run=run)
    again = load_artifact(path).model
    before, after = model.predict(parts.test).mean, again.predict(parts.test).mean
    for target in ("band_gap", "is_metal"):
        assert np.array_equal(before[target], after[target])
    files = {file.suffix for file in path.rglob("*") if file.is_file()}
    assert files == {".safetensors", ".json", ".md"}


@pytest.mark.parametrize("name", MODELS[:-1])
def test_every_model_beats_the_mean(name: str, tmp_path: Path) -> None:
    parts = split(oxides())
    model = build_model(Spec.from_config({"use": name, **QUICK.get(name, {})}), REGISTRY)
    model.fit(parts.train, parts.valid, run=Run(tmp_path, training=TRAINING, registry=REGISTRY))
    found = model.predict(parts.test).mean
    gap, metal = (parts.test.target(target)[0] for target in ("band_gap", "is_metal"))
    by_mean = np.abs(gap - parts.train.target("band_gap")[0].mean()).mean()
    assert np.abs(found["band_gap"] - gap).mean() < 0.35 * by_mean
    assert ((found["is_metal"] > 0.5) == metal).mean() >= 0.8


def test_the_line_finds_the_coefficients_behind_the_data(tmp_path: Path) -> None:
    parts = split(oxides())
    model = build_model(
        Spec.from_config({"use": "linear", "features": "element_fractions", "alpha": [1e-9]}),
        REGISTRY,
    )
    model.fit(parts.train, parts.valid, run=Run(tmp_path, registry=REGISTRY))
    unary = Dataset.from_entries([composition_entry(x, targets={}) for x in ("O2", "Fe", "Ti")])
    assert np.allclose(model.predict(unary).mean["band_gap"], [6.0, -2.0, 0.0], atol=0.15)


def test_boosting_keeps_the_trees_that_are_best_on_the_validation_set(tmp_path: Path) -> None:
    from epitaxy_tabular.saved import read_arrays

    parts = split(oxides())
    spec = {"use": "gradient_boosting", "n_trees": 300, "patience": 50, "learning_rate": 0.3}
    model = build_model(Spec.from_config(spec), REGISTRY)
    model.fit(parts.train, parts.valid, run=Run(tmp_path / "run", registry=REGISTRY))
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    n_trees = len(read_arrays(tmp_path / "model")[1]["band_gap/roots"])
    assert 0 < n_trees < 300


def test_the_perceptron_keeps_the_best_weights_and_stops(tmp_path: Path) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.losses: list[float] = []

        def epoch_finished(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
            self.losses.append(metrics["valid_loss"])

    parts, watcher = split(oxides()), Watcher()
    model = build_model(
        Spec.from_config({"use": "mlp", "hidden": [16], "targets": ["band_gap"]}), REGISTRY
    )
    options = TRAINING.replace(epochs=400, lr=0.05, patience=5)
    run = Run(tmp_path, training=options, registry=REGISTRY, observers=[watcher])
    metrics = model.fit(parts.train, parts.valid, run=run)
    assert len(watcher.losses) < 400
    assert metrics["valid_band_gap_rmse"] ** 2 == pytest.approx(min(watcher.losses))


def test_the_seed_decides(tmp_path: Path) -> None:
    parts = split(oxides())
    found = []
    for seed in (1, 1, 2):
        model = build_model(Spec.from_config({"use": "random_forest", "n_trees": 5}), REGISTRY)
        model.fit(parts.train, parts.valid, run=Run(tmp_path, seed=seed, registry=REGISTRY))
        found.append(model.predict(parts.test).mean["band_gap"])
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_a_claim_with_one_class_is_that_class(tmp_path: Path) -> None:
    data = oxides().with_target("is_metal", np.ones(150))
    model = build_model(Spec.from_config({"use": "gradient_boosting", "n_trees": 25}), REGISTRY)
    model.fit(data[:100], data[100:], run=Run(tmp_path, registry=REGISTRY))
    assert (model.predict(data).mean["is_metal"] == 1.0).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "random_forest", "max_features": 1.5}, r"max_features=1\.5"),
        ({"use": "gradient_boosting", "max_leaves": 1}, "max_leaves=1"),
        ({"use": "linear", "alpha": [0.0]}, "above 0"),
        ({"use": "mlp", "hidden": []}, "one or more widths"),
    ],
)
def test_options_out_of_range_are_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_model(Spec.from_config(spec), REGISTRY)


@needs_tables
def test_steels_are_learnt_as_well_as_published(tmp_path: Path) -> None:
    # MatBench's leaderboard, matbench_steels: RF-SCM/Magpie 103.5 MPa, mean 229.7 MPa
    from epitaxy.folds import matbench_folds
    from epitaxy_benchmarks.composition_table import CompositionTableSource

    data = Dataset.from_entries(CompositionTableSource(path=TABLES / "steels_yield.csv.xz"))
    train, test = matbench_folds(len(data))[0]
    model = build_model(Spec.from_config({"use": "random_forest", "n_trees": 50}), REGISTRY)
    model.fit(data[train], data[slice(0, 0)], run=Run(tmp_path, registry=REGISTRY))
    strength = data[test].target("yield_strength")[0]
    error = np.abs(model.predict(data[test]).mean["yield_strength"] - strength).mean()
    assert error < 130


@pytest.mark.parametrize("name", MODELS[:-1])
def test_every_fit_is_followed_in_the_journal_that_report_reads(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from epitaxy.cli import main
    from epitaxy.training.journal import read_journal

    parts = split(oxides())
    options = {**QUICK.get(name, {}), "targets": ["band_gap"]}
    model = build_model(Spec.from_config({"use": name, **options}), REGISTRY)
    metrics = model.fit(
        parts.train, parts.valid, run=Run(tmp_path, training=TRAINING, registry=REGISTRY)
    )
    lines = read_journal(tmp_path / "metrics.jsonl")
    epochs = [line["epoch"] for line in lines]
    assert epochs == sorted(set(epochs))
    best = min(line["valid_loss"] for line in lines)
    assert metrics["valid_band_gap_rmse"] ** 2 <= 1.5 * best
    assert main(["report", str(tmp_path)]) == 0
    assert "valid loss" in capsys.readouterr().out
