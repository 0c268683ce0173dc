"""QM7-X: 4.2 million conformations of small organic molecules with PBE0+MBD in HDF5 files.

Layout (Hoja et al., Sci. Data 8, 43 (2021); Zenodo 4288677, files 1000.hdf5 ... 8000.hdf5 and
createDB.py): ``file[molecule][conformation]`` with atNUM, atXYZ (Å), "ePBE0+MBD" (eV, one number),
totFOR (eV/Å), vDIP (e Å), eH, eL, HLgap (eV), hCHG (e), mTPOL (bohr^3, nine numbers) ...
Conformations are named "Geom-m1-i1-c1-opt" (a minimum) and "Geom-m1-i1-c1-d1" ... (displaced).
DupMols.dat lists minima that are there twice; their displaced copies go with them.

Traps: files are offered as .xz: an HDF5 file must be unpacked before it can be read; the 100
displaced copies of each minimum are near each other: split by the tag molecule.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks.geometry import molecule, voigt
from epitaxy_benchmarks.reading import brief, existing_file, explained, find_files

_METHOD = Method(code="FHI-aims", xc_functional="PBE0+MBD", settings="tight")
_CUBIC_BOHR = units.Bohr**3
_SCALARS = {"eH": "homo", "eL": "lumo", "HLgap": "band_gap"}
_ARRAYS = {"totFOR": "forces", "vDIP": "dipole", "hCHG": "charges"}


class Qm7xSource:
    """Reads one HDF5 file of QM7-X, or all of a folder.

    Args:
        path: for example "1000.hdf5", or the folder with 1000.hdf5 ... 8000.hdf5.
        duplicates: DupMols.dat; what it lists is left out and counted.
    """

    def __init__(self, *, path: Path, duplicates: Path | None = None):
        self._files = find_files(Path(path), ("*.hdf5", "*.h5"))
        self._duplicates: frozenset[str] = frozenset()
        if duplicates is not None:
            words = existing_file(duplicates).read_text("utf-8").split()
            self._duplicates = frozenset(_minimum(word) for word in words)
        self._done = 0.0
        self.notes: tuple[str, ...] = ()
        """What was left out, one sentence, after an iteration."""

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="QM7-X",
            quantities=("energy", *_ARRAYS.values(), *_SCALARS.values(), "polarizability"),
            license="CC-BY-4.0",
            citation="Hoja et al., Sci. Data 8, 43 (2021)",
            url="https://doi.org/10.5281/zenodo.4288677",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the molecules that were read so far."""
        return self._done

    def __iter__(self) -> Iterator[Entry]:
        """Yield the conformations, file by file and molecule by molecule.

        Raises:
            DataError: a file is damaged or a conformation lacks an array; the message names it.
        """
        import h5py

        self._done, self.notes = 0.0, ()
        n_left_out = 0
        for file_index, path in enumerate(self._files):
            try:
                file = h5py.File(path, "r")
            except OSError as error:
                raise DataError(
                    f"{path}: not an HDF5 file, or cut (unpack .xz files first): {brief(error)}"
                ) from error
            with file:
                for index, name in enumerate(file):
                    with explained(f"{path}: molecule {name}", "QM7-X"):
                        conformations = list(file[name])
                    for conformation in conformations:
                        if _minimum(conformation) in self._duplicates:
                            n_left_out += 1
                            continue
                        try:
                            with explained(f"{path}: {name}/{conformation}", "QM7-X"):
                                entry = _entry(file[name][conformation], name, conformation, path)
                        except OSError as error:
                            raise DataError(
                                f"{path}: {name}/{conformation} is damaged: {brief(error)}"
                            ) from error
                        yield entry
                    self._done = (file_index + (index + 1) / len(file)) / len(self._files)
        if n_left_out:
            self.notes = (f"{n_left_out:,} conformations left out: listed as duplicates",)


def _minimum(conformation: str) -> str:
    """Return the minimum that a conformation belongs to: "Geom-m1-i1-c1-d7" -> "Geom-m1-i1-c1"."""
    return "-".join(conformation.split("-")[:4])


def _entry(group: Any, molecule_name: str, conformation: str, path: Path) -> Entry:
    targets: dict[str, Any] = {"energy": _scalar(group["ePBE0+MBD"])}
    for key, ours in _SCALARS.items():
        if key in group:
            targets[ours] = _scalar(group[key])
    for key, ours in _ARRAYS.items():
        if key in group:
            targets[ours] = np.array(group[key], dtype=np.float64)
    if "charges" in targets:
        targets["charges"] = targets["charges"].reshape(-1)
    if "mTPOL" in group:
        targets["polarizability"] = voigt(group["mTPOL"][()]) * _CUBIC_BOHR
    return molecule(group["atNUM"][()], group["atXYZ"][()]).entry(
        targets,
        id=conformation,
        method=_METHOD,
        origin=Origin(url=path.name, database="QM7-X", license="CC-BY-4.0"),
        tags={
            "molecule": molecule_name,
            "kind": "minimum" if conformation.endswith("opt") else "displaced",
        },
    )


def _scalar(array: Any) -> float:
    return float(np.asarray(array[()], dtype=np.float64).reshape(-1)[0])
