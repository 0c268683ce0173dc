"""One structure to energy, forces and stress with GPAW, and many of them in worker processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from structures import NETWORKS

if TYPE_CHECKING:
    from ase import Atoms

CUTOFF = 250.0  # eV, plane waves
SMEARING = 0.1  # eV, width of the Fermi-Dirac distribution
# Points per Å^-1: direction i gets ceil(2 pi density |b_i|) k-points. Metals need the finer grid for the
# error that the four-fold coordinated networks have on the coarser one (table in README.md).
NETWORK_KPOINT_DENSITY = 3.2
METAL_KPOINT_DENSITY = 5.0
# An insulator fills 2 bands per atom. In the dense metals up to 4 per atom are partly filled at some k-points.
NETWORK_BANDS_PER_ATOM, NETWORK_EXTRA_BANDS = 2.75, 1
METAL_BANDS_PER_ATOM, METAL_EXTRA_BANDS = 4.0, 2


def kpoint_grid(structure: Atoms, density: float) -> dict[str, Any]:
    """The k-point grid with at least `density` points per Å^-1, as GPAW's `kpts` takes it.

    Hexagonal cells get a grid with Gamma (one without it breaks their symmetry), the others one
    shifted off Gamma, which converges faster in a gapped crystal.
    """
    reciprocal_lengths = np.linalg.norm(
        structure.cell.reciprocal().array, axis=1
    )  # 1/Å, without 2 pi
    size = np.maximum(1, np.ceil(2 * np.pi * density * reciprocal_lengths - 1e-6)).astype(int)
    is_hexagonal = structure.info["phase"] in ("simple_hexagonal", "hexagonal_diamond", "hcp")
    return {"size": tuple(int(n) for n in size), "gamma": is_hexagonal}


def kpoint_density(structure: Atoms) -> float:
    """The k-point density of a frame, points per Å^-1."""
    return NETWORK_KPOINT_DENSITY if structure.info["phase"] in NETWORKS else METAL_KPOINT_DENSITY


def n_bands(structure: Atoms) -> int:
    """The number of bands of a frame."""
    if structure.info["phase"] in NETWORKS:
        return int(np.ceil(NETWORK_BANDS_PER_ATOM * len(structure))) + NETWORK_EXTRA_BANDS
    return int(np.ceil(METAL_BANDS_PER_ATOM * len(structure))) + METAL_EXTRA_BANDS


def calculate(
    structure: Atoms,
    xc: str,
    *,
    cutoff: float = CUTOFF,
    density_factor: float = 1.0,
    smearing: float = SMEARING,
    eigensolver: str = "rmm-diis",
    uses_point_group: bool = True,
    log: str | None = None,
) -> dict[str, Any]:
    """Free energy (eV), forces (eV/Å) and stress (eV/Å^3, Voigt, ASE sign) of one structure.

    The energy is the electronic free energy E - TS: the one whose derivatives are the forces and the
    stress. It counts from isolated, spin-paired, spherical atoms of the PAW data sets of the functional.
    """
    from gpaw import GPAW, PW, FermiDirac, Mixer

    started = time.process_time()
    structure = structure.copy()
    structure.calc = GPAW(
        mode=PW(cutoff),
        xc=xc,
        kpts=kpoint_grid(structure, density_factor * kpoint_density(structure)),
        occupations=FermiDirac(smearing),
        nbands=n_bands(structure),
        eigensolver=eigensolver,
        symmetry={"point_group": uses_point_group},
        mixer=Mixer(0.7, 8, 1),
        # Leaves the forces within 0.004 eV/Å of their converged values.
        convergence={"energy": 2e-5, "density": 1e-4, "eigenstates": 1e-6},
        txt=log,
    )
    energy = structure.get_potential_energy(force_consistent=True)
    forces = structure.get_forces()
    stress = structure.get_stress()
    return {
        "energy": float(energy),
        "forces": forces.tolist(),
        "stress": stress.tolist(),
        "n_iterations": int(structure.calc.get_number_of_iterations()),
        "n_kpoints": len(structure.calc.get_ibz_k_points()),
        "highest_occupation": highest_occupation(structure.calc),
        "cpu_seconds": time.process_time() - started,
    }


def highest_occupation(calc: Any) -> float:
    """The largest occupation (0 to 1) of the highest band: small if there are enough bands."""
    kpoint_weights = np.asarray(calc.get_k_point_weights())
    spin_degeneracy = 2.0
    occupations = [
        calc.get_occupation_numbers(kpt=index)[-1] / (spin_degeneracy * weight)
        for index, weight in enumerate(kpoint_weights)
    ]
    return float(max(occupations))


def compute_frame(task: tuple[Atoms, str, dict[str, Any], Path]) -> tuple[str, float | None, str]:
    """Computes one frame and writes its result; gives the file's name, the CPU seconds and the error, if any."""
    structure, xc, settings, result_path = task
    log = result_path.with_suffix(".txt")
    error = ""
    # RMM-DIIS is the faster solver; Davidson the sturdier one for a frame that it does not converge. Without
    # point-group symmetry, GPAW also takes the few lattices that stop its symmetry analysis (at more k-points).
    for fallback in ({}, {"eigensolver": "davidson", "uses_point_group": False}):
        try:
            result = calculate(structure, xc, log=str(log), **{**settings, **fallback})
        except Exception as failure:  # recorded, reported and counted by the caller
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
            continue
        result["needed_fallback"] = bool(fallback)
        partial_path = result_path.with_suffix(".partial")
        partial_path.write_text(json.dumps(result))
        os.replace(partial_path, result_path)
        log.unlink()
        return result_path.stem, result["cpu_seconds"], ""
    return result_path.stem, None, error


def read_structures(scratch: Path) -> list[Atoms]:
    """The frames that the command `structures` wrote, in computing order."""
    from ase.io import read

    frames: list[Atoms] = read(scratch / "structures.extxyz", ":")
    return frames


def result_path_of(scratch: Path, xc: str, structure_id: str) -> Path:
    """Where the result of a frame is."""
    return scratch / xc.lower() / f"{structure_id}.json"


def compute(scratch: Path, xc: str, n_workers: int) -> int:
    """Computes all frames of a functional that have no result yet; gives the number that failed."""
    frames = [frame for frame in read_structures(scratch) if xc == "LDA" or frame.info["in_both"]]
    tasks: list[tuple[Atoms, str, dict[str, Any], Path]] = [
        (frame, xc, {}, result_path_of(scratch, xc, frame.info["structure_id"])) for frame in frames
    ]
    return run_tasks(tasks, n_workers)


def run_tasks(tasks: list[tuple[Atoms, str, dict[str, Any], Path]], n_workers: int) -> int:
    """Runs the tasks that have no result file yet, in parallel; gives the number that failed."""
    n_tasks = len(tasks)
    tasks = [task for task in tasks if not task[3].exists()]
    sys.stdout.write(f"{n_tasks} calculations, {n_tasks - len(tasks)} done before\n")
    for *_, path in tasks:
        path.parent.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    with multiprocessing.get_context("spawn").Pool(n_workers) as pool:
        for index, (name, seconds, error) in enumerate(
            pool.imap_unordered(compute_frame, tasks), 1
        ):
            n_failed += bool(error)
            outcome = error or f"{seconds:.1f} s"
            sys.stdout.write(f"{index}/{len(tasks)} {name} {outcome}\n")
            sys.stdout.flush()
    return n_failed
