"""One structure with its targets, its level of theory and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.errors import EntryError
from epitaxy.quantities import quantity

if TYPE_CHECKING:
    from ase import Atoms


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Method:
    """The level of theory (or experiment) behind the targets of an entry.

    Attributes:
        code: program and version, for example "VASP 5.4.4" or "GPAW 25.7.0".
        xc_functional: "PBE", "PBEsol", "LDA", "r2SCAN", "GGA+U", "experiment" ...
        settings: digest or short text of the remaining settings.
    """

    code: str = ""
    xc_functional: str = ""
    settings: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry came from.

    Attributes:
        url: address or file name.
        database: name and version of the database.
        license: SPDX name where there is one.
        retrieved: ISO date.
    """

    url: str = ""
    database: str = ""
    license: str = ""
    retrieved: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One structure with its targets.

    Attributes:
        numbers: (n_atoms,) uint8, atomic numbers.
        positions: (n_atoms, 3) float64, Å.
        cell: (3, 3) float64, Å, rows are the lattice vectors as in ASE; zeros where absent.
        pbc: (3,) bool, periodic directions.
        targets: quantity name -> array in the shape and unit of `epitaxy.quantities`.
        id: unique name in its source, for example "mp-149" or "train.xyz#17".
        method: level of theory.
        origin: where it came from.
        tags: short text labels, for example {"group": "Surface"}.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    targets: Mapping[str, np.ndarray] = field(default_factory=_nothing)
    id: str = ""
    method: Method = Method()
    origin: Origin = Origin()
    tags: Mapping[str, str] = field(default_factory=_nothing)

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        *,
        targets: Mapping[str, Any] | None = None,
        id: str = "",
        method: Method | None = None,
        origin: Origin | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Entry:
        """Make an entry from ASE Atoms; `targets` are in ASE units.

        The calculator of `atoms` is not asked: the reader decides which results are labels.

        Raises:
            EntryError: a target has the wrong shape or is not a known quantity.
        """
        n_atoms = len(atoms)
        checked: dict[str, np.ndarray] = {}
        for name, value in (targets or {}).items():
            array = np.asarray(value, dtype=np.float64)
            rule = quantity(name)
            shape = (n_atoms, *rule.shape) if rule.per == "atom" else rule.shape
            if array.shape != shape:
                raise EntryError(
                    f"entry {id or '?'}: {name} has shape {array.shape}, expected {shape} "
                    f"for {n_atoms} atoms"
                )
            checked[name] = array
        return cls(
            numbers=atoms.numbers.astype(np.uint8),
            positions=np.array(atoms.positions, dtype=np.float64),
            cell=np.array(atoms.cell.array, dtype=np.float64),
            pbc=np.array(atoms.pbc, dtype=bool),
            targets=MappingProxyType(checked),
            id=id,
            method=method or Method(),
            origin=origin or Origin(),
            tags=MappingProxyType(dict(tags or {})),
        )

    def to_atoms(self) -> Atoms:
        """Return ASE Atoms whose calculator holds the targets that ASE knows."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.outputs import all_outputs

        atoms = Atoms(
            numbers=self.numbers.astype(int), positions=self.positions, cell=self.cell, pbc=self.pbc
        )
        known = {
            name: float(value) if np.ndim(value) == 0 else np.array(value)
            for name, value in self.targets.items()
            if name in all_outputs
        }
        if known:
            if "energy" in known:
                known["free_energy"] = known["energy"]
            atoms.calc = SinglePointCalculator(atoms, **known)
        extra = {
            name: float(value) if np.ndim(value) == 0 else np.array(value)
            for name, value in self.targets.items()
            if name not in all_outputs
        }
        atoms.info.update({**self.tags, **extra})
        if self.id:
            atoms.info["id"] = self.id
        return atoms
