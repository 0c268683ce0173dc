"""A structure document of OPTIMADE as atoms, or the reason why it is not one.

The meaning of every field is that of the OPTIMADE specification 1.2, section "Structures
entries". Lengths are in Å. A document that says its atoms are disordered, incomplete or
implicit is refused by name: no set of atoms stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from epitaxy.errors import EntryError

FIELDS = (
    "cartesian_site_positions",
    "chemical_formula_descriptive",
    "chemical_formula_reduced",
    "dimension_types",
    "elements",
    "last_modified",
    "lattice_vectors",
    "nperiodic_dimensions",
    "nsites",
    "species",
    "species_at_sites",
    "structure_features",
)
"""Standard properties that a structure is made of."""

_FEATURES: Mapping[str, str] = {
    "disorder": "disordered sites",
    "assemblies": "assemblies of alternative sites",
    "implicit_atoms": "implicit atoms without positions",
    "site_attachments": "atoms attached to sites without positions",
    "unknown_positions": "unknown positions",
}
_FULL = 1e-3
"""Concentrations this close to 1 are full: databases round."""


@dataclass(frozen=True, slots=True)
class Atoms:
    """Numbers (n,) uint8, positions (n, 3) Å, cell (3, 3) Å and pbc (3,) of a document."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray


def read_atoms(attributes: Mapping[str, Any]) -> Atoms:
    """Return the atoms of a document's `attributes`.

    A site whose only species is a vacancy holds no atom and is left out.

    Raises:
        EntryError: the document is disordered, incomplete or contradicts itself; the message is
            the reason, without the name of the document.
    """
    for feature in _words(attributes.get("structure_features") or [], "structure_features"):
        if feature in _FEATURES:
            raise EntryError(_FEATURES[feature])
    positions = _numbers(attributes.get("cartesian_site_positions"), "cartesian_site_positions")
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise EntryError(f"cartesian_site_positions of shape {positions.shape}, not (nsites, 3)")
    n_sites = attributes.get("nsites")
    if n_sites is not None and n_sites != len(positions):
        raise EntryError("nsites is not the number of positions")
    names = _words(attributes.get("species_at_sites"), "species_at_sites")
    if len(names) != len(positions):
        raise EntryError("species_at_sites has not one species for each position")
    species = _read_species(attributes.get("species"))
    elements = [species[name] if name in species else _element(name) for name in names]
    kept = np.array([number > 0 for number in elements], dtype=bool)
    if not kept.any():
        raise EntryError("only vacancies")
    cell, pbc = _read_cell(attributes)
    return Atoms(np.array(elements, dtype=np.uint8)[kept], positions[kept], cell, pbc)


def _read_cell(attributes: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    vectors = attributes.get("lattice_vectors")
    types = attributes.get("dimension_types")
    n_periodic = attributes.get("nperiodic_dimensions")
    if types is None:
        # Mandatory in the standard, yet some servers send null; all or nothing is unambiguous.
        if n_periodic not in (None, 0, 3):
            raise EntryError("dimension_types missing")
        types = [int(vectors is not None and n_periodic != 0)] * 3
    if not isinstance(types, list) or len(types) != 3 or any(t not in (0, 1) for t in types):
        raise EntryError("dimension_types is not three times 0 or 1")
    if n_periodic is not None and n_periodic != sum(types):
        raise EntryError("nperiodic_dimensions contradicts dimension_types")
    pbc = np.array(types, dtype=bool)
    cell = np.zeros((3, 3))
    if vectors is None:
        if pbc.any():
            raise EntryError("lattice_vectors missing")
        return cell, pbc
    if not isinstance(vectors, list) or len(vectors) != 3:
        raise EntryError("lattice_vectors is not three vectors")
    for axis, vector in enumerate(vectors):
        if vector is None or (isinstance(vector, list) and None in vector):
            if pbc[axis]:
                raise EntryError("a periodic direction without a lattice vector")
            continue
        row = _numbers(vector, "lattice_vectors")
        if row.shape != (3,):
            raise EntryError(f"a lattice vector of shape {row.shape}, not (3,)")
        cell[axis] = row
    return cell, pbc


def _read_species(listed: Any) -> dict[str, int]:
    """Return species name -> atomic number, 0 for a vacancy."""
    found: dict[str, int] = {}
    if not isinstance(listed, list | None):
        raise EntryError("species is not a list")
    for species in listed or ():
        try:
            (name,) = _words([species["name"]], "name of a species")
            symbols = _words(species["chemical_symbols"], "chemical_symbols")
            shares = [float(share) for share in species.get("concentration") or [1.0]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, EntryError):
                raise
            raise EntryError(f"species is not as in the standard: {error!r}") from error
        if species.get("attached"):
            raise EntryError(_FEATURES["site_attachments"])
        if len(symbols) > 1:
            mixed = "partly vacant sites" if "vacancy" in symbols else "sites with mixed elements"
            raise EntryError(mixed)
        if not symbols or len(shares) != 1 or abs(shares[0] - 1) > _FULL:
            raise EntryError("partly occupied sites")
        found[name] = 0 if symbols[0] == "vacancy" else _element(symbols[0])
    return found


def _words(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise EntryError(f"{name} missing" if value is None else f"{name} is not a list of words")
    return value


def _element(symbol: str) -> int:
    from ase.data import atomic_numbers

    if symbol == "X":
        raise EntryError("unknown elements (X)")
    number: int = atomic_numbers.get(symbol, 0)
    if not number:
        raise EntryError(f"no element {symbol!r}")
    return number


def _numbers(value: Any, name: str) -> np.ndarray:
    if value is None:
        raise EntryError(f"{name} missing")
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EntryError(f"{name} is not made of numbers") from error
    if not np.isfinite(array).all():
        raise EntryError(f"{name} not finite")
    return array
