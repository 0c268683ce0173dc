"""Computes the convergence study: h-BN and silicon with many settings, eigenvalues of each kept.

Two steps, each a command; both work on one scratch folder outside the repository:

    python study.py compute SCRATCH
    python study.py collect SCRATCH DESTINATION

`compute` needs GPAW. It writes one JSON file per finished calculation and skips those that have
one, so that a run that was interrupted goes on where it stopped. Set OMP_NUM_THREADS=1; it uses
one core. `collect` packs what is there into one compressed file with its provenance.
The versions that made the shipped file are in its provenance.json.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import lzma
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

FUNCTIONALS = ("LDA", "PBE")
KPOINTS = (2, 3, 4, 6, 8, 12)
"""Points along the first reciprocal axis; the grids all contain Gamma."""
DENSE_KPOINTS = (10, 16, 20, 24)
"""For one basis of each material and one functional: how far the densest of the others are."""
DENSE_BASES = {"h-BN": "pw-400", "Si": "pw-200"}
DENSE_XC = "PBE"
LCAO_BASES = ("sz", "szp", "dzp")
"""Subsets of GPAW's double-zeta polarised basis of atomic orbitals."""
CUTOFFS = {"h-BN": (200, 300, 400, 600, 800), "Si": (100, 150, 200, 300, 400)}
"""eV, plane waves."""
LATTICES = {
    "h-BN": "bulk, AA' stacking, a = 2.504 Å, c = 6.661 Å, 4 atoms",
    "Si": "diamond, a = 5.431 Å, 2 atoms",
}
SMEARING = 0.01  # eV, Fermi-Dirac: the crystals have gaps, it only steadies the iterations
WINDOW = 12.0  # eV above the valence band maximum: bands that lie wholly higher are not kept
CONVERGED_BANDS = {"h-BN": 18, "Si": 16}
EXTRA_BANDS = 6  # computed above the converged ones, for the eigensolver's sake
ENERGY_DIGITS, EIGENVALUE_DIGITS = 7, 4


@dataclass(frozen=True)
class Settings:
    """What one calculation is computed with.

    Attributes:
        material: "h-BN" or "Si".
        xc: exchange-correlation functional.
        basis: "pw-400" (plane waves and cutoff in eV) or "sz", "szp", "dzp" (atomic orbitals).
        kpoints: points along each reciprocal axis.
    """

    material: str
    xc: str
    basis: str
    kpoints: tuple[int, int, int]

    @property
    def id(self) -> str:
        """A name that is a file name, too, for example h-BN-PBE-pw-400-4x4x2."""
        return f"{self.material}-{self.xc}-{self.basis}-" + "x".join(map(str, self.kpoints))


def crystal(material: str) -> Atoms:
    """The cell at the experimental lattice constants, the same for all settings.

    h-BN: a = 2.504 Å, c = 6.661 Å, AA' stacking; 4 atoms. Silicon: a = 5.431 Å; 2 atoms.
    """
    from ase import Atoms
    from ase.build import bulk

    if material == "Si":
        return bulk("Si", "diamond", a=5.431)
    third = 1 / 3
    positions = [
        (third, 2 * third, 0.25),
        (2 * third, third, 0.25),
        (2 * third, third, 0.75),
        (third, 2 * third, 0.75),
    ]
    cell = [2.504, 2.504, 6.661, 90, 90, 120]
    return Atoms("BNBN", scaled_positions=positions, cell=cell, pbc=True)


