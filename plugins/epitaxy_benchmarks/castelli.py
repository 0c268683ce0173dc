"""Cubic perovskites ABX3 of Castelli et al. as CDVAE distributes them ("perov_5").

Layout (https://github.com/txie-93/cdvae, data/perov_5): CSV with the columns material_id, cif
(text of a P1 CIF), formula, heat_all, heat_ref (eV per cell of five atoms), dir_gap, ind_gap (eV).

Traps: heat_ref is relative to reference elements (with oxygen from water), heat_all to all
competing phases: the first is the target of MatBench's task, the second a decomposition energy.
Both are per five-atom cell. Heats are RPBE, gaps GLLB-SC.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks.geometry import from_cif, number
from epitaxy_benchmarks.reading import DAMAGED, Reading, brief, existing_file, explained, text_of

_METHOD = Method(code="GPAW", xc_functional="RPBE", settings="gaps: GLLB-SC")
_COLUMNS = ("material_id", "cif", "heat_all", "heat_ref", "dir_gap", "ind_gap")


class CastelliSource:
    """Reads one of the CSV files train, val or test of perov_5.

    heat_ref becomes perovskite_heat (eV per five-atom cell), heat_all / 5 becomes
    decomposition_energy (eV/atom).

    Args:
        path: for example "val.csv" or "cdvae_perov5_val.csv.xz".
        gap: which gap becomes band_gap.
    """

    def __init__(self, *, path: Path, gap: Literal["indirect", "direct"] = "indirect"):
        self._path = existing_file(path)
        self._gap = gap
        self._reading = Reading()

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title="Castelli perovskites (perov_5)",
            quantities=("perovskite_heat", "decomposition_energy", "band_gap"),
            license="MIT",
            citation="Castelli et al., Energy Environ. Sci. 5, 5814 and 9034 (2012); "
            "Xie et al., ICLR 2022",
            url="https://github.com/txie-93/cdvae",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the rows in the order of the file.

        Raises:
            DataError: the file is damaged or has other columns; the row is named.
        """
        self._reading = reading = Reading([self._path])
        origin = Origin(url=self._path.name, database="perov_5 (CDVAE)", license="MIT")
        done = 0
        try:
            with reading.open(self._path) as stream:
                rows = csv.DictReader(text_of(stream))
                if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
                    raise DataError(
                        f"{self._path}: no column {', '.join(missing)}; found {rows.fieldnames}"
                    )
                for row, fields in enumerate(rows):
                    name = f"perov5-{fields['material_id']}"
                    with explained(f"{self._path}: row {row} ({name})", "perov_5"):
                        entry = self._entry(fields, name, origin)
                    yield entry
                    done = row + 1
        except (csv.Error, *DAMAGED) as error:
            raise DataError(
                f"{self._path}: damaged or cut after {done:,} rows: {brief(error)}"
            ) from error

    def _entry(self, fields: dict[str, str], name: str, origin: Origin) -> Entry:
        structure = from_cif(fields["cif"])
        n_atoms = len(structure.numbers)
        if n_atoms != 5:
            raise DataError(f"{n_atoms} atoms in the cell, a perovskite of this set has 5")
        heat_all = number(fields["heat_all"])
        targets = {
            "perovskite_heat": number(fields["heat_ref"]),
            "decomposition_energy": None if heat_all is None else heat_all / n_atoms,
            "band_gap": number(fields["dir_gap" if self._gap == "direct" else "ind_gap"]),
        }
        return structure.entry(targets, id=name, method=_METHOD, origin=origin)
