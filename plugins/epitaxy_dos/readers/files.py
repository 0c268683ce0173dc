"""Which reader reads a file, and its text."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError, EntryError
from epitaxy_dos.spectrum import Spectrum

OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}

Reader = Callable[[Path], list[Spectrum]]


def plain_name(path: Path) -> str:
    """Return the name of a file in lower case, without the ending of a compression."""
    name = path.name.lower()
    for ending in OPENERS:
        name = name.removesuffix(ending)
    return name


def text_of(path: Path) -> str:
    """Return the text of a file, unpacked.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as stream:
            content: bytes = stream.read()
        return content.decode("utf-8")
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def format_of(path: Path) -> str:
    """Return the format of a file by its name, and by its content where that is JSON; or ""."""
    name = plain_name(path)
    if name.startswith("doscar") or name.endswith(".doscar"):
        return "doscar"
    if name == "dos.xml" or name.endswith(("-dos.xml", "_dos.xml", ".dos.xml")):
        return "exciting"
    if name.endswith(".npz"):
        return "npz"
    if name.endswith((".csv", ".tsv", ".dat", ".txt")):
        return "csv"
    if name.endswith(".json"):
        try:
            with OPENERS.get(path.suffix, open)(path, "rb") as stream:
                head = stream.read(4096)
        except (OSError, EOFError, lzma.LZMAError):
            return ""
        if b"pymatgen.electronic_structure.dos" in head:
            return "pymatgen"
        if b'"tDOS_data"' in head:
            return "aflow"
    return ""


def read_spectra(path: Path, kind: str) -> list[Spectrum]:
    """Return the densities of states of a file in this format.

    Raises:
        DataError: the file is damaged; the message begins with its name.
        EntryError: what it holds is no density of states.
    """
    try:
        return _reader_of(kind)(path)
    except EntryError as error:
        raise EntryError(f"{path}: {error}") from error


def _reader_of(kind: str) -> Reader:
    """Return the reader of a format; it is imported here."""
    if kind == "doscar":
        from epitaxy_dos.readers.vasp import read_doscar

        return read_doscar
    if kind == "exciting":
        from epitaxy_dos.readers.exciting import read_exciting

        return read_exciting
    if kind == "pymatgen":
        from epitaxy_dos.readers.pymatgen_dos import read_complete_dos

        return read_complete_dos
    if kind == "aflow":
        from epitaxy_dos.readers.aflow import read_aflow

        return read_aflow
    from epitaxy_dos.readers.arrays import read_csv, read_npz

    return read_npz if kind == "npz" else read_csv
