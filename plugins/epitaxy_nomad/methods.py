"""The level of theory of a calculation in NOMAD.

Functionals are named there by their parts in libxc's words (Lehtola et al., SoftwareX 7, 1
(2018)); the usual combinations get their usual names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from epitaxy.entry import Method
from epitaxy_nomad.archive import Section, at, section, sections
from epitaxy_nomad.si import EV

_CORRELATED = {
    "LDA": ("LDA_X", ("LDA_C_PW", "LDA_C_PW_MOD", "LDA_C_PZ", "LDA_C_PZ_MOD", "LDA_C_VWN")),
    "PBE": ("GGA_X_PBE", ("GGA_C_PBE",)),
    "PBEsol": ("GGA_X_PBE_SOL", ("GGA_C_PBE_SOL",)),
    "RPBE": ("GGA_X_RPBE", ("GGA_C_PBE",)),
    "revPBE": ("GGA_X_PBE_R", ("GGA_C_PBE",)),
    "PW91": ("GGA_X_PW91", ("GGA_C_PW91",)),
    "AM05": ("GGA_X_AM05", ("GGA_C_AM05",)),
    "BLYP": ("GGA_X_B88", ("GGA_C_LYP",)),
    "TPSS": ("MGGA_X_TPSS", ("MGGA_C_TPSS",)),
    "SCAN": ("MGGA_X_SCAN", ("MGGA_C_SCAN",)),
    "rSCAN": ("MGGA_X_RSCAN", ("MGGA_C_RSCAN",)),
    "r2SCAN": ("MGGA_X_R2SCAN", ("MGGA_C_R2SCAN",)),
}
_WHOLE = {
    "HYB_GGA_XC_PBEH": "PBE0",
    "HYB_GGA_XC_HSE06": "HSE06",
    "HYB_GGA_XC_HSE03": "HSE03",
    "HYB_GGA_XC_B3LYP": "B3LYP",
}
_ABSENT = ("", "unavailable", "not processed")


def functional_name(parts: Iterable[str]) -> str:
    """Return the usual name of a functional, or its parts joined by "+".

    >>> functional_name(["GGA_X_PBE_SOL", "GGA_C_PBE_SOL"])
    'PBEsol'
    """
    names = {part.upper().removeprefix("XC_") for part in parts if part not in _ABSENT}
    if len(names) == 1:
        (only,) = names
        return _WHOLE.get(only, only)
    for usual, (exchange, correlations) in _CORRELATED.items():
        if exchange in names and len(names) == 2 and (names - {exchange}).issubset(correlations):
            return usual
    return "+".join(sorted(names))


def read_method(archive: Section, *, run: Section, method: Section) -> Method:
    """Return the method of a calculation.

    Args:
        archive: the whole archive.
        run: the run that the calculation belongs to, or the section ``data``.
        method: ``run.method`` or ``data.model_method`` of the calculation; may be empty.
    """
    simulation = section(at(archive, "results", "method", "simulation"))
    if not simulation:  # documents without their frame hold the parts of `results` themselves
        simulation = section(at(archive, "method", "simulation"))
    dft = section(simulation.get("dft"))
    program = section(run.get("program"))
    name = program.get("name") or simulation.get("program_name") or ""
    version = str(program.get("version") or simulation.get("program_version") or "").split()
    functional = functional_name(_parts(method) or _words(dft.get("xc_functional_names")))
    if key := at(method, "xc", "functional_key"):
        functional = functional or str(key)
    kind = str(at(archive, "results", "method", "method_name") or "")
    has_u = (
        dft.get("hubbard_kanamori_model")
        or kind == "DFT+U"
        or any("hubbard_kanamori_model" in a for a in sections(method.get("atom_parameters")))
    )
    return Method(
        code=" ".join(filter(None, [str(name), version[0] if version else ""])),
        xc_functional=f"{functional}+U" if functional and has_u else functional,
        settings="; ".join(_settings(simulation, dft, method)),
    )


def _words(value: Any) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _parts(method: Section) -> list[str]:
    """Return libxc's names from ``run.method`` or ``data.model_method``."""
    functional = section(at(method, "dft", "xc_functional"))
    names = [
        str(part.get("name") or "")
        for kind in ("exchange", "correlation", "hybrid", "contributions")
        for part in sections(functional.get(kind))
    ]
    names += [
        str(part.get("canonical_label") or "") for part in sections(at(method, "xc", "components"))
    ]
    return [name for name in names if name]


def _settings(simulation: Section, dft: Section, method: Section) -> Iterable[str]:
    precision = section(simulation.get("precision"))
    for value in (
        dft.get("basis_set_type"),
        dft.get("core_electron_treatment"),
        dft.get("relativity_method"),
        precision.get("native_tier"),
    ):
        if isinstance(value, str) and value not in _ABSENT:
            yield value
    if dft.get("spin_polarized"):
        yield "spin-polarized"
    if van_der_waals := dft.get("van_der_Waals_method"):
        yield f"van der Waals {van_der_waals}"
    cutoff = precision.get("planewave_cutoff") or _cutoff(method)
    if cutoff:
        yield f"cutoff {float(cutoff) * EV:.0f} eV"
    grid = at(method, "k_mesh", "grid")
    if isinstance(grid, list) and len(grid) == 3 and all(isinstance(n, int) for n in grid):
        yield "k-mesh " + "x".join(map(str, grid))


def _cutoff(method: Section) -> Any:
    for representation in sections(method.get("electrons_representation")):
        for basis in sections(representation.get("basis_set")):
            if basis.get("cutoff"):
                return basis["cutoff"]
    return None
