"""The named physical properties, with unit, shape and sign rule: one table for everything.

Units are ASE's: eV, Å, eV/Å, eV/Å^3, with ASE's stress sign (positive under tension:
``+dE/dstrain / V``) and Voigt order (xx, yy, zz, yz, xz, xy).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from epitaxy.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One named physical property.

    Attributes:
        name: key in `Entry.targets` and `Dataset.targets`.
        unit: unit of the stored values, in ASE units; "" for pure numbers.
        shape: shape per structure, or per atom if `per` is "atom".
        per: whether there is one value per structure or one per atom.
        extensive: whether the value of two non-interacting copies is the sum.
        sign: the sign rule, where one exists.
        meaning: one sentence.
    """

    name: str
    unit: str
    shape: tuple[int, ...] = ()
    per: Literal["structure", "atom"] = "structure"
    extensive: bool = False
    sign: str = ""
    meaning: str = ""

    @property
    def is_claim(self) -> bool:
        """Whether the value is 0 or 1, as of is_metal."""
        return self.name.startswith("is_")


_TABLE = (
    Quantity(
        name="energy",
        unit="eV",
        extensive=True,
        meaning="Total energy of the structure, consistent with the forces (ASE's free_energy).",
    ),
    Quantity(
        name="energies",
        unit="eV",
        per="atom",
        extensive=True,
        meaning="Energy of each atom; the sum is the total energy.",
    ),
    Quantity(
        name="forces",
        unit="eV/Å",
        shape=(3,),
        per="atom",
        sign="-dE/dx",
        meaning="Force on each atom.",
    ),
    Quantity(
        name="stress",
        unit="eV/Å^3",
        shape=(6,),
        sign="+dE/dstrain / V (ASE: positive under tension); Voigt xx, yy, zz, yz, xz, xy",
        meaning="Cauchy stress.",
    ),
    Quantity(
        name="magmoms",
        unit="μB",
        per="atom",
        extensive=True,
        meaning="Magnetic moment of each atom.",
    ),
    Quantity(
        name="charges",
        unit="e",
        per="atom",
        extensive=True,
        meaning="Partial charge of each atom.",
    ),
    Quantity(name="dipole", unit="e·Å", shape=(3,), meaning="Electric dipole moment."),
    Quantity(name="magmom", unit="μB", extensive=True, meaning="Total magnetic moment."),
    Quantity(
        name="formation_energy",
        unit="eV/atom",
        meaning="Energy per atom relative to the elements' reference phases.",
    ),
    Quantity(
        name="energy_above_hull",
        unit="eV/atom",
        meaning="Energy per atom above the convex hull of competing phases.",
    ),
    Quantity(name="band_gap", unit="eV", meaning="Kohn-Sham or measured band gap."),
    Quantity(name="bulk_modulus", unit="GPa", meaning="Voigt-Reuss-Hill bulk modulus."),
    Quantity(name="shear_modulus", unit="GPa", meaning="Voigt-Reuss-Hill shear modulus."),
    Quantity(name="log10_bulk_modulus", unit="log10(GPa)", meaning="log10 of the bulk modulus."),
    Quantity(name="log10_shear_modulus", unit="log10(GPa)", meaning="log10 of the shear modulus."),
    Quantity(name="cohesive_energy", unit="eV/atom", meaning="Energy of separation into atoms."),
    Quantity(
        name="decomposition_energy",
        unit="eV/atom",
        meaning="Energy relative to the most stable competing phases; negative if stable.",
    ),
    Quantity(name="mixing_energy", unit="eV/atom", meaning="Energy relative to the end members."),
    Quantity(name="exfoliation_energy", unit="meV/atom", meaning="Energy to take a layer off."),
    Quantity(
        name="perovskite_heat",
        unit="eV",
        meaning="Heat of formation per five-atom perovskite cell (Castelli 2012; MatBench).",
    ),
    Quantity(name="refractive_index", unit="", meaning="Refractive index."),
    Quantity(
        name="last_phonon_peak",
        unit="1/cm",
        meaning="Frequency of the highest optical peak of the phonon density of states.",
    ),
    Quantity(name="heat_capacity", unit="J/(mol K)", meaning="Heat capacity at constant volume."),
    Quantity(name="thermal_conductivity", unit="W/(m K)", meaning="Lattice thermal conductivity."),
    Quantity(name="yield_strength", unit="MPa", meaning="Yield strength."),
    Quantity(name="is_metal", unit="", meaning="1 for a metal, 0 otherwise."),
    Quantity(name="is_glass_former", unit="", meaning="1 if a metallic glass forms, 0 otherwise."),
    Quantity(name="fermi_energy", unit="eV", meaning="Fermi energy of the calculation."),
    Quantity(
        name="magnetization_per_atom", unit="μB/atom", meaning="Total magnetic moment per atom."
    ),
    Quantity(
        name="polarizability",
        unit="Å^3",
        shape=(6,),
        meaning="Static polarizability volume; Voigt xx, yy, zz, yz, xz, xy.",
    ),
    Quantity(
        name="isotropic_polarizability",
        unit="Å^3",
        meaning="A third of the trace of the static polarizability volume.",
    ),
    Quantity(name="homo", unit="eV", meaning="Highest occupied molecular orbital energy."),
    Quantity(name="lumo", unit="eV", meaning="Lowest unoccupied molecular orbital energy."),
    Quantity(name="dipole_norm", unit="e·Å", meaning="Length of the electric dipole moment."),
    Quantity(
        name="electronic_spatial_extent", unit="Å^2", meaning="Expectation value of r squared."
    ),
    Quantity(
        name="zero_point_energy",
        unit="eV",
        extensive=True,
        meaning="Zero-point vibrational energy.",
    ),
    Quantity(
        name="internal_energy_0",
        unit="eV",
        extensive=True,
        meaning="Internal energy at 0 K: electronic energy and zero-point energy.",
    ),
    Quantity(
        name="internal_energy",
        unit="eV",
        extensive=True,
        meaning="Internal energy at 298.15 K.",
    ),
    Quantity(name="enthalpy", unit="eV", extensive=True, meaning="Enthalpy at 298.15 K."),
    Quantity(
        name="free_energy_298",
        unit="eV",
        extensive=True,
        meaning="Gibbs free energy at 298.15 K.",
    ),
    Quantity(
        name="phonon_dos",
        unit="",
        shape=(66,),
        meaning="Phonon density of states, its largest value 1, at 66 frequencies from 0 to 1000 "
        "1/cm (JARVIS leaderboard).",
    ),
    Quantity(
        name="dos",
        unit="states/eV",
        shape=(2001,),
        extensive=True,
        meaning="Total electronic density of states, both spins, from -10 to 10 eV in steps of "
        "0.01 eV relative to the valence band maximum, or to the Fermi energy of a metal.",
    ),
)

QUANTITIES: MappingProxyType[str, Quantity] = MappingProxyType({q.name: q for q in _TABLE})


def quantity(name: str) -> Quantity:
    """Return the quantity called `name`.

    Raises:
        DataError: there is no such quantity; the message suggests the nearest name.
    """
    if name in QUANTITIES:
        return QUANTITIES[name]
    import difflib

    close = difflib.get_close_matches(name, QUANTITIES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise DataError(f"no quantity named {name!r}; known: {', '.join(QUANTITIES)}.{hint}")


EV_PER_CUBIC_ANGSTROM_IN_GPA = 160.21766208
"""1 eV/Å^3 in GPa: 10^30 m^-3 times the elementary charge (CODATA 2014), as in ASE."""


def readable_unit(unit: str) -> tuple[float, str]:
    """Return the factor and the unit in which errors of a quantity are usually quoted."""
    return {
        "eV/atom": (1000.0, "meV/atom"),
        "eV/Å^3": (EV_PER_CUBIC_ANGSTROM_IN_GPA, "GPa"),
    }.get(unit, (1.0, unit))
