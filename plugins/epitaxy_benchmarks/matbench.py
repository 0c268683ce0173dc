"""MatBench v0.1: 13 tasks, each a json.gz table of structures or formulas and one target.

Layout (pandas' split format, as written by matminer): ``{"columns": [input, target], "index":
[...], "data": [[structure or composition, value], ...]}``; structures are dictionaries of
pymatgen. Names of columns, units and sizes: matbench_v0.1_dataset_metadata.json of
https://github.com/materialsproject/matbench. Rows have the official ids ``mb-dielectric-0001``
(counted from 1, filled with zeros to the digits of the number of rows); the official folds are
`epitaxy.folds.matbench_folds`.

Traps: perovskites are in eV per cell of five atoms, not eV/atom; log10 moduli are of GPa;
jdft2d is in meV/atom; the labels of one task have one level of theory, those of two tasks do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from epitaxy.composition import composition_entry
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import from_pymatgen, number
from epitaxy_benchmarks.reading import Reading, existing_file, explained, plain_stem

_PAPER = "Dunn et al., npj Comput. Mater. 6, 138 (2020)"
_MP = Method(code="VASP", xc_functional="PBE(+U)", settings="Materials Project, 2 April 2019")
_EXPERIMENT = Method(xc_functional="experiment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One of MatBench's tasks.

    Attributes:
        target: column of the values.
        quantity: ours.
        n_rows: of the official table.
        method: level of theory of the values.
        source: where the values were first published.
        has_structures: structures, or formulas alone.
        is_classification: two classes, or a number.
    """

    target: str
    quantity: str
    n_rows: int
    method: Method
    source: str
    has_structures: bool = True
    is_classification: bool = False


_JARVIS = Method(code="VASP", xc_functional="OptB88vdW", settings="JARVIS-DFT")
_DFPT = Method(code="ABINIT", xc_functional="PBEsol", settings="DFPT")
_GPAW = Method(code="GPAW", xc_functional="RPBE", settings="five-atom cubic cells")

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "matbench_steels": Task(
            target="yield strength",
            quantity="yield_strength",
            n_rows=312,
            method=_EXPERIMENT,
            source="Conduit and Bajaj, Citrination (2017)",
            has_structures=False,
        ),
        "matbench_jdft2d": Task(
            target="exfoliation_en",
            quantity="exfoliation_energy",
            n_rows=636,
            method=_JARVIS,
            source="Choudhary et al., Sci. Rep. 7, 5179 (2017)",
        ),
        "matbench_phonons": Task(
            target="last phdos peak",
            quantity="last_phonon_peak",
            n_rows=1265,
            method=_DFPT,
            source="Petretto et al., Sci. Data 5, 180065 (2018)",
        ),
        "matbench_expt_gap": Task(
            target="gap expt",
            quantity="band_gap",
            n_rows=4604,
            method=_EXPERIMENT,
            source="Zhuo et al., J. Phys. Chem. Lett. 9, 1668 (2018)",
            has_structures=False,
        ),
        "matbench_dielectric": Task(
            target="n",
            quantity="refractive_index",
            n_rows=4764,
            method=_MP,
            source="Petousis et al., Sci. Data 4, 160134 (2017)",
        ),
        "matbench_expt_is_metal": Task(
            target="is_metal",
            quantity="is_metal",
            n_rows=4921,
            method=_EXPERIMENT,
            source="Zhuo et al., J. Phys. Chem. Lett. 9, 1668 (2018)",
            has_structures=False,
            is_classification=True,
        ),
        "matbench_glass": Task(
            target="gfa",
            quantity="is_glass_former",
            n_rows=5680,
            method=_EXPERIMENT,
            source="Kawazoe et al., Nonequilibrium Phase Diagrams of Ternary Amorphous Alloys",
            has_structures=False,
            is_classification=True,
        ),
        "matbench_log_gvrh": Task(
            target="log10(G_VRH)",
            quantity="log10_shear_modulus",
            n_rows=10_987,
            method=_MP,
            source="de Jong et al., Sci. Data 2, 150009 (2015)",
        ),
        "matbench_log_kvrh": Task(
            target="log10(K_VRH)",
            quantity="log10_bulk_modulus",
            n_rows=10_987,
            method=_MP,
            source="de Jong et al., Sci. Data 2, 150009 (2015)",
        ),
        "matbench_perovskites": Task(
            target="e_form",
            quantity="perovskite_heat",
            n_rows=18_928,
            method=_GPAW,
            source="Castelli et al., Energy Environ. Sci. 5, 5814 (2012)",
        ),
        "matbench_mp_gap": Task(
            target="gap pbe",
            quantity="band_gap",
            n_rows=106_113,
            method=_MP,
            source="Jain et al., APL Mater. 1, 011002 (2013)",
        ),
        "matbench_mp_is_metal": Task(
            target="is_metal",
            quantity="is_metal",
            n_rows=106_113,
            method=_MP,
            source="Jain et al., APL Mater. 1, 011002 (2013)",
            is_classification=True,
        ),
        "matbench_mp_e_form": Task(
            target="e_form",
            quantity="formation_energy",
            n_rows=132_752,
            method=_MP,
            source="Jain et al., APL Mater. 1, 011002 (2013)",
        ),
    }
)
"""Name of a task -> what it is (matbench_v0.1_dataset_metadata.json)."""


