"""Spacegroup numbers of many structures, by moyopy or by spglib.

The two agree on most structures, not on all, and both depend on `symprec`; numbers of different
engines or tolerances are never to be compared with each other (`epitaxy.curation.groups` keeps
them apart).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np

from epitaxy.composition import TAG
from epitaxy.curation.parallel import map_pieces
from epitaxy.dataset import Dataset, Structures
from epitaxy.errors import DataError

Engine = Literal["moyopy", "spglib"]
Tell = Callable[[int, int], None]
"""``(structures done, structures in all)``."""

FAILED = 0
"""The engine found no spacegroup."""
NOT_PERIODIC = -1
"""The structure does not repeat in three directions, so it has none."""
NO_STRUCTURE = -2
"""A formula alone (`epitaxy.composition`)."""

ATOMS_AT_ONCE = 2_000  # in a piece of work: some tenths of a second
STRUCTURES_AT_ONCE = 250

_LEAST_VOLUME = 0.1  # Å^3 per atom; hydrogen at 500 GPa has more than 1
_LEAST_EDGE = 0.2  # Å
_LEAST_VOLUME_TO_EDGES = 1e-4  # volume over the product of the edges


class Piece(NamedTuple):
    """Some structures, and the row of the first."""

    start: int
    structures: Structures


def spacegroup_numbers(
    dataset: Dataset,
    *,
    engine: Engine = "moyopy",
    symprec: float = 0.1,
    n_workers: int = 1,
    tell: Tell | None = None,
) -> np.ndarray:
    """Return the spacegroup number of every structure, (n,) int.

    `FAILED`, `NOT_PERIODIC` and `NO_STRUCTURE` mark those without one; no failure is passed off
    as spacegroup 1.

    Args:
        dataset: the structures.
        engine: "moyopy" (two to four times faster) or "spglib".
        symprec: Å, how far atoms may be from their symmetric places.
        n_workers: processes.
        tell: called with the progress.

    Raises:
        DataError: there is no such engine, or `symprec` is not positive.
    """
    check_engine(engine, symprec)
    found = np.full(len(dataset), NO_STRUCTURE)
    work = partial(_numbers_of, engine=engine, symprec=symprec)
    rows = rows_with_structure(dataset)
    done = 0
    for numbers in map_pieces(work, pieces_of(dataset, rows), n_workers=n_workers):
        found[rows[done : done + len(numbers)]] = numbers
        done += len(numbers)
        if tell:
            tell(done, len(rows))
    return found


def check_engine(engine: str, symprec: float) -> None:
    """Refuse an unknown engine and a tolerance that is none.

    Raises:
        DataError: with what is allowed.
    """
    if engine not in get_args(Engine):
        raise DataError(f"engine {engine!r}: use one of {', '.join(get_args(Engine))}")
    if not 0 < symprec < 10:
        raise DataError(f"symprec = {symprec}: give a distance in Å above 0, for example 0.1")


def engine_version(engine: Engine) -> str:
    """Return the installed version of an engine."""
    from importlib.metadata import version

    return version(engine)


def rows_with_structure(dataset: Dataset) -> np.ndarray:
    """Return the rows that are structures, not formulas alone."""
    if TAG not in dataset.tags:
        return np.arange(len(dataset))
    rows: np.ndarray = (dataset.tag(TAG) == "").nonzero()[0]
    return rows


def pieces_of(dataset: Dataset, rows: np.ndarray) -> Iterator[Piece]:
    """Cut rows of a dataset into pieces of similar work."""
    ends = np.cumsum(dataset.n_atoms[rows])
    start = 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, before + ATOMS_AT_ONCE, side="right"))
        end = min(max(end, start + 1), start + STRUCTURES_AT_ONCE, len(rows))
        yield Piece(start, dataset.gather(rows[start:end]))
        start = end


def _numbers_of(piece: Piece, *, engine: Engine, symprec: float) -> list[int]:
    find = _with_moyopy if engine == "moyopy" else _with_spglib
    numbers, positions, cells, pbc, n_atoms = piece.structures
    ends = np.cumsum(n_atoms)
    found = []
    for k, (first, end) in enumerate(zip(ends - n_atoms, ends, strict=True)):
        if not pbc[k].all():
            found.append(NOT_PERIODIC)
            continue
        if is_degenerate(cells[k], end - first):
            found.append(FAILED)
            continue
        fractions = np.linalg.solve(cells[k].T, positions[first:end].T).T
        try:
            with _silent_stderr():
                found.append(find(cells[k], fractions, numbers[first:end], symprec))
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime":  # a panic of the Rust code of moyopy
                raise
            found.append(FAILED)
    return found


def is_degenerate(cell: np.ndarray, n_atoms: int) -> bool:
    """Whether a cell (3, 3), Å, is too flat or too skew for any analysis."""
    lengths = np.linalg.norm(cell, axis=1)
    volume = abs(np.linalg.det(cell))
    return bool(
        lengths.min() < _LEAST_EDGE
        or volume < _LEAST_VOLUME * n_atoms
        or volume < _LEAST_VOLUME_TO_EDGES * np.prod(lengths)
    )


def _with_moyopy(
    cell: np.ndarray, fractions: np.ndarray, numbers: np.ndarray, symprec: float
) -> int:
    import moyopy

    # It warns of symmetry operations that do not fit a supercell; the number is not affected.
    logging.getLogger("moyo").setLevel(logging.ERROR)
    try:
        wrapped = moyopy.Cell(cell.tolist(), (fractions % 1.0).tolist(), numbers.tolist())
        return int(moyopy.MoyoDataset(wrapped, symprec=symprec).number)
    except ValueError:
        return FAILED


def _with_spglib(
    cell: np.ndarray, fractions: np.ndarray, numbers: np.ndarray, symprec: float
) -> int:
    import spglib

    try:
        found = spglib.get_symmetry_dataset((cell, fractions, numbers), symprec=symprec)
    except spglib.SpglibError:
        return FAILED
    return FAILED if found is None else int(found.number)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what the libraries print from C and Rust while they try again or give up."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
