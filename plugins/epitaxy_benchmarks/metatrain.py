"""The samples of 100 frames that metatrain tests with: carbon, ethanol, QM7-X and QM9.

Layout (https://github.com/metatensor/metatrain, tests/resources): extended xyz, each with its own
names and units: carbon_reduced_100 (GAP-20, Rowe et al. 2020: energy, force and virial in eV and
eV/Å), ethanol_reduced_100 (MD17: kcal/mol and kcal/mol/Å), qm7x_reduced_100 (polarizability in
bohr^3), qm9_reduced_100 (15 numbers as in QM9: Hartree, Debye, bohr^3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ase import units

from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks.geometry import Geometry, voigt
from epitaxy_benchmarks.reading import Reading, existing_file, explained, plain_stem
from epitaxy_benchmarks.xyz_frames import frames

_VIRIAL = Conventions(stress_is_virial=True, stress_is_pressure=True)
_KCAL = Conventions(energy_unit="kcal/mol", forces_unit="kcal/mol/Å")
_CALORIE = 4.184  # J, thermochemical calorie, exact by definition
_QM9 = {
    "mu": ("dipole_norm", units.Debye),
    "alpha": ("isotropic_polarizability", units.Bohr**3),
    "epsHOMO": ("homo", units.Hartree),
    "epsLUMO": ("lumo", units.Hartree),
    "epsgap": ("band_gap", units.Hartree),
    "<R2>": ("electronic_spatial_extent", units.Bohr**2),
    "zpve": ("zero_point_energy", units.Hartree),
    "U0": ("internal_energy_0", units.Hartree),
    "U": ("internal_energy", units.Hartree),
    "H": ("enthalpy", units.Hartree),
    "G": ("free_energy_298", units.Hartree),
    "Cv": ("heat_capacity", _CALORIE),
}


def _carbon(structure: Geometry, values: Mapping[str, Any]) -> dict[str, Any]:
    stored = {
        "energy": np.array(values["energy"], dtype=np.float64),
        "forces": np.array(values["force"], dtype=np.float64),
        "stress": voigt(values["virial_as_written"]),
    }
    volume = float(abs(np.linalg.det(structure.cell)))
    return _VIRIAL.convert(stored, n_atoms=len(structure.numbers), volume=volume)


def _ethanol(structure: Geometry, values: Mapping[str, Any]) -> dict[str, Any]:
    stored = {
        "energy": np.array(values["energy"], dtype=np.float64),
        "forces": np.array(values["forces"], dtype=np.float64),
    }
    return _KCAL.convert(stored, n_atoms=len(structure.numbers), volume=None)


def _qm7x(structure: Geometry, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"polarizability": voigt(values["polarizability"]) * units.Bohr**3}


def _qm9(structure: Geometry, values: Mapping[str, Any]) -> dict[str, Any]:
    targets = {ours: float(values[key]) * factor for key, (ours, factor) in _QM9.items()}
    targets["energy"] = targets["internal_energy_0"] - targets["zero_point_energy"]
    return targets


@dataclass(frozen=True, slots=True)
class _Sample:
    quantities: tuple[str, ...]
    method: Method
    citation: str
    license: str
    read: Callable[[Geometry, Mapping[str, Any]], dict[str, Any]]


SAMPLES: Mapping[str, _Sample] = MappingProxyType(
    {
        "carbon_reduced_100": _Sample(
            ("energy", "forces", "stress"),
            Method("CASTEP", "LDA", "ultrasoft, 650 eV"),
            "Rowe et al., J. Chem. Phys. 153, 034702 (2020)",
            "BSD-3-Clause",
            _carbon,
        ),
        "ethanol_reduced_100": _Sample(
            ("energy", "forces"),
            Method("FHI-aims", "PBE+TS"),
            "Chmiela et al., Sci. Adv. 3, e1603015 (2017)",
            "BSD-3-Clause",
            _ethanol,
        ),
        "qm7x_reduced_100": _Sample(
            ("polarizability",),
            Method("FHI-aims", "PBE0+MBD", "tight"),
            "Hoja et al., Sci. Data 8, 43 (2021)",
            "CC-BY-4.0",
            _qm7x,
        ),
        "qm9_reduced_100": _Sample(
            ("energy", *(ours for ours, _ in _QM9.values())),
            Method("Gaussian 09", "B3LYP", "6-31G(2df,p)"),
            "Ramakrishnan et al., Sci. Data 1, 140022 (2014)",
            "CC0-1.0",
            _qm9,
        ),
    }
)
"""Name of a sample -> what it holds."""


class MetatrainSource:
    """Reads one of metatrain's samples, each with its own units.

    Args:
        path: for example "ethanol_reduced_100.xyz".
        sample: which one it is, where the file's name does not say it.
    """

    def __init__(self, *, path: Path, sample: str = ""):
        self._path = existing_file(path)
        self._name = sample or plain_stem(self._path)
        if self._name not in SAMPLES:
            raise DataError(
                f"{path}: {self._name!r} is not one of {', '.join(SAMPLES)}; say which one it is "
                "with the option sample"
            )
        self._sample = SAMPLES[self._name]
        self._reading = Reading()

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title=f"metatrain {self._name}",
            quantities=self._sample.quantities,
            license=self._sample.license,
            citation=self._sample.citation,
            url="https://github.com/metatensor/metatrain",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the frames in the order of the file.

        Raises:
            DataError: the file is damaged or a frame lacks a value; the message names it.
        """
        self._reading = reading = Reading([self._path])
        origin = Origin(url=self._path.name, database="metatrain", license=self._sample.license)
        for index, (structure, values) in enumerate(frames(self._path, reading)):
            with explained(f"{self._path}: frame {index}", self._name):
                entry = structure.entry(
                    self._sample.read(structure, values),
                    id=f"{self._name}#{index}",
                    method=self._sample.method,
                    origin=origin,
                    tags={"kind": str(values.get("config_type", ""))},
                )
            yield entry
