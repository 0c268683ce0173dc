"""Properties that providers add to structures, and what they mean here.

OPTIMADE fixes structures, not energies: those stand in fields with the provider's prefix. A
field enters the table only if the provider documents its meaning and unit; for any other the
user says what it is with the option `mapping`.

Sources: OQMD's OPTIMADE documentation (``stability`` is the distance to the hull of all other
phases, negative below it); Materials Project's API documentation (one set of numbers per
thermodynamic scheme); Alexandria's server configuration (names and units); JARVIS-DFT's
documentation (OptB88vdW; -99999 and "na" mean that there is no value); odbx's /info/structures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from epitaxy.errors import EntryError, OptionError
from epitaxy.quantities import quantity


@dataclass(frozen=True, slots=True)
class Property:
    """One field of a provider.

    Attributes:
        field: its name; a dot leads into a dictionary.
        target: name in `epitaxy.quantities`.
        unit: unit in the documents.
        xc_functional: level of theory where the field fixes it.
    """

    field: str
    target: str
    unit: str
    xc_functional: str = ""

    @property
    def name(self) -> str:
        """Name of the property on the server: the part before a dot."""
        return self.field.partition(".")[0]


KNOWN = (
    Property(
        "_mp_stability.gga_gga+u.formation_energy_per_atom",
        "formation_energy",
        "eV/atom",
        "GGA/GGA+U",
    ),
    Property(
        "_mp_stability.gga_gga+u.energy_above_hull", "energy_above_hull", "eV/atom", "GGA/GGA+U"
    ),
    Property("_oqmd_delta_e", "formation_energy", "eV/atom", "GGA/GGA+U"),
    Property("_oqmd_stability", "decomposition_energy", "eV/atom", "GGA/GGA+U"),
    Property("_oqmd_band_gap", "band_gap", "eV", "GGA/GGA+U"),
    Property("_alexandria_energy", "energy", "eV"),
    Property("_alexandria_formation_energy_per_atom", "formation_energy", "eV/atom"),
    Property("_alexandria_hull_distance", "energy_above_hull", "eV/atom"),
    Property("_alexandria_band_gap", "band_gap", "eV"),
    Property("_jarvis_formation_energy_peratom", "formation_energy", "eV/atom", "OptB88vdW"),
    Property("_jarvis_ehull", "energy_above_hull", "eV/atom", "OptB88vdW"),
    Property("_jarvis_optb88vdw_bandgap", "band_gap", "eV", "OptB88vdW"),
    Property("_odbx_thermodynamics.formation_energy", "formation_energy", "eV/atom"),
    Property("_odbx_thermodynamics.hull_distance", "energy_above_hull", "eV/atom"),
)
"""Fields whose meaning is documented."""

FUNCTIONALS = ("_alexandria_xc_functional", "_odbx_dft_parameters.xc_functional")
"""Fields that name the level of theory."""

_SPELLINGS: Mapping[str, str] = {
    "pbe": "PBE",
    "pbesol": "PBEsol",
    "lda": "LDA",
    "scan": "SCAN",
    "r2scan": "r2SCAN",
    "optb88vdw": "OptB88vdW",
}
_ABSENT = (None, "na", "NA", "", -99999, "-99999", -99999.0)


def factor(unit: str, target: str, *, n_atoms: int) -> float:
    """Return the number that turns `unit` into the unit of the quantity `target`.

    Args:
        unit: of the provider, for example "eV", "meV/atom", "GPa", "kJ/mol".
        target: a quantity.
        n_atoms: of the structure, for values per atom against values per structure.

    Raises:
        OptionError: the unit measures something else or is not known.
    """
    from epitaxy.curation.conventions import ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS

    rule = quantity(target)
    unit = unit.replace("angstrom", "Å").replace("Angstrom", "Å").replace(" ", "")
    if unit in (rule.unit, rule.unit.replace("Å", "A")) or (
        unit in ("dimensionless", "1") and not rule.unit
    ):
        return 1.0
    base, per = (unit.removesuffix("/atom"), "atom") if unit.endswith("/atom") else (unit, "")
    our_base, _, our_per = rule.unit.partition("/")
    if base in ENERGY_UNITS and our_base in ENERGY_UNITS and our_per in ("", "atom"):
        value = ENERGY_UNITS[base] / ENERGY_UNITS[our_base]
        if per == our_per:
            return value
        if our_per == "atom":
            return value / n_atoms
        if rule.extensive:
            return value * n_atoms
    if unit in FORCE_UNITS and rule.unit == "eV/Å":
        return FORCE_UNITS[unit]
    if unit in STRESS_UNITS and rule.unit in STRESS_UNITS:
        return STRESS_UNITS[unit] / STRESS_UNITS[rule.unit]
    raise OptionError(
        f"the unit {unit!r} cannot become {rule.unit or 'a pure number'!r}, the unit of {target}; "
        f"known units of energy are {', '.join(ENERGY_UNITS)} (also per atom), of pressure "
        f"{', '.join(STRESS_UNITS)}"
    )


def value_at(attributes: Mapping[str, Any], field: str) -> Any:
    """Return what stands at a dotted path of a document, None where it ends early."""
    if field in attributes:
        return attributes[field]
    here: Any = attributes
    for part in field.split("."):
        if not isinstance(here, Mapping):
            return None
        here = here.get(part)
    return here


def read_targets(
    attributes: Mapping[str, Any], properties: tuple[Property, ...], *, n_atoms: int
) -> tuple[dict[str, np.ndarray], str]:
    """Return the targets of a document in our units, and the level of theory if a field fixes it.

    Raises:
        EntryError: a value is not a number or has the wrong shape.
    """
    targets: dict[str, np.ndarray] = {}
    functional = ""
    for known in properties:
        value = value_at(attributes, known.field)
        if known.target in targets or (not isinstance(value, list) and value in _ABSENT):
            continue
        rule = quantity(known.target)
        shape = (n_atoms, *rule.shape) if rule.per == "atom" else rule.shape
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise EntryError(f"{known.field} is not a number") from error
        if array.shape == (3, 3) and shape == (6,):
            array = array[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        if array.shape != shape:
            raise EntryError(f"{known.field} of shape {array.shape}, not {shape}")
        targets[known.target] = array * factor(known.unit, known.target, n_atoms=n_atoms)
        functional = functional or known.xc_functional
    for field in FUNCTIONALS:
        named = value_at(attributes, field)
        if isinstance(named, str) and named:
            functional = _SPELLINGS.get(named.lower().replace("-", ""), named)
    return targets, functional
