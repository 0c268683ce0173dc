"""Units, signs and orders in which others store labels, and their conversion to ours.

Everything inside is in ASE's units and signs (see `epitaxy.quantities`). A reader that knows
what its files hold converts with `Conventions`; a user who knows better says so on the
command line, and the same conversion is applied there.

Constants: `ase.units` (CODATA 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units

from epitaxy.errors import DataError, EntryError

if TYPE_CHECKING:
    from epitaxy.entry import Entry

_KCAL, _KJ = units.kcal / units.mol, units.kJ / units.mol

ENERGY_UNITS: Mapping[str, float] = MappingProxyType(
    {
        "eV": 1.0,
        "meV": 1e-3,
        "Hartree": units.Hartree,
        "Ry": units.Rydberg,
        "kcal/mol": _KCAL,
        "kJ/mol": _KJ,
        "J": units.J,
    }
)
"""Name of an energy unit -> its value in eV."""

FORCE_UNITS: Mapping[str, float] = MappingProxyType(
    {
        "eV/Å": 1.0,
        "meV/Å": 1e-3,
        "eV/Bohr": 1 / units.Bohr,
        "Hartree/Bohr": units.Hartree / units.Bohr,
        "Hartree/Å": units.Hartree,
        "Ry/Bohr": units.Rydberg / units.Bohr,
        "Ry/Å": units.Rydberg,
        "kcal/mol/Å": _KCAL,
        "kJ/mol/Å": _KJ,
        "kJ/mol/nm": _KJ / 10,
        "eV/nm": 0.1,
    }
)
"""Name of a force unit -> its value in eV/Å."""

STRESS_UNITS: Mapping[str, float] = MappingProxyType(
    {
        "eV/Å^3": 1.0,
        "meV/Å^3": 1e-3,
        "GPa": units.GPa,
        "kbar": units.GPa / 10,
        "MPa": units.GPa / 1000,
        "bar": units.GPa / 10_000,
        "Pa": units.Pascal,
        "Hartree/Bohr^3": units.Hartree / units.Bohr**3,
        "Ry/Bohr^3": units.Rydberg / units.Bohr**3,
    }
)
"""Name of a stress unit -> its value in eV/Å^3."""

POSITION_UNITS: Mapping[str, float] = MappingProxyType(
    {"Å": 1.0, "fractional": 1.0, "nm": 10.0, "m": 1e10, "pm": 0.01, "Bohr": units.Bohr}
)
"""Name of a unit of positions and cells -> its value in Å; "fractional" positions are multiples
of the cell vectors, which are in Å."""

STRESS_ORDERS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "ase": (0, 1, 2, 3, 4, 5),
        "vasp": (0, 1, 2, 4, 5, 3),
        "xx,yy,zz,xy,xz,yz": (0, 1, 2, 5, 4, 3),
        "xx,yy,zz,yz,xy,xz": (0, 1, 2, 3, 5, 4),
        "xx,yy,zz,xz,yz,xy": (0, 1, 2, 4, 3, 5),
        "xx,yy,zz,xz,xy,yz": (0, 1, 2, 5, 3, 4),
        "xx,xy,xz,yy,yz,zz": (0, 3, 5, 4, 2, 1),
        "xx,xy,yy,xz,yz,zz": (0, 2, 5, 4, 3, 1),
    }
)
"""Name of an order -> where xx, yy, zz, yz, xz, xy stand in it ("ase" is that order itself,
"vasp" is xx, yy, zz, xy, yz, zx)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """How the labels of a source differ from ours.

    Attributes:
        energy_unit: one of `ENERGY_UNITS`.
        energy_per_atom: the energy is per atom, not of the whole structure.
        forces_unit: one of `FORCE_UNITS`.
        forces_are_gradients: forces are +dE/dx.
        stress_unit: one of `STRESS_UNITS` (of `ENERGY_UNITS` if `stress_is_virial`).
        stress_order: one of `STRESS_ORDERS`.
        stress_is_pressure: positive under compression (VASP's sign, and that of a virial).
        stress_is_virial: volume times stress was stored.
        positions_unit: one of `POSITION_UNITS`, of positions and cell.
    """

    energy_unit: str = "eV"
    energy_per_atom: bool = False
    forces_unit: str = "eV/Å"
    forces_are_gradients: bool = False
    stress_unit: str = "eV/Å^3"
    stress_order: str = "ase"
    stress_is_pressure: bool = False
    stress_is_virial: bool = False
    positions_unit: str = "Å"

    def __post_init__(self) -> None:
        stress_units = ENERGY_UNITS if self.stress_is_virial else STRESS_UNITS
        if self.stress_is_virial and self.stress_unit == "eV/Å^3":
            object.__setattr__(self, "stress_unit", "eV")
        for name, table in (
            ("energy_unit", ENERGY_UNITS),
            ("forces_unit", FORCE_UNITS),
            ("stress_unit", stress_units),
            ("stress_order", STRESS_ORDERS),
            ("positions_unit", POSITION_UNITS),
        ):
            value = getattr(self, name)
            if value not in table:
                raise DataError(f"{name} = {value!r} is not one of {', '.join(table)}")

    @property
    def changes(self) -> dict[str, Any]:
        """The conventions that differ from ours."""
        ours = Conventions()
        seen = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in seen.items() if value != getattr(ours, name)}

    def merged(self, other: Conventions) -> Conventions:
        """Return these conventions with the changes of another."""
        return replace(self, **other.changes)

    def flags(self) -> str:
        """Return the options of `epitaxy ingest` that say the same."""
        words = []
        for name, value in self.changes.items():
            words.append(f"--{name.replace('_', '-')}")
            if not isinstance(value, bool):
                words.append(str(value) if " " not in str(value) else repr(value))
        return " ".join(words)

    def convert(
        self, targets: Mapping[str, np.ndarray], *, n_atoms: int, volume: float | None
    ) -> dict[str, np.ndarray]:
        """Return targets in our units, signs and orders.

        Args:
            targets: energy (), forces (n_atoms, 3) and stress (6,) in these conventions;
                other quantities are passed on.
            n_atoms: number of atoms.
            volume: of the cell, Å^3; needed if the stress is a virial.

        Raises:
            EntryError: a virial cannot be divided by a volume that is missing or zero.
        """
        done = dict(targets)
        if "energy" in done:
            factor = ENERGY_UNITS[self.energy_unit] * (n_atoms if self.energy_per_atom else 1)
            done["energy"] = done["energy"] * factor if factor != 1 else done["energy"]
        if "forces" in done:
            factor = FORCE_UNITS[self.forces_unit] * (-1 if self.forces_are_gradients else 1)
            done["forces"] = done["forces"] * factor if factor != 1 else done["forces"]
        if "stress" in done and np.shape(done["stress"]) == (6,):
            done["stress"] = self._stress(np.asarray(done["stress"]), volume)
        return done

    def _stress(self, stored: np.ndarray, volume: float | None) -> np.ndarray:
        factor = -1.0 if self.stress_is_pressure else 1.0
        if self.stress_is_virial:
            if not volume:
                raise EntryError("a virial needs a periodic cell with a volume to become a stress")
            factor *= ENERGY_UNITS[self.stress_unit] / volume
        else:
            factor *= STRESS_UNITS[self.stress_unit]
        ordered: np.ndarray = stored[list(STRESS_ORDERS[self.stress_order])]
        return ordered * factor if factor != 1 else ordered

    def _placed(self, entry: Entry) -> Entry:
        """Return an entry with positions and cell in Å."""
        if self.positions_unit == "Å":
            return entry
        if self.positions_unit == "fractional":
            if not np.asarray(entry.cell).any():
                return entry  # a formula, or a molecule without a cell
            return replace(entry, positions=np.asarray(entry.positions) @ np.asarray(entry.cell))
        factor = POSITION_UNITS[self.positions_unit]
        return replace(
            entry,
            positions=np.asarray(entry.positions) * factor,
            cell=np.asarray(entry.cell) * factor,
        )

    def apply(self, entry: Entry) -> Entry:
        """Return an entry whose labels and coordinates are converted.

        Raises:
            EntryError: see `convert`; the message names the entry.
        """
        if not self.changes:
            return entry
        entry = self._placed(entry)
        volume = float(abs(np.linalg.det(entry.cell))) if all(entry.pbc) else None
        try:
            targets = self.convert(entry.targets, n_atoms=len(entry), volume=volume)
        except EntryError as error:
            raise EntryError(f"entry {entry.id or '?'}: {error}") from error
        return replace(entry, targets=MappingProxyType(targets))
