"""Where the zero of energy is: the valence band maximum, or the Fermi energy of a metal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from epitaxy.errors import EntryError, OptionError
from epitaxy_dos.spectra import ENERGIES
from epitaxy_dos.spectrum import Spectrum

Zero = Literal["auto", "vbm", "fermi", "none"]

TOLERANCE = 1e-3
"""States/eV per cell below which there are none: pymatgen's choice for band edges (1.0e-3)."""

SMALLEST_GAP = 0.02
"""eV; a smaller gap in a spectrum is that of a metal: two steps of the quantity `dos`."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A density of states on the grid of the quantity `dos`.

    Attributes:
        dos: (2001,) states/eV; 0 where it was not computed.
        reference: what the zero is and how it was found, and the range that was computed where
            it is not all of the grid.
        zero: eV on the scale of the file.
        low: eV relative to the zero; where the spectrum begins.
        high: eV; where it ends.
    """

    dos: np.ndarray
    reference: str
    zero: float
    low: float
    high: float


def align(spectrum: Spectrum, to: Zero = "auto", *, tolerance: float = TOLERANCE) -> Aligned:
    """Shift a density of states to its reference and put it on the grid of `dos`.

    Args:
        spectrum: as read.
        to: "vbm": the valence band maximum, as the file says it or as the spectrum shows it:
            the highest energy below the Fermi energy with more states than the tolerance.
            "fermi": the Fermi energy. "auto": the first where there is a gap, else the second.
            "none": energies are relative to the reference already.
        tolerance: states/eV of the cell that count as none.

    Raises:
        EntryError: neither the file nor the spectrum says where the zero is.
        OptionError: an unknown choice.
    """
    if to not in ("auto", "vbm", "fermi", "none"):
        raise OptionError(f"alignment to {to!r}: allowed are auto, vbm, fermi and none")
    zero, reference = _zero(spectrum, to, tolerance)
    grid = ENERGIES["dos"]
    energies = spectrum.energies - zero
    dos = np.interp(grid, energies, spectrum.total, left=0.0, right=0.0)
    low, high = float(energies[0]), float(energies[-1])
    if low > grid[0] + 1e-9 or high < grid[-1] - 1e-9:
        reference += f", computed from {max(low, -10.0):.2f} to {min(high, 10.0):.2f} eV"
    return Aligned(dos, reference, zero, low, high)


def band_edges(spectrum: Spectrum, *, tolerance: float = TOLERANCE) -> tuple[float, float] | None:
    """Return the highest occupied and lowest empty energy, eV, that a spectrum shows.

    None if there are states at the Fermi energy, or the gap is smaller than 0.02 eV. Between two
    points the spectrum is a straight line.

    Raises:
        EntryError: the file does not say the Fermi energy.
    """
    if spectrum.fermi is None:
        raise EntryError(
            "the density of states has no Fermi energy, so that its zero is unknown: give "
            "fermi=..., or align=none if energies are relative to the reference"
        )
    energies, dos = spectrum.energies, spectrum.total
    if np.interp(spectrum.fermi, energies, dos) > tolerance:
        return None
    (filled,) = np.nonzero((energies <= spectrum.fermi) & (dos > tolerance))
    (empty,) = np.nonzero((energies >= spectrum.fermi) & (dos > tolerance))
    if not len(filled):
        raise EntryError(
            f"no states below the Fermi energy {spectrum.fermi:g} eV: energies from "
            f"{energies[0]:g} to {energies[-1]:g} eV; is it on the same scale?"
        )
    below = int(filled[-1])
    highest = _crossing(energies, dos, below, below + 1, tolerance)
    if not len(empty):
        return highest, float(energies[-1])
    above = int(empty[0])
    lowest = _crossing(energies, dos, above, above - 1, tolerance)
    return (highest, lowest) if lowest - highest >= SMALLEST_GAP else None


def _zero(spectrum: Spectrum, to: Zero, tolerance: float) -> tuple[float, str]:
    if to == "none":
        return 0.0, "as given"
    if to == "fermi":
        if spectrum.fermi is None:
            raise EntryError("the density of states has no Fermi energy: give fermi=...")
        return spectrum.fermi, "Fermi energy"
    if spectrum.highest is not None:
        return spectrum.highest, "valence band maximum"
    edges = band_edges(spectrum, tolerance=tolerance)
    if edges is not None:
        return edges[0], f"valence band maximum, where the spectrum falls to {tolerance:g}"
    if to == "vbm":
        raise EntryError(
            "there are states at the Fermi energy, so there is no valence band maximum: use "
            "align=auto or align=fermi"
        )
    assert spectrum.fermi is not None  # band_edges refuses that
    return spectrum.fermi, "Fermi energy"


def _crossing(energies: np.ndarray, dos: np.ndarray, i: int, j: int, level: float) -> float:
    """Return where the line from point i, above the level, to its neighbour j falls to it."""
    if not 0 <= j < len(dos) or dos[j] > level:
        return float(energies[i])
    share = (dos[i] - level) / (dos[i] - dos[j])
    return float(energies[i] + share * (energies[j] - energies[i]))
