"""`epitaxy split`: divide a dataset into training, validation and test sets."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from epitaxy.errors import SplitError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, help="dataset to divide")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to make")
    parser.add_argument(
        "--method",
        choices=("random", "group", "ids"),
        default="random",
        help="at random, by whole groups, or by given ids (default: random)",
    )
    parser.add_argument(
        "--valid", default="0.1", help="fraction below 1, number, or file of ids, one per line"
    )
    parser.add_argument(
        "--test", default="0.1", help="fraction below 1, number, or file of ids, one per line"
    )
    parser.add_argument("--train", help="file of ids (method ids; default: all the others)")
    parser.add_argument(
        "--groups", default="composition", help="tag whose groups stay together, or composition"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the division (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(args: Namespace) -> int:
    """Divide, write and return 0."""
    from epitaxy.dataset import Dataset
    from epitaxy.split import split_by_group, split_by_ids, split_random

    if args.output.exists() and not args.overwrite:
        raise SplitError(f"{args.output}: exists; use --overwrite or choose another name")
    dataset = Dataset.open(args.dataset)
    if args.method == "ids":
        split = split_by_ids(
            dataset,
            train=None if args.train is None else _ids(args.train),
            valid=_ids(args.valid) if args.valid != "0.1" else [],
            test=_ids(args.test) if args.test != "0.1" else [],
        )
    else:
        valid, test = _size("--valid", args.valid), _size("--test", args.test)
        split = (
            split_random(dataset, valid=valid, test=test, seed=args.seed)
            if args.method == "random"
            else split_by_group(dataset, args.groups, valid=valid, test=test, seed=args.seed)
        )
    split.save(args.output)
    for name, rows in split.rows.items():
        print(f"{name:5}  {len(rows):>9,} structures")
    print(f"{args.output}: digest {split.digest[:12]}")
    return 0


def _size(flag: str, text: str) -> float | int:
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        raise SplitError(f"{flag} {text!r}: give a fraction below 1 or a number") from None


def _ids(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SplitError(f"{path}: cannot be read: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip()]
