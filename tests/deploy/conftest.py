"""What the tests of deploy/ share: where it is, and the programs that check it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from deploy_program import Program

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = REPOSITORY / ".venv-deploy" / "bin"


@pytest.fixture(scope="session")
def oasis() -> Path:
    """Return deploy/oasis."""
    return REPOSITORY / "deploy" / "oasis"


@pytest.fixture(scope="session")
def program() -> Program:
    """Return a function that runs a program of `make test-deploy`, or skips the test."""

    def run(
        name: str, *arguments: object, ok: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it with these environment variables and PATH only; `ok`: it must succeed."""
        if not (PROGRAMS / name).exists():
            pytest.skip(f"{name} is not installed: make test-deploy")
        done = subprocess.run(
            [str(PROGRAMS / name), *map(str, arguments)],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        )
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    return run
