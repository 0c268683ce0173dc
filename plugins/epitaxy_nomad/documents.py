"""Archives of NOMAD from files: what the service sent, or what was downloaded from it."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError

_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
Document = dict[str, Any]


def iterate_documents(path: Path) -> Iterator[tuple[float, str, Document]]:
    """Yield (part of the file read, name, document) of a file.

    Understood are one archive, a list of archives, an answer of the service (``data``), one
    archive per line (.jsonl), all compressed or not, and a zip file of the service's downloads.

    Raises:
        DataError: the file is cut, damaged or something else; the message names the place.
    """
    stem = path.name.partition(".")[0]
    try:
        if path.suffix.lower() == ".zip":
            yield from _from_zip(path)
            return
        opener = _OPEN.get(path.suffix.lower(), open)
        if ".jsonl" in path.suffixes:
            with opener(path, "rb") as stream:
                for i, line in enumerate(stream):
                    if line.strip():
                        yield 0.0, f"{stem}#{i}", _document(json.loads(line), f"line {i + 1}")
            return
        with opener(path, "rb") as stream:
            listed = _listed(json.load(stream))
        for i, document in enumerate(listed):
            name = f"{stem}#{i}"
            yield (i + 1) / len(listed), name, _document(document, f"document {i}")
    except (ValueError, EOFError, OSError, lzma.LZMAError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise DataError(f"{path}: {error}") from error
        raise DataError(
            f"{path}: damaged, cut or not JSON: {type(error).__name__}: {error}"
        ) from error


def _from_zip(path: Path) -> Iterator[tuple[float, str, Document]]:
    with zipfile.ZipFile(path) as packed:
        names = sorted(n for n in packed.namelist() if n.endswith(".json") and "manifest" not in n)
        if not names:
            raise DataError("no archives (.json) in this zip file")
        for i, name in enumerate(names):
            document = _document(json.loads(packed.read(name)), name)
            yield (i + 1) / len(names), Path(name).stem, document


def _listed(content: Any) -> list[Any]:
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    return content if isinstance(content, list) else [content]


def _document(content: Any, place: str) -> Document:
    if not isinstance(content, dict):
        raise DataError(f"{place} is not an archive but {type(content).__name__}")
    inner = content.get("archive")
    if isinstance(inner, dict):  # the service wraps each archive
        if "metadata" not in inner and "entry_id" in content:
            inner = {**inner, "metadata": {"entry_id": content["entry_id"]}}
        return inner
    return content
