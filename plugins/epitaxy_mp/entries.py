"""From a document of the Materials Project, of any of its endpoints, to an entry."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from epitaxy.composition import composition_entry
from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import EntryError
from epitaxy_mp.levels import MIXED, functional, method_of_entry, method_of_task
from epitaxy_mp.structure import Structure, read_structure

Energy = Literal["uncorrected", "corrected"]

QUANTITIES = (
    "energy",
    "forces",
    "stress",
    "magmoms",
    "formation_energy",
    "energy_above_hull",
    "decomposition_energy",
    "band_gap",
    "bulk_modulus",
    "shear_modulus",
    "fermi_energy",
    "is_metal",
)
"""Everything that a document may carry."""

WEBSITE = "https://next-gen.materialsproject.org/materials"
_LICENSES = {"BY-C": "CC-BY-4.0", "BY-NC": "CC-BY-NC-4.0", None: "CC-BY-4.0"}
# VASP prints kbar, positive under compression; emmet keeps the 3 x 3 matrix of vasprun.xml.
# Checked on the volumes of a relaxation of Si (mp-149): 40.04 Å^3 +19.2 kbar, 41.45 Å^3 -11.9 kbar.
_VASP = Conventions(stress_unit="kbar", stress_is_pressure=True)
_SCALARS = (
    # quantity, names in documents of the API and of the dumps, first found counts
    ("formation_energy", ("formation_energy_per_atom",)),
    ("energy_above_hull", ("energy_above_hull", "e_above_hull")),
    ("decomposition_energy", ("decomposition_enthalpy",)),
    ("band_gap", ("band_gap",)),
    ("fermi_energy", ("efermi",)),
    ("is_metal", ("is_metal",)),
)


def read_document(
    document: Mapping[str, Any],
    *,
    energy: Energy = "uncorrected",
    level: Method | None = None,
    database: str = "",
    retrieved: str = "",
    thermo_in_id: bool = False,
) -> Entry:
    """Return the entry of a summary, thermo, task or elasticity document, or a ComputedEntry.

    Args:
        document: as the API or a dump gives it.
        energy: which total energy: as calculated, or with the project's corrections.
        level: the method, where it is known better than the document says it.
        database: name and version, for the origin.
        retrieved: date, for the origin.
        thermo_in_id: whether ids name the thermo type, since a material comes several times.

    Raises:
        EntryError: the document cannot be used (disordered, no structure, damaged).
    """
    name = _name(document, thermo_in_id)
    try:
        if "calcs_reversed" in document or "orig_inputs" in document or _is_task(document):
            structure, targets, method = _task(document)
        elif isinstance(document.get("composition"), Mapping) and "entry_id" in document:
            structure, targets, method = _computed_entry(document, energy)
        else:
            structure, targets, method = _material(document, energy)
    except EntryError as error:
        raise EntryError(f"{name}: {error}") from error
    origin = Origin(
        url=f"{WEBSITE}/{document.get('material_id') or document.get('task_id') or ''}".rstrip("/"),
        database=database or "Materials Project",
        license=_license(document),
        retrieved=retrieved,
    )
    method, tags = level or method, _tags(document)
    if structure is None:
        formula = document.get("formula_pretty") or document.get("pretty_formula")
        if not isinstance(formula, str) or "forces" in targets:
            raise EntryError(f"{name}: it has neither structure nor formula")
        scalars = {key: float(value) for key, value in targets.items()}
        return composition_entry(
            formula, targets=scalars, id=name, method=method, origin=origin, tags=tags
        )
    return Entry(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        targets=MappingProxyType(targets),
        id=name,
        method=method,
        origin=origin,
        tags=MappingProxyType(tags),
    )


Parts = tuple[Structure | None, dict[str, np.ndarray], Method]


def _material(document: Mapping[str, Any], energy: Energy) -> Parts:
    """Read a summary, thermo or elasticity document."""
    entries = document.get("entries")
    chosen: Mapping[str, Any] = {}
    if isinstance(entries, Mapping) and entries:
        chosen = entries.get(document.get("energy_type")) or next(iter(entries.values())) or {}
    raw = document.get("structure") or chosen.get("structure")
    structure = None if raw is None else read_structure(raw)
    targets: dict[str, np.ndarray] = {}
    names = {"uncorrected": "uncorrected_energy_per_atom", "corrected": "energy_per_atom"}
    per_atom = _number(document.get(names[energy]))
    if per_atom is not None and structure is not None:
        targets["energy"] = per_atom * len(structure.numbers)
    for quantity, keys in _SCALARS:
        value = next((document[key] for key in keys if document.get(key) is not None), None)
        number = _number(float(value) if isinstance(value, bool) else value)
        if number is not None:
            targets[quantity] = number
    targets |= _moduli(document)
    thermo_type = str(document.get("thermo_type") or "")
    if run_type := document.get("energy_type"):
        method = Method(code="VASP", xc_functional=functional(str(run_type)))
        if chosen:
            method = method_of_entry({"parameters": {"run_type": run_type}, **chosen})
    elif "formation_energy_per_atom" in document or thermo_type:
        method = Method("VASP", MIXED.get(thermo_type, MIXED["GGA_GGA+U_R2SCAN"]))
    else:
        method = Method(code="VASP")
    return structure, targets, _noted(method, energy, "energy" in targets)


def _noted(method: Method, energy: Energy, has_energy: bool) -> Method:
    note = f"{energy} energy" if has_energy and energy == "corrected" else ""
    settings = "; ".join(filter(None, (method.settings, note)))
    return Method(method.code, method.xc_functional, settings)


def _moduli(document: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the Voigt-Reuss-Hill moduli, GPa, of current and of older documents."""
    nested = document.get("elasticity")
    old = nested if isinstance(nested, Mapping) else document
    targets = {}
    for quantity, old_name in (("bulk_modulus", "k_vrh"), ("shear_modulus", "g_vrh")):
        value = document.get(quantity)
        if isinstance(value, Mapping):
            value = value.get("vrh")
        number = _number(value if value is not None else old.get(old_name))
        if number is not None:
            targets[quantity] = number
    return targets


