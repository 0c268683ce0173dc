"""`epitaxy predict ARTIFACT FILES...`: energies, forces and stresses of many structures."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from epitaxy_calculator import inputs

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

    from epitaxy_calculator.calculator import PotentialCalculator
    from epitaxy_calculator.comparison import Comparison
    from epitaxy_calculator.recording import Recording, UncertaintyWatch
    from epitaxy_calculator.steps import Steps

NAMES = ("predictions.extxyz", "predictions.csv", "predictions.png")
FRAMES_AT_ONCE = 256
"""Frames in memory: files of any length are read in pieces."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    inputs.add_arguments(parser, output="predictions", many_files=True)


def run(args: Namespace) -> int:
    """Predict all frames of all files; the exit status is 1 if some were refused.

    Raises:
        DataError: all of them were refused.
    """
    from epitaxy.errors import DataError
    from epitaxy_calculator.comparison import Comparison, describe, plot
    from epitaxy_calculator.recording import Recording, UncertaintyWatch
    from epitaxy_calculator.steps import Steps

    inputs.check_files(args.output, sources=args.files, names=NAMES, overwrite=args.overwrite)
    calculator = inputs.load_calculator(args)
    is_new = not args.output.exists()
    folder = inputs.make_folder(args.output)
    watch = UncertaintyWatch(args.threshold)
    comparison = Comparison()
    refused: list[str] = []
    stopped = ""
    damaged: list[str] = []
    with Recording(folder, "predictions", aside=True) as recording, Steps("predict") as steps:
        try:
            for path in args.files:
                try:
                    for frames in _pieces(path):
                        refused += _predict(
                            calculator, path, frames, recording, steps, watch, comparison
                        )
                except DataError as error:
                    damaged.append(str(error))
                    steps.note(f"error: {error}")
        except KeyboardInterrupt:
            stopped = "interrupted: "
    if recording.n_frames:
        recording.publish()
        inputs.remove_results(folder, names=("predictions.png",))
        plot(comparison, recording, folder / "predictions.png", threshold=args.threshold)
    elif is_new:
        folder.rmdir()
    if not (recording.n_frames or stopped):
        reasons = [*damaged, *refused]
        more = f" (and {len(reasons) - 1} more like it)" if len(reasons) > 1 else ""
        raise DataError(f"nothing could be predicted or written: {reasons[0]}{more}")
    print(f"{stopped}{recording.n_frames} structures predicted, {len(refused)} refused")
    if damaged:
        print(f"{len(damaged)} of {len(args.files)} files could not be read to their end")
    if recording.rows:
        print(watch.summary())
        if (evaluation := comparison.evaluation()) is not None:
            print(describe(evaluation))
        print(f"results are in {folder}")
    if stopped:
        return 130
    return 1 if refused or damaged else 0


def _pieces(path: Path) -> Iterator[list[tuple[int, Atoms]]]:
    from epitaxy.errors import DataError

    piece: list[tuple[int, Atoms]] = []
    try:
        for index, atoms in enumerate(inputs.read_frames(path)):
            piece.append((index, atoms))
            if len(piece) == FRAMES_AT_ONCE:
                yield piece
                piece = []
    except DataError:
        if piece:
            yield piece  # what was read before the damage is predicted
        raise
    if piece:
        yield piece


def _predict(
    calculator: PotentialCalculator,
    path: Path,
    frames: list[tuple[int, Atoms]],
    recording: Recording,
    steps: Steps,
    watch: UncertaintyWatch,
    comparison: Comparison,
) -> list[str]:
    """Predict one piece of a file; return the reasons of the refused frames."""
    from epitaxy_calculator.recording import largest_force, pressure, uncertainty_columns

    predicted, refused = _results(calculator, path, frames)
    for message in refused:
        steps.note(f"refused: {message}")
    for (index, atoms), results in predicted:
        recording.add_frame(atoms, results)
        comparison.see(atoms, results, name=f"{path}, frame {index}")
        recording.add_row(
            {
                "file": str(path),
                "frame": index,
                "formula": atoms.get_chemical_formula(),
                "n_atoms": len(atoms),
                "energy_eV": results["energy"],
                "energy_per_atom_eV": results["energy"] / len(atoms),
                "max_force_eV_per_A": largest_force(results),
                "pressure_GPa": pressure(results),
                **uncertainty_columns(results),
            }
        )
        steps.note(watch.see(results, f"{path}, frame {index}"))
    steps.at(recording.n_frames, str(path))
    return refused


def _results(
    calculator: PotentialCalculator, path: Path, frames: list[tuple[int, Atoms]]
) -> tuple[list[tuple[tuple[int, Atoms], dict[str, Any]]], list[str]]:
    """Return the results of the usable frames, together, and why the others are not."""
    from epitaxy.errors import StructureError

    names = [f"{path}, frame {index}" for index, _ in frames]
    try:
        found = calculator.predict([atoms for _, atoms in frames], names=names)
        return list(zip(frames, found, strict=True)), []
    except StructureError:
        pass  # found one by one below
    predicted, refused = [], []
    for (index, atoms), name in zip(frames, names, strict=True):
        try:
            predicted.append(((index, atoms), calculator.predict([atoms], names=[name])[0]))
        except StructureError as error:
            refused.append(str(error))
    return predicted, refused
