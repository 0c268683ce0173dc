"""metrics.jsonl: one line of numbers per epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epitaxy.errors import ConfigError

FILE_NAME = "metrics.jsonl"


class Journal:
    """Appends one line per epoch.

    Args:
        path: file to write.
        after_epoch: lines of later epochs are dropped, because they are computed again.
    """

    def __init__(self, path: Path, *, after_epoch: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_journal(path) if line["epoch"] <= after_epoch]
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(_as_line(line) for line in kept), encoding="utf-8")
        temporary.replace(path)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append the numbers of an epoch."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_as_line(metrics))


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
