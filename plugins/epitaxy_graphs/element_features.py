"""Physical properties of the elements as 92 zeros and ones, the input of CGCNN.

The categories are those of Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018), supplemental
table S1: continuous properties fall into ten bins of equal width. The values come from pymatgen;
where an element has none, its block is zero. Periods beyond the eighth of the table do not occur.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

N_FEATURES = 92
_N_GROUPS, _N_PERIODS, _N_VALENCE, _N_BINS = 18, 8, 12, 10
_BLOCKS = "spdf"
_NOBLE = (0, 2, 10, 18, 36, 54, 86)
_RANGES = {  # smallest and largest value of ten bins
    "electronegativity": (0.5, 4.0),
    "covalent_radius": (25.0, 250.0),  # pm
    "log_ionization_energy": (1.3, 3.3),  # ln of eV
    "electron_affinity": (-3.0, 3.7),  # eV
    "log_atomic_volume": (1.5, 4.3),  # ln of cm^3/mol
}


@lru_cache(maxsize=1)
def element_features() -> np.ndarray:
    """Return (119, 92) float64, one row per atomic number; row 0 is zero."""
    table = np.zeros((119, N_FEATURES))
    for z in range(1, 119):
        table[z] = _features(z)
    table.setflags(write=False)
    return table


def _features(z: int) -> np.ndarray:
    from ase.data import covalent_radii
    from pymatgen.core import Element

    element = Element.from_Z(z)
    core = max(n for n in _NOBLE if n < z)
    group = element.group
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about properties that are not known
        negativity = float(element.X)
        affinity, volume = _known(element, "electron_affinity"), _known(element, "molar_volume")
        energies = element.ionization_energies
    radius = 100.0 * covalent_radii[z]
    valence = z - core if group < 13 or element.block == "f" else group - 10
    return np.concatenate(
        [
            _one_hot(group - 1, _N_GROUPS),
            _one_hot(element.row - 1, _N_PERIODS),
            _binned(negativity, "electronegativity"),
            _binned(radius, "covalent_radius"),
            _one_hot(min(valence, _N_VALENCE) - 1, _N_VALENCE),
            _binned(_log(energies[0] if energies else None), "log_ionization_energy"),
            _binned(affinity, "electron_affinity"),
            _one_hot(_BLOCKS.index(element.block), len(_BLOCKS)),
            _binned(_log(volume), "log_atomic_volume"),
        ]
    )


def _known(element: Any, name: str) -> float | None:
    try:
        value = getattr(element, name)
    except (KeyError, AttributeError, ValueError):  # as pymatgen says that it has none
        return None
    return None if value is None else float(value)


def _log(value: float | None) -> float | None:
    return math.log(value) if value is not None and value > 0 else None


def _binned(value: float | None, name: str) -> np.ndarray:
    if value is None or not math.isfinite(value):
        return np.zeros(_N_BINS)
    low, high = _RANGES[name]
    place = int(_N_BINS * (float(value) - low) / (high - low))
    return _one_hot(min(max(place, 0), _N_BINS - 1), _N_BINS)


def _one_hot(index: int, size: int) -> np.ndarray:
    row = np.zeros(size)
    row[index] = 1.0
    return row
