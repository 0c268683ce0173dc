"""The language of AFLUX, AFLOW's search service.

Rose et al., Comput. Mater. Sci. 137, 362 (2017); AFLOW school, "AFLUX: AFLOW Search-API". A
query is the whole query string: keywords with or without conditions, then directives:

    /API/aflux/?auid,species(Ti,O,!Fe),Egap(1*,*3),energy_cell,paging(2,500),format(json)

A keyword without parentheses is only reported, ``(*)`` asks that it is there. Rows come ordered by
the first keyword. The service answers a list of rows, and an empty one after the last page;
before 2020 it answered {"1 of 912": row, ...}. Nothing is reported that was not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from epitaxy.errors import OptionError, SourceError

KEYWORD_OF = {
    "band_gap": "Egap",
    "formation_energy": "enthalpy_formation_atom",
    "energy": "energy_cell",
    "bulk_modulus": "ael_bulk_modulus_vrh",
    "shear_modulus": "ael_shear_modulus_vrh",
    "thermal_conductivity": "agl_thermal_conductivity_300K",
    "is_metal": "Egap_type",
}
"""Quantity -> keyword of AFLOW."""

_REPORTED = (
    *("aurl", "compound", "composition", "geometry", "positions_fractional", "dft_type"),
    *("ldau_TLUJ", "energy_cutoff", "energy_cell", "energy_atom", "enthalpy_formation_atom"),
    *("Egap", "Egap_type", "spacegroup_relax", "aflow_prototype_label_relax", "code"),
    *("ael_bulk_modulus_vrh", "ael_shear_modulus_vrh", "agl_thermal_conductivity_300K"),
)
_OLD_KEY = re.compile(r"(\d+) of (\d+)")
_ELEMENT = re.compile(r"[A-Z][a-z]?")


def matchbook(
    *,
    elements: Sequence[str],
    exclude_elements: Sequence[str],
    n_elements: int | None,
    catalog: str,
    band_gap: tuple[float, float] | None,
    formation_energy: tuple[float, float] | None,
    require: Sequence[str],
    extra: str,
) -> str:
    """Return the part of the query that says which entries are wanted and what of them.

    Raises:
        OptionError: an element, a range or a quantity is none.
    """
    for symbol in (*elements, *exclude_elements):
        if not _ELEMENT.fullmatch(symbol):
            raise OptionError(f"elements: {symbol!r} is no symbol of an element, such as Ti")
    conditions: dict[str, str] = {}
    for name in require:
        if name not in KEYWORD_OF:
            raise OptionError(f"require: no {name} here; {', '.join(KEYWORD_OF)} are possible")
        conditions[KEYWORD_OF[name]] = "*"
    for name, limits in (("band_gap", band_gap), ("formation_energy", formation_energy)):
        if limits is not None:
            if limits[0] > limits[1]:
                raise OptionError(f"{name} = {limits}: lowest and highest value")
            conditions[KEYWORD_OF[name]] = f"{limits[0]:g}*,*{limits[1]:g}"
    species = [*elements, *(f"!{symbol}" for symbol in exclude_elements)]
    parts = ["auid", f"species({','.join(species)})" if species else "species"]
    if n_elements is not None:
        parts.append(f"nspecies({n_elements})")
    if catalog:
        parts.append(f"catalog({catalog})")
    given = {part.partition("(")[0].strip() for part in _split(extra)}
    if twice := given & {"species", "nspecies", "catalog", "paging", "format", *conditions}:
        raise OptionError(f"matchbook: {', '.join(sorted(twice))} has an option of its own")
    for keyword in _REPORTED:
        if keyword in conditions:
            parts.append(f"{keyword}({conditions[keyword]})")
        elif keyword not in given:
            parts.append(keyword)
    return ",".join([*parts, *_split(extra)])


def _split(extra: str) -> list[str]:
    """Split at the commas outside parentheses."""
    return [part for part in re.split(r",(?![^()]*\))", extra.replace(" ", "")) if part]


def rows_of(answer: Any) -> tuple[list[Mapping[str, Any]], int | None]:
    """Return the rows of an answer, and how many there are in all where it says so.

    Raises:
        SourceError: the answer is not as documented.
    """
    total: int | None = None
    if isinstance(answer, Mapping):
        keys = [_OLD_KEY.fullmatch(str(key)) for key in answer]
        if not all(keys):
            raise SourceError(
                f"the answer is neither a list nor {{'1 of N': ...}} (found "
                f"{[str(key)[:40] for key in answer][:5]}): AFLUX has changed, or refuses the query"
            )
        rows = list(answer.values())
        total = next((int(key[2]) for key in keys if key), 0)
    elif isinstance(answer, list):
        rows = answer
    elif answer is None:
        rows = []
    else:
        raise SourceError(f"the answer is {type(answer).__name__}, not a list of entries")
    for n, row in enumerate(rows):
        if not isinstance(row, Mapping) or not row.get("auid") or not row.get("aurl"):
            found = sorted(row)[:8] if isinstance(row, Mapping) else row
            raise SourceError(f"row {n} has no auid and aurl (found {found}): AFLUX has changed")
    return rows, total
