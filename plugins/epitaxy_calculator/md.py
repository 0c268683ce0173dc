"""`epitaxy md ARTIFACT FILE`: molecular dynamics with an error bar."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from epitaxy_calculator import inputs

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from epitaxy_calculator.recording import Recording, UncertaintyWatch
    from epitaxy_calculator.steps import Steps

NAMES = ("md.extxyz", "md.csv", "md.png")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    inputs.add_arguments(parser, output="md")
    parser.add_argument("--steps", type=inputs.count, default=1000, help="(default: 1000)")
    parser.add_argument(
        "--timestep", type=inputs.positive, default=1.0, help="fs (default: 1; less with hydrogen)"
    )
    parser.add_argument(
        "--temperature",
        type=inputs.not_negative,
        default=300.0,
        help="K, above 0 with a thermostat (default: 300)",
    )
    parser.add_argument(
        "--ensemble",
        choices=("nve", "nvt", "npt"),
        default="nvt",
        help="what is held constant (default: nvt)",
    )
    parser.add_argument(
        "--thermostat",
        choices=("bussi", "langevin"),
        default="bussi",
        help="for nvt (default: bussi, stochastic velocity rescaling)",
    )
    parser.add_argument(
        "--relaxation-time",
        type=inputs.positive,
        default=100.0,
        help="of the thermostat, fs (default: 100; the barostat takes ten times longer)",
    )
    parser.add_argument("--pressure", type=float, default=0.0, help="for npt, GPa (default: 0)")
    parser.add_argument(
        "--repeat", type=inputs.count, nargs=3, default=(1, 1, 1), help="supercell, as 2 2 2"
    )
    parser.add_argument(
        "--every", type=inputs.count, default=10, help="steps between frames (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of velocities and thermostat")


def run(args: Namespace) -> int:
    """Run the dynamics; the exit status is 0 if it came to its end, 130 if interrupted."""
    import numpy as np

    from epitaxy.errors import ConfigError, StructureError
    from epitaxy_calculator.recording import Recording, UncertaintyWatch
    from epitaxy_calculator.steps import Steps

    if args.ensemble != "nve" and args.temperature == 0:
        raise ConfigError(
            f"--temperature 0 with --ensemble {args.ensemble}: a thermostat needs a temperature "
            f"above 0 K; use `epitaxy relax` for the minimum, or --ensemble nve"
        )
    inputs.check_files(args.output, sources=[args.file], names=NAMES, overwrite=args.overwrite)
    atoms = inputs.read_structure(args.file, index=args.index) * tuple(args.repeat)
    if args.ensemble == "npt" and not atoms.pbc.all():
        raise ConfigError(
            f"npt needs a structure that is periodic in three directions; {args.file} has "
            f"pbc={atoms.pbc.tolist()}: use nvt"
        )
    inputs.attach(atoms, inputs.load_calculator(args), path=args.file, index=args.index)
    rng = np.random.default_rng(args.seed)
    if np.any(atoms.get_momenta()):
        print(f"velocities from {args.file} ({atoms.get_temperature():.0f} K)")
    else:
        draw_velocities(atoms, temperature=args.temperature, rng=rng)
    try:
        dynamics = _dynamics(atoms, args, rng)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"{args.file}: no {args.ensemble} of this structure: {error}") from error
    folder = inputs.make_folder(args.output)
    inputs.remove_results(folder, names=NAMES)
    watch = UncertaintyWatch(args.threshold)
    stopped = ""
    failure: StructureError | None = None
    with Recording(folder, "md") as recording, Steps("md", total=args.steps) as steps:
        try:
            # A run that blows up overflows first; its positions are then refused by name.
            with np.errstate(over="ignore", invalid="ignore"):
                _run(dynamics, atoms, args, recording, steps, watch)
        except KeyboardInterrupt:
            stopped = "interrupted"
        except StructureError as error:
            failure = error
    if recording.rows:
        _plot(recording, folder / "md.png", threshold=args.threshold)
        outcome = stopped or ("stopped" if failure else "done")
        print(f"{outcome}; {recording.n_frames} frames of {len(atoms)} atoms kept")
        _report(recording, len(atoms), is_conserved=args.ensemble == "nve")
        print(watch.summary())
    print(f"results are in {folder}")
    if failure is not None:
        raise StructureError(
            f"the run cannot go on: {failure}; {recording.kept} "
            f"(a smaller --timestep, or a better model, may help)"
        ) from failure
    return 130 if stopped else 0


def draw_velocities(atoms: Atoms, *, temperature: float, rng: np.random.Generator) -> None:
    """Draw Maxwell-Boltzmann velocities, without a motion of the whole.

    In a perfect crystal half of the kinetic energy goes into vibrations: without a thermostat
    the temperature falls to about half.

    Args:
        atoms: changed in place.
        temperature: K.
        rng: where the numbers come from.
    """
    import numpy as np
    from ase import units

    masses = atoms.get_masses()[:, None]  # (n_atoms, 1)
    momenta = np.sqrt(masses * units.kB * temperature) * rng.normal(size=(len(atoms), 3))
    if len(atoms) > 1:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)


def _dynamics(atoms: Atoms, args: Namespace, rng: np.random.Generator) -> Any:
    """Return ASE's integrator for the ensemble.

    Sources: thermostat, Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007);
    barostat, Martyna, Tobias, Klein, J. Chem. Phys. 101, 4177 (1994), both as in ASE.
    """
    from ase import units

    timestep = args.timestep * units.fs
    time = args.relaxation_time * units.fs
    if args.ensemble == "nve":
        from ase.md.verlet import VelocityVerlet

        return VelocityVerlet(atoms, timestep)
    if args.ensemble == "npt":
        from ase.md.nose_hoover_chain import IsotropicMTKNPT

        return IsotropicMTKNPT(
            atoms,
            timestep,
            temperature_K=args.temperature,
            pressure_au=args.pressure * units.GPa,
            tdamp=time,
            pdamp=10 * time,
        )
    if args.thermostat == "langevin":
        from ase.md.langevin import Langevin

        return Langevin(
            atoms,
            timestep,
            temperature_K=args.temperature,
            friction=1 / time,
            fixcm=False,
            rng=rng,
        )
    from ase.md.bussi import Bussi

    return Bussi(atoms, timestep, temperature_K=args.temperature, taut=time, rng=rng)


def _run(
    dynamics: Any,
    atoms: Atoms,
    args: Namespace,
    recording: Recording,
    steps: Steps,
    watch: UncertaintyWatch,
) -> None:
    for step, _ in enumerate(dynamics.irun(steps=args.steps)):
        if step % args.every and step != args.steps:
            continue
        atoms.get_potential_energy()
        results = atoms.calc.results
        row = _row(step, args.timestep, atoms, results)
        recording.add_frame(atoms, results)
        recording.add_row(row)
        steps.at(step, f"T = {row['temperature_K']:.0f} K, E = {row['total_energy_eV']:.4f} eV")
        steps.note(watch.see(results, f"step {step}"))


def _row(step: int, timestep: float, atoms: Atoms, results: dict[str, Any]) -> dict[str, Any]:
    from epitaxy_calculator.recording import largest_force, pressure, uncertainty_columns

    kinetic = float(atoms.get_kinetic_energy())
    row: dict[str, Any] = {
        "step": step,
        "time_fs": step * timestep,
        "temperature_K": float(atoms.get_temperature()),
        "energy_eV": results["energy"],
        "kinetic_energy_eV": kinetic,
        "total_energy_eV": results["energy"] + kinetic,
        "max_force_eV_per_A": largest_force(results),
    }
    if atoms.pbc.all():
        row["volume_A3"] = float(atoms.get_volume())
        row["potential_pressure_GPa"] = pressure(results)
    return {**row, **uncertainty_columns(results)}


def _report(recording: Recording, n_atoms: int, *, is_conserved: bool) -> None:
    import numpy as np

    last = recording.rows[-1]
    temperature = recording.column("temperature_K")
    half = len(temperature) // 2
    print(f"  last step {last['step']}, {last['time_fs']:g} fs")
    print(
        f"  temperature of the second half {temperature[half:].mean():.0f} ± "
        f"{temperature[half:].std():.0f} K"
    )
    time, total = recording.column("time_fs"), recording.column("total_energy_eV")
    if is_conserved and len(time) > 2:
        slope = np.polyfit(time, total, 1)[0]
        print(f"  drift of the total energy {1e6 * slope / n_atoms:+.3g} meV/atom/ps")


def _plot(recording: Recording, path: Any, *, threshold: float) -> None:
    import numpy as np

    from epitaxy.evaluation.plots import COLORS, new_figure, write_figure

    has_uncertainty = "energy_std_eV" in recording.rows[0]
    time = recording.column("time_fs") / 1000
    figure, axes = new_figure(4.3, 3.4, columns=3 if has_uncertainty else 2)
    temperature = recording.column("temperature_K")
    axes[0].plot(time, temperature, lw=1, color=COLORS[0])
    axes[0].axhline(float(np.mean(temperature)), color="0.5", lw=1, ls="--", label="mean")
    axes[0].set_ylabel("temperature (K)")
    axes[0].legend(frameon=False, fontsize=8)
    for name, label, color in (
        ("energy_eV", "potential", COLORS[0]),
        ("total_energy_eV", "total", COLORS[1]),
    ):
        energy = recording.column(name)
        axes[1].plot(time, energy - energy[0], lw=1, color=color, label=label)
    if has_uncertainty:
        force_std = recording.column("max_force_std_eV_per_A")
        axes[2].plot(time, force_std, lw=1, color=COLORS[0])
        axes[2].axhline(threshold, color=COLORS[1], lw=1, ls="--", label="threshold")
        axes[2].set_ylim(bottom=0)
        axes[2].set_ylabel("largest std of a force (eV/Å)")
        axes[2].legend(frameon=False, fontsize=8)
    axes[1].set_ylabel("energy since the start (eV)")
    axes[1].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.set_xlabel("time (ps)")
    write_figure(figure, path)
