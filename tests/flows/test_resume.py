"""A training that is killed, or stopped by Ctrl-C, goes on to the bit."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

CONFIG = """\
dataset: metals
split: {method: random, valid: 4, test: 4}
model: {use: painn, width: 8, n_layers: 1, n_radial: 4, cutoff: 3.5}
training: {epochs: 3, batch_size: 1, lr: 0.005, n_threads: 1, checkpoint_seconds: 0}
"""
TRAIN = [sys.executable, "-m", "epitaxy", "train", "job.yaml"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_metals):
    directory = tmp_path_factory.mktemp("resume")
    make_metals(48).save(directory / "metals")
    (directory / "job.yaml").write_text(CONFIG)
    subprocess.run([*TRAIN, "-o", "whole", "--quiet"], cwd=directory, check=True, timeout=300)
    return directory


def position(run: Path) -> dict[str, int]:
    """Return where the checkpoint of a run is."""
    try:
        with safe_open(run / "checkpoint.safetensors", framework="np") as file:
            tree = json.loads(file.metadata()["tree"])
    except (OSError, SafetensorError):
        return {"epoch": 0, "batch": 0}
    state = dict(tree["$mapping"])
    return dict(state["position"]["$mapping"])


def stop_in_the_middle(place: Path, name: str, number: int) -> tuple[int, str]:
    """Start a training, send a signal in the middle of an epoch, return status and stderr."""
    process = subprocess.Popen(
        [*TRAIN, "-o", name], cwd=place, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None:
            at = position(place / name)
            if at["epoch"] == 2 and 5 < at["batch"] < 30:
                process.send_signal(number)
                break
            time.sleep(0.002)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_ends_with_the_same_bits(place, number):
    name = f"cut-{number.name}"
    status, errors = stop_in_the_middle(place, name, number)
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 130, errors
        assert f"epitaxy train job.yaml --resume -o {name}" in errors
    at = position(place / name)
    assert at["epoch"] == 2
    assert 0 < at["batch"] < 40
    assert not (place / name / "artifact").exists()
    resume = [*TRAIN, "-o", name, "--resume", "--quiet"]
    subprocess.run(resume, cwd=place, check=True, timeout=300)
    weights = [place / run / "artifact" / "weights.safetensors" for run in ("whole", name)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not list((place / name).glob("*.tmp"))
