"""The configs under docs/examples are valid, and train on what they say."""

from pathlib import Path

import pytest

from epitaxy.artifact import load_artifact
from epitaxy.cli import main
from epitaxy.config import load_config
from epitaxy.registry import Registry

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))
MLEARN = ROOT.parent / "shared" / "data" / "mlearn"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_valid_config(path: Path) -> None:
    config = load_config(path, registry=Registry.from_entry_points())
    assert config.output == f"runs/{path.stem}" or config.output.startswith("runs/")


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
