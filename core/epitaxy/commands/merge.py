"""`epitaxy merge`: make one dataset of several, or a dataset longer."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epitaxy.stores.merge import MergeReport


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET", help="in this order")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("-o", "--output", type=Path, help="dataset to make")
    place.add_argument(
        "--append", action="store_true", help="add the others to the first, in its place"
    )
    parser.add_argument(
        "--tag-source", action="store_true", help="add the tag source: the name of the dataset"
    )
    parser.add_argument(
        "--keep-identical", action="store_true", help="accept datasets that hold the same data"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run(args: Namespace) -> int:
    """Merge, say what was done, and return 0."""
    from epitaxy.commands.ingest_progress import telling
    from epitaxy.curation.names import distinct_names
    from epitaxy.dataset import Dataset
    from epitaxy.errors import OptionError
    from epitaxy.stores.merge import append, merge

    paths = [Path(*path.parts) for path in args.datasets]
    if len({path.resolve() for path in paths}) < len(paths):
        raise OptionError("a dataset is named twice: every entry would be there twice")
    names = distinct_names(paths)
    if args.append:
        if len(paths) < 2:
            raise OptionError("--append needs a dataset to make longer and one to add")
        for path, name in zip(paths[1:], names[1:], strict=True):
            with telling(name) as tell:
                report = append(
                    paths[0],
                    Dataset.open(path, verify=True),
                    name=name,
                    tag_source=args.tag_source,
                    keep_identical=args.keep_identical,
                    tell=tell,
                )
            _print(report, paths[0])
        return 0
    datasets = {
        name: Dataset.open(path, verify=True) for name, path in zip(names, paths, strict=True)
    }
    with telling(str(args.output)) as tell:
        report = merge(
            datasets,
            args.output,
            tag_source=args.tag_source,
            keep_identical=args.keep_identical,
            overwrite=args.overwrite,
            tell=tell,
        )
    _print(report, args.output)
    return 0


def _print(report: MergeReport, path: Path) -> None:
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, count in report.n_structures.items():
        renamed = report.n_renamed[name]
        said = f", {renamed:,} with ids that others use too" if renamed else ""
        print(f"{name}: {count:,} structures{said}")
    if report.examples:
        print(f"such ids have the name of the dataset in front: {', '.join(report.examples)}")
    print(f"{path}: {len(report.dataset):,} structures")
