"""`epitaxy eos ARTIFACT FILE`: equilibrium volume and bulk modulus from E(V)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from epitaxy_calculator import inputs

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

    from epitaxy.evaluation.eos import EquationOfState
    from epitaxy_calculator.recording import Recording, UncertaintyWatch
    from epitaxy_calculator.steps import Steps

NAMES = ("eos.extxyz", "eos.csv", "eos.png", "eos.json")
FORCE_TO_MENTION = 0.05
"""eV/Å: above it, atoms that are not relaxed change the bulk modulus."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    inputs.add_arguments(parser, output="eos")
    parser.add_argument(
        "--strain",
        type=inputs.positive,
        default=0.06,
        help="largest relative change of the volume, both ways (default: 0.06, as in the Delta "
        "test of density functional codes)",
    )
    parser.add_argument("--points", type=inputs.count, default=11, help="volumes (default: 11)")
    parser.add_argument(
        "--relax", action="store_true", help="relax the atoms at each volume (not the cell's shape)"
    )
    parser.add_argument(
        "--fmax", type=inputs.positive, default=0.01, help="for --relax (default: 0.01 eV/Å)"
    )


def run(args: Namespace) -> int:
    """Scan the volume and fit; the exit status is 1 if the minimum is outside the scan."""
    from epitaxy.errors import ConfigError, DataError, StructureError
    from epitaxy.evaluation.eos import fit_equation_of_state
    from epitaxy_calculator.recording import Recording, UncertaintyWatch
    from epitaxy_calculator.steps import Steps

    if args.points < 5 or args.strain >= 1:
        raise ConfigError(
            f"--points {args.points} --strain {args.strain:g}: a fit with error bars needs "
            f"5 points or more, and a strain below 1"
        )
    inputs.check_files(args.output, sources=[args.file], names=NAMES, overwrite=args.overwrite)
    atoms = inputs.read_structure(args.file, index=args.index)
    if not atoms.pbc.all():
        raise ConfigError(
            f"an equation of state needs a structure that is periodic in three directions; "
            f"{args.file} has pbc={atoms.pbc.tolist()}"
        )
    inputs.attach(atoms, inputs.load_calculator(args), path=args.file, index=args.index)
    folder = inputs.make_folder(args.output)
    watch = UncertaintyWatch(args.threshold)
    members: list[Any] = []
    stopped = False
    with (
        Recording(folder, "eos", aside=True) as recording,
        Steps("eos", total=args.points) as steps,
    ):
        try:
            members = _scan(atoms, args, recording, steps, watch)
        except KeyboardInterrupt:
            stopped = True
        except StructureError as error:
            raise StructureError(f"the scan cannot go on: {error}; {recording.kept}") from error
    if recording.n_frames:
        recording.publish()
        inputs.remove_results(folder, names=("eos.png", "eos.json"))
    if stopped:
        print(f"interrupted: {recording.n_frames} of {args.points} volumes are in {folder}")
        return 130
    volumes, energies = recording.column("volume_A3"), recording.column("energy_eV")
    try:
        fit = fit_equation_of_state(volumes, energies)
    except DataError as error:
        raise DataError(f"{error}; the energies are in {recording.table}") from error
    member_fits = _member_fits(volumes, members)
    _plot(recording, fit, folder / "eos.png", n_atoms=len(atoms))
    _report(fit, member_fits, atoms, folder)
    print(watch.summary())
    largest = float(recording.column("max_force_eV_per_A").max())
    if largest > FORCE_TO_MENTION:
        print(
            f"note: forces up to {largest:.3g} eV/Å are left"
            + ("" if args.relax else "; --relax relaxes the atoms at each volume")
        )
    if not fit.is_inside_range:
        print(
            f"warning: the minimum, {fit.volume:.4f} Å^3, lies outside the scanned "
            f"{volumes.min():.4f} to {volumes.max():.4f} Å^3: start from the relaxed cell "
            f"(`epitaxy relax --cell`)"
        )
    print(f"results are in {folder}")
    return 0 if fit.is_inside_range else 1


def _scan(
    atoms: Atoms, args: Namespace, recording: Recording, steps: Steps, watch: UncertaintyWatch
) -> list[Any]:
    """Evaluate all volumes; return the energies of the members at each, empty without any."""
    import numpy as np
    from ase.optimize import LBFGS

    from epitaxy_calculator.recording import largest_force, pressure, uncertainty_columns

    members = []
    ratios = np.linspace(1 - args.strain, 1 + args.strain, args.points)
    for index, ratio in enumerate(ratios):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
        scaled.calc = atoms.calc
        if args.relax:
            LBFGS(scaled, logfile=None).run(fmax=args.fmax, steps=500)
        scaled.get_forces()
        results = scaled.calc.results
        recording.add_frame(scaled, results)
        recording.add_row(
            {
                "volume_A3": float(scaled.get_volume()),
                "energy_eV": results["energy"],
                "pressure_GPa": pressure(results),
                "max_force_eV_per_A": largest_force(results),
                **uncertainty_columns(results),
            }
        )
        members.append(results.get("energy_members", ()))
        steps.at(index + 1, f"V/V(file) = {ratio:.3f}")
        steps.note(watch.see(results, f"V/V(file) = {ratio:.3f}"))
    return members if len(members[0]) else []


