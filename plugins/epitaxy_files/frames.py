"""Frames of a file one after another, with bounded memory and errors that say where."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from epitaxy.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TENSOR = re.compile(r"""\b(stress|virial)\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\])""")
_DAMAGED = (EOFError, OSError, lzma.LZMAError, UnicodeDecodeError)


class Meter:
    """How much of a file was read."""

    def __init__(self) -> None:
        self.size = 0
        self.stream: BinaryIO | None = None
        self.known: float | None = None

    @property
    def fraction(self) -> float | None:
        """Part of the bytes that were read, or None if that cannot be known."""
        if self.stream is None or not self.size:
            return self.known
        return 1.0 if self.stream.closed else min(1.0, self.stream.tell() / self.size)


def plain_name(path: Path) -> str:
    """Return the file name in lower case without the suffix of its compression."""
    name = path.name.lower()
    for ending in _OPEN:
        name = name.removesuffix(ending)
    return name


def iterate_xyz(path: Path, meter: Meter) -> Iterator[Atoms]:
    """Yield the frames of a plain or extended xyz file, compressed or not.

    Raises:
        DataError: the file is damaged or cut; the message names file, frame and line.
    """
    from ase.io.extxyz import read_xyz

    meter.size = path.stat().st_size
    with path.open("rb") as raw:
        meter.stream = raw
        opener = _OPEN.get(path.suffix.lower())
        binary = opener(raw) if opener else raw
        lines = enumerate(io.TextIOWrapper(binary, encoding="utf-8"), start=1)
        frame = 0
        while True:
            where = f"{path}: frame {frame}"
            text, line_number = _frame_text(lines, where)
            if text is None:
                return
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about overwritten keys; we choose by name
                    atoms = next(iter(read_xyz(io.StringIO(_renamed(text)), index=0)))
            except Exception as error:  # the parser's own errors have many types
                raise DataError(
                    f"{where} (ends at line {line_number}) cannot be read: {_brief(error)}"
                ) from error
            yield atoms
            frame += 1


def _frame_text(lines: Iterator[tuple[int, str]], where: str) -> tuple[str | None, int]:
    """Return the text of the next frame, None at the end, and the last line's number."""
    try:
        number, header = next(lines, (0, ""))
        while number and not header.strip():
            number, header = next(lines, (0, ""))
        if not number:
            return None, 0
        try:
            n_atoms = int(header)
        except ValueError:
            raise DataError(
                f"{where}: line {number} should be a number of atoms, found {header.strip()!r}"
            ) from None
        rows = [header]
        for _ in range(n_atoms + 1):
            found = next(lines, None)
            if found is None:
                raise DataError(
                    f"{where}: the file ends after {len(rows) - 2 if len(rows) > 1 else 0} of "
                    f"{n_atoms} atoms (line {number}): it was cut, or the number is wrong. "
                    "Get it anew, or keep the complete frames before with --keep-going"
                )
            number, row = found
            rows.append(row)
        if not rows[-1].endswith("\n") and len(rows[-1]) + 1 < min(map(len, rows[2:-1]), default=0):
            raise DataError(
                f"{where}: the last line ({number}) has no end and is shorter than the others: the "
                "file was cut. Get it anew, or keep the complete frames before with --keep-going"
            )
        return "".join(rows), number
    except _DAMAGED as error:
        raise DataError(
            f"{where}: the file is damaged or cut: {_brief(error)}. Get it anew, or keep the "
            "complete frames before with --keep-going"
        ) from error


def _renamed(text: str) -> str:
    """Give a stress or virial of six numbers a name that ASE does not expect nine under."""
    header, _, rest = text.partition("\n")
    comment, _, rows = rest.partition("\n")

    def rename(match: re.Match[str]) -> str:
        return f"{match[1]}_voigt={match[2]}" if len(match[2][1:-1].split()) == 6 else match[0]

    return f"{header}\n{_TENSOR.sub(rename, comment)}\n{rows}"


def iterate_ase(path: Path, *, format: str | None, meter: Meter) -> Iterator[Atoms]:
    """Yield the frames of any file that ASE reads.

    Raises:
        DataError: ASE cannot read the file; the message names file and frame.
    """
    from ase.io import iread

    meter.size = 0
    frame = 0
    frames = iter(iread(str(path), index=":", format=format))
    while True:
        try:
            atoms = next(frames, None)
        except Exception as error:  # ASE's readers raise anything
            raise DataError(f"{path}: frame {frame} cannot be read: {_brief(error)}") from error
        if atoms is None and not frame:
            raise DataError(f"{path}: ASE finds no structure in it; is `format` right?")
        if atoms is None:
            return
        yield atoms
        frame += 1


def iterate_database(path: Path, *, select: str) -> Iterator[tuple[str, Atoms]]:
    """Yield row id and structure of an ASE database, with its key-value pairs in `info`.

    Raises:
        DataError: the database or a row cannot be read.
    """
    from ase.db import connect

    try:
        rows = connect(str(path)).select(select or None)
        for row in rows:
            atoms = row.toatoms()
            atoms.info = {**row.key_value_pairs, **atoms.info}
            if isinstance(written := row.data.get("epitaxy"), dict):  # by `epitaxy export`
                atoms.info["epitaxy"] = written
            yield str(row.id), atoms
    except Exception as error:  # sqlite's, JSON's and ASE's errors
        raise DataError(f"{path}: cannot be read as an ASE database: {_brief(error)}") from error


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
