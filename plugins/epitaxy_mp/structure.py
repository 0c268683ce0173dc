"""Structures as pymatgen writes them into JSON, read without pymatgen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from epitaxy.errors import EntryError


class DisorderedError(EntryError):
    """A site is shared between species, or partly empty."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure and what its sites carry.

    Attributes:
        numbers: (n_atoms,) uint8.
        positions: (n_atoms, 3) Å.
        cell: (3, 3) Å.
        pbc: (3,) bool.
        magmoms: (n_atoms,) μB; None where not all sites have one.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    magmoms: np.ndarray | None


def read_structure(document: Any) -> Structure:
    """Return the structure of a pymatgen dict.

    Raises:
        DisorderedError: a site holds several species, or less than one atom.
        EntryError: something is missing or no number; the message says what.
    """
    try:
        lattice = document["lattice"]
        cell = np.array(lattice["matrix"], dtype=np.float64).reshape(3, 3)
        sites = document["sites"]
        pbc = np.array(lattice.get("pbc", (True, True, True)), dtype=bool)
        numbers = np.array([_number(i, site) for i, site in enumerate(sites)], dtype=np.uint8)
        positions = np.array([_position(site, cell) for site in sites], dtype=np.float64)
    except EntryError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise EntryError(f"its structure is not as pymatgen writes it: {error!r}") from error
    if not len(numbers):
        raise EntryError("its structure has no sites")
    moments = [(site.get("properties") or {}).get("magmom") for site in sites]
    magmoms = None
    if all(isinstance(m, int | float) and math.isfinite(m) for m in moments):
        magmoms = np.array(moments, dtype=np.float64)
    return Structure(numbers, positions.reshape(-1, 3), cell, pbc.reshape(3), magmoms)


def _number(index: int, site: Mapping[str, Any]) -> int:
    from ase.data import atomic_numbers

    species = site["species"]
    if len(species) != 1 or not math.isclose(float(species[0]["occu"]), 1.0, abs_tol=1e-6):
        mix = ", ".join(f"{s['element']} {float(s['occu']):g}" for s in species)
        raise DisorderedError(f"disordered: site {index} holds {mix}")
    symbol = species[0]["element"]
    if symbol not in atomic_numbers or symbol == "X":
        raise EntryError(f"site {index} holds {symbol!r}, which is no element")
    return int(atomic_numbers[symbol])


def _position(site: Mapping[str, Any], cell: np.ndarray) -> np.ndarray:
    if site.get("abc") is not None:
        return np.asarray(np.array(site["abc"], dtype=np.float64) @ cell)
    return np.array(site["xyz"], dtype=np.float64).reshape(3)
