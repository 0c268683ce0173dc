"""BO2 oxide polymorphs with four functionals: Mehta, Salvador, Kitchin (2015).

Layout (https://github.com/Open-Catalyst-Project/ocp, docs/core/fine-tuning/
supporting-information.json): ``tree[metal][polymorph][functional]["EOS" or "final"]
["calculations"][i]`` with ``atoms`` {cell, symbols, positions, pbc} and ``data`` {total_energy
eV, forces eV/Å, stress, volume, fermi_level}.

Trap: the file says that the stress is in GPa in the order sxx, syy, szz, syz, sxz, sxy. It is
VASP's own: kbar and positive under compression. The energies decide (trapezoid rule over near
volumes of the equations of state, see `epitaxy.curation.pairs`; docs/benchmark-sets.md). Where a
relaxed structure is missing, "calculation unavailable" stands in its place; these are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import Geometry, atomic_numbers
from epitaxy_benchmarks.reading import Reading, existing_file, explained

_UNAVAILABLE = "calculation unavailable"
_STRESS = Conventions(stress_unit="kbar", stress_is_pressure=True)


class OxidePolymorphsSource:
    """Reads energies, forces and stresses along equations of state.

    Args:
        path: supporting-information.json, compressed or not.
        xc: only calculations with this functional; all four by default.
        part: the equations of state, the relaxed structures, or both.
    """

    def __init__(
        self,
        *,
        path: Path,
        xc: Literal["all", "LDA", "PBE", "PBEsol", "AM05"] = "all",
        part: Literal["EOS", "final", "all"] = "EOS",
    ):
        self._path = existing_file(path)
        self._xc = xc
        self._parts = ("EOS", "final") if part == "all" else (part,)
        self._reading = Reading()
        self.notes: tuple[str, ...] = ()
        """What is missing in the file, one sentence, after an iteration."""

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="BO2 oxide polymorphs, four functionals",
            quantities=("energy", "forces", "stress", "fermi_energy"),
            license="MIT",
            citation="Mehta, Salvador and Kitchin, ACS Appl. Mater. Interfaces 7, 3630 (2015)",
            url="https://github.com/Open-Catalyst-Project/ocp",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the calculations in the order of the file.

        Raises:
            DataError: the file is damaged or a calculation lacks a key; the message names it.
        """
        self._reading = reading = Reading([self._path])
        self.notes = ()
        missing: list[str] = []
        for metal, polymorph, tree in streaming_json.nested_pairs(self._path, reading):
            place = f"{metal}/{polymorph}"
            with explained(f"{self._path}: {place}", "the supporting information"):
                calculations = list(self._calculations(tree))
            for xc, part, index, calculation in calculations:
                name = f"{place}/{xc}/{part}/{index}"
                if calculation == _UNAVAILABLE:
                    missing.append(name)
                    continue
                with explained(f"{self._path}: {name}", "the supporting information"):
                    entry = self._entry(calculation, name, xc)
                yield entry
        if missing:
            self.notes = (f"{len(missing)} calculations are unavailable: {', '.join(missing)}",)

    def _calculations(self, tree: Any) -> Iterator[tuple[str, str, int, Any]]:
        for xc, parts in tree.items():
            if self._xc not in ("all", xc):
                continue
            for part in self._parts:
                found = parts.get(part) or {}
                for index, calculation in enumerate(found.get("calculations", ())):
                    yield xc, part, index, calculation

    def _entry(self, calculation: Any, name: str, xc: str) -> Entry:
        atoms, results = calculation["atoms"], calculation["data"]
        structure = Geometry(
            atomic_numbers(atoms["symbols"]),
            np.array(atoms["positions"], dtype=np.float64).reshape(-1, 3),
            np.array(atoms["cell"], dtype=np.float64).reshape(3, 3),
            np.array(atoms["pbc"], dtype=bool),
        )
        stored = {
            "energy": np.array(results["total_energy"], dtype=np.float64),
            "forces": np.array(results["forces"], dtype=np.float64),
            "stress": np.array(results["stress"], dtype=np.float64),
        }
        targets = _STRESS.convert(stored, n_atoms=len(structure.numbers), volume=None)
        incar = calculation.get("incar", {})
        metal, polymorph, *_, part, _ = name.split("/")
        return structure.entry(
            {**targets, "fermi_energy": results.get("fermi_level")},
            id=name,
            method=Method(
                code="VASP", xc_functional=xc, settings=f"PAW, {incar.get('encut', 520):g} eV"
            ),
            origin=Origin(url=self._path.name, database="oxide polymorphs", license="MIT"),
            tags=MappingProxyType(
                {
                    "material": metal,
                    "polymorph": polymorph,
                    "part": part,
                    "curve": f"{metal} {polymorph}",
                }
            ),
        )
