"""Computes the fingerprints of electronic densities of states that NOMAD no longer computes.

They are stored where NOMAD's schema has a place for them, in
``run.calculation.dos_electronic.fingerprint`` of the first spin channel: one for each calculation,
of the sum over spins. The schema of nomad-simulations (``data.outputs``) has no such place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nomad.normalizing.normalizer import Normalizer

from epitaxy.errors import EpitaxyError
from epitaxy.spectra import Grid, coverage, fingerprints
from epitaxy_nomad.dos import zero_of
from epitaxy_nomad.oasis.fingerprint_text import Written, reference_id, written


class FingerprintNormalizer(Normalizer):
    """Adds a fingerprint to each calculation that has a total density of states.

    Args:
        grid: name of the grid of columns and pixels.
    """

    domain = None

    def __init__(self, *, grid: str) -> None:
        super().__init__()
        self.grid = Grid.parse(grid)

    def normalize(self, archive: Any, logger: Any = None) -> None:
        """Fill what is not there yet; what cannot be done is logged, never raised."""
        super().normalize(archive, logger)
        for run in getattr(archive, "run", None) or ():
            for number, calculation in enumerate(run.calculation or ()):
                channels = list(calculation.dos_electronic or ())
                if not channels or self._is_done(channels[0]):
                    continue
                try:
                    found = fingerprint_of(calculation, self.grid)
                except EpitaxyError as error:
                    self.logger.warning(
                        f"no fingerprint of the density of states of calculation {number}: {error}"
                    )
                    continue
                if found is not None:
                    _store(found, channels[0])

    def _is_done(self, channel: Any) -> bool:
        known = channel.fingerprint
        return known is not None and bool(known.bins) and known.grid_id == reference_id(self.grid)


def fingerprint_of(calculation: Any, grid: Grid) -> Written | None:
    """Return the fingerprint of a section calculation; None if it has no total DOS.

    Energies are relative to the highest occupied one of an insulator and the Fermi energy of a
    metal; spin channels are added up.

    Raises:
        EpitaxyError: nothing says where the zero is, or the spectrum is damaged or empty.
    """
    channels = list(calculation.dos_electronic)
    spectra = [
        (_ev(channel.energies), _magnitude(total.value, "1/eV"))
        for channel in channels
        for total in channel.total or ()
        if total.value is not None and channel.energies is not None
    ]
    if not spectra:
        return None
    energies = spectra[0][0]
    dos = np.zeros(len(energies))
    for own, values in spectra:
        is_same = len(own) == len(energies) and np.allclose(own, energies, rtol=0, atol=1e-9)
        dos += values if is_same else np.interp(energies, own, values, left=0.0, right=0.0)
    zero, _ = zero_of(**_levels(calculation, channels))
    covered = coverage(energies - zero, grid)
    return written(fingerprints(energies - zero, dos, grid=grid)[0], covered, grid)


def _levels(calculation: Any, channels: list[Any]) -> dict[str, float | None]:
    """Return Fermi energy, highest occupied and lowest unoccupied energy, eV."""
    gaps = [*(calculation.band_gap or ()), *(gap for c in channels for gap in c.band_gap or ())]
    highest = [_ev(gap.energy_highest_occupied) for gap in gaps]
    lowest = [_ev(gap.energy_lowest_unoccupied) for gap in gaps]
    energy = calculation.energy
    if energy is not None:
        highest.append(_ev(energy.highest_occupied))
        lowest.append(_ev(energy.lowest_unoccupied))
    fermi = [
        None if energy is None else _ev(energy.fermi),
        *(_ev(c.energy_fermi) for c in channels),
    ]
    return {
        "fermi": next((float(level) for level in fermi if level is not None), None),
        "highest": max((float(level) for level in highest if level is not None), default=None),
        "lowest": min((float(level) for level in lowest if level is not None), default=None),
    }


def _store(found: Written, channel: Any) -> None:
    make = channel.m_def.all_sub_sections["fingerprint"].sub_section.section_cls
    channel.fingerprint = make(
        bins=found.bins,
        indices=list(found.indices),
        stepsize=found.stepsize,
        filling_factor=found.filling_factor,
        grid_id=found.grid_id,
    )


def _ev(value: Any) -> Any:
    return None if value is None else _magnitude(value, "eV")


def _magnitude(value: Any, unit: str) -> Any:
    return np.asarray(value.to(unit).magnitude, dtype=np.float64)
