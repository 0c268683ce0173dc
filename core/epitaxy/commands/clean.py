"""`epitaxy clean`: drop unusable and duplicate entries of a dataset."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from epitaxy.commands.ingest import add_check_arguments, checks_of, print_report


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, help="dataset to check")
    parser.add_argument("-o", "--output", type=Path, required=True, help="dataset to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")
    add_check_arguments(parser)


def run(args: Namespace) -> int:
    """Check, write what is usable, and return 0."""
    from epitaxy.commands.ingest_progress import telling
    from epitaxy.curation.ingest import clean
    from epitaxy.dataset import Dataset

    with telling(str(args.dataset)) as tell:
        report = clean(
            Dataset.open(args.dataset, verify=True),
            args.output,
            checks=checks_of(args),
            on_inconsistent="skip" if args.no_consistency_check else args.on_inconsistent,
            overwrite=args.overwrite,
            tell=tell,
        )
    print_report(report, args.output)
    return 0
