"""The benchmark sets of MatCalc: Materials Project, WBM and Alexandria with properties.

Layout (https://github.com/materialsvirtuallab/matcalc, benchmark_data): a list of
``{"mp_id" or "material_id", "formula", "structure" (pymatgen), ...}`` with bulk_modulus_vrh and
shear_modulus_vrh in GPa (mp-binary-pbe-elasticity), heat_capacity in J/mol/K at 300 K
(alexandria-binary-pbe-phonon), or energy, corrected_energy (eV per cell), formation_energy_per_atom
and corrected_formation_energy_per_atom in eV/atom (wbm-random-pbe52-equilibrium).

Traps: structures of the elasticity file are of 2025 while labels that are joined from the JARVIS
leaderboard's megnet files are of MP 2018.6.1; WBM's corrected energies have MP's fitted
corrections, the raw ones agree with PBE; a heat capacity is per mole of cells of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import from_pymatgen, number
from epitaxy_benchmarks.leaderboard import join, read_labels
from epitaxy_benchmarks.reading import Reading, existing_file, explained

_PROPERTIES = {
    "bulk_modulus_vrh": "bulk_modulus",
    "shear_modulus_vrh": "shear_modulus",
    "heat_capacity": "heat_capacity",
}
_CITATIONS = {
    "bulk_modulus_vrh": "de Jong et al., Sci. Data 2, 150009 (2015)",
    "heat_capacity": "Schmidt et al., Mater. Today Phys. 48, 101560 (2024)",
    "energy": "Wang, Botti and Marques, npj Comput. Mater. 7, 12 (2021)",
}


class MatcalcSource:
    """Reads one of MatCalc's benchmark files.

    Args:
        path: for example "mp-binary-pbe-elasticity-2025.1.json.gz".
        energies: WBM's energies and formation energies with or without the corrections.
        labels: leaderboard files whose values are joined by id, for example megnet_e_form.json.zip
            and megnet_gappbe.json.zip; entries without any label are kept.
    """

    def __init__(
        self,
        *,
        path: Path,
        energies: Literal["raw", "corrected"] = "raw",
        labels: list[Path] | None = None,
    ):
        self._path = existing_file(path)
        self._prefix = "" if energies == "raw" else "corrected_"
        self._labels = read_labels(labels)
        first = streaming_json.first(self._path, "item")
        if not isinstance(first, dict) or "structure" not in first:
            raise DataError(f"{path}: not a list of structures with properties, as in MatCalc")
        self._id_key = next((key for key in ("mp_id", "material_id") if key in first), "")
        self._properties = {key: ours for key, ours in _PROPERTIES.items() if key in first}
        self._has_energies = "formation_energy_per_atom" in first
        if not self._id_key or not (self._properties or self._has_energies):
            raise DataError(
                f"{path}: entries have {', '.join(first)}; those of MatCalc have mp_id or "
                f"material_id and {', '.join(_PROPERTIES)} or formation_energy_per_atom"
            )
        self._reading = Reading()

    @property
    def card(self) -> Card:
        """What the data are."""
        own = [*self._properties.values()]
        own += ["energy", "formation_energy"] if self._has_energies else []
        keys = [*self._properties, *(["energy"] if self._has_energies else [])]
        return Card(
            title=f"MatCalc {self._path.name}",
            quantities=tuple(dict.fromkeys([*own, *(one.quantity for one in self._labels)])),
            license="CC-BY-4.0",
            citation="; ".join([_CITATIONS[key] for key in keys if key in _CITATIONS]),
            url="https://github.com/materialsvirtuallab/matcalc",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in the order of the file.

        Raises:
            DataError: the file is damaged or an entry lacks a key; the message names it.
        """
        self._reading = reading = Reading([self._path])
        origin = Origin(url=self._path.name, database="MatCalc benchmark", license="CC-BY-4.0")
        for index, row in enumerate(streaming_json.items(self._path, "item", reading)):
            with explained(f"{self._path}: entry {index}", "MatCalc's files"):
                entry = self._entry(row, origin)
            yield entry

    def _entry(self, row: dict[str, Any], origin: Origin) -> Entry:
        targets = {ours: number(row[key]) for key, ours in self._properties.items()}
        corrected = "with MP's corrections" if self._prefix else ""
        if self._has_energies:
            targets["energy"] = number(row[f"{self._prefix}energy"])
            key = f"{self._prefix}formation_energy_per_atom"
            targets["formation_energy"] = number(row[key])
        name = str(row[self._id_key])
        joined, tags = join(self._labels, name)
        return from_pymatgen(row["structure"]).entry(
            targets | joined,
            id=name,
            method=Method(code="VASP", xc_functional="PBE(+U)", settings=corrected),
            origin=origin,
            tags=tags,
        )
