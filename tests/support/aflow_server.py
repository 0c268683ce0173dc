"""AFLUX and the entry files of AFLOW on loopback: matchbook, paging, list and old answers."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

import numpy as np
from loopback import Reply, Request

FORCES = [[0.0, 0.1, -0.2], [0.0, -0.1, 0.2]]
STRESS = [10.0, 1.0, 2.0, 1.0, 20.0, 3.0, 2.0, 3.0, 30.0]
CELL = np.array([[0.0, 2.7, 2.7], [2.7, 0.0, 2.7], [2.7, 2.7, 0.0]])


def rows(n: int) -> list[dict[str, Any]]:
    """Return n rows of zincblende cells, in the order of their auid."""
    found = []
    for i in range(n):
        a = 3.818 + 0.001 * i
        found.append(
            {
                "auid": f"aflow:{i:016x}",
                "aurl": f"aflowlib.duke.edu:AFLOWDATA/ICSD_WEB/FCC/Ga1N1_ICSD_{i}",
                "compound": "Ga1N1",
                "species": ["Ga_d", "N"],
                "composition": [1, 1],
                "natoms": 2,
                "geometry": [a, a, a, 60, 60, 60],
                "positions_fractional": [[0, 0, 0], [0.25, 0.25, 0.25]],
                "dft_type": ["PAW_PBE"],
                "energy_cutoff": 560,
                "energy_cell": -11.0 - 0.01 * i,
                "energy_atom": -5.5 - 0.005 * i,
                "enthalpy_formation_atom": -0.8 + 0.001 * i,
                "Egap": 1.7 + 0.001 * i,
                "Egap_type": "insulator-direct",
                "spacegroup_relax": 216,
                "aflow_prototype_label_relax": "AB_cF8_216_c_a",
                "code": "vasp.5.4.4",
                "catalog": "ICSD",
                "never_asked_for": 1,
            }
        )
    return found


class Aflow:
    """Answers as AFLOW does; give it to a Loopback."""

    def __init__(self, n: int = 25, *, old: bool = False, most: int = 10_000):
        self.rows = rows(n)
        self.old = old
        self.most = most
        self.lost: set[str] = set()

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        if request.path == "/API/aflux/":
            return self._search(unquote(request.query))
        found = re.fullmatch(r"/(AFLOWDATA/.*)/([^/]*)", request.path)
        row = next((r for r in self.rows if found and r["aurl"].endswith(found[1])), None)
        if row is None or found is None or found[2] in self.lost:
            return Reply(b"<html>Not Found</html>", 404)
        if found[2] == "aflowlib.json":
            return Reply.of({**row, "forces": FORCES, "stress_tensor": STRESS})
        if found[2] == row["aurl"].rpartition("/")[2] + "_structure_relax.json":
            return Reply.of(structure_file())
        return Reply(b"<html>Not Found</html>", 404)

    def _search(self, query: str) -> Reply:
        parts = re.split(r",(?![^()]*\))", query)
        words = {part.partition("(")[0]: part for part in parts}
        if "format(json)" not in parts:
            return Reply(b"<html>", 200, {"Content-Type": "text/html"})
        number, size = map(int, re.fullmatch(r"paging\((\d+),(\d+)\)", words["paging"]).groups())
        size = min(size, self.most)
        wanted = [
            row
            for row in self.rows
            if all(row.get(w) is not None for w, p in words.items() if p.endswith("(*)"))
        ]
        first = (number - 1) * size
        found = [
            {k: v for k, v in row.items() if k in words or k == "compound"}
            for row in wanted[first : first + size]
        ]
        if self.old:
            n = len(wanted)
            body = {
                f"{first + i + 1} of {n}": {k: as_text(v) for k, v in row.items()}
                for i, row in enumerate(found)
            }
            return Reply(json.dumps(body).encode())
        return Reply.of(found)


def as_text(value: Any) -> str:
    """Return a value as AFLUX wrote it before 2020: "1,2" and "0,0,0;0.25,0.25,0.25"."""
    if not isinstance(value, list):
        return str(value)
    if value and isinstance(value[0], list):
        return ";".join(",".join(map(str, row)) for row in value)
    return ",".join(map(str, value))


def structure_file() -> dict[str, Any]:
    """Return what a *_structure_relax.json holds."""
    return {
        "scale": 1,
        "lattice": CELL.tolist(),
        "coordinates_type": "direct",
        "atoms": [
            {"name": "Ga", "position": [0, 0, 0], "occupancy": 1.0},
            {"name": "N", "position": [0.25, 0.25, 0.25], "occupancy": 1.0},
        ],
    }
