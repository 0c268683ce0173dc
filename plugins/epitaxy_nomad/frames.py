"""From an archive of NOMAD to the frames in it: structures with labels in our units.

Three layouts hold calculations: ``run`` (runschema, what the parsers of NOMAD 1 and 2 write),
``data`` (nomad-simulations: ``model_system`` and ``outputs``), and ``results`` (derived by NOMAD,
one structure per entry, no forces).

Signs: archives define stress as the derivative of the energy with respect to strain, per volume,
which is ours. The parsers of VASP and Quantum ESPRESSO store what these codes print, though,
which is the other sign (electronicparsers 1.1.0, seen in its source); they are turned.

Energies: forces are minus the gradient of ``energy.free`` where the electrons have a temperature,
so that this is the energy taken (ASE's free_energy); ``energy.total`` where there is no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from epitaxy.entry import Method
from epitaxy.errors import EntryError
from epitaxy_nomad.archive import Section, array, at, resolve, section, sections
from epitaxy_nomad.dos import bands_of, gap_of, read_dos
from epitaxy_nomad.methods import read_method
from epitaxy_nomad.si import EV, EV_PER_ANGSTROM, EV_PER_CUBIC_ANGSTROM, GPA
from epitaxy_nomad.structures import Structure, from_model_system, from_results, from_system

Which = Literal["last", "all"]
EnergyKind = Literal["auto", "free", "total"]
Layout = Literal["auto", "run", "data", "results"]

QUANTITIES = (
    "energy",
    "forces",
    "stress",
    "band_gap",
    "fermi_energy",
    "bulk_modulus",
    "shear_modulus",
    "dos",
)
"""Targets that frames may have."""

PRINTED_STRESS = ("VASP", "Quantum ESPRESSO", "QuantumESPRESSO")
"""Codes whose parsers store stress with the sign of a pressure."""

_LARGEST_LEVEL = 1000.0
"""eV; a Fermi energy beyond this is an error of the parser (the dev set has one of 55,187 eV)."""

_LARGEST_ENTROPY = 1.0
"""eV/atom between free and total energy; more means that one of them is something else."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What to read of an archive.

    Attributes:
        layout: which sections; "auto" takes run, else data, else results.
        frames: the last calculation or all of them.
        energy: which energy; "auto" the free energy where there is one.
        dos: whether to read densities of states.
        turn_stress: None for the rule above; True or False for all codes.
    """

    layout: Layout = "auto"
    frames: Which = "last"
    energy: EnergyKind = "auto"
    dos: bool = False
    turn_stress: bool | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One structure with its labels, in our units.

    Attributes:
        place: of the calculation in the archive, "run/0/calculation/3"; "" for the last one.
        structure: the atoms.
        targets: quantity -> array.
        method: level of theory.
        tags: "energy_kind", "dos_reference", "frame", and "section": the section of the archive
            that holds the structure, or the reference to it where its number is not known
            ("run/0/calculation/-1/system_ref"; NOMAD follows it, and counts -1 from the end).
        doubts: labels that were left out because they cannot be true.
    """

    place: str
    structure: Structure
    targets: dict[str, np.ndarray]
    method: Method
    tags: dict[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def read_frames(
    archive: Section, wishes: Wishes, refuse: Callable[[str, str], None]
) -> Iterator[Frame]:
    """Yield the frames of an archive.

    Args:
        archive: as the server sends it, or a document with the parts of ``results`` at its top.
        wishes: what to read.
        refuse: called with (place, reason) for each calculation that cannot be used.
    """
    derived = _derived(archive)
    calculations = list(_calculations(archive, wishes.layout))
    if wishes.frames == "last":
        calculations = calculations[-1:]
    n_read = 0
    for number, calculation in enumerate(calculations):
        is_last = number == len(calculations) - 1
        place = calculation.place if wishes.frames == "all" else ""
        try:
            yield _frame(calculation, archive, derived if is_last else {}, wishes, place)
            n_read += 1
        except EntryError as error:
            refuse(place, str(error))
    if not calculations:
        refuse("", "no structure")


@dataclass(frozen=True, slots=True)
class _Calculation:
    place: str
    section: str
    structure: Callable[[], Structure]
    labels: Callable[[int, Wishes], tuple[dict[str, np.ndarray], dict[str, str]]]
    run: Section
    method: Section


def _frame(
    calculation: _Calculation,
    archive: Section,
    derived: Mapping[str, np.ndarray],
    wishes: Wishes,
    place: str,
) -> Frame:
    structure = calculation.structure()
    targets, tags = calculation.labels(len(structure.numbers), wishes)
    method = read_method(archive, run=calculation.run, method=calculation.method)
    if "stress" in targets:
        turn = wishes.turn_stress
        if method.code.startswith(PRINTED_STRESS) if turn is None else turn:
            targets["stress"] = -targets["stress"]
    doubts: tuple[str, ...] = ()
    if "fermi_energy" in targets and abs(float(targets["fermi_energy"])) > _LARGEST_LEVEL:
        del targets["fermi_energy"]
        doubts = (f"Fermi energy beyond {_LARGEST_LEVEL:g} eV",)
    where = calculation.section
    head, _, number = calculation.place.rpartition("/")
    if not place and number.isdigit() and where.startswith(f"{calculation.place}/"):
        # A service sends the last calculation alone, as if it were the first: count from the end.
        where = f"{head}/-1{where.removeprefix(calculation.place)}"
    tags = {**tags, "frame": place or "last", "section": where}
    return Frame(place, structure, {**derived, **targets}, method, tags, doubts)


def _calculations(archive: Section, layout: Layout) -> Iterator[_Calculation]:
    """Yield the calculations of the first layout that has any."""
    readers: dict[str, Callable[[Section], Iterator[_Calculation]]] = {
        "run": _of_runs,
        "data": _of_data,
        "results": _of_results,
    }
    for name, reader in readers.items():
        if layout in ("auto", name):
            found = list(reader(archive))
            if found:
                yield from found
                return


def _of_runs(archive: Section) -> Iterator[_Calculation]:
    for r, run in enumerate(sections(archive.get("run"))):
        calculations = sections(run.get("calculation"))
        systems, methods = sections(run.get("system")), sections(run.get("method"))
        for c, calculation in enumerate(calculations):
            if not calculation:
                continue
            reference = calculation.get("system_ref")
            system, place = resolve(reference, archive), f"run/{r}/calculation/{c}"
            where = _path(reference, f"{place}/system_ref") or place
            if system is None and "system_ref" not in calculation and systems:
                number = c if len(systems) == len(calculations) else len(systems) - 1
                system, where = systems[number], f"run/{r}/system/{number}"
            method = resolve(calculation.get("method_ref"), archive)
            if method is None:
                method = methods[-1] if methods else {}
            if not at(system, "atoms"):
                continue  # another archive's, or a calculation without atoms

            def structure(system: Any = system) -> Structure:
                return from_system(section(at(system, "atoms")))

            def labels(
                n_atoms: int, wishes: Wishes, calculation: Section = calculation
            ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
                return _run_labels(calculation, n_atoms, wishes)

            yield _Calculation(place, where, structure, labels, run, method)


def _of_data(archive: Section) -> Iterator[_Calculation]:
    data = section(archive.get("data"))
    systems, methods = sections(data.get("model_system")), sections(data.get("model_method"))
    for i, output in enumerate(sections(data.get("outputs"))):
        reference = output.get("model_system_ref")
        system, place = resolve(reference, archive), f"data/outputs/{i}"
        where = _path(reference, f"{place}/model_system_ref") or place
        if system is None and "model_system_ref" not in output and systems:
            system, where = systems[-1], f"data/model_system/{len(systems) - 1}"
        method = resolve(output.get("model_method_ref"), archive)
        if method is None:
            method = methods[-1] if methods else {}
        if not at(system, "positions"):
            continue

        def structure(system: Any = system) -> Structure:
            return from_model_system(section(system))

        def labels(
            n_atoms: int, wishes: Wishes, output: Section = output
        ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
            return _output_labels(output, n_atoms, wishes)

        yield _Calculation(place, where, structure, labels, data, method)


def _of_results(archive: Section) -> Iterator[_Calculation]:
    results = section(archive.get("results")) or archive
    original = section(at(results, "properties", "structures", "structure_original"))
    if not original:
        return

    def labels(n_atoms: int, wishes: Wishes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        return _energy_labels(section(archive.get("energies")), n_atoms, wishes)

    section_ = "results/properties/structures/structure_original"
    yield _Calculation("results", section_, lambda: from_results(original), labels, {}, {})


def _path(reference: Any, place: str) -> str:
    """Return the path of a section that is referred to, "" if there is none.

    Where the service has put the section in the place of the reference, that place is its path:
    NOMAD follows it to the section.
    """
    if isinstance(reference, str):
        return reference.rpartition("#")[2].strip("/")
    return place if reference else ""


def _derived(archive: Section) -> dict[str, np.ndarray]:
    """Return what ``results`` says about the whole entry: gap and elastic moduli."""
    properties = section(at(archive, "results", "properties") or archive.get("properties"))
    found: dict[str, np.ndarray] = {}
    gap, _, _ = gap_of(bands_of(properties))
    if gap is not None:
        found["band_gap"] = np.array(gap)
    for name in ("bulk_modulus", "shear_modulus"):
        values = [
            entry["value"]
            for entry in sections(at(properties, "mechanical", name))
            if isinstance(entry.get("value"), int | float)
            and entry.get("type") in (None, "voigt_reuss_hill_average")
        ]
        if len(values) == 1:
            found[name] = np.array(values[0] * GPA)
    return found


def _run_labels(
    calculation: Section, n_atoms: int, wishes: Wishes
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    energies = section(calculation.get("energy"))
    targets, tags = _energy_labels(energies, n_atoms, wishes)
    forces = section(calculation.get("forces"))
    kinds = ("total", "free") if tags.get("energy_kind") == "total" else ("free", "total")
    for entry in (section(forces.get(kind)) for kind in kinds):
        value = entry.get("value_raw", entry.get("value"))  # raw: without constraints
        if value is not None:
            targets["forces"] = array(value, (n_atoms, 3), "forces") * EV_PER_ANGSTROM
            break
    stress = at(calculation, "stress", "total", "value")
    if stress is not None:
        targets["stress"] = _voigt(array(stress, (3, 3), "stress")) * EV_PER_CUBIC_ANGSTROM
    gap, highest, lowest = gap_of(sections(calculation.get("band_gap")))
    if gap is not None:
        targets["band_gap"] = np.array(gap)
    if wishes.dos:
        dos = read_dos(
            sections(calculation.get("dos_electronic")),
            fermi=_ev(energies.get("fermi")),
            highest=_first(_ev(energies.get("highest_occupied")), highest),
            lowest=_first(_ev(energies.get("lowest_unoccupied")), lowest),
        )
        if dos is not None:
            targets["dos"], tags["dos_reference"] = dos
    return targets, tags


def _output_labels(
    output: Section, n_atoms: int, wishes: Wishes
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    targets: dict[str, np.ndarray] = {}
    tags: dict[str, str] = {}
    energy = _ev(at(output, "total_energies", 0, "value"))
    if energy is not None and wishes.energy != "free":
        targets["energy"] = np.array(energy)
        tags["energy_kind"] = "total"
    forces = at(output, "total_forces", 0, "value")
    if forces is not None:
        targets["forces"] = array(forces, (n_atoms, 3), "forces") * EV_PER_ANGSTROM
    gaps = [_ev(gap.get("value")) for gap in sections(output.get("electronic_band_gaps"))]
    if gaps and all(gap is not None for gap in gaps):
        targets["band_gap"] = np.array(max(0.0, min(gap for gap in gaps if gap is not None)))
    if wishes.dos:
        dos = read_dos(
            sections(output.get("electronic_dos")), fermi=None, highest=None, lowest=None
        )
        if dos is not None:
            targets["dos"], tags["dos_reference"] = dos
    return targets, tags


def _energy_labels(
    energies: Section, n_atoms: int, wishes: Wishes
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return energy and Fermi energy of ``run.calculation.energy``.

    Raises:
        EntryError: free and total energy are too far apart to be the same thing.
    """
    free = _ev(at(energies, "free", "value"))
    total = _ev(at(energies, "total", "value"))
    targets: dict[str, np.ndarray] = {}
    tags: dict[str, str] = {}
    kinds = {"auto": (("free", free), ("total", total))}.get(
        wishes.energy, ((wishes.energy, free if wishes.energy == "free" else total),)
    )
    for kind, value in kinds:
        if value is not None:
            targets["energy"], tags["energy_kind"] = np.array(value), kind
            break
    if None not in (free, total) and wishes.energy == "auto":
        apart = abs((free or 0.0) - (total or 0.0)) / n_atoms
        if apart > _LARGEST_ENTROPY:
            raise EntryError("free and total energy differ by more than 1 eV/atom")
    fermi = energies.get("fermi")
    if isinstance(fermi, list):
        fermi = fermi[0] if fermi else None
    if (level := _ev(fermi)) is not None:
        targets["fermi_energy"] = np.array(level)
    return targets, tags


def _voigt(tensor: np.ndarray) -> np.ndarray:
    """Return xx, yy, zz, yz, xz, xy of a tensor, symmetrized."""
    symmetric: np.ndarray = (tensor + tensor.T) / 2
    voigt: np.ndarray = symmetric[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return voigt


def _ev(joule: Any) -> float | None:
    is_number = isinstance(joule, int | float) and not isinstance(joule, bool)
    return float(joule) * EV if is_number else None


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one
