"""exciting: dos.xml, with INFO.OUT beside it.

Energies are in Hartree relative to the Fermi energy, values in states/Hartree of the cell; with
spin there is one diagram per channel, that of spin down drawn downwards.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from epitaxy.composition import parse_formula
from epitaxy.entry import Method
from epitaxy.errors import DataError, EntryError
from epitaxy_dos.readers.files import text_of
from epitaxy_dos.spectrum import Spectrum, Structure

_FUNCTIONALS = {2: "LDA", 3: "LDA", 4: "LDA", 20: "PBE", 21: "revPBE", 22: "PBEsol", 26: "WC"}
"""exciting's numbers of functionals (libxc apart), as INFO.OUT says them."""


def read_exciting(path: Path) -> list[Spectrum]:
    """Return the total density of states of a dos.xml.

    Raises:
        DataError: the file is damaged or has no total density of states.
    """
    try:
        root = ElementTree.fromstring(text_of(path))
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: damaged XML: {error}") from error
    diagrams = root.findall("totaldos/diagram")
    if root.tag != "dos" or not diagrams:
        raise DataError(f"{path}: no dos/totaldos/diagram, so it is no dos.xml of exciting")
    try:
        points = [
            np.array([(float(p.attrib["e"]), float(p.attrib["dos"])) for p in one.findall("point")])
            for one in diagrams
        ]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: a point without energy or density: {error}") from error
    if not points[0].size:
        raise DataError(f"{path}: the total density of states has no points")
    if any(p.shape != points[0].shape or (p[:, 0] != points[0][:, 0]).any() for p in points):
        raise DataError(f"{path}: the spin channels have different energies")
    structure, method, tags = _beside(path)
    return [
        Spectrum(
            energies=points[0][:, 0] * Hartree,
            channels=np.array([p[:, 1] for p in points]) / Hartree,
            fermi=0.0,
            structure=structure,
            formula="" if structure else _formula(root.findtext("title") or ""),
            method=method,
            tags=tags,
        )
    ]


def _formula(title: str) -> str:
    try:
        parse_formula(title)
    except EntryError:
        return ""
    return title.strip()


def _beside(path: Path) -> tuple[Structure | None, Method, dict[str, str]]:
    found = [p for p in path.parent.iterdir() if p.name.upper().startswith("INFO.OUT")]
    if len(found) != 1:
        return None, Method(code="exciting"), {}
    text = text_of(found[0])
    version = re.search(r"EXCITING (\S+) started", text)
    functional = re.search(r"Exchange-correlation type\s*:\s*(\d+)", text)
    tags = {}
    if mesh := re.search(r"k-point grid\s*:\s*(\d+)\s+(\d+)\s+(\d+)", text):
        tags["k-mesh"] = "x".join(mesh.groups())
    if size := re.search(r"\(rgkmax\)\s*:\s*([\d.]+)", text):
        tags["rgkmax"] = f"{float(size.group(1)):g}"
    number = int(functional.group(1)) if functional else 0
    method = Method(
        code=f"exciting {version.group(1).lower()}" if version else "exciting",
        xc_functional=_FUNCTIONALS.get(number, f"exciting xc {number}" if number else ""),
    )
    return _structure(text, found[0]), method, tags


def _structure(text: str, path: Path) -> Structure | None:
    lattice = re.search(r"Lattice vectors \(cartesian\) :\s*\n((?:[^\n]*\n){3})", text)
    if lattice is None:
        return None
    numbers, fractions = [], []
    for species in re.split(r"\n\s*Species\s*:", text)[1:]:
        symbol = re.match(r"\s*\d+\s*\((\w+)\)", species)
        listed = re.search(
            r"atomic positions \(lattice\)[^\n]*\n((?:\s*\d+\s*:[^\n]*\n)+)", species
        )
        if symbol is None or listed is None:
            continue
        if symbol.group(1) not in atomic_numbers:
            raise DataError(f"{path}: unknown element {symbol.group(1)!r}")
        for line in listed.group(1).strip().splitlines():
            numbers.append(atomic_numbers[symbol.group(1)])
            fractions.append([float(word) for word in line.partition(":")[2].split()[:3]])
    if not numbers:
        return None
    cell = np.array([line.split() for line in lattice.group(1).splitlines()], dtype=float) * Bohr
    return Structure(np.array(numbers), np.array(fractions) @ cell, cell)
