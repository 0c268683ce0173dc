"""`epitaxy cross-database CONFIG`: train on each of several databases and test on all."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.commands.go_on import resume_command

if TYPE_CHECKING:
    from epitaxy.cross_database import CrossResult


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, help="YAML file with a section cross_database:")
    parser.add_argument("-o", "--output", type=Path, help="folder of all runs")
    parser.add_argument("--resume", action="store_true", help="skip finished trainings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, for example --set cross_database.seeds=5; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="say only what was found")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: Namespace) -> int:
    """Train everything, print the table, and say where it is."""
    from epitaxy.cross_database import PLOT, RESULT, cross_database, load_cross
    from epitaxy.progress import Lines, Silent
    from epitaxy.registry import Registry

    registry = Registry.from_entry_points()
    cross = load_cross(args.config, overrides=args.set, output=args.output, registry=registry)
    progress = Silent() if args.quiet else Lines()
    try:
        result = cross_database(cross, resume=args.resume, progress=progress, registry=registry)
    except KeyboardInterrupt:
        again = resume_command("cross-database", args)
        print(f"\nepitaxy: stopped; go on with: {again}", file=sys.stderr)
        return 130
    output = Path(cross.training.output)
    if args.json:
        print((output / RESULT).read_text(encoding="utf-8"), end="")
        return 0
    print_result(result)
    print(f"wrote {output / RESULT}")
    print(f"wrote {output / PLOT}")
    return 0


def print_result(result: CrossResult) -> None:
    """Print errors with offsets, and what a split by rows hides."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 110)
    table = Table(title=f"mean absolute error, offset; {result.unit}")
    table.add_column("learnt on")
    for name in result.names:
        table.add_column(f"tested on {name}", justify="right")
    for learnt in result.names:
        cells = []
        for tested in result.names:
            error, offset = result.errors[learnt, tested], result.offsets[learnt, tested]
            times = error.mean / result.errors[learnt, learnt].mean
            cells.append(
                f"{error.mean:.3f}, {offset.mean:+.3f}"
                + (f" (x {times:.1f})" if tested != learnt else "")
            )
        table.add_row(learnt, *cells)
    console.print(table)
    if result.ungrouped is None or result.grouped is None:
        return
    print(
        f"{result.flattered}, groups that occur again: {result.ungrouped.mean:.3f} divided by "
        f"rows, {result.grouped.mean:.3f} {result.unit} divided by groups: rows flatter by "
        f"{result.flatters_by:.1%}"
    )
