"""AtomSets has the paper's sizes, learns on formulas and structures, and is saved whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from epitaxy.artifact import load_artifact, save_artifact
from epitaxy.composition import composition_entry
from epitaxy.dataset import Dataset
from epitaxy.errors import CapabilityError, ConfigError, OptionError
from epitaxy.run import Run
from epitaxy.training.options import TrainingOptions
from epitaxy_atomsets.inputs import elements_of, statistics
from epitaxy_atomsets.model import AtomSets
from epitaxy_atomsets.network import AtomSetsNetwork, Readout, Sets

STRUCTURE_LEVELS = ("u1", "u2", "u3", "v_r", "f")


def mae(model: AtomSets, dataset: Dataset, name: str) -> float:
    return float(np.abs(model.predict(dataset).mean[name] - dataset.target(name)[0]).mean())


def spread(dataset: Dataset, name: str) -> float:
    values = dataset.target(name)[0]
    return float(np.abs(values - values.mean()).mean())


@pytest.mark.parametrize(
    ("level", "n_parameters"),
    [(None, 17_697), ("V0", 13_633), ("V1", 14_657), ("V2", 14_657), ("V3", 14_657)],
)
def test_parameters_are_those_of_the_paper(
    level: str | None,
    n_parameters: int,
    parent: Path,
    salts: Dataset,
    tmp_path: Path,
) -> None:
    model = AtomSets(targets=["formation_energy"], parent=parent if level else None, level=level)
    run = Run(tmp_path, training=TrainingOptions(epochs=1))
    model.fit(salts[:40], salts[40:], run=run)
    assert model.network.n_parameters() == n_parameters


@pytest.mark.parametrize(
    ("level", "readout"),
    [
        ("V0", "mean"),
        ("V0", "set2set"),
        ("V1", "mean"),
        ("V1", "set2set"),
        ("V3", "mean"),
        *((level, "mean") for level in (*STRUCTURE_LEVELS, "V0-stats")),
    ],
)
def test_every_variant_learns(
    level: str,
    readout: str,
    parent: Path,
    salts: Dataset,
    training: TrainingOptions,
    tmp_path: Path,
) -> None:
    order = np.random.default_rng(1).permutation(len(salts))
    model = AtomSets(
        targets=["formation_energy"],
        parent=parent,
        level=level,
        readout=readout,  # type: ignore[arg-type]
        n_hidden=32,
        standardise=True,  # this parent has hardly learnt anything
    )
    model.fit(salts[order[:36]], salts[order[36:]], run=Run(tmp_path / "run", training=training))
    assert mae(model, salts, "formation_energy") < 0.5 * spread(salts, "formation_energy")
    assert model.capabilities.composition_only == level.startswith("V0")


def test_formulas_are_learnt_without_and_with_a_parent(
    parent: Path, formulas: Dataset, training: TrainingOptions, tmp_path: Path
) -> None:
    for level in (None, "V0"):
        model = AtomSets(
            parent=parent if level else None, level=level, activation="softplus", standardise=True
        )
        model.fit(formulas[:45], formulas[45:], run=Run(tmp_path / f"{level}", training=training))
        assert model.capabilities.targets == ("band_gap",)
        assert mae(model, formulas, "band_gap") < 0.5 * spread(formulas, "band_gap")


def test_a_claim_is_learnt_as_a_probability(
    parent: Path, salts: Dataset, training: TrainingOptions, tmp_path: Path
) -> None:
    model = AtomSets(targets=["is_metal"], parent=parent, level="V1")
    metrics = model.fit(salts, salts[:12], run=Run(tmp_path, training=training))
    found = model.predict(salts).mean["is_metal"]
    assert ((found >= 0) & (found <= 1)).all()
    assert 0 <= metrics["valid_is_metal_accuracy"] <= 1


@pytest.mark.parametrize("level", [None, "V0", "V0-stats", "V2", "f"])
def test_an_artifact_needs_nothing_else(
    level: str | None, parent: Path, salts: Dataset, tmp_path: Path
) -> None:
    moved = tmp_path / "parent"
    shutil.copytree(parent, moved)
    model = AtomSets(
        targets=["formation_energy"],
        parent=moved if level else None,
        level=level,
        cache=tmp_path / "cache",
    )
    run = Run(tmp_path / "run", training=TrainingOptions(epochs=2))
    model.fit(salts[:40], salts[40:], run=run)
    expected = model.predict(salts).mean["formation_energy"]
    artifact = save_artifact(model, tmp_path / "artifact", run=run)
    shutil.rmtree(moved)
    loaded = load_artifact(artifact)
    np.testing.assert_array_equal(loaded.model.predict(salts).mean["formation_energy"], expected)
    assert (loaded.manifest["lineage"] or {}).get("level") == level
    again = save_artifact(loaded.model, tmp_path / "again")
    same = load_artifact(again).model.predict(salts).mean["formation_energy"]
    np.testing.assert_array_equal(same, expected)


@pytest.mark.parametrize("readout", ["mean", "set2set"])
def test_the_order_and_number_of_formula_units_do_not_matter(
    readout: Readout, training: TrainingOptions, tmp_path: Path
) -> None:
    words = ["Fe2O3", "O3Fe2", "Fe4O6", "Fe0.4O0.6", "FeO"]
    entries = [
        composition_entry(word, targets={"band_gap": float(i == 4)}, id=f"{i}")
        for i, word in enumerate(words)
    ]
    dataset = Dataset.from_entries(entries)
    model = AtomSets(readout=readout, n_hidden=16, initial="normal")
    model.fit(dataset, dataset, run=Run(tmp_path, training=training))
    found = model.predict(dataset).mean["band_gap"]
    np.testing.assert_allclose(found[:4], found[0], rtol=1e-6)
    assert abs(found[4] - found[0]) > 1e-4


def test_weights_count_as_copies() -> None:
    torch.manual_seed(0)
    options = {"phi": (8,), "rho": (8,), "activation": "softplus", "n_steps": 3, "n_hidden": 16}
    x = torch.randn(2, 4)
    for readout in ("mean", "set2set"):
        network = AtomSetsNetwork(4, readout=readout, **options)  # type: ignore[arg-type]
        weighted = Sets(x, torch.tensor([1.0, 2.0]), torch.zeros(2, dtype=torch.int64), 1)
        copies = Sets(x[[0, 1, 1]], torch.ones(3), torch.zeros(3, dtype=torch.int64), 1)
        torch.testing.assert_close(network(weighted), network(copies))


def test_statistics_of_a_composition() -> None:
    table = np.full((119, 1), np.nan)
    table[[8, 13, 26]] = [[1.0], [4.0], [2.0]]
    entry = composition_entry("Fe2Al2O6", targets={"band_gap": 1.0})
    found = statistics(elements_of(Dataset.from_entries([entry])), table)
    mean = 0.6 * 1 + 0.2 * 4 + 0.2 * 2
    deviation = 0.6 * abs(1 - mean) + 0.2 * abs(4 - mean) + 0.2 * abs(2 - mean)
    np.testing.assert_allclose(found[0], [1, 4, 3, mean, deviation, 1], rtol=1e-6)


def test_a_frozen_embedding_stays(formulas: Dataset, tmp_path: Path) -> None:
    model = AtomSets(tune=False, initial="normal")
    model.fit(formulas[:45], formulas[45:], run=Run(tmp_path, training=TrainingOptions(epochs=2)))
    assert model.network.n_parameters() == 17_697 - 95 * 32
    assert model.network.embedding is not None
    assert 0.8 < float(model.network.embedding.weight.std()) < 1.2


def test_unseen_elements_are_named(formulas: Dataset, parent: Path, tmp_path: Path) -> None:
    iron = Dataset.from_entries([composition_entry("FeCl3", targets={"band_gap": 1.0})])
    for level in (None, "V0"):
        options = {"parent": parent if level else None, "level": level}
        refusing = AtomSets(targets=["band_gap"], **options)  # type: ignore[arg-type]
        refusing.fit(formulas[:45], formulas[45:], run=Run(tmp_path / f"a{level}", training=SHORT))
        with pytest.raises(CapabilityError, match="Fe"):
            refusing.predict(iron)
        guessing = AtomSets(targets=["band_gap"], unseen="initialise", **options)  # type: ignore[arg-type]
        guessing.fit(formulas[:45], formulas[45:], run=Run(tmp_path / f"b{level}", training=SHORT))
        assert np.isfinite(guessing.predict(iron).mean["band_gap"]).all()


SHORT = TrainingOptions(epochs=1)


def test_what_does_not_fit_is_refused_before_any_work(
    formulas: Dataset, salts: Dataset, parent: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="together"):
        AtomSets(level="V1")
    with pytest.raises(OptionError, match="forces"):
        AtomSets(targets=["forces"])
    run = Run(tmp_path / "run")
    with pytest.raises(CapabilityError, match="no structure"):
        AtomSets(parent=parent, level="V1").fit(formulas, formulas, run=run)
    with pytest.raises(CapabilityError, match="no features 'V9'"):
        AtomSets(targets=["formation_energy"], parent=parent, level="V9").fit(salts, salts, run=run)
    with pytest.raises(ConfigError, match="name the one to learn"):
        AtomSets().fit(salts, salts, run=run)
    assert not (tmp_path / "run").exists()


def test_training_resumes_where_it_was(
    parent: Path, salts: Dataset, training: TrainingOptions, tmp_path: Path
) -> None:
    found = []
    for name, steps in (("whole", (6,)), ("halves", (3, 6))):
        for epochs in steps:
            model = AtomSets(targets=["formation_energy"], parent=parent, level="V1")
            options = training.replace(epochs=epochs)
            run = Run(tmp_path / name, training=options, resume=True)
            model.fit(salts[:40], salts[40:], run=run)
        found.append(model.predict(salts).mean["formation_energy"])
    np.testing.assert_array_equal(*found)


def test_double_precision_works_end_to_end(parent: Path, salts: Dataset, tmp_path: Path) -> None:
    found = []
    for dtype in ("float32", "float64"):
        model = AtomSets(targets=["formation_energy"], parent=parent, level="V1")
        run = Run(tmp_path / dtype, dtype=dtype, training=SHORT)  # type: ignore[arg-type]
        model.fit(salts[:40], salts[40:], run=run)
        assert next(model.network.parameters()).dtype == getattr(torch, dtype)
        found.append(model.predict(salts).mean["formation_energy"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
