"""From the keywords of an AFLOW entry to an entry of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from epitaxy.composition import composition_entry
from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import EntryError
from epitaxy_aflow.structure import Structure, from_keywords
from epitaxy_aflow.values import number, numbers, words

QUANTITIES = (
    "energy",
    "forces",
    "stress",
    "formation_energy",
    "band_gap",
    "bulk_modulus",
    "shear_modulus",
    "magmoms",
    "is_metal",
    "thermal_conductivity",
)
"""Everything that an entry may carry."""

_SCALARS = (
    ("formation_energy", "enthalpy_formation_atom"),
    ("band_gap", "Egap"),
    ("bulk_modulus", "ael_bulk_modulus_vrh"),
    ("shear_modulus", "ael_shear_modulus_vrh"),
    ("thermal_conductivity", "agl_thermal_conductivity_300K"),
)
# stress_tensor is VASP's, kbar, positive under compression: a third of its trace is the keyword
# pressure_residual (2.95 kbar of 3.27, 3.24, 2.35 for Ag1Co1O2_ICSD_246157).
_VASP = Conventions(stress_unit="kbar", stress_is_pressure=True)
_SAME_ENERGY = 1e-3  # eV/atom; energies are printed with six digits
_GAPLESS = ("metal", "half-metal")


def xc_functional(dft_type: Any, ldau: Mapping[str, float]) -> str:
    """Return the usual name of what `dft_type` says: ["PAW_PBE"] is "PBE", with U "PBE+U".

    Several different types in one entry, as AFLOW has them, are joined with commas.
    """
    names = []
    for word in words(dft_type):
        name = re.sub(r"^(PAW|US|NC)_", "", word.strip())
        name = {"GGA": "PW91", "PAW_GGA": "PW91"}.get(name, name)
        if name not in names:
            names.append(name)
    return ",".join(names) + ("+U" if names and ldau else "")


def plus_u(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return element -> U - J, eV, of the elements that have one.

    AFLOW uses Dudarev's scheme (ldau_type 2), in which only the difference counts.
    """
    text = entry.get("ldau_TLUJ")
    u, j = entry.get("ldau_u"), entry.get("ldau_j")
    if u in (None, "", []) and text not in (None, "", []):
        parts = text.split(";") if isinstance(text, str) else text
        if len(parts) == 4:
            u, j = parts[2], parts[3]
    if u in (None, "", []):
        return {}
    values = np.atleast_1d(numbers(u, "ldau_u")).reshape(-1)
    minus = (
        np.zeros_like(values)
        if j in (None, "", [])
        else np.atleast_1d(numbers(j, "ldau_j")).reshape(-1)
    )
    species = [word.partition("_")[0] for word in words(entry.get("species"))]
    if len(values) != len(species) or len(minus) != len(values):
        raise EntryError(f"{len(values)} values of ldau_u for {len(species)} species")
    return {
        element: float(a - b)
        for element, a, b in zip(species, values, minus, strict=True)
        if a or b
    }


