"""Tables of formulas and one target, without structures: CSV, compressed or not.

Known by name: the tables of CrabNet (Wang, Kauwe, Murdock, Sparks, npj Comput. Mater. 7, 77
(2021); github sparks-baird/CrabNet, data/matbench and data/benchmark: columns formula, target)
and of Roost (Goodall and Lee, Nat. Commun. 11, 6280 (2020); columns material_id, composition and
the target). Any other table is read with the options `target` and `unit`.

Traps: a formula occurs more than once where a database has polymorphs: split by formula. Gaps of
different tables have different levels of theory. AFLOW's energies have one value of +77.7 eV/atom.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from epitaxy.composition import atoms_of_formula, composition_entry
from epitaxy.curation.conventions import ENERGY_UNITS
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy.quantities import quantity
from epitaxy_benchmarks.geometry import number
from epitaxy_benchmarks.matbench import TASKS, official_id, unofficial
from epitaxy_benchmarks.reading import (
    DAMAGED,
    Reading,
    brief,
    existing_file,
    explained,
    plain_stem,
    text_of,
)

_CRABNET = "Wang et al., npj Comput. Mater. 7, 77 (2021)"
_ROOST = "Goodall and Lee, Nat. Commun. 11, 6280 (2020)"
_BARTEL = "Bartel et al., npj Comput. Mater. 6, 97 (2020)"
_MP = Method(code="VASP", xc_functional="PBE(+U)", settings="Materials Project")
_AFLOW = Method(code="VASP", xc_functional="PBE(+U)", settings="AFLOW")
_OQMD = Method(code="VASP", xc_functional="PBE(+U)", settings="OQMD")
_EXPERIMENT = Method(xc_functional="experiment")


@dataclass(frozen=True, slots=True)
class Table:
    """What is known about a table.

    Attributes:
        quantity: of the values.
        method: level of theory.
        citation: how to cite it.
        per_atom: values are per atom and the quantity is that of the formula unit.
        task: MatBench's name of it, where it has the rows of one in the official order.
    """

    quantity: str
    method: Method
    citation: str
    per_atom: bool = False
    task: str = ""


def _matbench(task: str) -> Table:
    facts = TASKS[task]
    return Table(
        facts.quantity,
        facts.method,
        f"Dunn et al., npj Comput. Mater. 6, 138 (2020); {facts.source}",
        task=task,
    )


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "aflow__Egap": Table("band_gap", _AFLOW, _CRABNET),
        "aflow__energy_atom": Table("energy", _AFLOW, _CRABNET, per_atom=True),
        "aflow__ael_bulk_modulus_vrh": Table("bulk_modulus", _AFLOW, _CRABNET),
        "aflow__agl_thermal_conductivity_300K": Table("thermal_conductivity", _AFLOW, _CRABNET),
        "mp_bulk_modulus": Table("bulk_modulus", _MP, _CRABNET),
        "mp_e_hull": Table("energy_above_hull", _MP, _CRABNET),
        "OQMD_Bandgap": Table("band_gap", _OQMD, _CRABNET),
        "CritExam__Ef": Table("formation_energy", _MP, f"{_BARTEL}; {_CRABNET}"),
        "CritExam__Ed": Table("decomposition_energy", _MP, f"{_BARTEL}; {_CRABNET}"),
        "roost_mp-non-metals": Table("band_gap", _MP, _ROOST),
        "roost_expt-non-metals": Table("band_gap", _EXPERIMENT, _ROOST),
        "dielectric": _matbench("matbench_dielectric"),
        "elasticity_log10G_VRH": _matbench("matbench_log_gvrh"),
        "elasticity_log10K_VRH": _matbench("matbench_log_kvrh"),
        "expt_gap": _matbench("matbench_expt_gap"),
        "expt_is_metal": _matbench("matbench_expt_is_metal"),
        "glass": _matbench("matbench_glass"),
        "jdft2d": _matbench("matbench_jdft2d"),
        "mp_e_form": _matbench("matbench_mp_e_form"),
        "mp_gap": _matbench("matbench_mp_gap"),
        "mp_is_metal": _matbench("matbench_mp_is_metal"),
        "phonons": _matbench("matbench_phonons"),
        "steels_yield": _matbench("matbench_steels"),
        "castelli": _matbench("matbench_perovskites"),
        "matbench_perovskites_formula_eform": _matbench("matbench_perovskites"),
    }
)
"""Name of a file (without "__train", "__val", "__test") -> what it holds."""

FORMULA_COLUMNS = ("formula", "composition")
ID_COLUMNS = ("material_id", "mp_id", "id")
_ENERGY_UNITS = {f"{unit}/atom": factor for unit, factor in ENERGY_UNITS.items()}


class CompositionTableSource:
    """Reads a CSV file with a formula and a value in each row.

    Args:
        path: for example "aflow__Egap__train.csv.xz".
        target: quantity of the values where the file's name does not say it (`epitaxy show
            composition_table` and docs/benchmark-sets.md list the known names).
        unit: unit of the values if it is not that of the quantity: an energy unit, or one per
            atom as "meV/atom".
        column: of the values; the last one by default.
        xc_functional: level of theory of an unknown table, for example "PBE", or "experiment".
    """

    def __init__(
        self,
        *,
        path: Path,
        target: str = "",
        unit: str = "",
        column: str = "",
        xc_functional: str = "",
    ):
        self._path = existing_file(path)
        stem = plain_stem(self._path)
        self._part = next((p for p in ("train", "val", "test") if stem.endswith(f"__{p}")), "")
        self._name = stem.removesuffix(f"__{self._part}") if self._part else stem
        known = TABLES.get(self._name)
        if known is None and not target:
            raise DataError(
                f"{path}: no known table has this name, so say what its values are with the "
                "option target, for example target=band_gap"
            )
        if known is None or (target and target != known.quantity):
            known = Table(quantity(target).name, Method(), "")
        if xc_functional:
            known = Table(known.quantity, Method(xc_functional=xc_functional), known.citation)
        self._table = known
        self._per_atom, self._factor = self._unit(unit)
        self._column = column
        self._reading = Reading()
        self.notes: tuple[str, ...] = ()
        """That a MatBench table is not the official one, after an iteration."""

    def _unit(self, unit: str) -> tuple[bool, float]:
        """Return whether the values are per atom of an extensive quantity, and the factor."""
        rule = quantity(self._table.quantity)
        if not unit or unit == rule.unit:
            return self._table.per_atom and not unit, 1.0
        base = rule.unit.removesuffix("/atom")
        if unit in _ENERGY_UNITS and base in ENERGY_UNITS:
            is_total = not rule.unit.endswith("/atom")
            return is_total, _ENERGY_UNITS[unit] / ENERGY_UNITS[base]
        if unit in ENERGY_UNITS and rule.unit in ENERGY_UNITS:
            return False, ENERGY_UNITS[unit] / ENERGY_UNITS[rule.unit]
        raise DataError(
            f"unit = {unit!r} cannot be converted to that of {rule.name}, {rule.unit or 'none'}"
        )

    @property
    def card(self) -> Card:
        """What the table is."""
        return Card(
            title=f"{self._name}{f' ({self._part})' if self._part else ''}",
            quantities=(self._table.quantity,),
            license="MIT" if self._table.citation else "unknown",
            citation=self._table.citation,
            url=self._path.name,
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the rows in the order of the file.

        Raises:
            DataError: the file is damaged, or a row has no formula or value; the row is named.
        """
        self._reading = reading = Reading([self._path])
        self.notes = ()
        line, row = 1, -1
        try:
            with reading.open(self._path) as stream:
                rows = csv.DictReader(text_of(stream))
                columns = self._columns(list(rows.fieldnames or ()))
                for row, fields in enumerate(rows):
                    line = rows.line_num
                    where = f"{self._path}: line {line}"
                    with explained(where, "a table of formulas"):
                        entry = self._entry(row, fields, columns)
                    yield entry
            if self._table.task:
                self.notes = unofficial(self._table.task, row + 1)
        except (csv.Error, *DAMAGED) as error:
            raise DataError(
                f"{self._path}: damaged or cut after line {line:,}: {brief(error)}. Get it anew, "
                "or keep the rows before with --keep-going"
            ) from error

    def _columns(self, header: list[str]) -> tuple[str, str, str]:
        """Return the columns of formula, value and id ("" if there is none)."""
        formula = next((name for name in FORMULA_COLUMNS if name in header), "")
        if not formula:
            raise DataError(
                f"{self._path}: the columns are {header}; one of {FORMULA_COLUMNS} is needed"
            )
        value = self._column or ("target" if "target" in header else header[-1])
        if value not in header or value == formula:
            raise DataError(f"{self._path}: no column {value!r} with values among {header}")
        return formula, value, next((name for name in ID_COLUMNS if name in header), "")

    def _entry(self, row: int, fields: Mapping[str, str], columns: tuple[str, str, str]) -> Entry:
        at_formula, at_value, at_id = columns
        formula = fields[at_formula]
        if fields[at_value] is None:
            raise DataError("the row ends before its value: the file was cut")
        value = number(_as_number(fields[at_value]))
        if self._table.task:
            name = official_id(self._table.task, row)
        else:
            part = f"{self._part}-" if self._part else ""
            name = f"{self._name}-{part}{fields[at_id] if at_id else row}"
        targets = {}
        if value is not None:
            n_atoms = len(atoms_of_formula(formula)) if self._per_atom else 1
            targets = {self._table.quantity: value * self._factor * n_atoms}
        return composition_entry(
            formula,
            targets=targets,
            id=name,
            method=self._table.method,
            origin=Origin(
                url=self._path.name,
                database=self._name,
                license="MIT" if self._table.citation else "",
            ),
            tags={"part": self._part} if self._part else None,
        )


def _as_number(text: str) -> str:
    return {"true": "1", "false": "0"}.get(text.strip().lower(), text)
