"""Benchmarks run on the devices that are asked for; one that is missing is named."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize("name", ["graphs", "training_step", "calculator", "atomsets"])
def test_a_device_that_is_not_there_is_named_before_anything_is_measured(name: str) -> None:
    command = [sys.executable, BENCH / f"{name}.py", "--device", "cpu", "cuda:99"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "device 'cuda:99' cannot be used" in done.stderr
    assert "here: cpu" in done.stderr
    assert done.stdout == ""