def grid(material: str, n_points: int) -> tuple[int, int, int]:
    """The k-point grid: n x n x n in silicon, n x n x ceil(n / 3) in h-BN, whose c axis is long."""
    if material == "Si":
        return n_points, n_points, n_points
    return n_points, n_points, -(-n_points // 3)


def all_settings() -> Iterator[Settings]:
    """All calculations in the order of computing.

    Every combination, coarse k-points first; then the dense k-points.
    """
    for n_points, material in itertools.product(KPOINTS, CUTOFFS):
        plane_waves = [f"pw-{cutoff}" for cutoff in CUTOFFS[material]]
        for basis, xc in itertools.product([*plane_waves, *LCAO_BASES], FUNCTIONALS):
            yield Settings(material, xc, basis, grid(material, n_points))
    for n_points, (material, basis) in itertools.product(DENSE_KPOINTS, DENSE_BASES.items()):
        yield Settings(material, DENSE_XC, basis, grid(material, n_points))


def calculate(settings: Settings, log: Path) -> dict[str, Any]:
    """Energy and eigenvalues of one calculation, as they are stored.

    Returns:
        The settings, and ``energy`` (eV per cell), ``eigenvalues`` (n_kpoints, n_bands) eV on
        GPAW's scale, ``weights`` (n_kpoints,) that sum to 1, ``irreducible`` (n_all,) index of the
        irreducible k-point of each point of the full grid, ``points`` (n_kpoints, 3) in units of
        the reciprocal axes, ``valence_band_maximum`` and ``conduction_band_minimum`` on the grid
        (eV), ``n_electrons``, ``n_iterations``, ``cpu_seconds``, ``wall_seconds``.
    """
    from gpaw import GPAW

    cpu, wall = time.process_time(), time.perf_counter()
    n_converged = CONVERGED_BANDS[settings.material]
    options: dict[str, Any] = {"convergence": {"density": 1e-5, "energy": 2e-6}}
    if settings.basis.startswith("pw-"):
        options["mode"] = {"name": "pw", "ecut": float(settings.basis.removeprefix("pw-"))}
        options["eigensolver"] = "davidson"
        options["nbands"] = n_converged + EXTRA_BANDS
        options["convergence"]["bands"] = n_converged
    else:
        options["mode"] = "lcao"
        options["basis"] = "dzp" if settings.basis == "dzp" else f"{settings.basis}(dzp)"
        options["nbands"] = "nao"
    atoms = crystal(settings.material)
    atoms.calc = GPAW(
        xc=settings.xc,
        kpts={"size": settings.kpoints, "gamma": True},
        occupations={"name": "fermi-dirac", "width": SMEARING},
        txt=str(log),
        **options,
    )
    energy = float(atoms.get_potential_energy())
    points = np.asarray(atoms.calc.get_ibz_k_points())
    eigenvalues = np.array([atoms.calc.get_eigenvalues(kpt=i) for i in range(len(points))])
    n_electrons = round(float(atoms.calc.get_number_of_electrons()))
    n_filled = n_electrons // 2
    highest = float(eigenvalues[:, n_filled - 1].max())
    if settings.basis.startswith("pw-"):
        eigenvalues = eigenvalues[:, :n_converged]
        reach = float(eigenvalues[:, -1].min()) - highest
        if reach < WINDOW:
            raise RuntimeError(f"{settings.id}: bands end {reach:.2f} eV above the maximum")
    eigenvalues = eigenvalues[:, eigenvalues.min(axis=0) <= highest + WINDOW]
    return asdict(settings) | {
        "id": settings.id,
        "energy": round(energy, ENERGY_DIGITS),
        "n_electrons": n_electrons,
        "valence_band_maximum": highest,
        "conduction_band_minimum": float(eigenvalues[:, n_filled].min()),
        "eigenvalues": np.round(eigenvalues, 6).tolist(),
        "weights": np.asarray(atoms.calc.get_k_point_weights()).tolist(),
        "points": points.tolist(),
        "irreducible": np.asarray(atoms.calc.get_bz_to_ibz_map()).tolist(),
        "n_iterations": int(atoms.calc.get_number_of_iterations()),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "wall_seconds": round(time.perf_counter() - wall, 2),
    }


def compute(scratch: Path) -> int:
    """Compute what has no file yet; gives the number of calculations that failed."""
    n_failed = 0
    for settings in all_settings():
        path = scratch / f"{settings.id}.json"
        if path.exists():
            continue
        try:
            result = calculate(settings, scratch / f"{settings.id}.txt")
        except Exception as error:
            sys.stderr.write(f"{settings.id}: {type(error).__name__}: {error}\n")
            n_failed += 1
            continue
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.replace(path)
        sys.stdout.write(f"{settings.id} {result['energy']} {result['wall_seconds']} s\n")
        sys.stdout.flush()
    return n_failed


def kept_digits(result: dict[str, Any]) -> dict[str, Any]:
    """One calculation as it is shipped: energies of bands from the valence band maximum, eV."""
    highest = result["valence_band_maximum"]
    bands = np.round(np.array(result["eigenvalues"]) - highest, EIGENVALUE_DIGITS) + 0.0
    return {
        **{name: result[name] for name in ("id", "material", "xc", "basis", "kpoints", "energy")},
        "valence_band_maximum": round(highest, EIGENVALUE_DIGITS),
        "band_gap": round(result["conduction_band_minimum"] - highest, EIGENVALUE_DIGITS),
        **{name: result[name] for name in ("n_electrons", "n_iterations")},
        **{name: result[name] for name in ("cpu_seconds", "wall_seconds")},
        "bands": bands.tolist(),
    }


def kpoints_of(result: dict[str, Any]) -> dict[str, Any]:
    """The k-points of one calculation as they are shipped; weights sum to 1."""
    return {
        "points": np.round(result["points"], 10).tolist(),
        "weights": np.round(result["weights"], 12).tolist(),
        "irreducible": result["irreducible"],
    }


def setup_checksums() -> dict[str, str]:
    """The sha256 of each PAW data set and basis that the study uses, as gpaw-data ships them."""
    from gpaw import setup_paths

    names = [f"{element}.{kind}.gz" for element in ("B", "N", "Si") for kind in ("LDA", "PBE")]
    names += [f"{element}.dzp.basis.gz" for element in ("B", "N", "Si")]
    found = {name: path / name for path in setup_paths[::-1] for name in names}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def collect(scratch: Path, destination: Path) -> dict[str, Any]:
    """Write convergence.json.xz and provenance.json from what is finished; gives the provenance."""
    from gpaw import cgpaw

    destination.mkdir(parents=True, exist_ok=True)
    paths = [scratch / f"{settings.id}.json" for settings in all_settings()]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    grids: dict[str, Any] = {}
    for result in results:
        name = f"{result['material']} {'x'.join(map(str, result['kpoints']))}"
        if grids.setdefault(name, kpoints_of(result)) != kpoints_of(result):
            raise RuntimeError(f"{result['id']}: other irreducible k-points than the rest")
    crystals = {}
    for material in CUTOFFS:
        atoms = crystal(material)
        crystals[material] = {
            "numbers": atoms.numbers.tolist(),
            "positions": np.round(atoms.positions, 10).tolist(),
            "cell": np.round(atoms.cell.array, 10).tolist(),
        }
    data = {
        "crystals": crystals,
        "grids": grids,
        "calculations": [kept_digits(result) for result in results],
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    path = destination / "convergence.json.xz"
    part = path.with_suffix(".part")
    part.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    part.replace(path)
    names = ("gpaw", "gpaw-data", "ase", "numpy", "scipy")
    provenance = {
        "title": "Hexagonal boron nitride and silicon: eigenvalues with many settings",
        "license": "CC0-1.0",
        "made_by": "the epitaxy project, docs/experiments/convergence/study.py",
        "date": date.today().isoformat(),
        "method": "density-functional theory, projector-augmented waves (GPAW)",
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "n_calculations": len(results),
        "n_failed_or_missing": len(paths) - len(results),
        "units": {"energy": "eV per cell", "bands": "eV from the valence band maximum"},
        "settings": {
            "crystals": LATTICES,
            "functionals": list(FUNCTIONALS),
            "cutoffs_ev": {material: list(cutoffs) for material, cutoffs in CUTOFFS.items()},
            "atomic_orbitals": f"{', '.join(LCAO_BASES)}: subsets of GPAW's dzp; grid 0.2 Å",
            "kpoints": "uniform grids with Gamma, reduced by the crystal's symmetry",
            "kpoints_along_first_axis": list(KPOINTS),
            "dense_kpoints": {
                "along_first_axis": list(DENSE_KPOINTS),
                "xc": DENSE_XC,
                "basis": DENSE_BASES,
            },
            "smearing": f"Fermi-Dirac, {SMEARING} eV",
            "relativity": "scalar, in the PAW data sets",
            "spin_polarized": False,
            "convergence": "density 1e-5 and energy 2e-6 eV per electron; bands of plane waves "
            f"to {WINDOW:g} eV above the valence band maximum",
            "paw_datasets": "those of the functional",
        },
        "sha256_of_setups": setup_checksums(),
        "versions": {name: version(name) for name in names}
        | {"libxc": cgpaw.libxc_version, "python": sys.version.split()[0]},
        "machine": "one core of a shared x86-64 server",
        "cpu_hours": round(sum(result["cpu_seconds"] for result in results) / 3600, 3),
    }
    (destination / "provenance.json").write_text(
        json.dumps(provenance, indent=1, ensure_ascii=False) + "\n"
    )
    return provenance


def main() -> int:
    """Run one command; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["compute", "collect"])
    parser.add_argument("scratch", type=Path, help="folder for intermediate files")
    parser.add_argument("destination", type=Path, nargs="?", help="folder of the data (collect)")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    if options.command == "compute":
        n_failed = compute(options.scratch)
        if n_failed:
            sys.stderr.write(f"{n_failed} failed; run again to try them once more\n")
        return 1 if n_failed else 0
    if options.destination is None:
        parser.error("collect needs the destination folder as second argument")
    sys.stdout.write(json.dumps(collect(options.scratch, options.destination), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
