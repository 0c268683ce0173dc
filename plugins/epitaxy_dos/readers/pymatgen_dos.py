"""pymatgen: Dos and CompleteDos as dictionaries, alone, in a list, or in documents.

Read without pymatgen: energies in eV on an absolute scale, densities {"1": up, "-1": down} in
states/eV of the cell (pymatgen.electronic_structure.dos).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from epitaxy.errors import DataError, EntryError
from epitaxy_dos.readers.files import text_of
from epitaxy_dos.spectrum import Spectrum, Structure

_DEEPEST = 4
"""Levels of a document in which a density of states is looked for."""

_NAMES = ("task_id", "material_id", "mp_id", "fs_id", "id")


def read_complete_dos(path: Path) -> list[Spectrum]:
    """Return every density of states in a JSON file.

    Raises:
        DataError: the file is no JSON, or has none.
    """
    try:
        document = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: damaged JSON: {error}") from error
    found = [complete_dos(one, name=name) for name, one in _walk(document, "", 0)]
    if not found:
        raise DataError(f"{path}: no density of states with efermi, energies and densities")
    return found


def complete_dos(document: Mapping[str, Any], *, name: str = "") -> Spectrum:
    """Return the total density of states of a Dos or CompleteDos (`as_dict()`).

    Raises:
        EntryError: something is missing or does not fit.
    """
    try:
        energies = np.array(document["energies"], dtype=np.float64)
        channels = [np.array(d, dtype=np.float64) for _, d in sorted(document["densities"].items())]
        fermi = float(document["efermi"])
        return Spectrum(
            energies=energies,
            channels=np.array(channels),
            fermi=fermi,
            structure=_structure(document.get("structure")),
            name=name,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, EntryError):
            raise
        raise EntryError(f"{name or 'CompleteDos'}: cannot be read: {error!r}") from error


def _walk(document: Any, name: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if depth > _DEEPEST:
        return
    if isinstance(document, list):
        for i, one in enumerate(document):
            yield from _walk(one, name or str(i), depth + 1)
    elif isinstance(document, dict):
        if {"efermi", "energies", "densities"} <= set(document):
            yield name, document
            return
        own = next((str(document[key]) for key in _NAMES if document.get(key)), name)
        for key, one in document.items():
            if isinstance(one, (dict, list)):
                yield from _walk(one, own or str(key), depth + 1)


def _structure(document: Any) -> Structure | None:
    if not isinstance(document, dict) or "lattice" not in document:
        return None
    numbers, positions = [], []
    for site in document["sites"]:
        species = site["species"]
        if len(species) != 1 or species[0].get("occu", 1) != 1:
            raise EntryError(f"a site is shared or partly empty: {species}")
        numbers.append(atomic_numbers[species[0]["element"].rstrip("0123456789+-")])
        positions.append(site["xyz"])
    cell = np.array(document["lattice"]["matrix"], dtype=np.float64)
    return Structure(np.array(numbers), np.array(positions, dtype=np.float64), cell)
