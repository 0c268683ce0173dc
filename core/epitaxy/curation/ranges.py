"""What values a property can have: limits beyond which a label is an error, not chemistry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from epitaxy.quantities import quantity

LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        # Lowest and highest compounds of 132,752 Materials Project and 55,713 JARVIS entries:
        # -4.6 and 5.0 eV/atom (fluorides; monatomic polymorphs).
        "formation_energy": (-6.0, 6.0),
        "decomposition_energy": (-6.0, 6.0),
        # Materials Project reaches 5.9 (atomic carbon and nitrogen). What lies higher is beyond
        # the cohesive energy of most solids. Below zero: against a hull without the entry.
        "energy_above_hull": (-1.0, 6.0),
        "mixing_energy": (-3.0, 3.0),
        "cohesive_energy": (-1.0, 15.0),
        "perovskite_heat": (-30.0, 30.0),
        # Solid neon has 21.7 eV in experiment; meta-GGA potentials overshoot.
        "band_gap": (0.0, 30.0),
        # Diamond: 443 and 535 GPa at no pressure.
        "bulk_modulus": (0.0, 600.0),
        "shear_modulus": (0.0, 600.0),
        "log10_bulk_modulus": (-2.0, 2.78),
        "log10_shear_modulus": (-2.0, 2.78),
        "refractive_index": (1.0, 100.0),
        # The stretch of H2 is 4,401 cm^-1 (Huber and Herzberg 1979).
        "last_phonon_peak": (0.0, 4500.0),
        "heat_capacity": (0.0, 1e5),
        "thermal_conductivity": (0.0, 5000.0),
        "exfoliation_energy": (-100.0, 5000.0),
        "is_metal": (0.0, 1.0),
        "is_glass_former": (0.0, 1.0),
    }
)
"""Quantity -> lowest and highest value allowed, in the unit of `epitaxy.quantities`."""


def limits_with(
    changes: Mapping[str, tuple[float, float] | None],
) -> dict[str, tuple[float, float]]:
    """Return the limits with some changed; None takes one away.

    Raises:
        DataError: no such quantity; the message suggests the nearest name.
    """
    limits = dict(LIMITS)
    for name, limit in changes.items():
        quantity(name)
        if limit is None:
            limits.pop(name, None)
        else:
            limits[name] = (float(limit[0]), float(limit[1]))
    return limits


def range_reason(name: str, value: float, limits: Mapping[str, tuple[float, float]]) -> str | None:
    """Return what is wrong with a value, "energy_above_hull > 6 eV/atom", or None."""
    if name not in limits:
        return None
    low, high = limits[name]
    if low <= value <= high:
        return None
    unit = quantity(name).unit
    beyond, limit = ("<", low) if value < low else (">", high)
    return f"{name} {beyond} {limit:g}{f' {unit}' if unit else ''}"
