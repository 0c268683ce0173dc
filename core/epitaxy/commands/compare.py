"""`epitaxy compare`: how a target of two datasets differs on what they share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("first", type=Path, help="dataset")
    parser.add_argument("second", type=Path, help="dataset; differences are second minus first")
    parser.add_argument("--target", required=True, help="quantity, such as band_gap")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--group",
        default="spacegroup",
        metavar="GROUP",
        help="spacegroup, composition, prototype or a tag (default: spacegroup)",
    )
    parser.add_argument(
        "--value",
        choices=("median", "mean", "lowest"),
        default="median",
        help="what stands for a group with several values (default: median)",
    )
    parser.add_argument(
        "--engine",
        choices=("moyopy", "spglib"),
        help="find groups anew; by default the tags of `epitaxy groups`, or else moyopy",
    )
    parser.add_argument(
        "--symprec", type=float, default=0.1, help="Å, where groups are found anew (default: 0.1)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--worst", type=int, default=20, help="disagreements to list (default: 20)")
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of the bootstrap (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier comparison")


def run(args: Namespace) -> int:
    """Compare, write the JSON and the page, print the summary and return 0."""
    import matplotlib  # noqa: F401  # said to be missing before the work, not after it

    from epitaxy.curation.compare import compare
    from epitaxy.curation.comparison_page import check_folder, summary_lines, write_comparison
    from epitaxy.curation.names import distinct_names
    from epitaxy.dataset import Dataset
    from epitaxy.errors import OptionError

    if args.resamples < 20:
        raise OptionError(f"--resamples {args.resamples}: 20 at least, 1000 for two digits")
    check_folder(args.output, overwrite=args.overwrite)
    names = distinct_names([args.first, args.second])
    comparison = compare(
        Dataset.open(args.first),
        Dataset.open(args.second),
        target=args.target,
        group=args.group,
        names=(names[0], names[1]),
        value=args.value,
        engine=args.engine,
        symprec=args.symprec,
        n_workers=args.workers,
        n_worst=args.worst,
        n_resamples=args.resamples,
        seed=args.seed,
    )
    facts, page = write_comparison(comparison, args.output)
    print("\n".join(summary_lines(comparison)))
    print(f"wrote {page} and {facts}")
    return 0
