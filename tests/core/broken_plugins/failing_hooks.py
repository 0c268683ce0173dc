"""Loads well, and fails in every hook that is called later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epitaxy import hookimpl


@hookimpl(tryfirst=True)
def identify_path(path: Path) -> str | None:
    """Break on one kind of file, exit on another, and name no source on a third."""
    if path.suffix == ".exit":
        raise SystemExit(1)
    if path.suffix == ".invent":
        return "invented"
    raise ValueError(f"cannot look at {path.name}")


@hookimpl
def epoch_finished(epoch: int, metrics: Mapping[str, Any]) -> None:
    """Break in every epoch."""
    raise RuntimeError("the meter is gone")