def read_keywords(
    entry: Mapping[str, Any],
    *,
    structure: Structure | None = None,
    database: str = "AFLOW",
    retrieved: str = "",
) -> Entry:
    """Return the entry of AFLOW keywords (a row of AFLUX, or aflowlib.json).

    Args:
        entry: keyword -> value.
        structure: from a file of the entry, where there is one.
        database: name and version, for the origin.
        retrieved: date, for the origin.

    Raises:
        EntryError: the entry cannot be used; the message names it and says why.
    """
    name = str(entry.get("auid") or entry.get("aurl") or "")
    if not name:
        raise EntryError("an entry: it has neither auid nor aurl")
    try:
        if structure is None and (entry.get("geometry") or not entry.get("compound")):
            structure = from_keywords(entry)
        ldau = plus_u(entry)
        targets = _targets(entry, structure)
    except EntryError as error:
        raise EntryError(f"{name}: {error}") from error
    cutoff = number(entry.get("energy_cutoff"))
    settings = [
        ", ".join(f"U({element})={u:g} eV" for element, u in sorted(ldau.items())),
        f"{cutoff:g} eV cutoff" if cutoff else "",
    ]
    tags = {
        name: str(entry[key]).strip()
        for name, key in (
            ("prototype", "aflow_prototype_label_relax"),
            ("catalog", "catalog"),
            ("gap_type", "Egap_type"),
            ("spacegroup", "spacegroup_relax"),
        )
        if entry.get(key)
    }
    method = Method(
        code=_code(entry.get("code")),
        xc_functional=xc_functional(entry.get("dft_type"), ldau),
        settings="; ".join(filter(None, settings)),
    )
    origin = Origin(
        url=address_of(str(entry.get("aurl") or "")),
        database=database,
        retrieved=retrieved,
    )
    if structure is None:  # a table of formulas: an answer of AFLUX that was not asked for more
        scalars = {key: float(value) for key, value in targets.items()}
        return composition_entry(
            str(entry["compound"]),
            targets=scalars,
            id=name,
            method=method,
            origin=origin,
            tags=tags,
        )
    return Entry(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=np.ones(3, dtype=bool),
        targets=MappingProxyType(targets),
        id=name,
        method=method,
        origin=origin,
        tags=MappingProxyType(tags),
    )


def address_of(aurl: str, *, host: str = "") -> str:
    """Return the web address of an aurl: "host:AFLOWDATA/..." is "http://host/AFLOWDATA/..."."""
    server, _, path = aurl.partition(":")
    return f"{host or 'http://' + server}/{path}" if path else ""


def _targets(entry: Mapping[str, Any], structure: Structure | None) -> dict[str, np.ndarray]:
    targets: dict[str, np.ndarray] = {}
    for quantity, key in _SCALARS:
        value = number(entry.get(key))
        if value is not None:
            targets[quantity] = np.array(value)
    kind = str(entry.get("Egap_type") or "").strip()
    if kind:
        targets["is_metal"] = np.array(float(kind in _GAPLESS))
    if structure is None:
        return targets
    n_atoms = len(structure.numbers)
    total = _energy(entry, n_atoms)
    if total is not None:
        targets["energy"] = np.array(total)
    moments = entry.get("spinD")
    if moments not in (None, "", []):
        array = np.atleast_1d(numbers(moments, "spinD")).reshape(-1)
        if len(array) == n_atoms:
            targets["magmoms"] = array
    if structure.is_oriented:
        targets |= _derivatives(entry, n_atoms)
    return targets


def _energy(entry: Mapping[str, Any], n_atoms: int) -> float | None:
    """Return the energy of the whole cell, eV."""
    total, each = number(entry.get("energy_cell")), number(entry.get("energy_atom"))
    if total is None or each is None:
        return total if each is None else each * n_atoms
    if abs(total / n_atoms - each) > _SAME_ENERGY:
        # The classic mistake, to be found here and not in a model: a label of the other kind.
        raise EntryError(
            f"energy_cell = {total:g} eV of {n_atoms} atoms is not energy_atom = {each:g} eV"
        )
    return total


def _derivatives(entry: Mapping[str, Any], n_atoms: int) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    if entry.get("forces") not in (None, "", []):
        forces = numbers(entry["forces"], "forces")
        if forces.size != 3 * n_atoms:
            raise EntryError(f"forces of {forces.size // 3} atoms, not of {n_atoms}")
        found["forces"] = forces.reshape(n_atoms, 3)
    if entry.get("stress_tensor") not in (None, "", []):
        stress = numbers(entry["stress_tensor"], "stress_tensor").reshape(-1)
        if stress.size != 9:
            raise EntryError(f"stress_tensor has {stress.size} numbers, not 9")
        full = 0.5 * (stress.reshape(3, 3) + stress.reshape(3, 3).T)
        voigt = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        found |= _VASP.convert({"stress": voigt}, n_atoms=n_atoms, volume=None)
    return found


def _code(value: Any) -> str:
    text = str(value or "vasp").strip()
    return "VASP" + text[4:].replace(".", " ", 1) if text.lower().startswith("vasp") else text
