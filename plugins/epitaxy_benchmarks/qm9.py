"""QM9: 133,885 small organic molecules, B3LYP/6-31G(2df,p).

Layout (readme.txt of figshare 978904; Ramakrishnan et al., Sci. Data 1, 140022 (2014)): one file
per molecule, dsgdb9nsd_000001.xyz ..., in dsgdb9nsd.xyz.tar.bz2. Line 1: number of atoms n; line 2:
"gdb", index, A, B, C (GHz), mu (Debye), alpha (bohr^3), homo, lumo, gap (Hartree), r2 (bohr^2),
zpve, U0, U, H, G (Hartree), Cv (cal/(mol K)); n lines: element, x, y, z (Å), Mulliken charge (e);
then frequencies, SMILES and InChI.

Traps: numbers are written as "2.1997*^-6" here and there; U0 contains the zero-point energy: the
electronic energy, of which forces would be derivatives, is U0 - zpve and becomes `energy`; 3,054
molecules failed a consistency check (uncharacterized.txt); the file of the C7O2H10 isomers has
G4MP2 energies.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks.geometry import atomic_numbers, molecule
from epitaxy_benchmarks.reading import DAMAGED, Reading, brief, existing_file, explained

_METHOD = Method(code="Gaussian 09", xc_functional="B3LYP", settings="6-31G(2df,p)")
_CALORIE = 4.184  # J, thermochemical calorie, exact by definition
_PROPERTIES: tuple[tuple[str, float], ...] = (
    # the words after "gdb", index, A, B, C: our quantity and the value of its unit in ours
    ("dipole_norm", units.Debye),
    ("isotropic_polarizability", units.Bohr**3),
    ("homo", units.Hartree),
    ("lumo", units.Hartree),
    ("band_gap", units.Hartree),
    ("electronic_spatial_extent", units.Bohr**2),
    ("zero_point_energy", units.Hartree),
    ("internal_energy_0", units.Hartree),
    ("internal_energy", units.Hartree),
    ("enthalpy", units.Hartree),
    ("free_energy_298", units.Hartree),
    ("heat_capacity", _CALORIE),
)
_SKIPPED = 5
_NAME = re.compile(r"dsgdb9nsd_\d+\.xyz$")


class Qm9Source:
    """Reads QM9's molecules from the archive, an unpacked folder or one file.

    Args:
        path: "dsgdb9nsd.xyz.tar.bz2", a folder with dsgdb9nsd_*.xyz, or one such file.
        uncharacterized: uncharacterized.txt; the molecules that it lists are left out.
    """

    def __init__(self, *, path: Path, uncharacterized: Path | None = None):
        self._path = Path(path)
        if not self._path.exists():
            raise DataError(f"{path}: no such file or folder")
        self._files: list[Path] = []
        if self._path.is_dir():
            self._files = sorted(p for p in self._path.rglob("*.xyz") if _NAME.search(p.name))
            if not self._files:
                raise DataError(f"{path}: no dsgdb9nsd_*.xyz in this folder")
        elif ".tar" not in self._path.name:
            self._files = [self._path]
        self._left_out = _listed(existing_file(uncharacterized)) if uncharacterized else frozenset()
        self._reading = Reading()
        self.notes: tuple[str, ...] = ()
        """What was left out, one sentence, after an iteration."""

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="QM9",
            quantities=("energy", "charges", *(name for name, _ in _PROPERTIES)),
            license="CC0-1.0",
            citation="Ramakrishnan et al., Sci. Data 1, 140022 (2014)",
            url="https://doi.org/10.6084/m9.figshare.c.978904",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the bytes that were read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the molecules in the order of the archive or of the files' names.

        Raises:
            DataError: the archive is damaged, or a molecule is not laid out as QM9's.
        """
        self.notes = ()
        self._reading = reading = Reading(self._files or [self._path])
        n_left_out = 0
        for name, text in self._texts(reading):
            where = f"{self._path}: {name}" if name != self._path.name else str(self._path)
            with explained(where, "QM9's files"):
                index, entry = _entry(text, self._path.name)
            if index in self._left_out:
                n_left_out += 1
                continue
            yield entry
        if n_left_out:
            self.notes = (f"{n_left_out:,} molecules left out: listed as uncharacterized",)

    def _texts(self, reading: Reading) -> Iterator[tuple[str, str]]:
        for path in self._files:
            with reading.open(path) as stream:
                yield path.name, stream.read().decode("utf-8")
        if self._files:
            return
        n_read = 0
        try:
            with (
                reading.open(self._path) as stream,
                tarfile.open(fileobj=stream, mode="r|") as archive,
            ):
                for member in archive:
                    file = archive.extractfile(member)
                    if file is not None and member.name.endswith(".xyz"):
                        yield Path(member.name).name, file.read().decode("utf-8")
                        n_read += 1
        except (tarfile.TarError, *DAMAGED) as error:
            raise DataError(
                f"{self._path}: damaged or cut after {n_read:,} molecules: {brief(error)}. Get it "
                "anew, or keep those before with --keep-going"
            ) from error


def _listed(path: Path) -> frozenset[int]:
    """Return the indices in uncharacterized.txt: the lines that begin with a number."""
    words = (line.split() for line in path.read_text("utf-8").splitlines())
    return frozenset(int(w[0]) for w in words if w and w[0].isdigit() and len(w) > 1)


def _entry(text: str, origin: str) -> tuple[int, Entry]:
    lines = io.StringIO(text)
    n_atoms = int(lines.readline())
    facts = lines.readline().replace("*^", "e").split()
    if len(facts) != _SKIPPED + len(_PROPERTIES) or not facts[0].startswith("gdb"):
        raise DataError(
            f"line 2 has {len(facts)} words beginning with {facts[:1]}, "
            f"{_SKIPPED + len(_PROPERTIES)} beginning with 'gdb' are needed"
        )
    index = int(facts[1])
    rows = [lines.readline().replace("*^", "e").split() for _ in range(n_atoms)]
    if any(len(row) != 5 for row in rows):
        raise DataError(f"not {n_atoms} lines of element, x, y, z and charge: the file was cut")
    values = [float(word) for word in facts[_SKIPPED:]]
    targets: dict[str, Any] = {
        name: value * factor for (name, factor), value in zip(_PROPERTIES, values, strict=True)
    }
    targets["energy"] = targets["internal_energy_0"] - targets["zero_point_energy"]
    targets["charges"] = np.array([float(row[4]) for row in rows])
    frequencies, smiles = lines.readline(), lines.readline().split()
    if not frequencies:
        raise DataError("no frequencies after the atoms: the file was cut")
    structure = molecule(
        atomic_numbers([row[0] for row in rows]), [[float(x) for x in row[1:4]] for row in rows]
    )
    return index, structure.entry(
        targets,
        id=f"gdb9-{index:06d}",
        method=_METHOD,
        origin=Origin(url=origin, database="QM9", license="CC0-1.0"),
        tags={"smiles": smiles[-1]} if smiles else None,
    )
