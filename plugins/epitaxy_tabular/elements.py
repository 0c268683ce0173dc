"""Properties of the elements, one row per element, from pymatgen's and ASE's tables.

The choice follows the Magpie set (Ward et al., npj Comput. Mater. 2, 16028 (2016)). Gaps of the
tables are filled by the mean of the element's group, or of all elements where the whole group
has none. Lengths are in Å, temperatures in K, energies in eV, volumes in cm^3/mol, the thermal
conductivity as log10 of W/(m K), the modulus in GPa.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from epitaxy_tabular.fractions import N_ELEMENTS

_CAPACITY = {"s": 2, "p": 6, "d": 10, "f": 14}

_OF_ELEMENT: dict[str, Callable[[Any], float]] = {
    "number": lambda element: element.Z,
    "mendeleev_number": lambda element: element.mendeleev_no,
    "atomic_weight": lambda element: element.atomic_mass,
    "group": lambda element: element.group,
    "row": lambda element: element.row,
    "electronegativity": lambda element: element.X,
    "electron_affinity": lambda element: element.electron_affinity,
    "ionization_energy": lambda element: element.ionization_energy,
    "atomic_radius": lambda element: element.atomic_radius,
    "van_der_waals_radius": lambda element: element.van_der_waals_radius,
    "melting_point": lambda element: element.melting_point,
    "boiling_point": lambda element: element.boiling_point,
    "molar_volume": lambda element: element.molar_volume,
    "log10_thermal_conductivity": lambda element: np.log10(element.thermal_conductivity),
    "bulk_modulus": lambda element: element.bulk_modulus,
    "is_metal": lambda element: element.is_metal,
}

VALENCE = ("n_s", "n_p", "n_d", "n_f", "n_valence")
UNFILLED = ("n_s_unfilled", "n_p_unfilled", "n_d_unfilled", "n_f_unfilled", "n_unfilled")

PROPERTIES: tuple[str, ...] = (*_OF_ELEMENT, "covalent_radius", *VALENCE, *UNFILLED)
"""Names of the columns of `element_table`."""


@cache
def element_table() -> np.ndarray:
    """Return the properties of the elements 1 to 118, (118, len(PROPERTIES)) float64."""
    from ase.data import covalent_radii
    from pymatgen.core import Element

    table = np.full((N_ELEMENTS, len(PROPERTIES)), np.nan)
    for row in range(N_ELEMENTS):
        element = Element.from_Z(row + 1)
        valence, unfilled = _valence(element)
        table[row] = [
            *(_number(element, read) for read in _OF_ELEMENT.values()),
            covalent_radii[row + 1] if row + 1 < len(covalent_radii) else np.nan,
            *valence,
            *unfilled,
        ]
    table[np.isinf(table)] = np.nan
    filled = _filled(table)
    filled.setflags(write=False)
    return filled


def _number(element: Any, read: Callable[[Any], float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each value that it does not have
        try:
            return float(read(element))
        except (AttributeError, TypeError, ValueError, KeyError):
            return np.nan


def _valence(element: Any) -> tuple[list[float], list[float]]:
    """Return the valence electrons in s, p, d, f and in all, and the holes of begun shells.

    Both are nan where no configuration is known.
    """
    try:
        text = element.electronic_structure
    except KeyError:  # beyond lawrencium
        return [np.nan] * len(VALENCE), [np.nan] * len(UNFILLED)
    counts = dict.fromkeys(_CAPACITY, 0.0)
    for shell in text.split("."):
        if not shell.startswith("["):
            counts[shell[1]] += float(shell[2:])
    holes = {
        name: float(_CAPACITY[name] - count) if 0 < count < _CAPACITY[name] else 0.0
        for name, count in counts.items()
    }
    return [*counts.values(), sum(counts.values())], [*holes.values(), sum(holes.values())]


def _filled(table: np.ndarray) -> np.ndarray:
    groups = table[:, PROPERTIES.index("group")]
    filled = table.copy()
    for column in range(table.shape[1]):
        values = table[:, column]
        for row in np.isnan(values).nonzero()[0]:
            kin = values[(groups == groups[row]) & ~np.isnan(values)]
            filled[row, column] = (kin if len(kin) else values[~np.isnan(values)]).mean()
    return filled
