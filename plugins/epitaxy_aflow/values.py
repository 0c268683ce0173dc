"""Values as AFLOW writes them: typed JSON today, text with commas and semicolons before."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epitaxy.errors import EntryError


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def words(value: Any) -> list[str]:
    """Return a list of words: ["Ag", "O"] from a list or from "Ag,O"."""
    if value is None:
        return []
    if isinstance(value, list):
        return [str(item) for item in value]
    return [word for word in str(value).strip().split(",") if word]


def numbers(value: Any, name: str) -> np.ndarray:
    """Return numbers from a list, or from "0,0,0;0.5,0.5,0.5" (rows end with semicolons).

    Raises:
        EntryError: there is something else.
    """
    try:
        if isinstance(value, str):
            rows = [[float(x) for x in row.split(",")] for row in value.strip().split(";") if row]
            return np.array(rows if ";" in value else rows[0], dtype=np.float64)
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, IndexError) as error:
        raise EntryError(f"{name} = {str(value)[:60]!r} are no numbers") from error
