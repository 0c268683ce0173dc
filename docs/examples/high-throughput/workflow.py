"""Structures from an ASE database, relaxed and computed with GPAW, packed for a NOMAD.

    python workflow.py structures           write crystals.db: six crystals
    python workflow.py compute              relax and compute each with two functionals
    python workflow.py exciting             write inputs of exciting for the relaxed crystals
    python workflow.py summary              what was computed, as a table and results.json
    python workflow.py publish --url URL    plan, send and count, with epitaxy; --dry-run only plans

`compute` needs GPAW with its data sets (`pip install gpaw gpaw-data`), `exciting` needs
excitingtools, `publish` needs epitaxy. Every step skips what is done, so that a run that was
interrupted goes on where it stopped; `compute --rows 3 4` does some rows, for one job each.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

CRYSTALS = {
    "C": ("diamond", 3.567),
    "Si": ("diamond", 5.431),
    "Ge": ("diamond", 5.658),
    "SiC": ("zincblende", 4.360),
    "BN": ("zincblende", 3.616),
    "AlP": ("zincblende", 5.464),
}
"""Formula -> structure and measured lattice constant in Å, rounded, from which to relax.

Source: O. Madelung, Semiconductors: Data Handbook, 3rd edition, Springer (2004).
"""

FUNCTIONALS = ("LDA", "PBE")
CUTOFF = 800.0  # eV, plane waves
RELAX_KPOINTS, KPOINTS = 6, 8  # along each reciprocal axis, with Gamma
MOST_FORCE = 0.02  # eV/Å, and eV for stress times volume, where a relaxation ends
SMEARING = 0.01  # eV, Fermi-Dirac
DOS_WIDTH, DOS_POINTS = 0.1, 801  # eV, gaussian
DOS_WINDOW = (-20.0, 15.0)  # eV from the Fermi level


def write_structures(database: Path) -> int:
    """Write one row per crystal and functional, if it is not there; return how many there are."""
    from ase.build import bulk
    from ase.db import connect

    with connect(database) as rows:
        for formula, (structure, a) in CRYSTALS.items():
            for functional in FUNCTIONALS:
                wanted = {"name": formula, "xc": functional}
                if not rows.count(**wanted):
                    rows.write(bulk(formula, structure, a=a), **wanted)
        return int(rows.count())


def calculator(functional: str, n_kpoints: int, log: Path) -> Any:
    """Return GPAW with the settings of this study."""
    from gpaw import GPAW

    return GPAW(
        mode={"name": "pw", "ecut": CUTOFF},
        xc=functional,
        kpts={"size": (n_kpoints,) * 3, "gamma": True},
        occupations={"name": "fermi-dirac", "width": SMEARING},
        txt=str(log),
    )


def relax(atoms: Atoms, functional: str, folder: Path) -> Atoms:
    """Return the crystal with cell and positions relaxed; writes relax.txt, .log and .traj."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    atoms = atoms.copy()
    atoms.calc = calculator(functional, RELAX_KPOINTS, folder / "relax.txt")
    optimizer = BFGS(
        FrechetCellFilter(atoms),
        logfile=str(folder / "relax.log"),
        trajectory=str(folder / "relax.traj"),
    )
    if not optimizer.run(fmax=MOST_FORCE, steps=50):
        raise RuntimeError(f"{folder}: not relaxed within 50 steps")
    relaxed = atoms.copy()
    relaxed.calc = None
    return relaxed


