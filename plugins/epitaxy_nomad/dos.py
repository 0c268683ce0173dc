"""The electronic density of states of a calculation in NOMAD, on the grid of the quantity `dos`.

In archives, energies are in J and values in states/J of the whole cell: a normalisation is kept
beside them (``normalization_factor``), not applied (runschema, `DosValues`). One section, or one
entry of ``total``, is one spin channel; a calculation without spin has one, which counts both
spins.
"""

from __future__ import annotations

import numpy as np

from epitaxy.errors import EntryError
from epitaxy_nomad.archive import Section, array, at, sections
from epitaxy_nomad.si import EV

GRID = np.arange(-1000, 1001) / 100
"""(2001,) eV: energies of the quantity `dos` relative to its reference."""

_SMALLEST_GAP = 0.01
"""eV; one step of the grid: a smaller gap is that of a metal."""


def read_dos(
    channels: list[Section], *, fermi: float | None, highest: float | None, lowest: float | None
) -> tuple[np.ndarray, str] | None:
    """Return the density of states (2001,), states/eV, and what its zero is.

    Args:
        channels: ``dos_electronic`` of a calculation (or ``electronic_dos`` of nomad-simulations).
        fermi: Fermi energy, eV.
        highest: highest occupied energy, eV.
        lowest: lowest unoccupied energy, eV.

    Returns:
        Values and reference: "valence band maximum" or "Fermi energy", with the range that was
        computed where it does not cover the grid; None if there is no density of states.

    Raises:
        EntryError: it is damaged, or nothing says where its zero is.
    """
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for channel in channels:
        energies = channel.get("energies")
        if isinstance(energies, dict):  # nomad-simulations
            energies = energies.get("points")
        values = [total.get("value") for total in sections(channel.get("total"))]
        if "value" in channel:
            values.append(channel["value"])
        for value in values:
            if energies is None or value is None or isinstance(energies, str):
                continue
            grid = array(energies, (None,), "energies of the density of states") * EV
            dos = array(value, (len(grid),), "density of states") / EV
            if len(grid) < 2 or (np.diff(grid) <= 0).any():
                raise EntryError("energies of the density of states do not increase")
            pairs.append((grid, dos))
        fermi = _first(fermi, channel.get("energy_fermi"))
    if not pairs:
        return None
    _, top, bottom = gap_of([g for c in channels for g in sections(c.get("band_gap"))])
    highest = top if highest is None else highest
    lowest = bottom if lowest is None else lowest
    for channel in channels:
        highest = _first(highest, channel.get("energies_origin"))
    zero, reference = zero_of(fermi=fermi, highest=highest, lowest=lowest)
    total = np.zeros(len(GRID))
    for grid, dos in pairs:
        total += np.interp(GRID + zero, grid, dos, left=0.0, right=0.0)
    low = max(float(grid[0]) - zero for grid, _ in pairs)
    high = min(float(grid[-1]) - zero for grid, _ in pairs)
    if low > GRID[0] or high < GRID[-1]:
        reference += f", computed from {max(low, -10):.2f} to {min(high, 10):.2f} eV"
    return total, reference


def zero_of(
    *, fermi: float | None, highest: float | None, lowest: float | None
) -> tuple[float, str]:
    """Return the energy that a density of states is aligned to, eV, and what it is.

    Args:
        fermi: Fermi energy, eV.
        highest: highest occupied energy, eV.
        lowest: lowest unoccupied energy, eV.

    Raises:
        EntryError: neither Fermi energy nor highest occupied energy is known.
    """
    is_metal = highest is None or (lowest is not None and lowest - highest < _SMALLEST_GAP)
    if is_metal and fermi is not None:
        return fermi, "Fermi energy"
    if highest is None:
        raise EntryError("density of states without Fermi energy or highest occupied energy")
    return highest, "valence band maximum"


def gap_of(bands: list[Section]) -> tuple[float | None, float | None, float | None]:
    """Return (gap, highest occupied, lowest unoccupied), eV, over all spin channels.

    A negative gap, as archives note for metals whose bands overlap, is zero.
    """
    highest = [b["energy_highest_occupied"] for b in bands if _known(b, "energy_highest_occupied")]
    lowest = [b["energy_lowest_unoccupied"] for b in bands if _known(b, "energy_lowest_unoccupied")]
    values = [b["value"] for b in bands if _known(b, "value")]
    top = max(highest) * EV if highest else None
    bottom = min(lowest) * EV if lowest else None
    gap: float | None = None
    if top is not None and bottom is not None and len(highest) == len(lowest) == len(bands):
        gap = bottom - top
    elif values:
        gap = min(values) * EV
    return (None if gap is None else max(gap, 0.0)), top, bottom


def bands_of(results: Section) -> list[Section]:
    """Return the band gaps in ``results.properties``: of the band structure, else of the rest."""
    electronic = at(results, "electronic")
    for name in ("band_structure_electronic", "dos_electronic"):
        for found in sections(at(electronic, name)):
            gaps = sections(found.get("band_gap"))
            if any(_known(gap, "value") for gap in gaps):
                return gaps
    return [gap for gap in sections(at(electronic, "band_gap")) if _known(gap, "value")]


def _known(gap: Section, name: str) -> bool:
    return isinstance(gap.get(name), int | float)


def _first(known: float | None, joule: object) -> float | None:
    if known is None and isinstance(joule, int | float):
        return float(joule) * EV
    return known
