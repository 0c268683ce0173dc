from pathlib import Path

import pytest

from epitaxy.config import Config, check_config, load_config, read_config
from epitaxy.errors import ConfigError, OptionError, PluginError
from epitaxy.registry import Registry
from epitaxy.spec import Spec

REGISTRY = Registry.from_entry_points()

GOOD = """\
dataset: data/si
split: {method: group, valid: 0.2, test: 5, groups: group}
model:
  use: painn
  width: 16
strategy: {use: ensemble, n_members: 3}
training:
  epochs: 7
  lr: 1e-3
seed: 4
dtype: float64
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "job.yaml"
    path.write_text(text)
    return path


def test_a_good_file_becomes_plain_values(tmp_path):
    config = load_config(write(tmp_path, GOOD), registry=REGISTRY)
    assert config.model == Spec("painn", {"width": 16})
    assert config.strategy == Spec("ensemble", {"n_members": 3})
    assert (config.training.epochs, config.training.lr) == (7, 0.001)
    assert (config.split.method, config.split.test, config.seed) == ("group", 5, 4)
    assert config.output == "runs/job"


def test_a_config_survives_the_way_through_plain_values(tmp_path):
    config = load_config(write(tmp_path, GOOD), output=tmp_path / "run")
    assert read_config(config.to_mapping()) == config
    own = Config(dataset="a", model=Spec("painn"), test={"use": "silicon"})
    assert read_config(own.to_mapping()).test == {"use": "silicon"}


def test_overrides_change_single_values(tmp_path):
    overrides = ["training.epochs=3", "model.use=schnet", "strategy=direct", "split.seed=9"]
    config = load_config(write(tmp_path, GOOD.replace("  width: 16\n", "")), overrides=overrides)
    assert config.training.epochs == 3
    assert config.model.use == "schnet"
    assert config.strategy == Spec("direct")
    assert config.split.seed == 9
    short = load_config(write(tmp_path, "dataset: d\nmodel: painn\n"), overrides=["model.width=8"])
    assert short.model == Spec("painn", {"width": 8})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed: 4", "sed: 4", ["line 10", "sed", "Did you mean 'seed'"]),
        ("  epochs: 7", "  epoch: 7", ["line 8", "epoch", "Did you mean 'epochs'"]),
        ("  epochs: 7", "  epochs: many", ["line 8", "epochs", "many"]),
        ("  epochs: 7", "  epochs: -1", ["line 8", "epochs", "-1"]),
        ("  width: 16", "  widht: 16", ["line 5", "widht", "Did you mean 'width'"]),
        ("n_members: 3", "n_member: 3", ["line 6", "n_member", "n_members"]),
        ("use: painn", "use: pain", ["line 3", "pain", "painn"]),
        ("method: group", "method: groups", ["line 2", "groups"]),
        ("dtype: float64", "dtype: float16", ["line 11", "float16", "float32"]),
        ("dataset: data/si\n", "", ["dataset"]),
        ("seed: 4", "seed: 4\nseed: 5", ["line 11", "seed", "twice", "line 10"]),
        ("seed: 4", "seed: [4", ["line", "YAML"]),
        ("training:\n  epochs: 7\n  lr: 1e-3", "training: fast", ["line 7", "fast"]),
        ("seed: 4", "test: other", ["split.test"]),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, old, new, words):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises((ConfigError, PluginError)) as caught:
        load_config(path, registry=REGISTRY)
    assert all(word in str(caught.value) for word in ["job.yaml", *words]), str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "not/here"}, ["dataset", "not/here"]),
        ({"dataset": {"use": "silicn"}}, ["silicn"]),
        ({"device": "cuda:77"}, ["cuda:77", "cpu"]),
        ({"training": {"optimizer": "adan"}}, ["adan", "Adam"]),
        ({"split": {"file": "split.json"}}, ["split.json"]),
        (
            {"strategy": {"use": "ensemble", "member": {"use": "ensemble", "n_member": 1}}},
            ["n_member"],
        ),
    ],
)
def test_what_needs_no_data_is_checked_before_any_work(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    config = read_config({"dataset": "data", "model": "painn", **change})
    with pytest.raises((ConfigError, OptionError, PluginError)) as caught:
        check_config(config, REGISTRY)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("override", ["training", "=3", "seed.x=1", "model=[1"])
def test_a_malformed_override_is_named(tmp_path, override):
    with pytest.raises(ConfigError, match="--set"):
        load_config(write(tmp_path, GOOD), overrides=[override])
