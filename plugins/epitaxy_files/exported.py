"""What `epitaxy export` adds to files of other formats, and how it comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError

KEY = "epitaxy"
_VERSION = 1


def pop_written(values: dict[str, Any], where: str) -> Mapping[str, Any] | None:
    """Take what epitaxy wrote about a frame out of what the frame carries.

    Raises:
        DataError: a newer epitaxy wrote it.
    """
    written = values.get(KEY)
    if not isinstance(written, Mapping) or not isinstance(written.get("version"), int):
        return None
    if written["version"] > _VERSION:
        raise DataError(f"{where}: written by a newer epitaxy: upgrade epitaxy")
    del values[KEY]
    return written


def restore(entry: Entry, written: Mapping[str, Any], *, method: Method) -> Entry:
    """Return an entry as it was exported.

    Args:
        entry: as the format holds it.
        written: from `pop_written`.
        method: what the user says about the file; empty fields are taken from the file.
    """
    found = written.get("method", {})
    others = {
        name: np.asarray(value, dtype=np.float64)
        for name, value in written.get("targets", {}).items()
    }
    return replace(
        entry,
        id=str(written.get("id", "")) or entry.id,
        tags=MappingProxyType({k: str(v) for k, v in written.get("tags", {}).items()}),
        targets=MappingProxyType({**entry.targets, **others}),
        method=Method(
            code=method.code or found.get("code", ""),
            xc_functional=method.xc_functional or found.get("xc_functional", ""),
            settings=method.settings or found.get("settings", ""),
        ),
        origin=Origin(**written["origin"]) if written.get("origin") else entry.origin,
    )
