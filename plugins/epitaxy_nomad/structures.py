"""The three ways in which archives of NOMAD hold a structure; lengths in them are in metres.

``run.system.atoms`` is the schema of the parsers of NOMAD 1 (runschema), ``data.model_system``
that of nomad-simulations, and ``results.properties.structures`` what NOMAD itself derives from
either, in the words of OPTIMADE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from epitaxy.errors import EntryError
from epitaxy_nomad.archive import Section, array, sections
from epitaxy_nomad.si import ANGSTROM


@dataclass(frozen=True, slots=True)
class Structure:
    """Numbers (n,) uint8, positions (n, 3) Å, cell (3, 3) Å and pbc (3,)."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray


def from_system(atoms: Section) -> Structure:
    """Read ``run.system.atoms``.

    Raises:
        EntryError: it is incomplete, or has particles that are no atoms.
    """
    labels = atoms.get("labels")
    for name in ("atomic_numbers", "species"):
        numbers = atoms.get(name)
        if isinstance(numbers, list) and numbers and all(_is_number(z) for z in numbers):
            break
    else:
        if not isinstance(labels, list) or not labels:
            raise EntryError("no atoms")
        numbers = [_number(label) for label in labels]
    return _structure(
        numbers, atoms.get("positions"), atoms.get("lattice_vectors"), atoms.get("periodic")
    )


def from_model_system(system: Section) -> Structure:
    """Read ``data.model_system`` of nomad-simulations.

    Raises:
        EntryError: it is incomplete, or has particles that are no atoms.
    """
    states = sections(system.get("particle_states"))
    numbers = [
        state["atomic_number"]
        if _is_number(state.get("atomic_number"))
        else _number(state.get("chemical_symbol") or state.get("label"))
        for state in states
    ]
    return _structure(
        numbers,
        system.get("positions"),
        system.get("lattice_vectors"),
        system.get("periodic_boundary_conditions"),
    )


def from_results(structure: Section) -> Structure:
    """Read a structure of ``results.properties.structures``.

    Raises:
        EntryError: it is incomplete or disordered.
    """
    names: dict[str, int] = {}
    for species in sections(structure.get("species")):
        symbols = species.get("chemical_symbols")
        if not isinstance(symbols, list) or len(symbols) != 1:
            raise EntryError("disordered sites")
        shares = array(species.get("concentration") or [1.0], (1,), "concentration")
        if not abs(shares[0] - 1) <= 1e-3:
            raise EntryError("disordered sites")
        names[str(species.get("name"))] = _number(symbols[0])
    sites = structure.get("species_at_sites")
    if not isinstance(sites, list) or not sites or not all(isinstance(s, str) for s in sites):
        raise EntryError("no structure")
    return _structure(
        [names[name] if name in names else _number(name) for name in sites],
        structure.get("cartesian_site_positions"),
        structure.get("lattice_vectors"),
        structure.get("dimension_types"),
    )


def _structure(numbers: list[int], positions: Any, vectors: Any, periodic: Any) -> Structure:
    if not numbers:
        raise EntryError("no atoms")
    cell = np.zeros((3, 3)) if vectors is None else array(vectors, (3, 3), "lattice_vectors")
    if periodic is None:  # not said by some parsers: a lattice means a crystal
        pbc = np.full(3, bool(cell.any()))
    elif isinstance(periodic, list) and len(periodic) == 3:
        pbc = np.array([bool(value) for value in periodic])
    else:
        raise EntryError("periodic directions are not three times true or false")
    places = array(positions, (None, 3), "positions")
    if len(places) != len(numbers):
        raise EntryError("not one position for each atom")
    return Structure(np.array(numbers, dtype=np.uint8), places * ANGSTROM, cell * ANGSTROM, pbc)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= 118


def _number(label: Any) -> int:
    """Return the atomic number of "Si", "Si1" or "Si_d".

    Raises:
        EntryError: the label is that of something else.
    """
    from ase.data import atomic_numbers

    text = str(label or "")
    for length in (2, 1):
        number: int = atomic_numbers.get(text[:length], 0)
        if number and not text[length : length + 1].isalpha():
            return number
    raise EntryError(f"particles that are no atoms ({text or 'without label'})")
