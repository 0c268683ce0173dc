"""The configs under docs/examples and docs/experiments are valid, and train on what they say."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from epitaxy.artifact import load_artifact
from epitaxy.cli import all_verbs, main
from epitaxy.config import Config, load_config
from epitaxy.cross_database import load_cross
from epitaxy.learning_curve import load_curve
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.training.optimizers import check_training

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))
EXPERIMENTS = sorted((ROOT / "docs" / "experiments").glob("*.yaml"))
SHARED = ROOT.parent / "shared" / "data"
MLEARN = SHARED / "mlearn"
REGISTRY = Registry.from_entry_points()


def trainings(path: Path) -> Sequence[Config]:
    """Read a config as its command would; return every training that it describes."""
    document = yaml.safe_load(path.read_text())
    if "learning_curve" in document:
        curve = load_curve(path, registry=REGISTRY)
        return [*curve.parents.values(), *curve.arms.values()]
    if "cross_database" in document:
        return [load_cross(path, registry=REGISTRY).training]
    return [load_config(path, registry=REGISTRY)]


@pytest.mark.parametrize("path", [*EXAMPLES, *EXPERIMENTS], ids=lambda path: path.stem)
def test_every_example_and_experiment_is_a_valid_config(path: Path) -> None:
    for config in trainings(path):
        assert config.output == f"runs/{path.stem}" or config.output.startswith("runs/")
        build_model(config.model, REGISTRY)
        REGISTRY.build("strategy", config.strategy)
        check_training(config.training)
        for place in (config.dataset, config.valid, config.test):
            if isinstance(place, dict):
                REGISTRY.resolve("source", place)


@pytest.mark.parametrize("path", [*EXAMPLES, *EXPERIMENTS], ids=lambda path: path.stem)
def test_every_config_says_which_commands_it_needs(path: Path) -> None:
    known = set(all_verbs()[0])
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    said = re.findall(r"\bepitaxy ([a-z-]+)\b", "\n".join(comments))
    if path.stem == "inter-property-parent":  # its child says it
        return
    assert said, "the header has no command"
    assert set(said) <= known
    assert f"docs/{path.parent.name}/{path.name}" in "\n".join(comments)


def quickly(verb: str, path: Path, *changes: str) -> int:
    words = [word for change in changes for word in ("--set", change)]
    return main([verb, str(path), *words, "-o", "run", "--quiet"])


@pytest.mark.slow
def test_the_silicon_example_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ROOT / "docs" / "examples" / "silicon.yaml"
    assert quickly("train", path, "training.epochs=2", "strategy.n_members=2") == 0
    assert load_artifact("run/artifact").manifest["n_members"] == 2


@pytest.mark.slow
def test_the_silicon_experiment_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ROOT / "docs" / "experiments" / "functionals-silicon.yaml"
    small = ("learning_curve.sizes=[5]", "learning_curve.seeds=1", "training.compile=false")
    assert quickly("learning-curve", path, "training.epochs=1", *small) == 0
    assert (tmp_path / "run" / "parents" / "LDA" / "artifact").is_dir()


@pytest.mark.slow
def test_the_experiment_of_many_sets_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oxides = SHARED / "oxide_polymorphs_4xc" / "supporting-information.json.xz"
    if not MLEARN.is_dir() or not oxides.exists():
        pytest.skip("needs mlearn and oxide_polymorphs_4xc in ../shared/data")
    monkeypatch.chdir(tmp_path)
    files = {
        **{e: f"{e}_training.json.xz" for e in ("Li", "Ge", "Si")},
        **{e: f"{e}_alignn_id_prop.json.xz" for e in ("Cu", "Ni")},
    }
    for name, file in files.items():
        words = [str(MLEARN / file), "-o", f"mlearn-{name}", "--tag", f"dataset={name}"]
        assert main(["ingest", *words]) == 0
    test = [str(MLEARN / "Si_test.json.xz"), "-o", "mlearn-Si-test", "--tag", "dataset=Si"]
    assert main(["ingest", *test]) == 0
    words = [str(oxides), "--option", "xc=PBE", "-o", "oxides", "--tag", "dataset=oxides"]
    assert main(["ingest", *words]) == 0
    path = ROOT / "docs" / "experiments" / "multitask.yaml"
    small = ("learning_curve.sizes=[4]", "learning_curve.seeds=1", "training.compile=false")
    budget = ("training.epochs=1", "learning_curve.arms.alone, as many steps.training.epochs=2")
    assert quickly("learning-curve", path, *budget, *small) == 0


@pytest.mark.slow
@pytest.mark.parametrize("element", ["Si", "Li", "Ge"])
def test_the_mlearn_example_trains_on_each_element_with_only_the_paths_changed(
    element: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not MLEARN.is_dir():
        pytest.skip("needs the mlearn files in ../shared/data/mlearn, which are not shipped")
    monkeypatch.chdir(tmp_path)
    for part in ("training", "test"):
        source = MLEARN / f"{element}_{part}.json.xz"
        assert main(["ingest", str(source), "-o", f"datasets/{element}-{part}"]) == 0
    changes = (
        f"dataset=datasets/{element}-training",
        f"test=datasets/{element}-test",
        "training.epochs=1",
        "training.compile=false",
        "strategy.n_members=2",
        "model.width=8",
    )
    arguments = [word for change in changes for word in ("--set", change)]
    config = ROOT / "docs" / "examples" / "mlearn.yaml"
    assert main(["train", str(config), *arguments, "-o", "run", "--quiet"]) == 0
    artifact = load_artifact("run/artifact")
    assert artifact.manifest["elements"] == [element]
    assert artifact.manifest["metrics"]["test"]["n_structures"] in (25, 29)
