"""Chemical compositions, and entries of tables that list a formula but no structure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import EntryError
from epitaxy.quantities import quantity

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

TAG = "composition"
"""Tag with the formula as it was given, of an entry that has no structure."""

LARGEST_UNIT = 1000
"""Atoms that stand for a formula at most; finer fractions are rounded to this many."""

_PART = re.compile(r"([A-Z][a-z]?)([0-9]*\.?[0-9]*(?:[eE][-+]?[0-9]+)?)|([(\[{])|([)\]}])([0-9.]*)")


@lru_cache(maxsize=100_000)
def parse_formula(formula: str) -> Mapping[int, float]:
    """Return {atomic number: amount} of a formula such as "Fe2O3", "Ca(OH)2", "Fe0.98C0.02".

    Raises:
        EntryError: the text is not a formula; the message says where reading stopped.
    """
    from ase.data import atomic_numbers

    stack: list[dict[int, float]] = [{}]
    text = "".join(formula.split())
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            break
        symbol, amount, opened, closed, times = match.groups()
        if opened:
            stack.append({})
        elif closed:
            if len(stack) == 1:
                break
            group = stack.pop()
            for number, count in group.items():
                stack[-1][number] = stack[-1].get(number, 0.0) + count * float(times or 1)
        else:
            if symbol not in atomic_numbers or symbol == "X":
                break
            number = atomic_numbers[symbol]
            stack[-1][number] = stack[-1].get(number, 0.0) + float(amount or 1)
        position = match.end()
    amounts = {number: count for number, count in stack[0].items() if count > 0}
    if position < len(text) or len(stack) > 1 or not amounts:
        raise EntryError(
            f"{formula!r} is not a chemical formula: reading stopped at character {position + 1}"
        )
    return MappingProxyType(amounts)


def atoms_of_formula(formula: str) -> np.ndarray:
    """Return the atomic numbers of the smallest unit with whole atoms, (n_atoms,) uint8.

    Amounts that need more than `LARGEST_UNIT` atoms are rounded to that many in all, with at
    least one atom of each element.
    """
    amounts = parse_formula(formula)
    exact = {z: Fraction(x).limit_denominator(LARGEST_UNIT) for z, x in amounts.items()}
    scale = lcm(*(f.denominator for f in exact.values()))
    counts = {z: int(f * scale) for z, f in exact.items()}
    divisor = gcd(*counts.values())
    counts = {z: n // divisor for z, n in counts.items()}
    if sum(counts.values()) > LARGEST_UNIT or min(counts.values()) == 0:
        total = sum(amounts.values())
        counts = {z: max(1, round(LARGEST_UNIT * x / total)) for z, x in amounts.items()}
    order = sorted(counts)
    return np.repeat(np.array(order, dtype=np.uint8), [counts[z] for z in order])


def composition_entry(
    formula: str,
    *,
    targets: Mapping[str, float],
    id: str = "",
    method: Method | None = None,
    origin: Origin | None = None,
    tags: Mapping[str, str] | None = None,
) -> Entry:
    """Make the entry of a formula without a structure.

    Its atoms all sit at the origin without a cell; the tag "composition" holds the formula and
    says so. Models that need positions refuse such entries.

    Raises:
        EntryError: the formula cannot be read, or a target is per atom.
        DataError: an unknown quantity.
    """
    for name in targets:
        if quantity(name).per == "atom" or quantity(name).shape:
            raise EntryError(f"{id or formula}: {name} needs a structure")
    numbers = atoms_of_formula(formula)
    return Entry(
        numbers=numbers,
        positions=np.zeros((len(numbers), 3)),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
        targets=MappingProxyType(
            {name: np.asarray(value, dtype=np.float64) for name, value in targets.items()}
        ),
        id=id or formula,
        method=method or Method(),
        origin=origin or Origin(),
        tags=MappingProxyType({**(tags or {}), TAG: formula}),
    )


def has_structure(entry: Entry) -> bool:
    """Whether the entry has positions, not a formula alone."""
    return TAG not in entry.tags


# --- reduced formulas of whole datasets ---

_STRUCTURES_AT_ONCE = 50_000
_NEAR_WHOLE = 5e-5  # per atom of the unit: amounts such as 0.3333 stand for a third


def compositions(dataset: Dataset, *, reduced: bool = True) -> np.ndarray:
    """Return the formula of every structure, (n,) str, elements by atomic number: "O2Ti".

    The same compound has the same text however it was written: as a cell, as a supercell, or as
    a formula in the tag `composition` ("TiO2", "Ti2O4", "Ti0.3333O0.6667").

    Args:
        dataset: structures, formulas, or both.
        reduced: divide by the common divisor; False counts the atoms of the cell, so that a
            supercell has another formula.
    """
    formulas = [
        _formulas_of_atoms(dataset, start, min(start + _STRUCTURES_AT_ONCE, len(dataset)), reduced)
        for start in range(0, len(dataset), _STRUCTURES_AT_ONCE)
    ]
    found = np.concatenate(formulas) if formulas else np.zeros(0, dtype=str)
    if reduced and TAG in dataset.tags:
        given, codes = np.unique(dataset.tag(TAG), return_inverse=True)
        texts = np.array([reduced_formula(str(text)) if text else "" for text in given])
        of_row = texts[codes]
        found = np.where(of_row != "", of_row, found)
    return found


@lru_cache(maxsize=100_000)
def reduced_formula(formula: str) -> str:
    """Return a formula in its smallest whole numbers, elements by atomic number: "O2Ti".

    Fractions are rounded to the smallest unit of at most `LARGEST_UNIT` atoms that fits, so that
    it does not matter how a formula was scaled.

    Raises:
        EntryError: the text is not a formula.
    """
    amounts = parse_formula(formula)
    numbers = sorted(amounts)
    given = np.array([amounts[z] for z in numbers])
    if (given == np.rint(given)).all():
        counts = given.astype(np.int64)
    else:
        shares = given / given.sum()
        units = np.arange(len(numbers), LARGEST_UNIT + 1)
        scaled = shares * units[:, None]
        whole = np.maximum(np.rint(scaled), 1)
        error = np.abs(scaled - whole).max(axis=1) / units
        fits = (error < _NEAR_WHOLE).nonzero()[0]
        best = int(fits[0]) if len(fits) else len(units) - 1
        counts = whole[best].astype(np.int64)
    return _text(numbers, (counts // np.gcd.reduce(counts)).tolist())


def _formulas_of_atoms(dataset: Dataset, start: int, end: int, reduced: bool) -> np.ndarray:
    some = dataset.gather(slice(start, end))
    elements, columns = np.unique(some.numbers, return_inverse=True)
    structure = np.repeat(np.arange(end - start), some.n_atoms)
    counts = np.bincount(
        structure * len(elements) + columns.reshape(-1), minlength=(end - start) * len(elements)
    ).reshape(end - start, len(elements))
    if reduced and len(elements):
        counts //= np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
    # One opaque value per row is sorted an order of magnitude faster than the row itself.
    narrow = np.ascontiguousarray(counts.astype(np.int32))
    rows = narrow.view(np.dtype((np.void, narrow.itemsize * max(len(elements), 1)))).reshape(-1)
    _, first, codes = np.unique(rows, return_index=True, return_inverse=True)
    numbers = elements.tolist()
    texts = np.array([_text(numbers, counts[i].tolist()) for i in first], dtype=str)
    return np.asarray(texts[codes.reshape(-1)])


def _text(numbers: Sequence[int], counts: Sequence[int]) -> str:
    from ase.data import chemical_symbols

    return "".join(
        f"{chemical_symbols[z]}{n if n > 1 else ''}"
        for z, n in zip(numbers, counts, strict=True)
        if n
    )
