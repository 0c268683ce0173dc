"""Generates the silicon data set that ships with epitaxy: structures, GPAW calculations, data files.

Four steps, each a command; every step reads and writes one scratch folder outside the repository:

    python generate.py structures  SCRATCH
    python generate.py compute     SCRATCH --xc PBE --n-workers 2
    python generate.py compute     SCRATCH --xc LDA --n-workers 2
    python generate.py converge    SCRATCH
    python generate.py check       SCRATCH
    python generate.py collect     SCRATCH DESTINATION

`compute` writes one file per finished frame and skips the frames that have one, so that a run that
was interrupted goes on where it stopped. Set OMP_NUM_THREADS=1: the workers are the parallelism.
The versions that made the shipped files are in requirements.txt beside this script.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

SEED = 20261121
REFERENCE_LATTICE_CONSTANT = 5.44  # Å, between the PBE and the LDA minimum; only a starting point
SHORTEST_DISTANCE = 1.8  # Å; structures with a shorter one are drawn again

CUTOFF = 250.0  # eV, plane waves
SMEARING = 0.1  # eV, width of the Fermi-Dirac distribution
# Points per Å^-1: direction i gets ceil(2 pi density |b_i|) k-points. Metals need the finer grid for the
# error that the four-fold coordinated networks have on the coarser one (table in README.md).
NETWORK_KPOINT_DENSITY = 3.2
METAL_KPOINT_DENSITY = 5.0
NETWORKS = ("diamond", "hexagonal_diamond", "bc8")
# An insulator fills 2 bands per atom. In the dense metals up to 4 per atom are partly filled at some k-points.
NETWORK_BANDS_PER_ATOM, NETWORK_EXTRA_BANDS = 2.75, 1
METAL_BANDS_PER_ATOM, METAL_EXTRA_BANDS = 4.0, 2
STRESS_DIGITS, FORCE_DIGITS, ENERGY_DIGITS, POSITION_DIGITS = 9, 6, 7, 8


# ---------------------------------------------------------------------------------------------------
# Structures


def diamond(lattice_constant: float = REFERENCE_LATTICE_CONSTANT) -> Atoms:
    """The 8-atom cubic cell of diamond-structure silicon; lattice constant in Å."""
    from ase.build import bulk

    return bulk("Si", "diamond", a=lattice_constant, cubic=True)


def polymorphs() -> dict[str, Atoms]:
    """One cell of each other phase of silicon near its own equilibrium volume, by name.

    Lattice constants are rounded literature and trial values; the frames scale them anyway.
    """
    from ase import Atoms
    from ase.build import bulk
    from ase.spacegroup import crystal

    def cell(
        lengths_and_angles: list[float], scaled_positions: Sequence[tuple[float, ...]]
    ) -> Atoms:
        symbols = f"Si{len(scaled_positions)}"
        return Atoms(symbols, scaled_positions=scaled_positions, cell=lengths_and_angles, pbc=True)

    third, z = 1 / 3, 1 / 16
    hexagonal_diamond = [
        (third, 2 * third, z),
        (third, 2 * third, 0.5 - z),
        (2 * third, third, 0.5 + z),
        (2 * third, third, 1 - z),
    ]
    # Ia-3 has a body-centred lattice: 8 atoms in the primitive cell of BC8.
    bc8 = crystal(
        "Si",
        [(0.1003, 0.1003, 0.1003)],
        spacegroup=206,
        cellpar=[6.62] * 3 + [90] * 3,
        primitive_cell=True,
    )
    return {
        "beta_tin": cell(
            [4.81, 4.81, 2.65, 90, 90, 90],
            [(0, 0, 0), (0.5, 0, 0.25), (0.5, 0.5, 0.5), (0, 0.5, 0.75)],
        ),
        "simple_hexagonal": cell([2.64, 2.64, 2 * 2.47, 90, 90, 120], [(0, 0, 0), (0, 0, 0.5)]),
        "hexagonal_diamond": cell([3.85, 3.85, 6.36, 90, 90, 120], hexagonal_diamond),
        "bcc": bulk("Si", "bcc", a=3.09, cubic=True),
        "fcc": cell([3.87 / 2**0.5, 3.87 / 2**0.5, 3.87, 90, 90, 90], [(0, 0, 0), (0.5, 0.5, 0.5)]),
        "hcp": bulk("Si", "hcp", a=2.70, c=4.58),
        "sc": cell([2.53, 2.53, 2 * 2.53, 90, 90, 90], [(0, 0, 0), (0, 0, 0.5)]),
        "bc8": Atoms("Si8", positions=bc8.positions, cell=bc8.cell, pbc=True),
    }


def scaled(structure: Atoms, volume_ratio: float) -> Atoms:
    """A copy whose cell has `volume_ratio` times the volume, fractional coordinates kept."""
    copy = structure.copy()
    copy.set_cell(structure.cell * volume_ratio ** (1 / 3), scale_atoms=True)
    return copy


def distorted(
    structure: Atoms,
    *,
    rng: np.random.Generator,
    strain: float,
    displacement: float,
    volume_ratio: float = 1.0,
) -> Atoms:
    """A copy that is scaled, strained and displaced at random, drawn again while atoms are too close.

    Args:
        structure: the perfect crystal.
        rng: source of the random numbers.
        strain: each of the 6 components is uniform in [-strain, strain].
        displacement: standard deviation of each Cartesian coordinate, Å.
        volume_ratio: volume before the strain over the volume of `structure`.

    Raises:
        ValueError: 2000 draws in a row had two atoms closer than SHORTEST_DISTANCE.
    """
    for _ in range(2000):
        copy = scaled(structure, volume_ratio)
        xx, yy, zz, yz, xz, xy = rng.uniform(-strain, strain, size=6)
        deformation = np.eye(3) + np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        copy.set_cell(copy.cell.array @ deformation, scale_atoms=True)
        copy.positions += rng.normal(0.0, displacement, size=copy.positions.shape)
        copy.positions -= copy.positions.mean(axis=0) - structure.positions.mean(axis=0)
        if shortest_distance(copy) > SHORTEST_DISTANCE:
            return copy
    raise ValueError(
        f"no draw with strain {strain} and displacement {displacement} Å keeps atoms "
        f"{SHORTEST_DISTANCE} Å apart; lower one of them"
    )


def shortest_distance(structure: Atoms) -> float:
    """The shortest distance between two atoms, periodic images included, in Å."""
    from ase.neighborlist import neighbor_list

    distances = neighbor_list("d", structure, cutoff=4.0)
    return float(distances.min()) if len(distances) else 4.0


def all_structures() -> list[Atoms]:
    """All frames without results, each with info keys structure_id, kind, phase and in_both.

    in_both is true for the frames that are computed with both functionals, false for LDA only.
    Positions and cell are rounded here, so that what is computed is exactly what is shipped.
    """
    rng = np.random.default_rng(SEED)
    frames: list[Atoms] = []
    counts: dict[str, int] = {}

    def add(structure: Atoms, kind: str, phase: str, *, in_both: bool) -> None:
        index = counts.get(kind, 0)
        counts[kind] = index + 1
        structure.positions = np.round(structure.positions, POSITION_DIGITS)
        structure.set_cell(np.round(structure.cell.array, POSITION_DIGITS))
        structure.info = {
            "structure_id": f"si-{kind}-{index:04d}",
            "kind": kind,
            "phase": phase,
            "in_both": in_both,
        }
        frames.append(structure)

    coarse = [0.86, 0.88, 0.90, 0.92, 1.08, 1.10, 1.12, 1.14]
    for volume_ratio in sorted([*coarse, *np.round(np.arange(0.94, 1.065, 0.01), 2)]):
        add(scaled(diamond(), volume_ratio), "eos", "diamond", in_both=True)

    for index in range(96):
        structure = distorted(
            diamond(),
            rng=rng,
            strain=rng.uniform(0.01, 0.05),
            displacement=rng.uniform(0.0, 0.1),
            volume_ratio=rng.uniform(0.95, 1.05),
        )
        add(structure, "strained", "diamond", in_both=index % 2 == 0)

    amplitudes = [0.02, 0.05, 0.1, 0.2, 0.35]
    for index in range(140):
        structure = distorted(
            diamond(),
            rng=rng,
            strain=0.0,
            displacement=amplitudes[index % len(amplitudes)],
            volume_ratio=rng.uniform(0.92, 1.08),
        )
        add(structure, "rattled", "diamond", in_both=index % 2 == 0)

    for phase, crystal in polymorphs().items():
        for index, volume_ratio in enumerate([0.88, 0.94, 1.0, 1.06, 1.12]):
            add(scaled(crystal, volume_ratio), "polymorph", phase, in_both=index % 2 == 0)
        for index in range(7):
            structure = distorted(
                crystal,
                rng=rng,
                strain=0.03,
                displacement=rng.uniform(0.02, 0.15),
                volume_ratio=rng.uniform(0.9, 1.1),
            )
            add(structure, "polymorph", phase, in_both=index % 2 == 0)

    for index in range(40):
        crystal = diamond()
        del crystal[int(rng.integers(len(crystal)))]
        structure = distorted(
            crystal,
            rng=rng,
            strain=0.03,
            displacement=rng.uniform(0.0, 0.15),
            volume_ratio=rng.uniform(0.92, 1.06),
        )
        add(structure, "vacancy", "diamond", in_both=index % 2 == 0)
    return frames


def in_computing_order(frames: list[Atoms]) -> list[Atoms]:
    """The EOS frames first, then those shared by both functionals, networks before the metals; parts shuffled."""
    order = np.random.default_rng(SEED).permutation(len(frames))

    def rank(frame: Atoms) -> tuple[bool, bool, bool]:
        return (
            frame.info["kind"] != "eos",
            not frame.info["in_both"],
            frame.info["phase"] not in NETWORKS,
        )

    return sorted([frames[index] for index in order], key=rank)


# ---------------------------------------------------------------------------------------------------
# Calculations


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
