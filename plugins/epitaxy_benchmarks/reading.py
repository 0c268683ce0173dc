"""Opening the files of a set, compressed or not, and knowing how far they were read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from epitaxy.errors import DataError

_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
ENDINGS = (*_OPEN, ".zip")
"""Compressions that are unpacked on the way."""

DAMAGED = (
    EOFError,
    OSError,
    lzma.LZMAError,
    zlib.error,
    zipfile.BadZipFile,
    UnicodeDecodeError,
)
"""What the unpacking of a damaged file raises."""


class Reading:
    """One pass over files, and how much of their bytes was read.

    Args:
        paths: the files in the order in which they are read.
    """

    def __init__(self, paths: Sequence[Path] = ()):
        self._sizes = {path: path.stat().st_size for path in paths}
        self._done = 0
        self._raw: BinaryIO | None = None

    @property
    def fraction(self) -> float | None:
        """Part of the bytes that were read so far, 0 to 1."""
        total = sum(self._sizes.values())
        if not total:
            return None
        here = self._raw.tell() if self._raw is not None and not self._raw.closed else 0
        return min(1.0, (self._done + here) / total)

    @contextmanager
    def open(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file and unpack it on the way; a .zip must hold one file.

        Raises:
            DataError: the file cannot be opened.
        """
        try:
            raw = path.open("rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be opened: {error}") from error
        with raw:
            self._raw = raw
            yield unpacked(raw, path)
        self._done += self._sizes.get(path, 0)


def unpacked(raw: BinaryIO, path: Path) -> BinaryIO:
    """Return the unpacked bytes of an open file, by the ending of its name.

    Raises:
        DataError: a .zip is damaged or holds several files.
    """
    ending = path.suffix.lower()
    if ending != ".zip":
        stream: BinaryIO = _OPEN[ending](raw) if ending in _OPEN else raw
        return stream
    try:
        archive = zipfile.ZipFile(raw)
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) == 1:
            return archive.open(members[0])  # type: ignore[return-value]
    except DAMAGED as error:
        raise DataError(f"{path}: damaged or cut: {brief(error)}") from error
    names = ", ".join(member.filename for member in members[:5])
    raise DataError(f"{path}: holds {len(members)} files ({names} ...), one expected; unpack it")


def text_of(stream: BinaryIO) -> io.TextIOWrapper:
    """Return the lines of a stream as text."""
    return io.TextIOWrapper(stream, encoding="utf-8", newline="")


def plain_stem(path: Path) -> str:
    """Return the file's name without folder, compression and type: "a.json.gz" -> "a"."""
    name = path.name
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return Path(name).stem


def find_files(path: Path, patterns: Sequence[str]) -> list[Path]:
    """Return `path` if it is a file, else the files in the folder that match, in natural order.

    Raises:
        DataError: there is nothing to read.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    found = {file for pattern in patterns for file in path.rglob(pattern) if file.is_file()}
    if not found:
        raise DataError(f"{path}: no {' or '.join(patterns)} in this folder")
    return sorted(found, key=lambda file: [(len(p), p) for p in file.relative_to(path).parts])


def existing_file(path: Path) -> Path:
    """Return the path of a file that is there.

    Raises:
        DataError: it is a folder or missing.
    """
    path = Path(path)
    if path.is_file():
        return path
    what = "is a folder, a file is needed" if path.is_dir() else "no such file"
    raise DataError(f"{path}: {what}")


@contextmanager
def explained(where: str, layout: str) -> Iterator[None]:
    """Turn what a wrong layout raises into an error that names file and entry.

    Raises:
        DataError: a key is missing, or a value has the wrong type or shape.
    """
    try:
        yield
    except DataError as error:
        if where in str(error):
            raise
        raise DataError(f"{where}: {error}") from error
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"{where} is not as in {layout}: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """Return type and text of an error in one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