def compute(atoms: Atoms, functional: str, folder: Path) -> dict[str, float]:
    """Return energy (eV per cell) and lattice constant (Å) of a relaxed crystal.

    Writes static.txt, static.gpw, dos.csv, relaxed.cif and settings.json.
    """
    import numpy as np

    atoms = atoms.copy()
    atoms.calc = calculator(functional, KPOINTS, folder / "static.txt")
    energy = float(atoms.get_potential_energy())
    atoms.write(folder / "relaxed.cif")
    dos = atoms.calc.dos()
    energies = np.linspace(*DOS_WINDOW, DOS_POINTS)
    density = dos.raw_dos(energies + dos.fermi_level, width=DOS_WIDTH)
    np.savetxt(
        folder / "dos.csv",
        np.column_stack([energies, density]),
        fmt="%.6g",
        delimiter=",",
        header="energy from the Fermi level in eV, states per eV and cell",
    )
    settings = {
        "code": "GPAW",
        "xc": functional,
        "cutoff_ev": CUTOFF,
        "kpoints": [KPOINTS] * 3,
        "relaxation_kpoints": [RELAX_KPOINTS] * 3,
        "smearing_ev": SMEARING,
        "versions": {name: version(name) for name in ("gpaw", "ase", "numpy")},
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    atoms.calc.write(folder / "static.gpw")
    return {"energy": energy, "a": float((4.0 * atoms.get_volume()) ** (1 / 3))}


def compute_all(database: Path, calculations: Path, rows: list[int] | None = None) -> int:
    """Compute each row that has no folder yet; return how many failed.

    The folder of a calculation is noted in its row, seen from the database: this is what
    `epitaxy campaign` looks for.
    """
    from ase.db import connect

    n_failed = 0
    database_rows = connect(database)
    for row in list(database_rows.select()):
        if "folder" in row or (rows and row.id not in rows):
            continue
        folder = calculations / row.name / row.xc
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        try:
            relaxed = relax(row.toatoms(), row.xc, folder)
            found = compute(relaxed, row.xc, folder)
        except Exception as error:
            print(f"{folder}: {type(error).__name__}: {error}", flush=True)
            n_failed += 1
            continue
        finally:
            gc.collect()  # GPAW's text files are complete when its calculators are gone
        seconds = time.perf_counter() - start
        database_rows.update(
            row.id,
            atoms=relaxed,
            folder=folder.resolve().relative_to(database.resolve().parent).as_posix(),
            total_energy=found["energy"],
            a=found["a"],
            seconds=seconds,
        )
        energy, a = found["energy"], found["a"]
        print(f"{row.name} {row.xc}: {energy:.4f} eV, a = {a:.4f} Å, {seconds:.0f} s", flush=True)
    return n_failed


def write_exciting_input(atoms: Atoms, functional: str, folder: Path, *, species: str) -> Path:
    """Write input.xml of exciting for a crystal, and return where it is.

    Args:
        atoms: the crystal.
        functional: "LDA" or "PBE".
        folder: of the calculation to come.
        species: folder with the species files that come with exciting.
    """
    from excitingtools import ExcitingGroundStateInput, ExcitingInputXML, ExcitingStructure

    structure = ExcitingStructure(atoms, species_path=species)
    groundstate = ExcitingGroundStateInput(
        ngridk=[KPOINTS] * 3,
        rgkmax=7.0,
        xctype={"LDA": "LDA_PW", "PBE": "GGA_PBE"}[functional],
    )
    document = ExcitingInputXML(
        structure=structure,
        groundstate=groundstate,
        title=f"{atoms.get_chemical_formula()} {functional}",
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "input.xml"
    path.write_text(document.to_xml_str())
    return path


def exciting_inputs(database: Path, calculations: Path, *, species: str) -> int:
    """Write an input of exciting for each relaxed crystal; return how many."""
    rows = _finished(database)
    for row in rows:
        write_exciting_input(
            row.toatoms(), row.xc, calculations / row.name / row.xc, species=species
        )
    return len(rows)


def _finished(database: Path) -> list[Any]:
    """Return the rows that have been computed."""
    from ase.db import connect

    return [row for row in connect(database).select() if "folder" in row]


def summary(database: Path) -> list[dict[str, Any]]:
    """Return what was computed: energies in eV per cell, files and bytes of each calculation."""
    table = []
    for row in _finished(database):
        folder = database.parent / row.folder
        files = [path for path in folder.rglob("*") if path.is_file()]
        table.append(
            {
                "crystal": row.name,
                "xc": row.xc,
                "energy_ev": round(row.total_energy, 4),
                "a_angstrom": round(row.a, 4),
                "files": len(files),
                "bytes": sum(path.stat().st_size for path in files),
                "seconds": round(row.seconds, 1),
            }
        )
    return table


def write_results(database: Path, path: Path) -> list[dict[str, Any]]:
    """Write what was computed, and under which conditions, and return it."""
    table = summary(database)
    settings = [
        json.loads((database.parent / row.folder / "settings.json").read_text())
        for row in _finished(database)
    ]
    if not settings:
        raise RuntimeError("no row is computed yet: run the step compute before")
    conditions = {key: value for key, value in settings[0].items() if key != "xc"}
    if any({**conditions, "xc": each["xc"]} != each for each in settings):
        raise RuntimeError("the calculations have different settings: compute them anew")
    path.write_text(json.dumps({"conditions": conditions, "calculations": table}, indent=1) + "\n")
    return table


def publish(
    database: Path, campaign: Path, *, url: str, token_file: Path | None, dry_run: bool
) -> int:
    """Plan the uploads of what is finished, send them, compare both sides; 0 if all is there."""
    from epitaxy.cli import main as epitaxy

    if status := epitaxy(["campaign", "plan", str(database), "-o", str(campaign)]):
        return status
    service = ["--url", url]
    if token_file is not None:
        service += ["--token-file", str(token_file)]
    if dry_run:
        return epitaxy(["campaign", "send", str(campaign), *service, "--dry-run"])
    if status := epitaxy(
        ["campaign", "send", str(campaign), *service, "--dataset", "Octet crystals"]
    ):
        return status
    return epitaxy(["campaign", "verify", str(campaign), *service])


def main() -> int:
    """Do one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("structures", "compute", "exciting", "summary", "publish"))
    parser.add_argument("--work", type=Path, default=Path(), help="folder to work in")
    parser.add_argument("--rows", type=int, nargs="+", help="rows to compute (default: all)")
    parser.add_argument("--species", default="./", help="folder of exciting's species files")
    parser.add_argument("--url", help="address of the NOMAD's API, .../api/v1")
    parser.add_argument("--token-file", type=Path, help="file with your token")
    parser.add_argument("--dry-run", action="store_true", help="only plan what would be sent")
    args = parser.parse_args()
    database, calculations = args.work / "crystals.db", args.work / "calculations"
    if args.step == "structures":
        print(f"{database}: {write_structures(database)} rows")
    elif args.step == "compute":
        return min(1, compute_all(database, calculations, args.rows))
    elif args.step == "exciting":
        n = exciting_inputs(database, args.work / "exciting", species=args.species)
        print(f"{n} inputs of exciting in {args.work / 'exciting'}")
    elif args.step == "summary":
        try:
            table = write_results(database, args.work / "results.json")
        except RuntimeError as error:
            parser.error(str(error))
        for row in table:
            print("  ".join(f"{value}" for value in row.values()))
    elif not args.url:
        parser.error("publish needs --url")
    else:
        return publish(
            database,
            args.work / "campaign",
            url=args.url,
            token_file=args.token_file,
            dry_run=args.dry_run,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
