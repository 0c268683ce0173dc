"""`epitaxy clean`: drop unusable entries, duplicates and outliers of a dataset."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.commands.ingest import add_check_arguments, checks_of
from epitaxy.errors import ConfigError

if TYPE_CHECKING:
    from epitaxy.curation.recipe import Step
    from epitaxy.dataset import Dataset


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, help="dataset to check")
    parser.add_argument("-o", "--output", type=Path, required=True, help="dataset to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="YAML list of operations to run instead of the usual checks "
        "(`epitaxy info DATASET --recipe` prints one)",
    )
    add_check_arguments(parser)
    parser.add_argument(
        "--keep-outliers", action="store_true", help="keep energies that no chemistry explains"
    )


def run(args: Namespace) -> int:
    """Run the recipe, write what it makes, and return 0."""
    from epitaxy.commands.ingest_progress import telling
    from epitaxy.curation.cleaning import clean
    from epitaxy.curation.recipe import read_recipe
    from epitaxy.dataset import Dataset

    dataset = Dataset.open(args.dataset, verify=True)
    if args.recipe is not None:
        _refuse_both(args)
        steps = read_recipe(args.recipe)
    else:
        steps = _usual_steps(args, dataset)
    with telling(str(args.dataset)) as tell:
        report = clean(dataset, args.output, recipe=steps, overwrite=args.overwrite, tell=tell)
    for line in report.lines:
        print(line)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{len(report.dataset):,} of {report.n_seen:,} entries kept")
    n_atoms = int(report.dataset.n_atoms.sum())
    print(
        f"{args.output}: {len(report.dataset):,} structures, {n_atoms:,} atoms, "
        f"digest {report.dataset.digest[:12]}"
    )
    return 0


def _usual_steps(args: Namespace, dataset: Dataset) -> tuple[Step, ...]:
    from epitaxy.curation.recipe import default_recipe

    checks = checks_of(args)
    require = checks.require
    if require is None:
        require = ("energy",) if {"energy", "forces"} <= set(dataset.targets) else ()
    limits = {name: None if v is None else list(v) for name, v in checks.limits.items()}
    return default_recipe(
        dataset,
        frames={
            "require": list(require),
            "or_property": checks.require is None,
            "max_force": checks.max_force,
            "min_distance": checks.min_distance,
            "max_energy": checks.max_energy,
            "limits": limits,
        },
        duplicates=checks.duplicates,
        outliers=not args.keep_outliers,
        consistency={
            "on_inconsistent": args.on_inconsistent,
            "labels": not args.no_consistency_check,
        },
    )


def _refuse_both(args: Namespace) -> None:
    names = ("require", "max_force", "max_energy", "min_distance", "limit", "keep_duplicates")
    given = [
        name for name in (*names, "keep_outliers", "no_consistency_check") if getattr(args, name)
    ]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"--recipe says what to do: write {flags} into {args.recipe} instead")
