"""JARVIS-DFT: the file dft_3d with structures and properties, and leaderboard files beside it.

Layout (https://github.com/usnistgov/jarvis, jarvis.db.figshare): a list of ``{"jid", "atoms":
{"lattice_mat", "coords", "elements", "cartesian", ...}, "formation_energy_peratom", "ehull",
"optb88vdw_bandgap", "mbj_bandgap", "hse_gap", "bulk_modulus_kv", "shear_modulus_gv",
"exfoliation_energy", "optb88vdw_total_energy", ...}`` where "na" stands for a missing value. Also
read: leaderboard files whose values are POSCAR texts (see `epitaxy_benchmarks.leaderboard`).

Traps: "na" is text; coordinates are fractional unless "cartesian" is true; the total energy is per
atom; moduli are Voigt averages, not Voigt-Reuss-Hill; ehull has values up to 8.3 eV/atom; the
TB-mBJ gaps of an entry are another level of theory than the rest of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import from_jarvis, from_poscar, number
from epitaxy_benchmarks.leaderboard import POSCAR_FILES, join, read_labels, rows
from epitaxy_benchmarks.reading import Reading, existing_file, explained, plain_stem

_PROPERTIES = {
    "formation_energy_peratom": "formation_energy",
    "ehull": "energy_above_hull",
    "bulk_modulus_kv": "bulk_modulus",
    "shear_modulus_gv": "shear_modulus",
    "exfoliation_energy": "exfoliation_energy",
}
_GAPS = {
    "OptB88vdW": ("optb88vdw_bandgap", ""),
    "TB-mBJ": ("mbj_bandgap", "gap: TB-mBJ"),
    "HSE06": ("hse_gap", "gap: HSE06"),
}
_LICENSE = "LicenseRef-NIST"
_PEROVSKITES = Method(code="GPAW", xc_functional="RPBE")


class JarvisSource:
    """Reads JARVIS's dft_3d (or dft_2d) file, or structures of its leaderboard.

    Args:
        path: JSON file, compressed or in a zip.
        gap: level of theory of the band gap.
        labels: leaderboard files whose values are joined by id and go before those of the file,
            for example dft_3d_formation_energy_peratom.json.zip.
    """

    def __init__(
        self,
        *,
        path: Path,
        gap: Literal["OptB88vdW", "TB-mBJ", "HSE06"] = "OptB88vdW",
        labels: list[Path] | None = None,
    ):
        self._path = existing_file(path)
        self._gap_key, self._settings = _GAPS[gap]
        self._labels = read_labels(labels)
        self._stem = plain_stem(self._path)
        self._first = next(iter(self._rows(Reading())), None)
        if self._first is None:
            raise DataError(
                f"{path}: neither a list of JARVIS's entries nor a leaderboard file with "
                "structures; a file with labels alone is joined with the option labels"
            )
        self._reading = Reading()

    def _rows(self, reading: Reading) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield id, part of the published split and the row."""
        if self._stem in POSCAR_FILES:
            for part, id, text in rows(self._path, reading):
                yield id, part, {"poscar": text}
            return
        for index, row in enumerate(streaming_json.items(self._path, "item", reading)):
            with explained(f"{self._path}: entry {index}", "JARVIS's files"):
                name, atoms = str(row["jid"]), row["atoms"]
            yield name, "", {**row, "atoms": atoms}

    @property
    def card(self) -> Card:
        """What the data are."""
        own = () if self._is_bare else (*_PROPERTIES.values(), "band_gap", "energy")
        return Card(
            title=f"JARVIS {self._path.name}",
            quantities=tuple(dict.fromkeys([*own, *(one.quantity for one in self._labels)])),
            license=_LICENSE,
            citation="Castelli et al., Energy Environ. Sci. 5, 5814 (2012)"
            if self._is_perov5
            else "Choudhary et al., npj Comput. Mater. 6, 173 (2020)",
            url="https://jarvis.nist.gov",
        )

    @property
    def _is_bare(self) -> bool:
        return self._stem in POSCAR_FILES

    @property
    def _is_perov5(self) -> bool:
        return "perov5" in self._stem

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
        database = "perov_5 (JARVIS leaderboard)" if self._is_perov5 else "JARVIS-DFT"
        origin = Origin(url=self._path.name, database=database, license=_LICENSE)
        for name, part, row in self._rows(reading):
            with explained(f"{self._path}: entry {name}", "JARVIS's files"):
                entry = self._entry(name, part, row, origin)
            yield entry

    def _entry(self, name: str, part: str, row: dict[str, Any], origin: Origin) -> Entry:
        joined, tags = join(self._labels, name)
        if self._is_bare:
            structure = from_poscar(row["poscar"].replace("\\n", "\n"))
            targets: dict[str, Any] = {}
        else:
            structure = from_jarvis(row["atoms"])
            targets = {ours: number(row.get(key)) for key, ours in _PROPERTIES.items()}
            targets["band_gap"] = number(row.get(self._gap_key))
            per_atom = number(row.get("optb88vdw_total_energy"))
            if per_atom is not None:
                targets["energy"] = per_atom * len(structure.numbers)
        method = Method(code="VASP", xc_functional="OptB88vdW", settings=self._settings)
        if self._is_perov5:
            name, method = f"perov5-{name}", _PEROVSKITES
        tags = tags or ({"part": part} if part else {})
        return structure.entry(targets | joined, id=name, method=method, origin=origin, tags=tags)
