"""`epitaxy similarity`: how alike the spectra of a dataset are, and which of them to keep."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

_LARGEST_MATRIX = 20_000
"""Entries up to which matrix.npy is written without being asked for: 1.6 GB."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, help="dataset with spectra, or a file of spectra")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--target", choices=("dos", "phonon_dos"), help="spectrum (default: the one there is)"
    )
    parser.add_argument(
        "--grid",
        default="",
        metavar="GRID",
        help="default, wide (-10 to 10 eV), old, phonon, or an id of a grid",
    )
    parser.add_argument(
        "--per",
        choices=("cell", "atom"),
        default="cell",
        help="compare states of the cell, or per atom (default: cell)",
    )
    parser.add_argument(
        "--group-by",
        action="append",
        default=[],
        metavar="SETTING",
        help="xc_functional, code, composition, a tag, or a phrase of the settings, as k-mesh; "
        "may be repeated, the first is outermost",
    )
    parser.add_argument(
        "--sort-by",
        action="append",
        default=[],
        metavar="SETTING",
        help="order inside groups, also cluster and mean-energy; may be repeated",
    )
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="SETTING",
        help="setting whose larger values are better converged: adds convergence curves; may be "
        "repeated",
    )
    parser.add_argument(
        "--reference",
        default="",
        metavar="ID",
        help="entry to compare with (default: the best-converged of each structure with otherwise "
        "the same settings)",
    )
    parser.add_argument(
        "--structure",
        default="composition",
        metavar="SETTING",
        help="what tells structures apart (default: composition)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.9,
        help="similarity from which on two spectra count as the same (default: 0.9)",
    )
    parser.add_argument(
        "--clusters",
        choices=("complete", "average", "connected"),
        default="",
        help="how clusters are made (default: complete, connected above 5,000 entries)",
    )
    parser.add_argument(
        "--keep",
        choices=("converged", "best", "largest"),
        help="rule for --keep-to: similar to the best-converged of its kind, "
        "that one alone, or the largest cluster of each structure (default: converged)",
    )
    parser.add_argument(
        "--keep-to", type=Path, metavar="DATASET", help="write the entries that the rule keeps"
    )
    parser.add_argument(
        "--matrix",
        choices=("yes", "no"),
        help="write matrix.npy (default: yes up to 20,000 entries)",
    )
    parser.add_argument(
        "--neighbors",
        type=int,
        default=0,
        metavar="K",
        help="write the K most similar entries of each to neighbors.npz",
    )
    parser.add_argument(
        "--leave-out-empty",
        action="store_true",
        help="leave out entries with an empty fingerprint instead of stopping",
    )
    parser.add_argument("--workers", type=int, default=0, help="threads (default: all processors)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")


def run(args: Namespace) -> int:
    """Compare, write the files, print the summary and return 0."""
    import matplotlib  # noqa: F401  # said to be missing before the work, not after it

    from epitaxy.dataset import Dataset
    from epitaxy.errors import DataError, OptionError, StoreError
    from epitaxy_dos.report import check_folder, summary_lines, write_study
    from epitaxy_dos.rules import keep
    from epitaxy_dos.study import StudyOptions, study
    from epitaxy_dos.table import Spectra, is_file_of_spectra, read_table

    if args.keep and not args.keep_to:
        raise OptionError("--keep says which entries, --keep-to DATASET where to write them")
    if args.keep_to and args.keep_to.exists() and not args.overwrite:
        raise StoreError(f"{args.keep_to}: exists; use --overwrite to replace it")
    if args.neighbors < 0:
        raise OptionError(f"--neighbors {args.neighbors}: 1 or more, 0 for none")
    check_folder(args.output, overwrite=args.overwrite)
    dataset: Spectra
    if is_file_of_spectra(args.dataset):
        dataset = read_table(args.dataset)
    else:
        dataset = Dataset.open(args.dataset)
    target = args.target
    if target is None:
        found = [name for name in ("dos", "phonon_dos") if name in dataset.targets]
        if not found:
            raise DataError(
                f"{args.dataset}: no entry has a dos or phonon_dos; there are: "
                f"{', '.join(dataset.targets) or 'no targets'}"
            )
        target = found[0]
    looked = study(
        dataset,
        StudyOptions(
            target=target,
            grid=args.grid,
            per=args.per,
            group_by=tuple(args.group_by),
            sort_by=tuple(args.sort_by),
            structure=args.structure,
            parameters=tuple(args.parameter),
            reference=args.reference,
            threshold=args.threshold,
            clusters=args.clusters,
            leave_out_empty=args.leave_out_empty,
            n_workers=args.workers,
        ),
    )
    kept = None
    if args.keep_to:
        if not isinstance(dataset, Dataset):
            raise OptionError("--keep-to needs a dataset: `epitaxy ingest` makes one of the file")
        kept = keep(dataset, looked, args.keep or "converged")
    matrix = len(looked.ids) <= _LARGEST_MATRIX if args.matrix is None else args.matrix == "yes"
    written = write_study(
        dataset,
        looked,
        args.output,
        matrix=matrix,
        n_neighbors=args.neighbors,
        overwrite=args.overwrite,
    )
    print("\n".join(summary_lines(looked)))
    if kept is not None:
        kept.save(args.keep_to, overwrite=args.overwrite)
        print(f"kept {len(kept):,} of {len(dataset):,} entries in {args.keep_to}")
    print(f"wrote {written[0]} and {', '.join(path.name for path in written[1:])}")
    return 0
