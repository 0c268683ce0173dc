"""What is sent to ``entries/archive/query``: which entries, which sections, which page.

Follows the OpenAPI description of NOMAD 2.0.0. References are resolved in place by the server
(``resolve-inplace``): without it, the systems that calculations refer to would be lost in
answers that hold a part of ``run`` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from epitaxy.errors import OptionError
from epitaxy_nomad.frames import Wishes

Owner = Literal["public", "visible", "shared", "user", "staging", "admin"]
OWNERS = get_args(Owner)

NEEDS_LOGIN = ("shared", "user", "staging", "admin")
"""Owners that a server answers to people whom it knows only."""

_METADATA = ("entry_id", "upload_id", "mainfile", "license", "nomad_version", "datasets")
_STRUCTURE = (
    "dimension_types",
    "lattice_vectors",
    "cartesian_site_positions",
    "species_at_sites",
    "species",
)


def build_query(
    *,
    query: Mapping[str, Any] | None,
    upload_id: str,
    dataset_id: str,
    entry_ids: Sequence[str],
) -> dict[str, Any]:
    """Return the query of all conditions together, {} for everything."""
    parts: list[dict[str, Any]] = [dict(query)] if query else []
    if upload_id:
        parts.append({"upload_id": upload_id})
    if dataset_id:
        parts.append({"datasets.dataset_id": dataset_id})
    if entry_ids:
        parts.append({"entry_id:any": list(entry_ids)})
    if len(parts) < 2:
        return parts[0] if parts else {}
    return {"and": parts}


def build_required(wishes: Wishes) -> dict[str, Any]:
    """Return the sections to ask for: what frames are made of, and no more."""
    index = "[-1]" if wishes.frames == "last" else ""
    calculation: dict[str, Any] = {
        "energy": "*",
        "forces": "*",
        "stress": "*",
        "band_gap": "*",
        "system_ref": {"atoms": "*"},
        "method_ref": "*",
    }
    output: dict[str, Any] = {
        "total_energies": "*",
        "total_forces": "*",
        "electronic_band_gaps": "*",
        "model_system_ref": _MODEL_SYSTEM,
        "model_method_ref": "*",
    }
    if wishes.dos:
        calculation["dos_electronic"] = {
            "energies": "*",
            "energy_fermi": "*",
            "spin_channel": "*",
            "band_gap": "*",
            "total": "*",
        }
        output["electronic_dos"] = "*"
    required: dict[str, Any] = {
        "resolve-inplace": True,
        "metadata": {name: "*" for name in _METADATA},
        "results": {
            "method": "*",
            "properties": {
                "structures": {"structure_original": {name: "*" for name in _STRUCTURE}},
                "electronic": {"band_gap": "*", "band_structure_electronic": {"band_gap": "*"}},
                "mechanical": {"bulk_modulus": "*", "shear_modulus": "*"},
            },
        },
    }
    if wishes.layout in ("auto", "run"):
        required["run"] = {"program": "*", "method": _METHOD, f"calculation{index}": calculation}
    if wishes.layout in ("auto", "data"):
        required["data"] = {
            "program": "*",
            "model_method": "*",
            "model_system[-1]": _MODEL_SYSTEM,
            f"outputs{index}": output,
        }
    return required


_MODEL_SYSTEM: dict[str, Any] = {
    "positions": "*",
    "lattice_vectors": "*",
    "periodic_boundary_conditions": "*",
    "particle_states": "*",
}
_METHOD: dict[str, Any] = {
    "dft": "*",
    "k_mesh": {"grid": "*"},
    "electrons_representation": "*",
    "atom_parameters": {"hubbard_kanamori_model": "*"},
}


def build_body(
    *,
    owner: str,
    query: Mapping[str, Any],
    required: Mapping[str, Any] | str,
    page_size: int,
    page_after_value: str | None,
) -> dict[str, Any]:
    """Return the body of one request.

    Raises:
        OptionError: the owner is not one that archives can be read for.
    """
    if owner not in OWNERS:
        more = "; NOMAD refuses 'all' for archives" if owner == "all" else ""
        raise OptionError(f"owner = {owner!r} is not one of {', '.join(OWNERS)}{more}")
    pagination: dict[str, Any] = {"page_size": page_size, "order_by": "entry_id", "order": "asc"}
    if page_after_value is not None:
        pagination["page_after_value"] = page_after_value
    return {"owner": owner, "query": query, "required": required, "pagination": pagination}
