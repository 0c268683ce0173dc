"""`epitaxy evaluate ARTIFACT DATASET`: how good is a model on labelled data?"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.errors import EpitaxyError

if TYPE_CHECKING:
    from epitaxy.evaluation.metrics import Errors, Evaluation


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("artifact", type=Path, help="folder of a trained model")
    parser.add_argument("dataset", type=Path, help="folder of a dataset (see `epitaxy ingest`)")
    parser.add_argument(
        "--split", type=Path, help="compare only one part of this split (RUN/split.json)"
    )
    parser.add_argument(
        "--part", choices=("train", "valid", "test"), default="test", help="which part (test)"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for the table and the plots")
    parser.add_argument("--group", default="", help="tag by which errors are also listed")
    parser.add_argument("--worst", type=int, default=5, help="how many of the worst to name")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: Namespace) -> int:
    """Predict, compare, print, and write plots if a folder is given."""
    from epitaxy.artifact import load_artifact
    from epitaxy.dataset import Dataset
    from epitaxy.evaluation.metrics import evaluate
    from epitaxy.split import TEST_PART, Split, tagged_test

    artifact = load_artifact(args.artifact)
    dataset = Dataset.open(args.dataset)
    if args.split:
        split = Split.load(args.split, dataset)
        dataset = getattr(split, args.part)
        if args.part == "test":
            dataset = tagged_test(split)
            if TEST_PART in dataset.tags and not args.group:
                args.group = TEST_PART
    evaluation = evaluate(artifact.model.predict(dataset), dataset, group=args.group)
    numbers = as_json(evaluation)
    if args.json:
        print(json.dumps(numbers, indent=2))
    else:
        print_tables(evaluation, worst=args.worst)
    if args.output:
        for path in write(evaluation, args.output, groups=_groups(dataset, args.group)):
            print(f"wrote {path}")
    return 0


def _groups(dataset: Any, group: str) -> list[str]:
    return list(dataset.tag(group)) if group else []


def write(evaluation: Evaluation, directory: Path, *, groups: list[str]) -> list[Path]:
    """Write evaluation.json, parity.png and, with uncertainties, calibration.png."""
    from epitaxy.evaluation.plots import plot_calibration, plot_parity

    table = directory / "evaluation.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        table.write_text(json.dumps(as_json(evaluation), indent=2) + "\n")
    except OSError as error:
        raise EpitaxyError(f"{table} could not be written: {error.strerror or error}") from error
    written = [table]
    wanted = [n for n in ("energy", "forces", "stress") if n in evaluation.compared]
    written.append(plot_parity(evaluation, directory / "parity.png", targets=wanted, groups=groups))
    calibration = {n: evaluation.calibration[n] for n in wanted if n in evaluation.calibration}
    if calibration:
        written.append(plot_calibration(calibration, directory / "calibration.png"))
    return written


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return all numbers of an evaluation as plain data."""
    return {
        "n_structures": evaluation.n_structures,
        "errors": {n: asdict(e) for n, e in evaluation.errors.items()},
        "by_group": {
            g: {n: asdict(e) for n, e in rows.items()} for g, rows in evaluation.by_group.items()
        },
        "calibration": {
            n: {
                "scale": c.scale,
                "coverage": list(c.coverage),
                "rank_correlation": c.rank_correlation,
                "expected_calibration_error": c.expected_calibration_error,
                "bins": c.bins.tolist(),
            }
            for n, c in evaluation.calibration.items()
        },
    }


def print_tables(evaluation: Evaluation, *, worst: int = 5) -> None:
    """Print the errors, by group if asked, and the calibration of the error bars."""
    from rich.console import Console
    from rich.table import Table

    from epitaxy.evaluation.calibration import NORMAL_COVERAGE

    console = Console(width=None if Console().is_terminal else 110)
    table = Table(title=f"Errors on {evaluation.n_structures} structures", title_justify="left")
    for heading in ("group", "target", "values", "MAE", "RMSE", "largest", "bias"):
        table.add_column(heading, justify="left" if heading in ("group", "target") else "right")
    for group, rows in (("all", evaluation.errors), *evaluation.by_group.items()):
        for name, errors in rows.items():
            table.add_row(group, name, str(errors.n), *_formatted(errors))
        table.add_section()
    console.print(table)
    for name, result in evaluation.calibration.items():
        console.print(
            f"error bars of {name}: {result.coverage[0]:.0%} of errors within 1 std (normal: "
            f"{NORMAL_COVERAGE[0]:.0%}), {result.coverage[1]:.0%} within 2 "
            f"({NORMAL_COVERAGE[1]:.0%}); error/std {result.scale:.2f}; rank correlation "
            f"{result.rank_correlation:.2f}",
            highlight=False,
        )
    for name in evaluation.errors:
        entries = ", ".join(f"{i} ({e:.3g})" for i, e in evaluation.worst(name, worst))
        if worst:
            console.print(f"worst by {name}: {entries}", highlight=False)


def _formatted(errors: Errors) -> tuple[str, ...]:
    from epitaxy.quantities import readable_unit

    factor, unit = readable_unit(errors.unit)
    return tuple(
        f"{value * factor:.4g} {unit}"
        for value in (errors.mae, errors.rmse, errors.max, errors.bias)
    )
