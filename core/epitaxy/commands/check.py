"""``epitaxy check``: the conformance checks of a plugin or a component, one line each."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter

from epitaxy.errors import ConfigError

_MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped", "expected": "expected"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="a plugin, or a component as NAME, PLUGIN/NAME or KIND/NAME")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="run the checks whose name contains TEXT"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="option with which the component is built, as path=my.xyz; may be repeated",
    )


def run(args: Namespace) -> int:
    """Run the checks; return 1 if one failed, 2 if there was nothing to run."""
    from epitaxy.testing import checks_for

    example = _options(args.set) if args.set else None
    checks = [check for check in checks_for(args.name, example=example) if args.only in check.name]
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


def _options(assignments: list[str]) -> dict[str, object]:
    """Return the options written as KEY=VALUE; values are read as YAML.

    Raises:
        ConfigError: there is no "=", or the value is no YAML.
    """
    import yaml

    options = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not key or not equals:
            raise ConfigError(f"--set {assignment!r}: write KEY=VALUE, as in path=my.xyz")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment!r}: {error}") from None
    return options
