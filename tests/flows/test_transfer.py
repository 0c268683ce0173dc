"""Trainings that begin with a parent: killed and resumed, they end with the same bits."""

import signal
import subprocess
import sys
import time

import pytest
import yaml

MODEL = {"use": "painn", "width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5}
TRAINING = {"epochs": 4, "batch_size": 2, "lr": 0.005, "n_threads": 1, "checkpoint_seconds": 0}
STRATEGIES = {
    "adapters": {"use": "transfer", "parent": "parent/artifact", "mode": "adapters", "rank": 2},
    "delta": {"use": "delta", "parent": "parent/artifact"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_metals):
    directory = tmp_path_factory.mktemp("transfer")
    make_metals(20).save(directory / "low")
    make_metals(20, seed=5).save(directory / "high")
    base = {
        "split": {"method": "random", "valid": 4, "test": 4},
        "model": MODEL,
        "training": TRAINING,
    }
    (directory / "parent.yaml").write_text(
        yaml.safe_dump({**base, "dataset": "low", "output": "parent"})
    )
    for name, strategy in STRATEGIES.items():
        (directory / f"{name}.yaml").write_text(
            yaml.safe_dump({**base, "dataset": "high", "strategy": strategy})
        )
    train(directory, "parent.yaml")
    return directory


def train(place, *arguments):
    command = [sys.executable, "-m", "epitaxy", "train", *arguments, "--quiet"]
    subprocess.run(command, cwd=place, check=True, timeout=300)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_killed_training_ends_with_the_same_bits(place, name) -> None:
    train(place, f"{name}.yaml", "-o", f"{name}-whole")
    cut = place / f"{name}-cut"
    process = subprocess.Popen(
        [sys.executable, "-m", "epitaxy", "train", f"{name}.yaml", "-o", cut.name, "--quiet"],
        cwd=place,
    )
    try:
        while process.poll() is None:
            journal = cut / "metrics.jsonl"
            if journal.exists() and journal.read_text().count("\n") >= 1:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (cut / "artifact").exists()
    train(place, f"{name}.yaml", "-o", cut.name, "--resume")
    files = sorted(p.relative_to(cut) for p in (cut / "artifact").rglob("*.safetensors"))
    assert files
    for path in files:
        assert (cut / path).read_bytes() == (place / f"{name}-whole" / path).read_bytes()


def test_a_sum_is_used_from_the_command_line(place) -> None:
    if not (place / "delta-whole").exists():
        train(place, "delta.yaml", "-o", "delta-whole")
    run = place / "delta-whole"
    command = [sys.executable, "-m", "epitaxy", "evaluate", "artifact", "../high", "--json"]
    found = subprocess.run(
        [*command, "--split", "split.json"], cwd=run, check=True, capture_output=True, text=True
    )
    assert '"forces"' in found.stdout
    assert "difference to a lower level" in (run / "artifact" / "card.md").read_text()
