"""`epitaxy groups`: label structures that must stay together in a split."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from epitaxy.errors import StoreError

_INTERVAL = 5.0  # seconds between plain lines
_LARGEST = 5


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, help="dataset with the structures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="dataset to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")
    parser.add_argument(
        "--engine", choices=("moyopy", "spglib"), default="moyopy", help="(default: moyopy)"
    )
    parser.add_argument(
        "--symprec",
        type=float,
        default=0.1,
        help="Å, how far atoms may be from their symmetric places (default: 0.1)",
    )
    parser.add_argument(
        "--formula",
        choices=("reduced", "cell"),
        default="reduced",
        help="reduced, or of the cell as in the paper: supercells escape then (default: reduced)",
    )
    parser.add_argument(
        "--match",
        action="store_true",
        help="also compare the structures inside a group with each other (tag matched)",
    )
    parser.add_argument(
        "--prototype", action="store_true", help="also find AFLOW prototypes (tag prototype)"
    )
    parser.add_argument(
        "--workers", type=int, help="processes (default: one per core, at most one per 500)"
    )


def run(args: Namespace) -> int:
    """Label, write and return 0."""
    from epitaxy.curation.groups import add_groups
    from epitaxy.dataset import Dataset

    if args.output.exists() and not args.overwrite:
        raise StoreError(f"{args.output}: exists; use --overwrite or choose another name")
    dataset = Dataset.open(args.dataset)
    if args.workers is None:  # starting a process takes as long as some hundred structures
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        args.workers = min(n_cores or os.cpu_count() or 1, 1 + len(dataset) // 500)
    with _telling() as tell:
        grouped = add_groups(
            dataset,
            engine=args.engine,
            symprec=args.symprec,
            formula=args.formula,
            match=args.match,
            prototype=args.prototype,
            n_workers=args.workers,
            tell=tell,
        )
    grouped.save(args.output, overwrite=args.overwrite)
    _print(grouped, args.output)
    return 0


def _print(grouped: object, path: Path) -> None:
    from epitaxy.dataset import Dataset

    assert isinstance(grouped, Dataset)
    step = grouped.history[-1]
    counts, tag = step["counts"], step["tag"]
    print(
        f"{counts['n_structures']:,} structures in {counts['n_groups']:,} groups, "
        f"{counts['n_alone']:,} of them of one structure"
    )
    import numpy as np

    labels, sizes = np.unique(grouped.tag(tag), return_counts=True)
    order = np.argsort(-sizes, kind="stable")[:_LARGEST]
    print(f"largest: {', '.join(f'{labels[k]} {sizes[k]:,}' for k in order)}")
    for key, said in (
        ("n_failed", "without a spacegroup: {engine} found none (groups <formula>_failed)"),
        ("n_not_periodic", "not periodic in three directions (groups <formula>_cluster)"),
        ("n_without_structure", "formulas without a structure (grouped by formula)"),
        ("n_without_prototype", "without a prototype (label failed)"),
        ("n_over_the_limit", "not compared with all of their group (labels #more, #large)"),
    ):
        if counts.get(key):
            print(f"{counts[key]:,} {said.format(engine=step['options']['engine'])}")
    for key, what in (("n_matched_groups", "matched"), ("n_prototypes", "prototype")):
        if key in counts:
            print(f"{counts[key]:,} groups by {what}")
    print(f"{path}: tag {tag} (`epitaxy split {path} --method group --groups spacegroup`)")


@contextmanager
def _telling() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows ``(what, how many done, of how many)``."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

    with Progress(
        "{task.description}",
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield show


def _lines() -> Callable[[str, int, int], None]:
    last = time.monotonic()

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _INTERVAL:
            last = time.monotonic()
            sys.stderr.write(f"{stage}: {done:,} of {total:,}\n")
            sys.stderr.flush()

    return show
