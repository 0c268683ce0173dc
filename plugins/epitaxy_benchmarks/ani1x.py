"""ANI-1x and ANI-1ccx: organic molecules at several levels of theory in one HDF5 file.

Layout (https://github.com/aiqm/ANI1x_datasets and Smith et al., Sci. Data 7, 134 (2020), table 2;
ani1x-release.h5): one group per formula with ``atomic_numbers`` (n_atoms,), ``coordinates``
(n_conformers, n_atoms, 3) Å, and for each level ``wb97x_dz.energy`` Hartree, ``wb97x_dz.forces``
Hartree/Å, ``wb97x_dz.dipole`` e Å, ``wb97x_dz.hirshfeld_charges`` e; ``wb97x_tz.*`` likewise with
``mbis_charges``; ``ccsd(t)_cbs.energy`` without forces.

Trap: a value that was not computed is NaN: those conformers are left out and counted in `notes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks.geometry import molecule
from epitaxy_benchmarks.reading import brief, existing_file, explained

_UNITS = Conventions(energy_unit="Hartree", forces_unit="Hartree/Å")
_CHUNK = 256  # conformers that are read at once
_LEVELS = {
    "wb97x_dz": (Method("Gaussian 09", "ωB97X", "6-31G*"), "hirshfeld_charges"),
    "wb97x_tz": (Method("ORCA", "ωB97X", "def2-TZVPP"), "mbis_charges"),
    "ccsd(t)_cbs": (Method("ORCA", "CCSD(T)*", "complete basis set"), ""),
}


class Ani1xSource:
    """Reads one level of theory of ani1x-release.h5.

    Args:
        path: the HDF5 file.
        level: ωB97X/6-31G* (5 million), ωB97X/def2-TZVPP or CCSD(T)*/CBS (0.5 million, energies
            alone).
    """

    def __init__(
        self, *, path: Path, level: Literal["wb97x_dz", "wb97x_tz", "ccsd(t)_cbs"] = "wb97x_dz"
    ):
        self._path = existing_file(path)
        self._level = level
        self._method, self._charges = _LEVELS[level]
        self._done = 0.0
        self.notes: tuple[str, ...] = ()
        """What was left out, one sentence, after an iteration."""

    @property
    def card(self) -> Card:
        """What the data are."""
        forces = () if self._level == "ccsd(t)_cbs" else ("forces", "dipole", "charges")
        return Card(
            title=f"ANI-1x ({self._level})",
            quantities=("energy", *forces),
            license="CC0-1.0",
            citation="Smith et al., Sci. Data 7, 134 (2020)",
            url="https://doi.org/10.6084/m9.figshare.c.4712477",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the formulas that were read so far."""
        return self._done

    def __iter__(self) -> Iterator[Entry]:
        """Yield the conformers, formula by formula, in the order of the file.

        Raises:
            DataError: the file is damaged or a group lacks an array; the message names it.
        """
        import h5py

        self._done, self.notes = 0.0, ()
        n_missing = n_seen = 0
        try:
            file = h5py.File(self._path, "r")
        except OSError as error:
            raise DataError(
                f"{self._path}: not an HDF5 file, or cut (an .h5 file cannot be read while it is "
                f"compressed): {brief(error)}"
            ) from error
        with file:
            for index, formula in enumerate(file):
                where = f"{self._path}: group {formula}"
                with explained(where, "ani1x-release.h5"):
                    group = file[formula]
                    n_conformers = len(group["coordinates"])
                for start in range(0, n_conformers, _CHUNK):
                    rows = slice(start, min(start + _CHUNK, n_conformers))
                    try:
                        with explained(where, "ani1x-release.h5"):
                            found = list(self._conformers(group, formula, rows))
                    except OSError as error:
                        raise DataError(f"{where}: damaged: {brief(error)}") from error
                    n_seen += rows.stop - start
                    n_missing += rows.stop - start - len(found)
                    yield from found
                self._done = (index + 1) / len(file)
        if n_missing:
            self.notes = (
                f"{n_missing:,} of {n_seen:,} conformers left out: not computed at {self._level}",
            )

    def _conformers(self, group: Any, formula: str, rows: slice) -> Iterator[Entry]:
        numbers = group["atomic_numbers"][()]
        stored = {
            "positions": group["coordinates"][rows],
            "energy": group[f"{self._level}.energy"][rows],
        }
        optional = {
            "forces": "forces",
            "dipole": "dipole",
            "charges": self._charges,
        }
        for name, key in optional.items():
            if f"{self._level}.{key}" in group:
                stored[name] = group[f"{self._level}.{key}"][rows]
        origin = Origin(url=self._path.name, database="ANI-1x", license="CC0-1.0")
        for i in range(len(stored["energy"])):
            conformer = {name: np.array(a[i], dtype=np.float64) for name, a in stored.items()}
            positions = conformer.pop("positions")
            if "charges" in conformer:
                conformer["charges"] = conformer["charges"].reshape(-1)
            if not np.isfinite(conformer["energy"]):
                continue
            finite = {name: array for name, array in conformer.items() if np.isfinite(array).all()}
            yield molecule(numbers, positions).entry(
                _UNITS.convert(finite, n_atoms=len(numbers), volume=None),
                id=f"{formula}/{rows.start + i}",
                method=self._method,
                origin=origin,
                tags={"formula": formula},
            )
