"""Features of a parent are computed once, and refused by name where there are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from epitaxy import Entry
from epitaxy.dataset import Dataset
from epitaxy.errors import ArtifactError, CapabilityError, ConfigError, EpitaxyError
from epitaxy.hierarchy import Parent, hierarchical_features
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.training.options import TrainingOptions
from epitaxy_atomsets.featurizer import ParentFeatures
from epitaxy_atomsets.model import AtomSets

LEVELS = ("V0", "V1", "V2", "V3", "u1", "u2", "u3", "v_r", "f")


@pytest.fixture
def notes() -> list[str]:
    return []


def test_a_megnet_has_all_levels_of_the_paper(parent: Path, salts: Dataset) -> None:
    opened = Parent.open(parent)
    assert tuple(opened.levels) == LEVELS
    found = hierarchical_features(opened, salts, levels=LEVELS)
    n_atoms = int(salts.n_atoms.sum())
    widths = {name: x.shape for name, x in found.items()}
    assert widths["V0"] == (n_atoms, 16)
    assert {widths[f"V{k}"] for k in (1, 2, 3)} == {(n_atoms, 32)}
    assert {widths[name] for name in ("u1", "u2", "u3", "v_r")} == {(len(salts), 32)}
    assert widths["f"] == (len(salts), 96)


def test_v0_is_the_vector_of_the_element(parent: Path, salts: Dataset) -> None:
    opened = Parent.open(parent)
    v0 = hierarchical_features(opened, salts, levels=["V0"])["V0"]
    table = opened.of_elements()
    np.testing.assert_allclose(v0, table[salts.gather().numbers], rtol=1e-6)
    assert np.isnan(table[26]).all()  # iron is not in the salts


def test_features_are_computed_once(
    parent: Path, salts: Dataset, tmp_path: Path, notes: list[str]
) -> None:
    opened = Parent.open(parent)
    fresh = hierarchical_features(opened, salts, levels=["V1", "f"])
    for _ in range(2):
        kept = hierarchical_features(
            opened, salts, levels=["V1", "f"], cache=tmp_path, tell=notes.append
        )
        assert isinstance(kept["V1"], np.memmap)
        for name, values in fresh.items():
            np.testing.assert_array_equal(kept[name], values)
    assert len(notes) == 1


def test_a_selection_finds_the_features_of_the_whole(
    parent: Path, salts: Dataset, tmp_path: Path, notes: list[str]
) -> None:
    opened = Parent.open(parent)
    cached = {"cache": tmp_path, "tell": notes.append}
    hierarchical_features(opened, salts[:30], levels=["V2", "u1"], **cached)  # type: ignore[arg-type]
    rows = np.array([40, 3, 3, 17, 29, 0])
    kept = hierarchical_features(opened, salts[rows], levels=["V2", "u1"], **cached)  # type: ignore[arg-type]
    fresh = hierarchical_features(opened, salts[rows], levels=["V2", "u1"])
    for name, values in fresh.items():
        np.testing.assert_allclose(kept[name], values, atol=1e-6)
    assert "of 1 structures" in notes[1]  # only the one that was not there


def test_a_damaged_file_is_made_anew(parent: Path, salts: Dataset, tmp_path: Path) -> None:
    opened = Parent.open(parent)
    whole = np.array(hierarchical_features(opened, salts, levels=["f"], cache=tmp_path)["f"])
    (file,) = tmp_path.rglob("f.npy")
    file.write_bytes(file.read_bytes()[:1000])
    again = hierarchical_features(opened, salts, levels=["f"], cache=tmp_path)["f"]
    np.testing.assert_array_equal(again, whole)


def test_what_a_parent_lacks_is_named(parent: Path, salts: Dataset, formulas: Dataset) -> None:
    opened = Parent.open(parent)
    with pytest.raises(CapabilityError, match=r"no features 'V7'; it has V0, V1"):
        opened.check(salts, ["V7"])
    iron = Dataset.from_entries([Entry.from_atoms(bulk("Fe"), targets={}, id="iron")])
    with pytest.raises(CapabilityError, match="has not seen Fe"):
        hierarchical_features(opened, iron, levels=["V1"])
    with pytest.raises(CapabilityError, match="no structure"):
        hierarchical_features(opened, formulas, levels=["V1"])


def test_a_model_without_features_is_refused(formulas: Dataset, tmp_path: Path) -> None:
    model = AtomSets(targets=["band_gap"])
    run = Run(tmp_path, training=TrainingOptions(epochs=1))
    model.fit(formulas[:40], formulas[40:], run=run)
    with pytest.raises(CapabilityError, match="no features to learn from"):
        Parent(model)


def test_a_cache_needs_a_parent_with_a_digest(parent: Path, salts: Dataset, tmp_path: Path) -> None:
    nameless = Parent(Parent.open(parent).model)
    with pytest.raises(ConfigError, match="save it as an artifact"):
        hierarchical_features(nameless, salts, levels=["V1"], cache=tmp_path)


def test_a_table_of_features_averages_atoms(parent: Path, salts: Dataset) -> None:
    matrix = ParentFeatures(parent=parent, level="V1").matrix(salts)
    atoms = hierarchical_features(Parent.open(parent), salts, levels=["V1"])["V1"]
    np.testing.assert_allclose(matrix[3], atoms[6:8].mean(axis=0), rtol=1e-5)


def test_a_formula_and_its_structure_have_the_same_v0(
    parent: Path, salts: Dataset, formulas: Dataset
) -> None:
    features = ParentFeatures(parent=parent, level="V0")
    assert features.matrix(formulas).shape == (60, 16)
    sodium_chloride = next(i for i, name in enumerate(salts.ids) if name == "NaCl-0")
    table = Parent.open(parent).of_elements()
    np.testing.assert_allclose(
        features.matrix(salts)[sodium_chloride], (table[11] + table[17]) / 2, rtol=1e-5
    )


def test_features_of_another_parent_are_refused(parent: Path) -> None:
    features = ParentFeatures(parent=parent, level="V1")
    state = features.state()
    features.restore(state)
    state["parent"] = state["parent"][::-1].copy()
    with pytest.raises(ArtifactError, match="not the one"):
        features.restore(state)


def test_a_table_of_a_parent_that_does_not_fit_is_refused_before_training(
    parent: Path, salts: Dataset, formulas: Dataset, tmp_path: Path
) -> None:
    def features(**options: str) -> Any:
        given = {"use": "parent_features", "parent": str(parent), "level": "V1", **options}
        spec = {"use": "random_forest", "targets": ["formation_energy"], "features": given}
        return build_model(Spec.from_config(spec), Registry.from_entry_points())

    run = Run(tmp_path / "run")
    features().check_data(salts[:8], salts[8:12], run=run)
    for options, other, message in (
        ({"parent": str(tmp_path / "nowhere")}, salts, "nowhere is not an artifact"),
        ({"level": "V9"}, salts, "no features 'V9'"),
        ({}, formulas, "no structure"),
    ):
        with pytest.raises(EpitaxyError, match=message):
            features(**options).check_data(salts[:8], other[:4], run=run)
    assert not (tmp_path / "run").exists()
