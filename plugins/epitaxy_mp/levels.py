"""The level of theory of a calculation of the Materials Project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epitaxy.entry import Method

MIXED = {
    "GGA_GGA+U": "PBE/PBE+U mixed",
    "GGA_GGA+U_R2SCAN": "PBE/PBE+U/r2SCAN mixed",
    "R2SCAN": "r2SCAN",
    "r2SCAN": "r2SCAN",
}
"""Thermo type -> functional of an energy whose own calculation is not named."""

_FUNCTIONALS = {
    # The Materials Project's "GGA" is what the potentials say, PBE (its POTCARs are PAW_PBE).
    "GGA": "PBE",
    "R2SCAN": "r2SCAN",
    "PBESOL": "PBEsol",
}


def functional(run_type: str, potentials: str = "PBE") -> str:
    """Return the usual name of a run type: "GGA+U" of PBE potentials is "PBE+U"."""
    plain, plus, rest = run_type.partition("+U")
    if plain.upper() == "GGA" and potentials.upper() not in ("PBE", ""):
        return run_type
    return _FUNCTIONALS.get(plain.upper(), plain) + plus + rest


def method_of_task(document: Mapping[str, Any], *, energy: str) -> Method:
    """Return the method of a task document, old or current.

    Args:
        document: the task.
        energy: which energy was taken, for the settings.
    """
    calculation = _first(document.get("calcs_reversed"))
    given = _mapping(document.get("input"))
    inner = _mapping(calculation.get("input"))
    original = _mapping(document.get("orig_inputs"))
    hubbards = _first_of("hubbards", given, calculation, inner) or {}
    potentials = str(
        _mapping(given.get("pseudo_potential")).get("functional")
        or _mapping(original.get("potcar")).get("functional")
        or "PBE"
    )
    run_type = document.get("run_type") or calculation.get("run_type")
    if not run_type:
        run_type = _guessed(document, inner, original, hubbards)
    incar = _first_of("incar", given, inner, original) or {}
    version = document.get("vasp_version") or calculation.get("vasp_version") or ""
    settings = [_plus_u(hubbards)]
    if "ENCUT" in incar:
        settings.append(f"{float(incar['ENCUT']):g} eV cutoff")
    settings.append(energy)
    return Method(
        code=f"VASP {version}".strip(),
        xc_functional=functional(str(run_type), potentials),
        settings="; ".join(filter(None, settings)),
    )


def method_of_entry(entry: Mapping[str, Any]) -> Method:
    """Return the method of a ComputedEntry, from its parameters."""
    parameters = _mapping(entry.get("parameters"))
    run_type = str(parameters.get("run_type") or _mapping(entry.get("data")).get("run_type") or "")
    return Method(
        code="VASP",
        xc_functional=functional(run_type) if run_type else "",
        settings=_plus_u(parameters.get("hubbards") or {}),
    )


def _plus_u(hubbards: Any) -> str:
    values = dict(hubbards) if isinstance(hubbards, Mapping) else {}
    used = [f"U({element})={float(u):g} eV" for element, u in sorted(values.items()) if u]
    return ", ".join(used)


def _guessed(
    document: Mapping[str, Any],
    inner: Mapping[str, Any],
    original: Mapping[str, Any],
    hubbards: Mapping[str, Any],
) -> str:
    """Return the run type of documents of before 2018, which name it in the task type at most."""
    task = str(document.get("calc_type") or document.get("task_type") or "").replace("_", " ")
    first = task.partition(" ")[0]
    if first.upper().removesuffix("+U") in ("GGA", "R2SCAN", "SCAN", "PBE", "PBESOL", "LDA"):
        return first
    incar = _first_of("incar", inner, original) or {}
    return "GGA+U" if hubbards or incar.get("LDAU") else "GGA"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first(values: Any) -> Mapping[str, Any]:
    return _mapping(values[0]) if isinstance(values, list) and values else {}


def _first_of(name: str, *places: Mapping[str, Any]) -> Any:
    return next((place[name] for place in places if place.get(name)), None)
