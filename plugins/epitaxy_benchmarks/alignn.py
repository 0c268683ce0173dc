"""Training sets for ALIGNN-FF: id_prop.json, as the mlearn frames of Cu and Ni are given there.

Layout (https://github.com/usnistgov/alignn, examples/sample_data_ff): a list of ``{"jid",
"atoms" (JARVIS), "total_energy", "forces", "stresses"}``.

Traps: total_energy is per atom although its name says otherwise; in the mlearn files, stresses are
VASP's, kbar and positive under compression, in the order xx, yy, zz, xy, xz, yz (decided by the
energies, see `epitaxy_benchmarks.mlearn`). In the files of Cu and Ni the 31 test frames are there
twice, as the last 62, and those 62 frames have the stresses of the first 31: such a stress, the
same to the last digit as that of an earlier frame with another energy, is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import from_jarvis
from epitaxy_benchmarks.reading import Reading, existing_file, explained

_SAME_ENERGY = 1e-6  # eV/atom


class AlignnSource:
    """Reads an id_prop.json of ALIGNN-FF; the energy per atom becomes the total energy.

    Args:
        path: the JSON file, compressed or not.
        stress_order: order of the six stresses.
        stress_unit: unit of the stresses.
        stress_is_pressure: stresses are positive under compression.
        xc_functional: of the calculations.
    """

    def __init__(
        self,
        *,
        path: Path,
        stress_order: str = "xx,yy,zz,xy,xz,yz",
        stress_unit: str = "kbar",
        stress_is_pressure: bool = True,
        xc_functional: str = "PBE",
    ):
        self._path = existing_file(path)
        self._conventions = Conventions(
            energy_per_atom=True,
            stress_order=stress_order,
            stress_unit=stress_unit,
            stress_is_pressure=stress_is_pressure,
        )
        self._method = Method(code="VASP", xc_functional=xc_functional)
        self._reading = Reading()
        self.notes: tuple[str, ...] = ()
        """What was left out, one sentence, after an iteration."""

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title=f"ALIGNN-FF {self._path.name}",
            quantities=("energy", "forces", "stress"),
            license="LicenseRef-NIST",
            citation="Choudhary et al., Digital Discovery 2, 346 (2023); mlearn frames: "
            "Zuo et al., J. Phys. Chem. A 124, 731 (2020)",
            url="https://github.com/usnistgov/alignn",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the frames in the order of the file.

        Raises:
            DataError: the file is damaged or a frame lacks a key; the message names it.
        """
        self._reading = reading = Reading([self._path])
        stem = self._path.name.partition(".")[0]
        origin = Origin(url=self._path.name, database="ALIGNN-FF", license="LicenseRef-NIST")
        self.notes = ()
        seen: dict[int, float] = {}  # hash of a stress -> energy per atom of its first frame
        n_repeated = n_frames = 0
        for index, row in enumerate(streaming_json.items(self._path, "item", reading)):
            with explained(f"{self._path}: frame {index}", "ALIGNN's id_prop.json"):
                if _is_repeated(row, seen):
                    row["stresses"] = None
                    n_repeated += 1
                entry = self._entry(row, f"{stem}-{row['jid']}", origin)
            yield entry
            n_frames = index + 1
        if n_repeated:
            self.notes = (
                f"stresses of {n_repeated:,} of {n_frames:,} frames left out: they repeat those of "
                "earlier frames with other energies, to the last digit",
            )

    def _entry(self, row: dict[str, Any], name: str, origin: Origin) -> Entry:
        structure = from_jarvis(row["atoms"])
        stored = {
            "energy": np.array(row["total_energy"], dtype=np.float64),
            "forces": np.array(row["forces"], dtype=np.float64),
        }
        if row.get("stresses") is not None:
            stored["stress"] = np.array(row["stresses"], dtype=np.float64)
        targets = self._conventions.convert(stored, n_atoms=len(structure.numbers), volume=None)
        return structure.entry(targets, id=name, method=self._method, origin=origin)


def _is_repeated(row: dict[str, Any], seen: dict[int, float]) -> bool:
    """Whether the stress is exactly that of an earlier frame with another energy."""
    stress = row.get("stresses")
    if stress is None or not np.any(stress):
        return False
    energy = float(row["total_energy"])
    return abs(seen.setdefault(hash(tuple(np.ravel(stress))), energy) - energy) > _SAME_ENERGY
