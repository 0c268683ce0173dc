"""ASE databases (SQLite), with everything a dataset knows.

Structures and the labels that ASE has a place for are where `ase db` shows them; other scalar
labels and tags are key-value pairs where ASE allows it, so that ``ase db set.db band_gap>1``
works. `data["epitaxy"]` of each row holds id, tags, other labels, level of theory and origin; the
metadata hold units, digest and history.
"""

from __future__ import annotations

import sqlite3
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.curation.tell import Tell
from epitaxy.entry import Entry
from epitaxy.errors import DataError, StoreError
from epitaxy.quantities import quantity
from epitaxy.stores.export import facts_of, parts_of
from epitaxy.stores.new_file import new_file

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

_SHOWN_BY_ASE = ("energy", "forces", "stress", "dipole", "magmom", "magmoms", "charges")


def write_ase_db(
    dataset: Dataset, path: Path, *, overwrite: bool = False, tell: Tell | None = None
) -> None:
    """Write a dataset as an ASE database.

    Raises:
        DataError: an entry with atoms that are no element; it is named.
        StoreError: see `epitaxy.stores.export.export`.
    """
    from ase.db import connect

    with new_file(path, overwrite=overwrite) as partial:
        try:
            database = connect(str(partial), type="db", use_lock_file=False, append=False)
            for part in parts_of(dataset, tell):
                with database:  # one transaction
                    for entry in part:
                        _write(database, entry)
            database.metadata = {"title": path.stem, "epitaxy": facts_of(dataset)}
        except sqlite3.Error as error:
            raise StoreError(
                f"{path}: could not be written: {error}; nothing was kept of it and what was "
                "there before is untouched"
            ) from error


def _write(database: Any, entry: Entry) -> None:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.data import chemical_symbols

    if len(entry) and int(entry.numbers.max()) >= len(chemical_symbols):
        raise DataError(
            f"entry {entry.id or '?'}: atomic number {int(entry.numbers.max())} has no symbol"
        )
    atoms = Atoms(
        numbers=entry.numbers.astype(int),
        positions=entry.positions,
        cell=entry.cell,
        pbc=entry.pbc,
    )
    shown: dict[str, Any] = {}
    others: dict[str, np.ndarray] = {}
    pairs: dict[str, Any] = {}
    for name, value in entry.targets.items():
        if name in _SHOWN_BY_ASE:
            shown[name] = float(value) if np.ndim(value) == 0 else np.array(value)
            if np.ndim(value) == 0 and value == 0:
                others[name] = np.array(value)  # SQLite drops the sign of -0.0
        else:
            others[name] = np.array(value)
            if not quantity(name).shape and quantity(name).per == "structure":
                pairs[name] = float(value)
    if shown:
        if "energy" in shown:
            shown["free_energy"] = shown["energy"]
        atoms.calc = SinglePointCalculator(atoms, **shown)
    pairs |= {key: word for key, word in entry.tags.items() if key not in pairs}
    database.write(
        atoms,
        key_value_pairs={key: value for key, value in pairs.items() if _is_allowed(key, value)},
        data={
            "epitaxy": {
                "version": 1,
                "id": entry.id,
                "tags": dict(entry.tags),
                "targets": others,
                "method": asdict(entry.method),
                "origin": asdict(entry.origin),
            }
        },
    )


def _is_allowed(key: str, value: Any) -> bool:
    from ase.db.core import check

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check({key: value})
    except (ValueError, UserWarning):
        return False
    return True
