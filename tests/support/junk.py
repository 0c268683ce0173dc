"""Documents with one place replaced by something that does not belong there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

JUNK: tuple[Any, ...] = (
    None,
    "",
    "junk",
    "/run/0/system/99",
    -1,
    0,
    1e400,
    True,
    [],
    {},
    [None],
    [[]],
    [{}],
    ["junk"],
    {"junk": None},
)


def places(here: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all places in a document; of long lists the first two items only."""
    if path:
        yield path
    if isinstance(here, dict):
        for key, value in here.items():
            yield from places(value, (*path, key))
    elif isinstance(here, list):
        for index, value in enumerate(here[:2]):
            yield from places(value, (*path, index))


def spoiled(document: Any) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Yield (path, junk, document with the junk at the path) for every place and every junk."""
    for path in places(document):
        for junk in JUNK:
            changed = copy.deepcopy(document)
            here = changed
            for part in path[:-1]:
                here = here[part]
            here[path[-1]] = junk
            yield path, junk, changed
