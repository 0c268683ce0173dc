"""`epitaxy train` and `epitaxy report`, from a config file to an artifact."""

import json

import numpy as np
import pytest
import yaml

from epitaxy.artifact import load_artifact
from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.split import Split
from epitaxy.training.checkpoint import read_checkpoint, write_checkpoint

CONFIG = """\
dataset: metals
split: {method: random, valid: 5, test: 6}
model: {use: painn, width: 8, n_layers: 1, n_radial: 4, cutoff: 3.5}
training: {epochs: 3, batch_size: 4, lr: 0.01, n_threads: 1, stress_weight: 10}
output: run
"""


@pytest.fixture
def place(tmp_path, make_metals, monkeypatch):
    make_metals(30).save(tmp_path / "metals")
    (tmp_path / "job.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_config_becomes_a_tested_artifact_and_a_report(place, capsys):
    assert main(["train", "job.yaml"]) == 0
    said = capsys.readouterr()
    assert "test: 6 structures: energy MAE" in said.out
    assert "epoch" in said.err
    artifact = load_artifact(place / "run" / "artifact")
    split = Split.load(place / "run" / "split.json", Dataset.open(place / "metals"))
    assert artifact.manifest["data"]["split_digest"] == split.digest
    forces, _ = split.test.target("forces")
    mae = np.abs(artifact.model.predict(split.test).mean["forces"] - forces).mean()
    metrics = artifact.manifest["metrics"]
    assert metrics["test"]["forces_mae"] == pytest.approx(mae, rel=1e-4)
    assert set(metrics["test"]["by_group"]) == {"hot", "cold"}
    assert {"valid", "test"} == set(metrics)
    assert yaml.safe_load((place / "run" / "config.yaml").read_text())["model"]["width"] == 8

    assert main(["report", "run"]) == 0
    assert "3 epochs" in capsys.readouterr().out
    assert (place / "run" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_used_folder_is_refused_unless_resumed(place, capsys):
    assert main(["train", "job.yaml", "--quiet"]) == 0
    before = (place / "run" / "metrics.jsonl").read_text().splitlines()
    assert main(["train", "job.yaml"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", "job.yaml", "--resume", "--set", "training.epochs=5"]) == 0
    assert "resumed at epoch 4" in capsys.readouterr().err
    lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
    assert (len(lines), lines[:3]) == (5, before)
    best = min(map(json.loads, lines), key=lambda metrics: metrics["valid_loss"])
    artifact = load_artifact(place / "run" / "artifact")
    valid = Split.load(place / "run" / "split.json", Dataset.open(place / "metals")).valid
    mae = np.abs(artifact.model.predict(valid).mean["forces"] - valid.target("forces")[0]).mean()
    assert artifact.manifest["training"]["epochs"] == 5
    assert mae == pytest.approx(best["valid_forces_mae"], rel=1e-4)


def test_the_test_part_does_not_influence_the_model(place):
    changed = place / "changed"
    entries = list(Dataset.open(place / "metals"))
    assert main(["train", "job.yaml", "--quiet"]) == 0
    split = Split.load(place / "run" / "split.json", Dataset.open(place / "metals"))
    tested = set(split.test.ids)
    for k, entry in enumerate(entries):
        if entry.id in tested:
            entries[k] = entries[0]
    Dataset.from_entries(entries).save(changed)
    options = ["--set", "dataset=changed", "-o", "other", "--quiet"]
    assert main(["train", "job.yaml", *options]) == 0
    weights = [
        (place / r / "artifact" / "weights.safetensors").read_bytes() for r in ("run", "other")
    ]
    assert weights[0] == weights[1]


def test_an_ensemble_with_a_test_set_of_its_own(place, make_metals, capsys):
    make_metals(7, seed=1).save(place / "more")
    options = ["--set", "strategy={use: ensemble, n_members: 2}", "--set", "test=more"]
    assert main(["train", "job.yaml", *options, "--set", "split={method: random, valid: 5}"]) == 0
    said = capsys.readouterr().out
    assert "test: 7 structures" in said
    model = load_artifact(place / "run" / "artifact").model
    assert model.predict(make_metals(2)).std["energy"].shape == (2,)
    assert main(["report", "run", "--no-plot"]) == 0
    assert "members/1" in capsys.readouterr().out


def test_a_wrong_config_costs_nothing(place, capsys):
    assert main(["train", "job.yaml", "--set", "model.widht=3"]) == 2
    assert "Did you mean 'width'" in capsys.readouterr().err
    assert not (place / "run").exists()


def test_a_report_of_nothing_is_refused(place, capsys):
    assert main(["report", "metals"]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err


def test_a_refused_resumption_leaves_the_run_as_it_was(place, capsys):
    assert main(["train", "job.yaml"]) == 0
    output = place / "run"
    before = {name: (output / name).read_bytes() for name in ("config.yaml", "split.json")}
    assert main(["train", "job.yaml", "--resume", "--set", "model.width=24"]) == 2
    assert "width" in capsys.readouterr().err
    assert {name: (output / name).read_bytes() for name in before} == before


def test_a_checkpoint_with_a_name_without_plugin_is_resumed(place, capsys):
    assert main(["train", "job.yaml", "--quiet"]) == 0
    path = place / "run" / "checkpoint.safetensors"
    state = read_checkpoint(path)
    assert state["identity"]["model"]["use"] == "graphs/painn"
    state["identity"]["model"]["use"] = "painn"
    write_checkpoint(path, state)
    assert main(["train", "job.yaml", "--resume", "--set", "training.epochs=4"]) == 0
    assert "resumed at epoch 4" in capsys.readouterr().err


def test_the_config_that_is_kept_names_plugins(place):
    assert main(["train", "job.yaml", "--quiet"]) == 0
    kept = yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert kept["model"]["use"] == "graphs/painn"
    assert kept["strategy"]["use"] == "strategies/direct"
