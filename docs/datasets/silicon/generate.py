"""Generates the silicon data set that ships with epitaxy: structures, GPAW calculations, data files.

Each step is a command that reads and writes one scratch folder outside the repository:

    python generate.py structures  SCRATCH
    python generate.py compute     SCRATCH --xc PBE --n-workers 2
    python generate.py compute     SCRATCH --xc LDA --n-workers 2
    python generate.py converge    SCRATCH
    python generate.py check       SCRATCH
    python generate.py collect     SCRATCH DESTINATION

`compute` writes one file per finished frame and skips the frames that have one, so that a run that
was interrupted goes on where it stopped. Set OMP_NUM_THREADS=1: the workers are the parallelism.
The structures are in structures.py, the DFT settings in calculations.py; the versions that made the
shipped files are in requirements.txt.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import os
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from calculations import (
    CUTOFF,
    METAL_KPOINT_DENSITY,
    NETWORK_KPOINT_DENSITY,
    SMEARING,
    calculate,
    compute,
    read_structures,
    result_path_of,
    run_tasks,
)
from structures import (
    NETWORKS,
    SEED,
    all_structures,
    in_computing_order,
    polymorphs,
)

if TYPE_CHECKING:
    from ase import Atoms

STRESS_DIGITS, FORCE_DIGITS, ENERGY_DIGITS = 9, 6, 7


# ---------------------------------------------------------------------------------------------------
# Checks


CONVERGENCE_SETTINGS: dict[str, dict[str, Any]] = {
    "cutoff-400": {"cutoff": 400.0},
    "kpoints-x1.5": {"density_factor": 1.5},
    "davidson": {"eigensolver": "davidson"},
}


def frames_for_convergence(frames: list[Atoms]) -> list[Atoms]:
    """Seven EOS frames, one frame of each other kind, each polymorph perfect and three of them distorted."""
    by_id = {frame.info["structure_id"]: frame for frame in frames}
    names = [f"eos-{index:04d}" for index in range(4, 17, 2)]  # V / V_ref from 0.94 to 1.06
    names += ["strained-0000", "rattled-0002", "rattled-0004", "vacancy-0000"]
    phases = list(polymorphs())
    names += [f"polymorph-{12 * phases.index(phase) + 2:04d}" for phase in phases]
    names += [
        f"polymorph-{12 * phases.index(phase) + 5:04d}"
        for phase in ("beta_tin", "simple_hexagonal", "sc")
    ]
    return [by_id[f"si-{name}"] for name in names]


def converge(scratch: Path, xc: str, n_workers: int) -> int:
    """Computes a few frames with tighter settings and prints how much that changes; gives the failures."""
    frames = frames_for_convergence(
        sorted(read_structures(scratch), key=lambda frame: frame.info["structure_id"])
    )
    folder = scratch / f"converge-{xc.lower()}"
    tasks = [
        (frame, xc, settings, folder / name / f"{frame.info['structure_id']}.json")
        for name, settings in CONVERGENCE_SETTINGS.items()
        for frame in frames
        if name != "davidson" or frame.info["kind"] != "eos"
    ]
    n_failed = run_tasks(tasks, n_workers)
    for name in CONVERGENCE_SETTINGS:
        print_changes(frames, scratch / xc.lower(), folder / name)
    return n_failed


def print_changes(frames: list[Atoms], production: Path, tighter: Path) -> None:
    """Prints what tighter settings change, energies relative to diamond at the reference volume."""
    from ase.units import GPa

    def results_in(folder: Path) -> dict[str, Any]:
        paths = {
            frame.info["structure_id"]: folder / f"{frame.info['structure_id']}.json"
            for frame in frames
        }
        return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}

    before, after = results_in(production), results_in(tighter)
    reference = "si-eos-0010"  # V = V_ref
    shift = (
        (after[reference]["energy"] - before[reference]["energy"]) / 8
        if reference in after
        else 0.0
    )
    sys.stdout.write(f"{tighter.name}:\n")
    if reference in after:
        sys.stdout.write(f"  absolute shift of diamond {1000 * shift:.2f} meV/atom\n")
        for results in (before, after):
            fit = equation_of_state(with_results(frames, results))
            sys.stdout.write(f"  a0 {fit['lattice_constant']} Å, B {fit['bulk_modulus']} GPa\n")
    for frame in frames:
        name = frame.info["structure_id"]
        if frame.info["kind"] == "eos" or name not in after or name not in before:
            continue
        energy = (after[name]["energy"] - before[name]["energy"]) / len(frame) - shift
        forces = np.abs(np.subtract(after[name]["forces"], before[name]["forces"])).max()
        stresses = np.subtract(after[name]["stress"], before[name]["stress"]) / GPa
        sys.stdout.write(
            f"  {name} {frame.info['phase']}: {1000 * energy:+.2f} meV/atom, {forces:.4f} eV/Å, "
            f"pressure {-stresses[:3].mean():+.3f} GPa, largest component {np.abs(stresses).max():.3f} GPa\n"
        )


def check(scratch: Path, xc: str) -> dict[str, float]:
    """Compares one force and the six stress components of one frame with central differences of the energy."""
    frames = {frame.info["structure_id"]: frame for frame in read_structures(scratch)}
    frame = frames["si-strained-0000"]
    analytic = calculate(frame, xc)
    outcome: dict[str, float] = {}

    step = 0.01  # Å
    energies = []
    for sign in (1, -1):
        moved = frame.copy()
        moved.positions[3, 0] += sign * step
        energies.append(calculate(moved, xc)["energy"])
    outcome["force_numeric"] = -(energies[0] - energies[1]) / (2 * step)
    outcome["force_analytic"] = analytic["forces"][3][0]

    strain = 0.003
    for name, voigt, (row, column) in (("xx", 0, (0, 0)), ("yz", 3, (1, 2))):
        energies = []
        for sign in (1, -1):
            deformation = np.eye(3)
            deformation[row, column] += sign * strain / (1 if row == column else 2)
            if row != column:
                deformation[column, row] = deformation[row, column]
            moved = frame.copy()
            moved.set_cell(frame.cell.array @ deformation, scale_atoms=True)
            energies.append(calculate(moved, xc)["energy"])
        outcome[f"stress_{name}_numeric"] = (energies[0] - energies[1]) / (
            2 * strain * frame.get_volume()
        )
        outcome[f"stress_{name}_analytic"] = analytic["stress"][voigt]
    (scratch / f"check-{xc.lower()}.json").write_text(json.dumps(outcome, indent=1))
    return outcome


def equation_of_state(frames: list[Atoms]) -> dict[str, float]:
    """Lattice constant (Å), bulk modulus (GPa) and energy (eV/atom) of diamond, from the `eos` frames.

    Source: third-order Birch-Murnaghan fit, F. Birch, Phys. Rev. 71, 809 (1947), as in ase.eos, over the
    frames within 8 % of the minimum's volume.
    """
    from ase.eos import EquationOfState
    from ase.units import GPa

    eos_frames = [frame for frame in frames if frame.info["kind"] == "eos"]
    volumes = np.array([frame.get_volume() for frame in eos_frames])
    energies = np.array([frame.get_potential_energy() for frame in eos_frames])
    near = np.abs(volumes / volumes[energies.argmin()] - 1) < 0.085
    volume, energy, bulk_modulus = EquationOfState(
        volumes[near], energies[near], eos="birchmurnaghan"
    ).fit()
    n_atoms = len(eos_frames[0])
    return {
        "lattice_constant": round(float(volume ** (1 / 3)), 5),
        "bulk_modulus": round(float(bulk_modulus / GPa), 3),
        "energy_per_atom": round(float(energy / n_atoms), 6),
        "n_volumes": int(near.sum()),
    }


# ---------------------------------------------------------------------------------------------------
# Data files


def with_results(frames: list[Atoms], results: dict[str, dict[str, Any]]) -> list[Atoms]:
    """Copies of the frames that have a result, by id, with it as single-point calculator."""
    from ase.calculators.singlepoint import SinglePointCalculator

    finished = []
    for frame in frames:
        if frame.info["structure_id"] not in results:
            continue
        result = results[frame.info["structure_id"]]
        copy = frame.copy()
        copy.info = {key: frame.info[key] for key in ("structure_id", "kind", "phase")}
        copy.calc = SinglePointCalculator(
            copy,
            energy=round(result["energy"], ENERGY_DIGITS),
            forces=np.round(result["forces"], FORCE_DIGITS) + 0.0,  # + 0.0 turns -0.0 into 0.0
            stress=np.round(result["stress"], STRESS_DIGITS) + 0.0,
        )
        finished.append(copy)
    return finished


def read_results(scratch: Path, xc: str, frames: list[Atoms]) -> dict[str, dict[str, Any]]:
    """The results that exist for these frames, by id."""
    paths = {
        name: result_path_of(scratch, xc, name)
        for name in (frame.info["structure_id"] for frame in frames)
    }
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def write_compressed(frames: list[Atoms], path: Path) -> str:
    """Writes the frames as .extxyz.xz and gives the sha256 of the file; an old file stays until the end."""
    from ase.io import write

    text = io.StringIO()
    write(text, frames, format="extxyz")
    partial_path = path.with_suffix(".partial")
    partial_path.write_bytes(
        lzma.compress(text.getvalue().encode(), preset=9 | lzma.PRESET_EXTREME)
    )
    os.replace(partial_path, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def collect(scratch: Path, destination: Path) -> dict[str, Any]:
    """Writes the data files and provenance.json from the finished frames; gives the provenance."""
    from gpaw import cgpaw

    destination.mkdir(parents=True, exist_ok=True)
    functionals: dict[str, Any] = {}
    for xc in ("PBE", "LDA"):
        structures = sorted(read_structures(scratch), key=lambda frame: frame.info["structure_id"])
        results_by_id = read_results(scratch, xc, structures)
        frames, results = with_results(structures, results_by_id), list(results_by_id.values())
        kinds = [frame.info["kind"] for frame in frames]
        if not frames:
            continue
        name = f"silicon_{xc.lower()}.extxyz.xz"
        functionals[xc] = {
            "file": name,
            "sha256": write_compressed(frames, destination / name),
            "n_frames": len(frames),
            "n_atoms": sum(len(frame) for frame in frames),
            "n_frames_by_kind": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "equation_of_state_diamond": equation_of_state(frames)
            if kinds.count("eos") == 21
            else None,
            "largest_net_force": round(
                max(float(np.abs(f.get_forces().sum(0)).max()) for f in frames), 6
            ),
            "largest_force_component": round(
                max(float(np.abs(f.get_forces()).max()) for f in frames), 4
            ),
            "largest_occupation_of_highest_band": float(
                f"{max(r['highest_occupation'] for r in results):.2e}"
            ),
            "n_frames_that_needed_fallback": sum(r.get("needed_fallback", False) for r in results),
            "cpu_hours": round(sum(r["cpu_seconds"] for r in results) / 3600, 3),
        }
    provenance = {
        "title": "Silicon: energies, forces and stresses of small cells with PBE and LDA",
        "license": "CC-BY-4.0",
        "made_by": "the epitaxy project, docs/datasets/silicon/generate.py",
        "date": date.today().isoformat(),
        "method": "density-functional theory, projector-augmented waves, plane waves (GPAW)",
        "energy": "electronic free energy E - TS in eV, consistent with forces and stress; zero: "
        "spin-paired spherical atoms of the PAW data sets, different for PBE and LDA",
        "units": {
            "energy": "eV",
            "forces": "eV/Å",
            "stress": "eV/Å^3, sign of ASE (tension positive)",
        },
        "seed": SEED,
        "settings": {
            "cutoff_ev": CUTOFF,
            "smearing_ev": SMEARING,
            "smearing": "Fermi-Dirac",
            "kpoint_density_networks_per_inverse_angstrom": NETWORK_KPOINT_DENSITY,
            "kpoint_density_metals_per_inverse_angstrom": METAL_KPOINT_DENSITY,
            "networks": list(NETWORKS),
            "paw_datasets": {"PBE": "Si.PBE", "LDA": "Si.LDA"},
            "spin_polarized": False,
        },
        "versions": {name: version(name) for name in ("gpaw", "gpaw-data", "ase", "numpy", "scipy")}
        | {"libxc": cgpaw.libxc_version, "python": sys.version.split()[0]},
        "functionals": functionals,
    }
    (destination / "provenance.json").write_text(
        json.dumps(provenance, indent=1, ensure_ascii=False) + "\n"
    )
    return provenance


def main() -> int:
    """Runs one command; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command", choices=["structures", "compute", "converge", "check", "collect"]
    )
    parser.add_argument("scratch", type=Path, help="folder for intermediate files")
    parser.add_argument(
        "destination", type=Path, nargs="?", help="folder of the data files (collect)"
    )
    parser.add_argument("--xc", choices=["PBE", "LDA"], default="PBE")
    parser.add_argument("--n-workers", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    if options.command == "structures":
        from ase.io import write

        write(options.scratch / "structures.extxyz", in_computing_order(all_structures()))
    elif options.command == "compute":
        n_failed = compute(options.scratch, options.xc, options.n_workers)
        if n_failed:
            sys.stderr.write(f"{n_failed} frames failed; run again to try them once more\n")
        return 1 if n_failed else 0
    elif options.command == "converge":
        return 1 if converge(options.scratch, options.xc, options.n_workers) else 0
    elif options.command == "check":
        sys.stdout.write(json.dumps(check(options.scratch, options.xc), indent=1) + "\n")
    elif options.destination is None:
        parser.error("collect needs the destination folder as second argument")
    else:
        sys.stdout.write(json.dumps(collect(options.scratch, options.destination), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
