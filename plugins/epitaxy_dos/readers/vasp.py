"""VASP: DOSCAR, with POSCAR or CONTCAR, INCAR and KPOINTS beside it.

DOSCAR has six lines of heading, the first with the number of ions, the sixth with the range, the
number of points and the Fermi energy; then, on an absolute scale, energy, density and integral,
or with spin energy, up, down and two integrals (https://www.vasp.at/wiki/index.php/DOSCAR).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from epitaxy.entry import Method
from epitaxy.errors import DataError, EntryError
from epitaxy_dos.readers.files import plain_name, text_of
from epitaxy_dos.spectrum import Spectrum, Structure

_HEADING = 6
_WIDTHS = (16, 16, 5, 16, 16)
"""Characters of the numbers in line six, which may touch each other."""

_FUNCTIONALS = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "91": "PW91", "CA": "LDA"}


def read_doscar(path: Path) -> list[Spectrum]:
    """Return the total density of states of a DOSCAR.

    Raises:
        DataError: the file is cut or is no DOSCAR; the message says where.
        EntryError: the structure beside it has another number of atoms.
    """
    lines = text_of(path).splitlines()
    try:
        n_atoms = int(lines[0].split()[0])
        n_points, fermi = _line_six(lines[_HEADING - 1])
    except (IndexError, ValueError) as error:
        raise DataError(f"{path}: no heading of a DOSCAR in its first six lines") from error
    if n_points < 2:
        raise DataError(f"{path}: line six announces {n_points} energies")
    rows = [line.split() for line in lines[_HEADING : _HEADING + n_points]]
    if len(rows) < n_points or len(rows[-1]) not in (3, 5):
        raise DataError(f"{path}: cut after line {len(lines)}; {n_points} energies are announced")
    try:
        numbers = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path}: a number cannot be read: {error}") from error
    channels = numbers[:, 1:2] if numbers.shape[1] == 3 else numbers[:, 1:3]
    structure = _structure(path.parent, n_atoms)
    method, tags = _settings(path.parent)
    return [
        Spectrum(
            energies=numbers[:, 0],
            channels=channels.T.copy(),
            fermi=fermi,
            structure=structure,
            method=method,
            tags=tags,
        )
    ]


def _line_six(line: str) -> tuple[int, float]:
    words = line.split()
    if len(words) != len(_WIDTHS):
        ends = np.cumsum(_WIDTHS).tolist()
        words = [line[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return int(words[2]), float(words[3])


def _structure(folder: Path, n_atoms: int) -> Structure | None:
    from ase.io.vasp import read_vasp

    for start in ("contcar", "poscar"):
        found = sorted(p for p in folder.iterdir() if plain_name(p).startswith(start))
        if len(found) != 1:
            continue
        try:
            atoms = read_vasp(io.StringIO(text_of(found[0])))
        except Exception as error:  # ase raises many kinds
            raise DataError(f"{found[0]}: cannot be read: {error}") from error
        if len(atoms) != n_atoms:
            raise EntryError(f"{found[0].name} has {len(atoms)} atoms, DOSCAR {n_atoms}")
        return Structure(atoms.numbers, atoms.positions, atoms.cell.array)
    return None


def _settings(folder: Path) -> tuple[Method, dict[str, str]]:
    tags: dict[str, str] = {}
    functional = ""
    incar = _only(folder, "incar")
    if incar is not None:
        given = {
            key.upper(): value.strip()
            for key, value in re.findall(r"(?m)(\w+)\s*=\s*([^;#!\n]*)", text_of(incar))
        }
        if given.get("METAGGA", "").upper() not in ("", "NONE", "--"):
            functional = given["METAGGA"].upper()
        elif given.get("GGA"):
            functional = _FUNCTIONALS.get(given["GGA"].upper(), given["GGA"])
        if given.get("LHFCALC", "").upper().strip(".").startswith("T"):
            functional = "hybrid"
        if given.get("ENCUT"):
            tags["cutoff"] = _in_ev(given, "ENCUT", incar)
        if given.get("SIGMA"):
            tags["smearing"] = _in_ev(given, "SIGMA", incar)
    kpoints = _only(folder, "kpoints")
    if kpoints is not None:
        lines = text_of(kpoints).splitlines()
        mesh = lines[3].split()[:3] if len(lines) > 3 and lines[1].split()[:1] == ["0"] else []
        if len(mesh) == 3 and all(word.isdigit() for word in mesh):
            tags["k-mesh"] = "x".join(mesh)
    return Method(code="VASP", xc_functional=functional), tags


def _in_ev(given: Mapping[str, str], key: str, incar: Path) -> str:
    word = given[key].split()[0]
    try:
        return f"{float(word):g} eV"
    except ValueError as error:
        raise DataError(f"{incar}: {key} is {word!r}, not a number") from error


def _only(folder: Path, start: str) -> Path | None:
    found = sorted(p for p in folder.iterdir() if plain_name(p).startswith(start))
    return found[0] if len(found) == 1 else None
