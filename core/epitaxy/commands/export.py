"""`epitaxy export`: write a dataset as a file of another program."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    from epitaxy.stores.export import SUFFIXES, WRITERS

    parser.add_argument("dataset", type=Path, help="dataset to write")
    parser.add_argument("file", type=Path, help=f"file to make ({', '.join(SUFFIXES)})")
    parser.add_argument(
        "--format", choices=tuple(WRITERS), help="where the ending of the file does not say it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(args: Namespace) -> int:
    """Write the file and return 0."""
    from epitaxy.commands.ingest_progress import telling
    from epitaxy.dataset import Dataset
    from epitaxy.stores.export import export

    dataset = Dataset.open(args.dataset, verify=True)
    with telling(str(args.file)) as tell:
        format = export(dataset, args.file, format=args.format, overwrite=args.overwrite, tell=tell)
    size = sum(
        part.stat().st_size
        for part in (args.file.rglob("*") if args.file.is_dir() else [args.file])
        if part.is_file()
    )
    print(f"{args.file}: {len(dataset):,} structures as {format}, {size / 1e6:,.1f} MB")
    return 0
