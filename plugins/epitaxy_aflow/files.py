"""Entries of AFLOW in local folders, as they lie on its servers, and saved answers of AFLUX."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError, EntryError
from epitaxy_aflow.query import rows_of
from epitaxy_aflow.structure import Structure, from_contcar, from_structure_json

_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_PACKED = ("", *_OPEN)
_NAMES = ("aflowlib.json", "aflowlib.out")


def read_text(path: Path) -> str:
    """Return the text of a file, unpacked.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with _OPEN.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8") as stream:
            return str(stream.read())
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged or cut: {type(error).__name__}: {error}") from error


def parse_out(text: str) -> dict[str, Any]:
    """Return the keywords of an aflowlib.out: "keyword=value | keyword=value"."""
    pairs = (part.strip().partition("=") for part in text.replace("\n", " ").split(" | "))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def parse_json(text: str, name: object) -> Any:
    """Return parsed JSON.

    Raises:
        DataError: the text is cut or no JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{name}: cut, or no JSON: {error}. Get it anew") from error


def local_entries(path: Path) -> Iterator[tuple[Mapping[str, Any], Structure | None]]:
    """Yield keywords and structure of every entry below a folder, or in a file.

    Raises:
        DataError: nothing is there, or a file is damaged.
    """
    if path.is_file():
        yield from _in_file(path)
        return
    n = 0
    for folder, folders, names in os.walk(path):
        folders.sort()
        found = _packed_name(names, _NAMES)
        if found is not None:
            n += 1
            yield from _in_file(Path(folder) / found)
    if not n:
        what = "holds no aflowlib.json or aflowlib.out" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}")


def _in_file(path: Path) -> Iterator[tuple[Mapping[str, Any], Structure | None]]:
    text = read_text(path)
    if ".out" in path.suffixes:
        keywords: Any = parse_out(text)
    else:
        keywords = parse_json(text, path)
    if isinstance(keywords, dict) and "aurl" in keywords:
        yield keywords, structure_beside(path.parent)
        return
    rows, _ = rows_of(keywords)
    for row in rows:
        yield row, None


def structure_beside(folder: Path) -> Structure | None:
    """Return the relaxed structure of an entry's folder, None if it has no file of it."""
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        plain = name
        for ending in _OPEN:
            plain = plain.removesuffix(ending)
        if plain.endswith("_structure_relax.json"):
            document = parse_json(read_text(folder / name), folder / name)
            if not isinstance(document, Mapping):
                raise EntryError(f"{name} holds no object")
            return from_structure_json(document)
    contcar = _packed_name(names, ("CONTCAR.relax.vasp", "CONTCAR.relax"))
    return None if contcar is None else from_contcar(read_text(folder / contcar))


def _packed_name(names: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((w + p for w in wanted for p in _PACKED if w + p in names), None)


def looks_like_ours(path: Path) -> bool:
    """Whether a path is an AFLOW entry, a folder of one, or a saved answer of AFLUX."""
    if path.is_dir():
        return any((path / (name + packed)).is_file() for name in _NAMES for packed in _PACKED)
    if path.name.startswith(_NAMES):
        return path.is_file()
    if not path.is_file() or ".json" not in path.suffixes:
        return False
    try:
        with _OPEN.get(path.suffix.lower(), open)(path, "rb") as stream:
            head = stream.read(8192).replace(b" ", b"")
    except (OSError, EOFError, lzma.LZMAError):
        return False
    return b'"auid":"aflow:' in head and b'"aurl":"' in head
