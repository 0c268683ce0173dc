"""Extended xyz with every digit: what our reader reads back is what was written, bit by bit.

Positions, cell and labels are plain extended xyz that any program reads: species, pos, forces ...,
Lattice, pbc, energy, stress (nine numbers) in ASE's units. The key `epitaxy` of each comment line
holds what the format has no place for, as JSON: id, tags, level of theory and origin; in the
first frame also the units of everything, the digest and the history.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.curation.tell import Tell
from epitaxy.entry import Entry
from epitaxy.errors import DataError
from epitaxy.quantities import QUANTITIES, quantity
from epitaxy.stores.export import facts_of, parts_of
from epitaxy.stores.new_file import new_file

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:/#-]*")
_TAKEN = re.compile(
    r"energy|force|stress|virial|lattice|properties|pbc|epitaxy|config_type_|^(id|f|uid|comment)$",
    re.IGNORECASE,
)
_NOT_TEXT = frozenset({"nan", "inf", "infinity", "t", "f", "true", "false"})


def write_extxyz(
    dataset: Dataset, path: Path, *, overwrite: bool = False, tell: Tell | None = None
) -> None:
    """Write a dataset as extended xyz.

    Raises:
        DataError: an entry without atoms, or with atoms that are no element; it is named.
        StoreError: see `epitaxy.stores.export.export`.
    """
    facts = facts_of(dataset)
    with new_file(path, overwrite=overwrite) as partial, partial.open("w", encoding="utf-8") as out:
        for part in parts_of(dataset, tell):
            for entry in part:
                out.write(frame_text(entry, facts))
                facts = {}


def frame_text(entry: Entry, facts: dict[str, Any] | None = None) -> str:
    """Return one frame as text.

    Args:
        entry: with at least one atom.
        facts: of the file as a whole, for its first frame.
    """
    from ase.data import chemical_symbols

    if not len(entry):
        raise DataError(f"entry {entry.id or '?'}: extended xyz has no structures without atoms")
    if int(entry.numbers.max()) >= len(chemical_symbols):
        raise DataError(
            f"entry {entry.id or '?'}: atomic number {int(entry.numbers.max())} has no symbol"
        )
    names = ["species:S:1", "pos:R:3"]
    columns: list[list[str]] = [[chemical_symbols[z] for z in entry.numbers.tolist()]]
    columns += _columns(entry.positions)
    words = [f'Lattice="{_numbers(entry.cell)}"']
    for name, value in sorted(entry.targets.items()):
        if quantity(name).per == "atom":
            columns += _columns(value)
            width = 1 if np.ndim(value) == 1 else int(np.prod(np.shape(value)[1:]))
            names.append(f"{name}:R:{width}")
        elif name == "stress":
            words.append(f'stress="{_numbers(value[[0, 5, 4, 5, 1, 3, 4, 3, 2]])}"')
        else:
            words.append(f'{name}="{_numbers(value)}"')
    words.insert(1, f"Properties={':'.join(names)}")
    words.append('pbc="{}"'.format(" ".join("T" if p else "F" for p in entry.pbc)))
    if _PLAIN_WORD.fullmatch(entry.id):
        words.append(f"id={entry.id}")
    words += [f"{k}={v}" for k, v in sorted(entry.tags.items()) if _is_plain(k, v)]
    words.append(f'epitaxy="{_json(_extra(entry, facts or {}))}"')
    rows = "\n".join(" ".join(row) for row in zip(*columns, strict=True))
    return f"{len(entry)}\n{' '.join(words)}\n{rows}\n"


def _extra(entry: Entry, facts: dict[str, Any]) -> dict[str, Any]:
    method = {key: value for key, value in asdict(entry.method).items() if value}
    origin = {key: value for key, value in asdict(entry.origin).items() if value}
    extra = {"id": entry.id, "tags": dict(entry.tags), "method": method, "origin": origin}
    return {**{key: value for key, value in extra.items() if value}, "version": 1, **facts}


def _is_plain(key: str, value: str) -> bool:
    """Whether other programs read a tag as the same text, and take it for nothing else."""
    return bool(
        _PLAIN_KEY.fullmatch(key)
        and _PLAIN_WORD.fullmatch(value)
        and key not in QUANTITIES
        and not _TAKEN.search(key)
        and value.lower() not in _NOT_TEXT
    )


def _json(extra: dict[str, Any]) -> str:
    # No "=" inside: some programs look for "key=" in the raw line.
    text = json.dumps(extra, separators=(",", ":")).replace("=", "\\u003d")
    return "_JSON " + text.replace("\\", "\\\\").replace('"', '\\"')


def _numbers(values: np.ndarray) -> str:
    return " ".join(map(repr, np.asarray(values, dtype=np.float64).reshape(-1).tolist()))


def _columns(values: np.ndarray) -> list[list[str]]:
    table = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return [list(map(repr, column)) for column in table.T.tolist()]
