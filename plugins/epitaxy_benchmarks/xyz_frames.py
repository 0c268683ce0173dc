"""Frames of extended xyz files one by one, with errors that name file and frame."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError
from epitaxy_benchmarks.geometry import Geometry, from_ase
from epitaxy_benchmarks.reading import DAMAGED, Reading, brief, text_of

_TENSOR = re.compile(r"\b(stress|virial)=")


def frames(path: Path, reading: Reading) -> Iterator[tuple[Geometry, dict[str, Any]]]:
    """Yield structure and values (comment line and per-atom columns) of each frame.

    Args:
        path: the file, compressed or not.
        reading: what knows how far the file was read.

    Raises:
        DataError: the file is damaged or cut; the message names the frame.
    """
    frame = 0
    try:
        with reading.open(path) as stream:
            lines = text_of(stream)
            while text := _next_frame(lines, f"{path}: frame {frame}"):
                yield _parsed(text, f"{path}: frame {frame}")
                frame += 1
    except DAMAGED as error:
        raise DataError(
            f"{path}: damaged or cut after {frame:,} frames: {brief(error)}. Get it anew, or keep "
            "the frames before with --keep-going"
        ) from error


def _next_frame(lines: io.TextIOWrapper, where: str) -> str:
    header = lines.readline()
    while header and not header.strip():
        header = lines.readline()
    if not header:
        return ""
    try:
        n_atoms = int(header)
    except ValueError:
        raise DataError(f"{where}: a number of atoms expected, found {header[:40]!r}") from None
    rows = [header, *(lines.readline() for _ in range(n_atoms + 1))]
    if not rows[-1]:
        n_found = max(0, sum(map(bool, rows)) - 2)
        raise DataError(
            f"{where}: the file ends after {n_found} of {n_atoms} atoms: it was cut. Get it anew, "
            "or keep the frames before with --keep-going"
        )
    return "".join(rows)


def _parsed(text: str, where: str) -> tuple[Geometry, dict[str, Any]]:
    from ase.io.extxyz import read_xyz

    header, comment, rows = text.split("\n", 2)
    renamed = _TENSOR.sub(r"\1_as_written=", comment)  # ASE expects its own sign and unit there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = io.StringIO(f"{header}\n{renamed}\n{rows}")
            atoms = next(iter(read_xyz(stream, index=0)))
    except Exception as error:  # the parser's own errors have many types
        raise DataError(f"{where} cannot be read: {brief(error)}") from error
    values: dict[str, Any] = {**atoms.info}
    values |= {k: a for k, a in atoms.arrays.items() if k not in ("numbers", "positions")}
    if atoms.calc is not None:
        values |= {k: v for k, v in atoms.calc.results.items() if v is not None}
    return from_ase(atoms), values
