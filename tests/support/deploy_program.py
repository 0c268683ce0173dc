"""The type of the fixture that runs a program which checks deploy/."""

from __future__ import annotations

import subprocess
from typing import Protocol


class Program(Protocol):
    """Runs a program with these environment variables and PATH only."""

    def __call__(
        self, name: str, *arguments: object, ok: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Return what it said; with `ok` it must succeed. The test is skipped without it."""
        ...
