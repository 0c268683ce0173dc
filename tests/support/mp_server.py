"""The Materials Project's API on loopback: the documented envelope, paging, fields and key."""

from __future__ import annotations

import copy
from typing import Any

from loopback import Reply, Request

KEY = "abcdefghijklmnopqrstuvwxyz012345"
VERSION = "2025.09.25"


def structure(symbol: str = "Si", a: float = 5.43, *, second: str = "") -> dict[str, Any]:
    """Return a diamond (or zincblende) cell as pymatgen writes it."""
    sites = []
    for element, abc in ((symbol, [0.0, 0.0, 0.0]), (second or symbol, [0.25, 0.25, 0.25])):
        sites.append({"species": [{"element": element, "occu": 1}], "abc": abc, "properties": {}})
    half = a / 2
    matrix = [[0.0, half, half], [half, 0.0, half], [half, half, 0.0]]
    return {"lattice": {"matrix": matrix, "pbc": [True, True, True]}, "sites": sites}


def summaries(n: int) -> list[dict[str, Any]]:
    """Return n documents of different materials."""
    return [
        {
            "material_id": f"mp-{1000 + i}",
            "formula_pretty": "Si",
            "structure": structure("Si", 5.43 + 0.001 * i),
            "symmetry": {"number": 227, "symbol": "Fd-3m"},
            "builder_meta": {"license": "BY-NC" if i == 1 else "BY-C"},
            "uncorrected_energy_per_atom": -5.4 + 1e-4 * i,
            "energy_per_atom": -5.5 + 1e-4 * i,
            "formation_energy_per_atom": 1e-4 * i,
            "energy_above_hull": 1e-4 * i,
            "band_gap": 0.6,
            "efermi": 5.5,
            "is_metal": False,
            "bulk_modulus": {"voigt": 90.0, "reuss": 86.0, "vrh": 88.0},
            "shear_modulus": None,
            "never_asked_for": 1,
        }
        for i in range(n)
    ]


def thermos(materials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return thermo documents: GGA, r2SCAN for every third, and one with another energy."""
    found = []
    for i, material in enumerate(materials):
        energy = material["uncorrected_energy_per_atom"]
        level = "R2SCAN" if i % 3 == 2 else "GGA"
        entry = {
            "energy": 2 * energy,
            "composition": {"Si": 2.0},
            "entry_id": material["material_id"],
            "correction": -0.2,
            "parameters": {"run_type": level, "hubbards": {}},
            "structure": material["structure"],
        }
        found.append(
            {
                "material_id": material["material_id"],
                "formula_pretty": "Si",
                "thermo_type": "GGA_GGA+U_R2SCAN",
                "energy_type": level,
                "entries": {level: entry},
                "uncorrected_energy_per_atom": energy if i != 4 else energy - 1.0,
                "energy_per_atom": material["energy_per_atom"],
                "formation_energy_per_atom": material["formation_energy_per_atom"],
                "energy_above_hull": material["energy_above_hull"],
                "decomposition_enthalpy": -0.01,
            }
        )
    return found


class MaterialsProject:
    """Answers requests as the API does; give it to a Loopback."""

    def __init__(self, n: int = 25, *, key: str = KEY, **others: list[dict[str, Any]]):
        materials = summaries(n)
        self.key = key
        self.collections = {"summary": materials, "thermo": thermos(materials), **others}

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        if request.path == "/heartbeat":
            return Reply.of({"status": "OK", "db_version": VERSION})
        if self.key and request.headers.get("x-api-key") != self.key:
            return Reply.of({"message": "Invalid authentication credentials"}, status=401)
        name = request.path.strip("/").rpartition("/")[2]
        documents = self.collections.get(name)
        if not request.path.startswith("/materials/") or documents is None:
            return Reply.of({"detail": "Not Found"}, status=404)
        params = request.params
        limit, skip = int(params.get("_limit", 100)), int(params.get("_skip", 0))
        if limit > 1000:
            return Reply.of({"detail": "The max limit is 1000 entries"}, status=400)
        for parameter, field in (("material_ids", "material_id"), ("task_ids", "task_id")):
            if parameter in params:
                wanted = params[parameter].split(",")
                documents = [d for d in documents if d[field] in wanted]
        fields = params.get("_fields", "").split(",")
        found = [
            {k: copy.deepcopy(v) for k, v in document.items() if k in fields}
            for document in documents[skip : skip + limit]
        ]
        meta = {"api_version": "0.86.0", "total_doc": len(documents), "max_limit": 1000}
        return Reply.of({"data": found, "meta": meta})