def _member_fits(volumes: Any, members: list[Any]) -> list[EquationOfState]:
    """Fit each member by itself: their spread is the error bar of V0 and B0."""
    import numpy as np

    from epitaxy.errors import DataError
    from epitaxy.evaluation.eos import fit_equation_of_state

    fits = []
    for energies in np.array(members).T:  # (n_members, n_volumes)
        try:
            fits.append(fit_equation_of_state(volumes, energies))
        except DataError:
            return []  # a member without a minimum: no honest error bar
    return fits


def _report(
    fit: EquationOfState, member_fits: list[EquationOfState], atoms: Atoms, folder: Path
) -> None:
    import json

    import numpy as np

    from epitaxy.evaluation.eos import GPA_PER_EV_PER_CUBIC_ANGSTROM
    from epitaxy_calculator.recording import write_text

    relaxed = atoms.copy()
    relaxed.set_cell(atoms.cell.array * (fit.volume / atoms.get_volume()) ** (1 / 3))
    lattice = relaxed.cell.get_bravais_lattice(eps=1e-4)
    parameters = {name: float(value) for name, value in lattice.vars().items()}
    spread = [f.volume for f in member_fits]
    found = {
        "n_atoms": len(atoms),
        "energy_eV": fit.energy,
        "volume_A3": fit.volume,
        "volume_std_A3": float(np.std(spread)) if member_fits else None,
        "bulk_modulus_GPa": fit.bulk_modulus_gpa,
        "bulk_modulus_std_GPa": (
            float(np.std([f.bulk_modulus_gpa for f in member_fits])) if member_fits else None
        ),
        "bulk_modulus_derivative": fit.bulk_modulus_derivative,
        "bulk_modulus_derivative_std": (
            float(np.std([f.bulk_modulus_derivative for f in member_fits])) if member_fits else None
        ),
        "lattice": lattice.name,
        "lattice_parameters": parameters,
        "fit_residual_eV": fit.residual,
        "fit_standard_errors": {
            "volume_A3": _finite(fit.std[1]),
            "bulk_modulus_GPa": _finite(fit.std[2] * GPA_PER_EV_PER_CUBIC_ANGSTROM),
            "bulk_modulus_derivative": _finite(fit.std[3]),
        },
        "is_minimum_inside_scan": fit.is_inside_range,
    }
    write_text(folder / "eos.json", json.dumps(found, indent=2) + "\n")

    def line(symbol: str, value: float, std: float | None, unit: str) -> None:
        bar = f" ± {std:.2g}" if std is not None else ""
        print(f"  {symbol:10} {value:.6g}{bar} {unit}")

    print(
        f"third-order Birch-Murnaghan, {len(atoms)} atoms; ± is the spread of the members"
        if member_fits
        else f"third-order Birch-Murnaghan, {len(atoms)} atoms"
    )
    n_atoms = len(atoms)
    std = found["volume_std_A3"]
    line("V0", fit.volume / n_atoms, None if std is None else std / n_atoms, "Å^3/atom")
    line("E0", fit.energy / n_atoms, None, "eV/atom")
    line("B0", fit.bulk_modulus_gpa, found["bulk_modulus_std_GPa"], "GPa")
    line("B0'", fit.bulk_modulus_derivative, found["bulk_modulus_derivative_std"], "")
    print(
        f"  {lattice.name:10} "
        + ", ".join(f"{name} = {value:.5g}" for name, value in parameters.items())
    )


def _finite(value: float) -> float | None:
    return float(value) if abs(value) < float("inf") else None


def _plot(recording: Recording, fit: EquationOfState, path: Path, *, n_atoms: int) -> None:
    import numpy as np

    from epitaxy.evaluation.eos import GPA_PER_EV_PER_CUBIC_ANGSTROM
    from epitaxy.evaluation.plots import COLORS, new_figure, write_figure

    volumes, energies = recording.column("volume_A3"), recording.column("energy_eV")
    std = recording.column("energy_std_eV") if "energy_std_eV" in recording.rows[0] else None
    dense = np.linspace(volumes.min(), volumes.max(), 200)
    figure, (left, right) = new_figure(4.6, 3.8, columns=2)
    per_atom = 1000 / n_atoms
    left.plot(
        dense / n_atoms,
        per_atom * (fit.energy_at(dense) - fit.energy),
        color=COLORS[0],
        label="fit",
    )
    left.errorbar(
        volumes / n_atoms,
        per_atom * (energies - fit.energy),
        yerr=None if std is None else per_atom * std,
        fmt="o",
        ms=4,
        color=COLORS[1],
        elinewidth=1,
        label="model" if std is None else "model ± std",
    )
    left.set_ylabel("energy above the minimum (meV/atom)")
    right.plot(
        dense / n_atoms,
        fit.pressure_at(dense) * GPA_PER_EV_PER_CUBIC_ANGSTROM,
        color=COLORS[0],
        label="slope of the fit",
    )
    right.plot(
        volumes / n_atoms,
        recording.column("pressure_GPa"),
        "o",
        ms=4,
        color=COLORS[1],
        label="model's stress",
    )
    right.axhline(0, color="0.6", lw=0.8)
    right.set_ylabel("pressure (GPa)")
    for axis in (left, right):
        axis.set_xlabel("volume (Å³/atom)")
        axis.axvline(fit.volume / n_atoms, color="0.6", lw=0.8, ls="--")
        axis.legend(frameon=False, fontsize=8)
    left.set_title(
        f"V0 = {fit.volume / n_atoms:.3f} Å³/atom, B0 = {fit.bulk_modulus_gpa:.1f} GPa, "
        f"B0' = {fit.bulk_modulus_derivative:.2f}",
        fontsize=9,
    )
    write_figure(figure, path)
