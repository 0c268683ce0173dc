"""Large JSON files item by item, in bounded memory (parsed by ijson)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError
from epitaxy_benchmarks.reading import DAMAGED, Reading, brief


def items(path: Path, prefix: str, reading: Reading) -> Iterator[Any]:
    """Yield the items under a prefix in ijson's words: "item" for a list, "data.item" below data.

    Raises:
        DataError: the file is damaged, cut or not JSON; the message names the item.
    """
    import ijson

    with reading.open(path) as stream:
        yield from _checked(path, ijson.items(stream, prefix, use_float=True))


def pairs(path: Path, prefix: str, reading: Reading) -> Iterator[tuple[str, Any]]:
    """Yield key and value of the mapping under a prefix; "" is the whole file.

    Raises:
        DataError: as for `items`.
    """
    import ijson

    with reading.open(path) as stream:
        yield from _checked(path, ijson.kvitems(stream, prefix, use_float=True))


def nested_pairs(path: Path, reading: Reading) -> Iterator[tuple[str, str, Any]]:
    """Yield outer key, inner key and value of a mapping of mappings, one inner value at a time.

    Raises:
        DataError: as for `items`.
    """
    import ijson

    with reading.open(path) as stream:
        events = _checked(path, ijson.parse(stream, use_float=True))
        outer = inner = ""
        depth = 0
        builder = None
        for _, event, value in events:
            opens = event in ("start_map", "start_array")
            if event in ("end_map", "end_array"):
                depth -= 1
            if builder is not None:
                builder.event(event, value)
            if event == "map_key" and depth == 1:
                outer = value
            elif event == "map_key" and depth == 2:
                inner, builder = value, ijson.ObjectBuilder()
            elif builder is not None and depth == 2 and not opens:
                yield outer, inner, builder.value
                builder = None
            elif builder is None and depth == 1 and event not in ("start_map", "end_map"):
                raise DataError(f"{path}: {outer!r} should hold a mapping, found {event}")
            elif builder is None and depth == 0 and event == "start_array":
                raise DataError(f"{path}: should be a mapping, is a list")
            if opens:
                depth += 1


def first(path: Path, prefix: str) -> Any:
    """Return the first item under a prefix, None if there is none.

    Raises:
        DataError: as for `items`.
    """
    return next(items(path, prefix, Reading()), None)


def _checked(path: Path, found: Iterator[Any]) -> Iterator[Any]:
    import ijson

    n_items = 0
    try:
        for item in found:
            yield item
            n_items += 1
    except (ijson.JSONError, *DAMAGED) as error:
        raise DataError(
            f"{path}: damaged, cut or not JSON after {n_items:,} items: {brief(error)}. Get it "
            "anew, or keep the entries before with --keep-going"
        ) from error
