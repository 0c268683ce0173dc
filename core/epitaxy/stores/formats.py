"""Which kind of store a directory is, and who reads it."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epitaxy.stores.columns import Columns

READERS = {
    "epitaxy-dataset": "epitaxy.stores.memory_map",
    "epitaxy-dataset-bp5": "epitaxy.stores.bp5",
}
"""Format name in manifest.json -> module with ``open_columns(path, *, verify)``."""

MANIFEST = "manifest.json"


def dataset_format(path: Path) -> str | None:
    """Return the format that the manifest of a directory names; None if it is no dataset."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    return found if isinstance(found, str) and found in READERS else None


def dataset_files(path: Path) -> tuple[str, ...]:
    """Return the paths of the files of a dataset below its directory, sorted.

    Only what its manifest names: whatever else lies there is no part of the dataset.

    Args:
        path: directory of a dataset that has been opened.
    """
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    names = {MANIFEST, *(column["file"] for column in manifest.get("columns", {}).values())}
    for part in manifest.get("parts", ()):
        names |= {f"{part['file']}/{name}" for name in part["files"]}
    return tuple(sorted(names))


def open_columns(path: Path, *, verify: bool = False) -> tuple[Columns, dict[str, Any]]:
    """Open a dataset of any kind.

    Args:
        path: directory of the dataset.
        verify: read every column and compare its sha256.

    Returns:
        The columns, and at least ``history`` and ``digest`` of the manifest.

    Raises:
        StoreError: see `Dataset.open`.
    """
    found = dataset_format(path)
    if found is None and not (path / MANIFEST).exists():
        from epitaxy.stores.bp5_index import explain_unmerged

        explain_unmerged(path)
    reader = import_module(READERS[found or "epitaxy-dataset"])
    opened: tuple[Columns, dict[str, Any]] = reader.open_columns(path, verify=verify)
    return opened
