"""Archives in NOMAD's layouts, made from entries of ours, and a service that hands them out.

The layouts are those of runschema 1.0.5, nomad-simulations 0.10.0 and the results of NOMAD 2.0.0;
the service follows its OpenAPI description and the rules of its `RequiredReader`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from loopback import Reply, Request

from epitaxy.entry import Entry

EV = 1.602176634e-19  # J, CODATA 2018
TOKEN = "eyJhbGciOi.secret-token.of-a-user"


def run_archive(
    entry_id: str,
    frames: Sequence[Entry],
    *,
    program: str = "FHI-aims",
    free: bool = True,
    dos: Sequence[Mapping[str, Any]] = (),
    license: str = "CC BY 4.0",
) -> dict[str, Any]:
    """Make the archive of a relaxation, with references as strings, as it is stored."""
    systems, calculations = [], []
    for i, frame in enumerate(frames):
        systems.append(
            {
                "atoms": {
                    "labels": [chemical_symbols[z] for z in frame.numbers],
                    "positions": (frame.positions * 1e-10).tolist(),
                    "lattice_vectors": (frame.cell * 1e-10).tolist(),
                    "periodic": frame.pbc.tolist(),
                }
            }
        )
        energy = float(frame.targets["energy"]) * EV
        kind = {"free": {"value": energy}} if free else {}
        total = energy - 1e-3 * EV if free else energy
        calculation: dict[str, Any] = {
            "system_ref": f"/run/0/system/{i}",
            "method_ref": "/run/0/method/0",
            "energy": {"total": {"value": total}, **kind, "fermi": -4.5 * EV},
        }
        if "forces" in frame.targets:
            forces = (frame.targets["forces"] * EV * 1e10).tolist()
            calculation["forces"] = {"free" if free else "total": {"value": forces}}
        if "stress" in frame.targets:
            sign = -1 if program == "VASP" else 1
            voigt = frame.targets["stress"] * EV * 1e30 * sign
            tensor = voigt[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
            calculation["stress"] = {"total": {"value": tensor.tolist()}}
        calculations.append(calculation)
    if dos:
        calculations[-1]["dos_electronic"] = list(dos)
    method = {
        "dft": {
            "xc_functional": {
                "exchange": [{"name": "GGA_X_PBE"}],
                "correlation": [{"name": "GGA_C_PBE"}],
            }
        },
        "k_mesh": {"grid": [4, 4, 4]},
    }
    return {
        "metadata": {"entry_id": entry_id, "upload_id": "up-1", "license": license},
        "results": {
            "method": {
                "method_name": "DFT",
                "simulation": {
                    "program_name": program,
                    "program_version": "240507 extra words",
                    "dft": {
                        "basis_set_type": "numeric AOs",
                        "core_electron_treatment": "full all electron",
                        "xc_functional_names": ["GGA_C_PBE", "GGA_X_PBE"],
                    },
                },
            },
            "properties": {
                "structures": {"structure_original": results_structure(frames[-1])},
                "electronic": {
                    "band_structure_electronic": [
                        {
                            "band_gap": [
                                {
                                    "index": 0,
                                    "value": 0.55 * EV,
                                    "energy_highest_occupied": -5.0 * EV,
                                    "energy_lowest_unoccupied": -4.45 * EV,
                                }
                            ]
                        }
                    ]
                },
                "mechanical": {
                    "bulk_modulus": [{"type": "voigt_reuss_hill_average", "value": 1.4e11}]
                },
            },
        },
        "run": [
            {
                "program": {"name": program, "version": "240507 extra words"},
                "method": [method],
                "system": systems,
                "calculation": calculations,
            }
        ],
    }


def results_structure(frame: Entry) -> dict[str, Any]:
    """Return a structure as in ``results.properties.structures``."""
    symbols = [chemical_symbols[z] for z in frame.numbers]
    return {
        "dimension_types": [int(p) for p in frame.pbc],
        "lattice_vectors": (frame.cell * 1e-10).tolist(),
        "cartesian_site_positions": (frame.positions * 1e-10).tolist(),
        "species_at_sites": symbols,
        "species": [
            {"name": s, "chemical_symbols": [s], "concentration": [1.0]}
            for s in sorted(set(symbols))
        ],
    }


def results_archive(entry_id: str, frame: Entry) -> dict[str, Any]:
    """Make an archive that holds derived results only."""
    archive = run_archive(entry_id, [frame])
    del archive["run"]
    return archive


def data_archive(entry_id: str, frames: Sequence[Entry]) -> dict[str, Any]:
    """Make the archive of a simulation in the layout of nomad-simulations."""
    systems, outputs = [], []
    for i, frame in enumerate(frames):
        systems.append(
            {
                "positions": (frame.positions * 1e-10).tolist(),
                "lattice_vectors": (frame.cell * 1e-10).tolist(),
                "periodic_boundary_conditions": frame.pbc.tolist(),
                "particle_states": [
                    {
                        "m_def": "nomad_simulations.schema_packages.atoms_state.AtomsState",
                        "chemical_symbol": chemical_symbols[z],
                        "atomic_number": int(z),
                    }
                    for z in frame.numbers
                ],
            }
        )
        outputs.append(
            {
                "model_system_ref": f"#/data/model_system/{i}",
                "model_method_ref": "#/data/model_method/0",
                "total_energies": [{"value": float(frame.targets["energy"]) * EV}],
                "total_forces": [{"value": (frame.targets["forces"] * EV * 1e10).tolist()}],
            }
        )
    archive = results_archive(entry_id, frames[-1])
    archive["data"] = {
        "m_def": "nomad_simulations.schema_packages.general.Simulation",
        "program": {"name": "exciting", "version": "fluorine"},
        "model_method": [
            {
                "xc": {
                    "functional_key": "PBEsol",
                    "components": [
                        {"canonical_label": "XC_GGA_X_PBE_SOL"},
                        {"canonical_label": "XC_GGA_C_PBE_SOL"},
                    ],
                }
            }
        ],
        "model_system": systems,
        "outputs": outputs,
    }
    return archive


def apply_required(required: Any, here: Any, archive: Mapping[str, Any]) -> Any:
    """Return the part of an archive that is asked for, references resolved in place.

    The rules are those of NOMAD's `RequiredReader`: "*" gives what is stored, a reference as the
    text it is; a mapping goes into a section, also through a reference; unknown keys are left out.
    """
    if required in ("*", "include"):
        return here
    if isinstance(here, str):
        for part in here.lstrip("#").strip("/").split("/"):
            archive = archive[int(part) if part.isdigit() else part]  # type: ignore[index]
        return apply_required(required, archive, archive)
    found: dict[str, Any] = {}
    for key, wanted in required.items():
        name, index = re.fullmatch(r"([\w-]+)(?:\[(-?\d+)\])?", key).groups()  # type: ignore[union-attr]
        if name == "resolve-inplace" or name not in here:
            continue
        value = here[name]
        if isinstance(value, list):
            chosen = value if index is None else [value[int(index)]]
            found[name] = [apply_required(wanted, item, archive) for item in chosen]
        else:
            found[name] = apply_required(wanted, value, archive)
    if "m_def" in here:
        found["m_def"] = here["m_def"]
    return found


class NomadService:
    """Answers ``entries/archive/query`` from a list of archives, sorted by entry id.

    Args:
        archives: what there is.
        unreadable: ids of entries that are listed but whose archive is missing.
    """

    def __init__(self, archives: Sequence[dict[str, Any]], *, unreadable: Sequence[str] = ()):
        self.archives = {a["metadata"]["entry_id"]: a for a in archives}
        self.unreadable = set(unreadable)
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        if not request.path.endswith("/api/v1/entries/archive/query"):
            return Reply.of({"detail": "Not Found"}, status=404)
        body = request.json
        self.bodies.append(body)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token != TOKEN:
            return Reply.of({"detail": "The given token is invalid or has expired."}, status=401)
        if body["owner"] in ("user", "shared", "staging", "admin") and not token:
            return Reply.of({"detail": "Authentication required for owner=user"}, status=401)
        if body["owner"] == "admin":
            return Reply.of({"detail": "Only admins may search with owner=admin"}, status=403)
        unknown = set(_fields(body["query"])) - {"entry_id", "upload_id", "datasets.dataset_id"}
        unknown = {name for name in unknown if not name.startswith("results.")}
        if unknown:
            detail = [
                {"loc": ["query", *unknown], "msg": f"{', '.join(unknown)} is not a quantity"}
            ]
            return Reply.of({"detail": detail}, status=422)
        if "bad" in str(body["required"]):
            return Reply.of({"detail": "unknown directive bad"}, status=400)
        found = sorted(i for i in self.archives if _matches(body["query"], self.archives[i]))
        after = body["pagination"].get("page_after_value")
        size = body["pagination"]["page_size"]
        page = [i for i in found if after is None or i > after][:size]
        pagination = {
            "page_size": size,
            "order_by": "entry_id",
            "order": "asc",
            "total": len(found),
        }
        if after is not None:
            pagination["page_after_value"] = after
        if len(page) == size and len(found) > size:  # as NOMAD does, even after the last full page
            pagination["next_page_after_value"] = page[-1]
        data = [
            {
                "entry_id": i,
                "upload_id": "up-1",
                "parser_name": "parsers/fhi-aims",
                "archive": apply_required(body["required"], self.archives[i], self.archives[i]),
            }
            for i in page
            if i not in self.unreadable
        ]
        return Reply.of(
            {
                "owner": body["owner"],
                "query": body["query"],
                "pagination": pagination,
                "required": body["required"],
                "data": data,
            }
        )


def _fields(query: Mapping[str, Any]) -> list[str]:
    for word in ("and", "or"):
        if word in query:
            return [name for part in query[word] for name in _fields(part)]
    return [name.partition(":")[0] for name in query]


def _matches(query: Mapping[str, Any], archive: Mapping[str, Any]) -> bool:
    if "and" in query:
        return all(_matches(part, archive) for part in query["and"])
    if "or" in query:
        return any(_matches(part, archive) for part in query["or"])
    for key, wanted in query.items():
        name = key.partition(":")[0]
        if name in archive["metadata"]:
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if archive["metadata"][name] not in allowed:
                return False
        elif name == "results.method.simulation.program_name" and (
            archive["results"]["method"]["simulation"]["program_name"] != wanted
        ):
            return False
    return True


def strained(symbol: str, n: int, *, seed: int = 0) -> list[Entry]:
    """Return `n` frames of a rattled and strained metal cell with labels of ASE's EMT."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        atoms = bulk(symbol, "fcc", a=4.0, cubic=True)
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))), scale_atoms=True
        )
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        targets = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        frames.append(Entry.from_atoms(atoms, targets=targets, id=f"{symbol}-{i}"))
    return frames