def _computed_entry(document: Mapping[str, Any], energy: Energy) -> Parts:
    """Read a ComputedEntry or ComputedStructureEntry of pymatgen: the energy of the whole cell."""
    raw = document.get("structure")
    if raw is None:
        raise EntryError("a ComputedEntry without structure: give ComputedStructureEntry documents")
    structure = read_structure(raw)
    total = _number(document.get("energy"))
    targets = {}
    if total is not None:
        correction = _number(document.get("correction")) if energy == "corrected" else None
        targets["energy"] = total if correction is None else total + correction
    return structure, targets, _noted(method_of_entry(document), energy, bool(targets))


def _is_task(document: Mapping[str, Any]) -> bool:
    output = document.get("output")
    return isinstance(output, Mapping) and ("energy" in output or "structure" in output)


def _task(document: Mapping[str, Any]) -> Parts:
    """Read a calculation: energy, forces and stress of its last ionic step."""
    output = document.get("output") or {}
    calculations = document.get("calcs_reversed") or []
    inner = (calculations[0].get("output") if calculations else None) or {}
    steps = inner.get("ionic_steps") or []
    last = steps[-1] if steps else {}
    raw = output.get("structure") or document.get("structure") or inner.get("structure")
    if raw is None:
        raise EntryError("the calculation has no structure")
    structure = read_structure(raw)
    n_atoms = len(structure.numbers)
    targets: dict[str, np.ndarray] = {}
    free = _number(last.get("e_fr_energy"))
    total = free if free is not None else _number(output.get("energy"))
    if total is not None:
        targets["energy"] = total
    forces = _array(output.get("forces") or last.get("forces"), (n_atoms, 3), "forces")
    if forces is not None:
        targets["forces"] = forces
    stress = _array(output.get("stress") or last.get("stress"), (3, 3), "stress")
    if stress is not None:
        stress = 0.5 * (stress + stress.T)
        targets["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        targets |= _VASP.convert({"stress": targets["stress"]}, n_atoms=n_atoms, volume=None)
    for quantity, value in (
        ("band_gap", output.get("bandgap", inner.get("bandgap"))),
        ("fermi_energy", output.get("efermi", inner.get("efermi"))),
    ):
        number = _number(value)
        if number is not None:
            targets[quantity] = number
    if structure.magmoms is not None:
        targets["magmoms"] = structure.magmoms
    # Forces are derivatives of the free energy; the other one is extrapolated to no smearing.
    note = "free energy" if free is not None else "energy extrapolated to zero smearing"
    return structure, targets, method_of_task(document, energy=note if total is not None else "")


def _name(document: Mapping[str, Any], thermo_in_id: bool) -> str:
    """Return the document's own id; of one without, a digest of what it says."""
    for key in ("material_id", "task_id", "entry_id"):
        value = document.get(key)
        if isinstance(value, Mapping):  # {"@class": "MPID", "string": "mp-149"}
            value = value.get("string")
        if isinstance(value, str) and value:
            thermo = document.get("thermo_type") if thermo_in_id else None
            return f"{value}_{thermo}" if thermo else value
    text = json.dumps(document, sort_keys=True, default=str)
    return f"mp:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _tags(document: Mapping[str, Any]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for key in ("task_type", "calc_type", "thermo_type", "run_type", "energy_type"):
        value = document.get(key)
        if isinstance(value, str) and value:
            tags[key] = value
    symmetry = document.get("symmetry")
    if isinstance(symmetry, Mapping) and symmetry.get("number"):
        tags["spacegroup"] = str(symmetry["number"])
    if document.get("material_id") and document.get("thermo_type"):
        tags["material_id"] = str(document["material_id"])
    return tags


def _license(document: Mapping[str, Any]) -> str:
    meta = document.get("builder_meta")
    name = meta.get("license") if isinstance(meta, Mapping) else None
    return _LICENSES.get(name, str(name))


def _number(value: Any) -> np.ndarray | None:
    """Return a finite number as an array of no dimension, None for anything else."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return np.array(value, dtype=np.float64)


def _array(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EntryError(f"its {name} are no numbers") from error
    if array.shape != shape:
        raise EntryError(f"its {name} have shape {array.shape}, not {shape}")
    return array