def official_id(task: str, row: int) -> str:
    """Return the official id of a row (counted from 0) of a task."""
    short = task.removeprefix("matbench_").replace("_", "-")
    return f"mb-{short}-{row + 1:0{len(str(TASKS[task].n_rows))}d}"


def unofficial(task: str, n_rows: int) -> tuple[str, ...]:
    """Return what to say if a table has another number of rows than the official one."""
    official = TASKS[task].n_rows
    if n_rows == official:
        return ()
    return (
        f"{n_rows:,} rows, the official {task} has {official:,}: its ids and folds are not the "
        "official ones",
    )


class MatbenchSource:
    """Reads one task of MatBench from its json.gz file.

    Args:
        path: for example "matbench_phonons.json.gz".
        task: name of the task where the file's name is not it, for example "matbench_phonons".
    """

    def __init__(self, *, path: Path, task: str = ""):
        self._path = existing_file(path)
        self._name = task or plain_stem(self._path)
        if not self._name.startswith("matbench_"):
            self._name = f"matbench_{self._name}"
        if self._name not in TASKS:
            raise DataError(
                f"{path}: {self._name!r} is not a task of MatBench; say which one it is with the "
                f"option task: {', '.join(TASKS)}"
            )
        self._task = TASKS[self._name]
        self._reading = Reading()
        self.notes: tuple[str, ...] = ()
        """That the table is not the official one, after an iteration."""

    @property
    def card(self) -> Card:
        """What the task is."""
        return Card(
            title=f"MatBench v0.1 {self._name}",
            quantities=(self._task.quantity,),
            license="CC-BY-4.0" if "mp" in self._name.split("_") else "MIT",
            citation=f"{_PAPER}; {self._task.source}",
            version="0.1",
            url="https://matbench.materialsproject.org",
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the rows in the official order.

        Raises:
            DataError: the file is damaged or not laid out as MatBench's; the row is named.
        """
        self._reading = reading = Reading([self._path])
        columns = streaming_json.first(self._path, "columns") or []
        inputs = "structure" if self._task.has_structures else "composition"
        wanted = {inputs, self._task.target}
        if not wanted <= set(columns):
            raise DataError(
                f"{self._path}: the columns are {columns}, {self._name} has {sorted(wanted)}"
            )
        at_input, at_target = columns.index(inputs), columns.index(self._task.target)
        license = self.card.license
        origin = Origin(url=self._path.name, database="MatBench v0.1", license=license)
        rows = streaming_json.items(self._path, "data.item", reading)
        self.notes = ()
        row = -1
        for row, values in enumerate(rows):
            name = official_id(self._name, row)
            with explained(f"{self._path}: row {row} ({name})", "MatBench's tables"):
                entry = self._entry(values[at_input], values[at_target], name, origin)
            yield entry
        self.notes = unofficial(self._name, row + 1)

    def _entry(self, given: Any, value: Any, name: str, origin: Origin) -> Entry:
        found = number(value)
        targets = {} if found is None else {self._task.quantity: np.array(found)}
        method = self._task.method
        if self._task.has_structures:
            return from_pymatgen(given).entry(targets, id=name, method=method, origin=origin)
        numbers = {key: float(array) for key, array in targets.items()}
        return composition_entry(given, targets=numbers, id=name, method=method, origin=origin)
