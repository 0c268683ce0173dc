"""metrics.jsonl: one line of numbers per epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from epitaxy.errors import ConfigError, TrainingError

FILE_NAME = "metrics.jsonl"


class Journal:
    """Appends one line per epoch.

    Args:
        path: file to write.
        after_epoch: lines of later epochs are dropped, because they are computed again.

    Raises:
        TrainingError: the disk refuses; lines that were there stay.
    """

    def __init__(self, path: Path, *, after_epoch: int = 0) -> None:
        self.path = path
        temporary = path.with_name(path.name + ".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_journal(path) if line["epoch"] <= after_epoch]
            temporary.write_text("".join(_as_line(line) for line in kept), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _refusal(path, error) from error

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append the numbers of an epoch.

        Raises:
            TrainingError: the disk refuses; the lines before stay.
        """
        try:
            n_bytes = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(_as_line(metrics))
            except OSError:
                with suppress(OSError):
                    os.truncate(self.path, n_bytes)  # no half line
                raise
        except OSError as error:
            raise _refusal(self.path, error) from error


def _refusal(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"cannot write {path}: {error.strerror or error}; free some space, then go on with --resume"
    )


def _as_line(metrics: Mapping[str, float]) -> str:
    # JSON has no nan or infinity: such a number is left out.
    finite = {
        name: value
        for name, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    return json.dumps(finite) + "\n"


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal; a last line cut short by a crash is left out.

    Raises:
        ConfigError: a line in the middle is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    read: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            read.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ConfigError(
                f"{path}, line {number} is not JSON ({error.msg}): the file was edited or damaged; "
                f"delete that line"
            ) from None
    return read
