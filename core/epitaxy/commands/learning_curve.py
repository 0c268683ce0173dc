"""`epitaxy learning-curve CONFIG`: error against the number of training structures."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.commands.go_on import resume_command

if TYPE_CHECKING:
    from epitaxy.learning_curve.result import CurveResult, Findings


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, help="YAML file, see docs/transfer.md")
    parser.add_argument("-o", "--output", type=Path, help="folder of all runs")
    parser.add_argument(
        "--resume", action="store_true", help="skip finished points, go on with the others"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, for example --set learning_curve.seeds=5; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="say only what was found")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: Namespace) -> int:
    """Train all points, print the table, and say where everything is."""
    from epitaxy.learning_curve import learning_curve, load_curve
    from epitaxy.learning_curve.run import PLOT, RESULT
    from epitaxy.progress import Lines, Silent
    from epitaxy.registry import Registry

    registry = Registry.from_entry_points()
    curve = load_curve(args.config, overrides=args.set, output=args.output, registry=registry)
    progress = Silent() if args.quiet else Lines()
    try:
        result = learning_curve(curve, resume=args.resume, progress=progress, registry=registry)
    except KeyboardInterrupt:
        print(
            f"\nepitaxy: stopped; go on with: {resume_command('learning-curve', args)}",
            file=sys.stderr,
        )
        return 130
    output = Path(curve.base.output)
    if args.json:
        print((output / RESULT).read_text(encoding="utf-8"), end="")
        return 0
    print_result(result)
    print(f"wrote {output / RESULT}")
    print(f"wrote {output / PLOT}")
    return 0


def print_result(result: CurveResult) -> None:
    """Print the table of errors and what follows from it, for each part of the test set."""
    from rich.console import Console

    from epitaxy.quantities import readable_unit

    console = Console(width=None if Console().is_terminal else 110)
    factor, unit = readable_unit(result.unit)
    for group, found in result.findings.items():
        part = "" if group == "all" else f" on {group}"
        spread = "mean ± standard deviation over seeds"
        console.print(f"{result.metric}{part}, {unit} ({spread})", highlight=False, soft_wrap=True)
        console.print(_table(found, factor=factor))
        for line in _lines(found, factor=factor, unit=unit):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(found: Findings, *, factor: float) -> Any:
    from rich.table import Table

    by_arm = found.table()
    table = Table()
    table.add_column("structures", justify="right")
    for arm in by_arm:
        table.add_column(arm, justify="right")
    for n in sorted({n for rows in by_arm.values() for n in rows}):
        cells = []
        for rows in by_arm.values():
            mean, std, n_seeds = rows[n]
            cells.append(f"{mean * factor:.4g}" + (f" ± {std * factor:.2g}" if n_seeds > 1 else ""))
        table.add_row(f"{n:,}", *cells)
    return table


def _lines(found: Findings, *, factor: float, unit: str) -> list[str]:
    from math import exp, isfinite

    lines = []
    for arm, fit in found.fits.items():
        low, high = fit.slope_interval
        r2 = f"; R2 {fit.r2:.3f}" if isfinite(fit.r2) else ""
        reach = "too few points for an interval"
        if isfinite(low):
            reach = f"slope 95 % {low:.3f} to {high:.3f} (bootstrap over {fit.drawn})"
        lines.append(
            f"{arm}: error = {exp(fit.intercept) * factor:.4g} {unit} x N^{fit.slope:.3f}; "
            f"{reach}{r2}"
        )
    for pair in found.comparisons:
        where = "all sizes" if pair.n_train is None else f"{pair.n_train:,} structures"
        scale = 1.0 if pair.n_train is None else factor
        mark = "ln ratio" if pair.n_train is None else unit
        reach = ""
        if pair.interval is not None:
            low, high = (scale * v for v in pair.interval)
            reach = f" (95 % {low:.3g} to {high:.3g})"
        lines.append(
            f"{pair.arm}, {where}: gain {pair.relative:+.1%}, {pair.gain * scale:.3g} {mark}"
            f"{reach}, p = {pair.p:.3g} from {pair.n_pairs} pairs"
        )
    for equal in found.equivalents:
        if equal.rows is None:
            lines.append(f"{equal.arm}, {equal.n_train:,} structures: not said: {equal.reason}")
            continue
        reach = " (no interval: the line of the reference is not certain enough)"
        if equal.interval is not None:
            low, high = equal.interval
            reach = f" (95 % {low:,.0f} to {high:,.0f})"
        more = equal.rows - equal.n_train
        worth = f"{abs(more):,.0f} labels {'more' if more >= 0 else 'fewer'}"
        lines.append(
            f"{equal.arm}, {equal.n_train:,} structures: as good as {equal.rows:,.0f} of the "
            f"reference{reach}, worth {worth}"
        )
    return lines
