"""What the endpoints of the Materials Project's API are called, and what they can be asked.

From the server's own source (emmet-api: routes/materials/*/resources.py and query_operators.py) and
its client (mp-api 0.46): ``GET /materials/summary/?_fields=a,b&_limit=1000&_skip=0`` answers
``{"data": [documents], "meta": {"total_doc": n, ...}}``; the key goes into the header X-API-KEY.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epitaxy.errors import OptionError, SourceError

LARGEST_PAGE = 1000  # documents, MAX_LIMIT of the server
IDS_PER_REQUEST = 100  # as mp-api: a longer list makes an address that servers refuse


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One collection of documents.

    Attributes:
        path: below the address of the API.
        key: name of the id.
        ids: name of the parameter that takes ids.
        fields: what is asked for.
        filters: options that the server understands here.
        sort: field that pages are ordered by, "" where the server cannot.
    """

    path: str
    key: str
    ids: str
    fields: tuple[str, ...]
    filters: frozenset[str]
    sort: str = ""


_MATERIAL = frozenset({"chemical_system", "formula", "material_ids", "license"})
_ENERGIES = frozenset({"energy_above_hull", "formation_energy", "is_stable", "n_elements"})

ENDPOINTS: Mapping[str, Endpoint] = {
    "summary": Endpoint(
        path="materials/summary/",
        key="material_id",
        ids="material_ids",
        fields=(
            *("material_id", "formula_pretty", "structure", "symmetry", "builder_meta"),
            *("uncorrected_energy_per_atom", "energy_per_atom", "formation_energy_per_atom"),
            *("energy_above_hull", "band_gap", "efermi", "is_metal"),
            *("bulk_modulus", "shear_modulus"),
        ),
        filters=_MATERIAL
        | _ENERGIES
        | {"elements", "exclude_elements", "band_gap", "n_sites", "spacegroup"},
        sort="material_id",
    ),
    "thermo": Endpoint(
        path="materials/thermo/",
        key="material_id",
        ids="material_ids",
        fields=(
            *("material_id", "formula_pretty", "symmetry", "builder_meta", "thermo_type"),
            *("energy_type", "entries", "uncorrected_energy_per_atom", "energy_per_atom"),
            *("formation_energy_per_atom", "energy_above_hull", "decomposition_enthalpy"),
        ),
        filters=_MATERIAL | _ENERGIES | {"thermo_type"},
    ),
    "tasks": Endpoint(
        path="materials/tasks/",
        key="task_id",
        ids="task_ids",
        fields=(
            *("task_id", "formula_pretty", "structure", "output", "input", "orig_inputs"),
            *("run_type", "task_type", "calc_type", "vasp_version", "symmetry"),
        ),
        filters=frozenset({"formula", "material_ids", "elements", "exclude_elements"}),
    ),
    "elasticity": Endpoint(
        path="materials/elasticity/",
        key="material_id",
        ids="material_ids",
        fields=(
            *("material_id", "formula_pretty", "structure", "symmetry", "builder_meta"),
            *("bulk_modulus", "shear_modulus"),
        ),
        filters=frozenset({"chemical_system", "material_ids", "bulk_modulus", "shear_modulus"}),
    ),
}


def parameters(endpoint: str, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the query parameters of the filters that were given (not None, not empty).

    Raises:
        OptionError: the endpoint does not understand one of them.
    """
    rule = ENDPOINTS[endpoint]
    given = {k: v for k, v in filters.items() if v is not None and v != () and v != ""}
    for name in given:
        if name not in rule.filters:
            where = [title for title, other in ENDPOINTS.items() if name in other.filters]
            raise OptionError(
                f"the endpoint {endpoint!r} cannot be asked for {name}; "
                f"{', '.join(where)} can, and {endpoint} knows {', '.join(sorted(rule.filters))}"
            )
    query: dict[str, Any] = {}
    if "thermo_type" in given:
        given["thermo_type"] = spellings(given["thermo_type"])
    for name, parameter in (
        ("chemical_system", "chemsys"),
        ("formula", "formula"),
        ("elements", "elements"),
        ("exclude_elements", "exclude_elements"),
        ("thermo_type", "thermo_types"),
        ("license", "license"),
    ):
        if name in given:
            value = given[name]
            query[parameter] = value if isinstance(value, str) else ",".join(value)
    for name, parameter in (
        ("band_gap", "band_gap"),
        ("energy_above_hull", "energy_above_hull"),
        ("formation_energy", "formation_energy_per_atom"),
        ("bulk_modulus", "k_vrh"),
        ("shear_modulus", "g_vrh"),
        ("n_sites", "nsites"),
        ("n_elements", "nelements"),
    ):
        if name in given:
            lowest, highest = given[name]
            if lowest > highest:
                raise OptionError(f"{name} = ({lowest}, {highest}): lowest and highest value")
            query |= {f"{parameter}_min": lowest, f"{parameter}_max": highest}
    if "is_stable" in given:
        query["is_stable"] = "true" if given["is_stable"] else "false"
    if "spacegroup" in given:
        query["spacegroup_number"] = given["spacegroup"]
    return query


def spellings(thermo_types: Sequence[str]) -> tuple[str, ...]:
    """Return the thermo types as the database may spell them.

    Its enumeration says R2SCAN, its documents r2SCAN (a comment in emmet-api's MultiThermoIDQuery
    says so, and mp-api sends r2SCAN).
    """
    found: list[str] = []
    for name in thermo_types:
        found += ["R2SCAN", "r2SCAN"] if name.upper() == "R2SCAN" else [name]
    return tuple(found)


def check_answer(answer: Any, key: str) -> None:
    """Check the envelope of an answer.

    Raises:
        SourceError: it is not as documented; the message says what was found instead.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("data"), list):
        found = sorted(answer)[:8] if isinstance(answer, Mapping) else type(answer).__name__
        raise SourceError(
            f"the answer has no list 'data' (found {found}): the API has changed, or this is not "
            "the Materials Project. Look for a newer epitaxy"
        )
    meta = answer.get("meta")
    if not isinstance(meta, Mapping) or not isinstance(meta.get("total_doc"), int):
        raise SourceError("the answer does not say meta.total_doc: the API has changed")
    for n, document in enumerate(answer["data"]):
        if not isinstance(document, Mapping) or not document.get(key):
            found = sorted(document)[:8] if isinstance(document, Mapping) else document
            raise SourceError(f"document {n} has no {key} (found {found}): the API has changed")
