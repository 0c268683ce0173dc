"""``epitaxy check``: the conformance checks of a plugin or a component, one line each."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter

_MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped", "expected": "expected"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="a plugin, or a component as NAME, PLUGIN/NAME or KIND/NAME")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="run the checks whose name contains TEXT"
    )


def run(args: Namespace) -> int:
    """Run the checks; return 1 if one failed, 2 if there was nothing to run."""
    from epitaxy.testing import checks_for

    checks = [check for check in checks_for(args.name) if args.only in check.name]
    if not checks:
        print(f"epitaxy: error: no check contains {args.only!r}", file=sys.stderr)
        return 2
    counts: Counter[str] = Counter()
    for check in checks:
        outcome, reason = check.outcome()
        counts[outcome] += 1
        print(f"{_MARKS[outcome]:9} {check.name}" + (f": {reason}" if reason else ""), flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0
