"""Structure documents from files: JSON lines (the exchange format of OPTIMADE) and plain JSON."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError

_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
Document = dict[str, Any]


def iterate_dump(path: Path) -> Iterator[tuple[float | None, Document]]:
    """Yield (part of the file read, line or document) of a dump, compressed or not.

    JSON lines are read one by one, so that a dump of any size fits; a JSON file (a list of
    documents, or one answer of a server with its ``data``) is read as a whole. Lines that are
    no structures (the header, descriptions of properties, references) are passed on, too: the
    caller looks at ``type``.

    Raises:
        DataError: the file is cut, damaged or something else; the message names the line.
    """
    opener = _OPEN.get(path.suffix.lower(), open)
    try:
        with path.open("rb") as raw, opener(raw if opener is not open else path, "rb") as stream:
            size = path.stat().st_size or 1
            counted = raw if opener is not open else stream
            first = next((line for line in stream if line.strip()), b"")
            if _is_line(first):
                yield from _lines(path, first, stream, lambda: counted.tell() / size)
                return
            documents = _documents(json.loads(first + stream.read()), path)
        for i, document in enumerate(documents):
            yield (i + 1) / len(documents), document
    except (ValueError, EOFError, OSError, lzma.LZMAError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: damaged, cut or not JSON: {type(error).__name__}: {error}"
        ) from error


def _is_line(first: bytes) -> bool:
    """Whether the first line is a JSON object by itself, as in JSON lines."""
    try:
        found = json.loads(first)
    except ValueError:
        return False
    return isinstance(found, dict) and "data" not in found


def _lines(
    path: Path, first: bytes, stream: Any, part: Any
) -> Iterator[tuple[float | None, Document]]:
    number = 0
    line = first
    while line:
        number += 1
        if line.strip():
            try:
                document = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path}: line {number} is cut or not JSON ({error}); the lines before are fine"
                ) from error
            if not isinstance(document, dict):
                raise DataError(f"{path}: line {number} is not a JSON object")
            yield min(part(), 1.0), document
        line = stream.readline()


def _documents(content: Any, path: Path) -> list[Document]:
    listed = content.get("data") if isinstance(content, dict) else content
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise DataError(f"{path}: neither JSON lines, nor a list of documents, nor an answer")
    return listed
