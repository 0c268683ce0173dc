"""`epitaxy relax ARTIFACT FILE`: move the atoms, and the cell if asked, to the nearest minimum."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from epitaxy_calculator import inputs

if TYPE_CHECKING:
    from ase import Atoms

    from epitaxy_calculator.recording import Recording, UncertaintyWatch
    from epitaxy_calculator.steps import Steps

NAMES = ("relax.extxyz", "relax.csv", "relax.png", "relaxed.extxyz")
OPTIMIZERS = {"lbfgs": "LBFGS", "bfgs": "BFGS", "fire": "FIRE"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    inputs.add_arguments(parser, output="relax")
    parser.add_argument(
        "--fmax",
        type=inputs.positive,
        default=0.01,
        help="stop when no force exceeds this (default: 0.01 eV/Å)",
    )
    parser.add_argument("--steps", type=inputs.count, default=500, help="at most (default: 500)")
    parser.add_argument("--cell", action="store_true", help="relax the cell too")
    parser.add_argument(
        "--pressure", type=float, default=0.0, help="with --cell: pressure in GPa (default: 0)"
    )
    parser.add_argument(
        "--optimizer", choices=tuple(OPTIMIZERS), default="lbfgs", help="(default: lbfgs)"
    )


def run(args: Namespace) -> int:
    """Relax; the exit status is 0 if it converged, 1 if not, 130 if interrupted."""
    from epitaxy.errors import ConfigError, EpitaxyError
    from epitaxy_calculator.recording import Recording, UncertaintyWatch, write_structure
    from epitaxy_calculator.steps import Steps

    inputs.check_files(args.output, sources=[args.file], names=NAMES, overwrite=args.overwrite)
    atoms = inputs.read_structure(args.file, index=args.index)
    if args.cell and not atoms.pbc.all():
        raise ConfigError(
            f"--cell needs a structure that is periodic in three directions; {args.file} has "
            f"pbc={atoms.pbc.tolist()}"
        )
    inputs.attach(atoms, inputs.load_calculator(args), path=args.file, index=args.index)
    folder = inputs.make_folder(args.output)
    inputs.remove_results(folder, names=NAMES)
    watch = UncertaintyWatch(args.threshold)
    stopped = ""
    converged = False
    with Recording(folder, "relax") as recording, Steps("relax", total=args.steps) as steps:
        try:
            converged = _relax(atoms, args, recording, steps, watch)
        except KeyboardInterrupt:
            stopped = "interrupted"
    last = recording.rows[-1] if recording.rows else {}
    if recording.rows and not stopped:
        try:
            write_structure(folder / "relaxed.extxyz", atoms, atoms.calc.results)
        except EpitaxyError as error:
            raise EpitaxyError(
                f"{error}; {recording.trajectory} is complete, its last frame is that structure"
            ) from error
    if recording.rows:
        _plot(recording, folder / "relax.png", fmax=args.fmax)
    outcome = stopped or ("converged" if converged else "not converged")
    n_steps = last.get("step", 0)
    print(f"{outcome} after {n_steps} steps; {recording.n_frames} frames kept")
    for name, value in last.items():
        if name != "step":
            print(f"  {name:24} {value:.8g}")
    print(watch.summary())
    if not converged and not stopped:
        print(f"give more --steps, or go on from {recording.trajectory}")
    print(f"results are in {folder}")
    return 130 if stopped else 0 if converged else 1


def _relax(
    atoms: Atoms, args: Namespace, recording: Recording, steps: Steps, watch: UncertaintyWatch
) -> bool:
    import ase.optimize
    from ase.filters import FrechetCellFilter

    from epitaxy.evaluation.eos import GPA_PER_EV_PER_CUBIC_ANGSTROM

    target: Any = atoms
    if args.cell:
        target = FrechetCellFilter(
            atoms, scalar_pressure=args.pressure / GPA_PER_EV_PER_CUBIC_ANGSTROM
        )
    optimizer = getattr(ase.optimize, OPTIMIZERS[args.optimizer])(target, logfile=None)
    has_converged = False
    for step, is_converged in enumerate(optimizer.irun(fmax=args.fmax, steps=args.steps)):
        has_converged = bool(is_converged)
        results = atoms.calc.results
        row = _row(step, atoms, results)
        recording.add_frame(atoms, results)
        recording.add_row(row)
        steps.at(step, f"E = {row['energy_eV']:.5f} eV, F = {row['max_force_eV_per_A']:.4f} eV/Å")
        steps.note(watch.see(results, f"step {step}"))
    return has_converged


def _row(step: int, atoms: Atoms, results: dict[str, Any]) -> dict[str, Any]:
    from epitaxy_calculator.recording import largest_force, pressure, uncertainty_columns

    row: dict[str, Any] = {
        "step": step,
        "energy_eV": results["energy"],
        # Of the atoms that may move: a file can bring constraints.
        "max_force_eV_per_A": largest_force({"forces": atoms.get_forces()}),
    }
    if atoms.pbc.all():
        row["volume_A3"] = float(atoms.get_volume())
        row["pressure_GPa"] = pressure(results)
    return {**row, **uncertainty_columns(results)}


def _plot(recording: Recording, path: Any, *, fmax: float) -> None:
    import numpy as np

    from epitaxy.evaluation.plots import COLORS, new_figure, write_figure

    step = recording.column("step")
    energy = 1000 * recording.column("energy_eV")
    figure, (left, right) = new_figure(4.6, 3.6, columns=2)
    above = energy - energy.min()
    lowest = above[above > 0].min(initial=1.0)
    left.semilogy(step, np.maximum(above, lowest), "o-", ms=3, color=COLORS[0], label="energy")
    left.set_ylabel("energy above the lowest (meV)")
    force = recording.column("max_force_eV_per_A")
    right.semilogy(step, np.maximum(force, 1e-12), "o-", ms=3, color=COLORS[0], label="force")
    right.axhline(fmax, color="0.5", lw=1, ls="--", label="fmax")
    right.set_ylabel("largest force (eV/Å)")
    for axis, name, factor in (
        (left, "energy_std_eV", 1000),
        (right, "max_force_std_eV_per_A", 1),
    ):
        if name in recording.rows[0]:
            std = factor * recording.column(name)
            axis.semilogy(step, std, "s-", ms=3, color=COLORS[1], label="its std")
        axis.set_xlabel("step")
        axis.legend(frameon=False, fontsize=8)
    write_figure(figure, path)
