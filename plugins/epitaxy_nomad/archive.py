"""Walks in an archive of NOMAD: sections that may be missing, and references between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from epitaxy.errors import EntryError

Section = Mapping[str, Any]


def section(value: Any) -> Section:
    """Return a section, an empty one if there is none."""
    return value if isinstance(value, Mapping) else {}


def sections(value: Any) -> list[Section]:
    """Return a repeated section as a list; a single one becomes a list of one.

    Servers put None where a section was not asked for; these stay as empty sections, so that
    the numbers in references keep their meaning.
    """
    if isinstance(value, Mapping):
        return [value]
    return [section(item) for item in value] if isinstance(value, list) else []


def at(here: Any, *path: str | int) -> Any:
    """Return what stands at a path, None where it ends early."""
    for part in path:
        if isinstance(part, int):
            here = sections(here)
            here = here[part] if -len(here) <= part < len(here) else None
        else:
            here = section(here).get(part)
    return here


def resolve(reference: Any, archive: Section) -> Section | None:
    """Return the section that a reference leads to.

    Args:
        reference: a section that the server has put in place, or a path as "/run/0/system/3",
            "#/run/0/system/3", "../uploads/U/archive/E#/run/0/system/3".
        archive: the whole archive of the entry.

    Returns:
        The section; None if it is in another entry, or was not sent.
    """
    if isinstance(reference, Mapping):
        return reference
    if not isinstance(reference, str):
        return None
    before, _, path = reference.rpartition("#")
    if before and f"archive/{at(archive, 'metadata', 'entry_id')}" not in before:
        return None
    here: Any = archive
    for part in path.strip("/").split("/"):
        if part.isdigit():
            if not isinstance(here, list) or int(part) >= len(here):
                return None
            here = here[int(part)]
        else:
            here = section(here).get(part)
    return here if isinstance(here, Mapping) and here else None


def array(value: Any, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    """Return a quantity as float64 and check its shape; None in `shape` fits any length.

    Raises:
        EntryError: it is missing, no numbers, or of another shape.
    """
    if value is None:
        raise EntryError(f"{name} missing")
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EntryError(f"{name} is not made of numbers") from error
    if len(found.shape) != len(shape) or any(
        wanted not in (None, size) for size, wanted in zip(found.shape, shape, strict=True)
    ):
        wanted_text = ", ".join("n" if size is None else str(size) for size in shape)
        raise EntryError(f"{name} of the wrong shape, not ({wanted_text})")
    return found
