"""NOMAD's description of its API, cut down to what we use, and what checks traffic against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1] / "plugins" / "nomad"
EXTRACT = HERE / "nomad-openapi-2.0.0-extract.json"
WHOLE = Path(__file__).parents[3] / "shared" / "reference" / "nomad-openapi-2.0.0.json"

USED = {
    "/users/me": ("get",),
    "/info": ("get",),
    "/uploads": ("get", "post"),
    "/uploads/{upload_id}": ("get", "delete"),
    "/uploads/{upload_id}/entries": ("get",),
    "/uploads/{upload_id}/edit": ("post",),
    "/uploads/{upload_id}/rawdir/{path}": ("get",),
    "/uploads/{upload_id}/raw/{path}": ("get", "put"),
    "/uploads/{upload_id}/action/publish": ("post",),
    "/uploads/{upload_id}/action/process": ("post",),
    "/uploads/{upload_id}/action/transfer": ("post",),
    "/entries/{entry_id}": ("get",),
    "/datasets": ("get", "post"),
    "/datasets/{dataset_id}": ("get",),
    "/datasets/{dataset_id}/action/doi": ("post",),
}
"""What the publisher asks for."""

PROVENANCE = (
    "The paths that epitaxy uses and the schemas that they refer to, from the OpenAPI description "
    "that a server of nomad-lab 2.0.0 gives at /api/v1/openapi.json; texts are left out. NOMAD is "
    "Copyright The NOMAD Authors, Apache-2.0, https://nomad-lab.eu"
)


def extract(whole: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the description that is used here."""
    paths = {
        path: {method: whole["paths"][path][method] for method in methods}
        for path, methods in USED.items()
    }
    schemas: dict[str, Any] = {}

    def follow(part: Any) -> None:
        if isinstance(part, dict):
            name = str(part.get("$ref", "")).removeprefix("#/components/schemas/")
            if name and name not in schemas:
                schemas[name] = whole["components"]["schemas"][name]
                follow(schemas[name])
            for value in part.values():
                follow(value)
        elif isinstance(part, list):
            for value in part:
                follow(value)

    follow(paths)
    return {
        "openapi": whole["openapi"],
        "info": {"title": "NOMAD", "version": "2.0.0", "description": PROVENANCE},
        "paths": _bare(paths, is_names=True),
        "components": {
            "schemas": _bare(dict(sorted(schemas.items())), is_names=True),
            "securitySchemes": whole["components"]["securitySchemes"],
        },
    }


def _bare(part: Any, *, is_names: bool = False) -> Any:
    """Return a part without texts; names of properties are no texts."""
    if isinstance(part, list):
        return [_bare(value) for value in part]
    if not isinstance(part, dict):
        return part
    texts = () if is_names else ("description", "summary", "title", "example", "examples", "tags")
    bare = {
        key: _bare(value, is_names=key in ("properties", "responses", "content"))
        for key, value in part.items()
        if key not in texts
    }
    if not is_names:
        for response in bare.get("responses", {}).values():
            response["description"] = ""  # the only text that OpenAPI demands
    return bare


def write_extract() -> None:
    """Write the extract anew: run this module where the whole description is."""
    part = extract(json.loads(WHOLE.read_text()))
    EXTRACT.write_text(json.dumps(part, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write_extract()
