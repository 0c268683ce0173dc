"""MPtrj: 1.58 million frames of Materials Project relaxations (Deng et al., CHGNet, 2023).

Layout (https://github.com/CederGroupHub/chgnet and figshare 23713842, MPtrj_2022.9_full.json):
``{mp_id: {frame_id: {"structure" (pymatgen), "uncorrected_total_energy", "corrected_total_energy",
"energy_per_atom", "ef_per_atom", "force" eV/Å, "stress" (3, 3), "magmom", "bandgap", ...}}}``. The
frame id is "task id-calculation-ionic step".

Traps: stress is VASP's, kbar and positive under compression (CHGNet multiplies by -0.1 to get GPa,
chgnet issue 228); energy_per_atom and ef_per_atom have MP2020 corrections, forces are derivatives
of uncorrected_total_energy; frames of one mp_id are near copies of each other: split by the tag
mp_id. The file has about 11 GB when unpacked: it is read frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import from_pymatgen, number, voigt
from epitaxy_benchmarks.reading import Reading, existing_file, explained

_STRESS = Conventions(stress_unit="kbar", stress_is_pressure=True)


class MptrjSource:
    """Reads MPtrj frame by frame.

    Args:
        path: MPtrj_2022.9_full.json, compressed or not.
        energies: raw energies of VASP, or with the corrections of MP2020. Forces and stresses
            are derivatives of both, as corrections depend on the composition alone.
    """

    def __init__(self, *, path: Path, energies: Literal["raw", "corrected"] = "raw"):
        self._path = existing_file(path)
        self._key = "uncorrected_total_energy" if energies == "raw" else "corrected_total_energy"
        self._method = Method(
            code="VASP",
            xc_functional="PBE(+U)",
            settings="MP2020 corrections" if energies == "corrected" else "",
        )
        self._reading = Reading()

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="MPtrj 2022.9",
            quantities=("energy", "forces", "stress", "magmoms", "formation_energy", "band_gap"),
            license="CC-BY-4.0",
            citation="Deng et al., Nat. Mach. Intell. 5, 1031 (2023)",
            version="2022.9",
            url="https://doi.org/10.6084/m9.figshare.23713842",
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
        origin = Origin(url=self._path.name, database="MPtrj 2022.9", license="CC-BY-4.0")
        for mp_id, name, frame in streaming_json.nested_pairs(self._path, reading):
            with explained(f"{self._path}: {mp_id} frame {name}", "MPtrj"):
                entry = self._entry(frame, mp_id, name, origin)
            yield entry

    def _entry(self, frame: dict[str, Any], mp_id: str, name: str, origin: Origin) -> Entry:
        structure = from_pymatgen(frame["structure"])
        stored = {
            "energy": np.array(frame[self._key], dtype=np.float64),
            "forces": np.array(frame["force"], dtype=np.float64),
        }
        if frame.get("stress") is not None:
            stored["stress"] = voigt(frame["stress"])
        targets: dict[str, Any] = dict(
            _STRESS.convert(stored, n_atoms=len(structure.numbers), volume=None)
        )
        targets["magmoms"] = frame.get("magmom")
        targets["formation_energy"] = number(frame.get("ef_per_atom"))
        targets["band_gap"] = number(frame.get("bandgap"))
        tags = {"mp_id": mp_id}
        return structure.entry(targets, id=name, method=self._method, origin=origin, tags=tags)
