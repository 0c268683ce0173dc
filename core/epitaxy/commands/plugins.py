"""``epitaxy plugins``: everything on offer, whether it can be used, and what is broken."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from epitaxy.component import KINDS, Offer, Problem
from epitaxy.registry import Registry


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--kind", choices=KINDS, help="list this kind of component only")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def run(args: Namespace) -> int:
    """List components and problems; return 1 when a plugin is broken."""
    registry = Registry.from_entry_points()
    offers = [offer for offer in registry if args.kind in (None, offer.kind)]
    if args.json:
        listing = {
            "components": [_to_json(offer) for offer in offers],
            "problems": [problem.to_json() for problem in registry.problems],
        }
        print(json.dumps(listing, indent=2))
    elif sys.stdout.isatty():
        _print_table(offers, registry.problems)
    else:
        _print_lines(offers, registry.problems)
    return 1 if registry.problems else 0


def _state(offer: Offer) -> str:
    missing = offer.component.missing()
    return f"needs {', '.join(missing)}: {offer.install_command}" if missing else "ready"


def _origin(offer: Offer) -> str:
    return f"{offer.distribution} {offer.version}".strip()


def _broken(problem: Problem) -> str:
    return problem.reason + (f" [{problem.location}]" if problem.location else "")


def _to_json(offer: Offer) -> dict[str, Any]:
    component = offer.component
    missing = component.missing()
    return {
        "kind": offer.kind,
        "name": component.name,
        "qualified_name": offer.qualified_name,
        "summary": component.summary,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "target": component.target,
        "state": "needs" if missing else "ready",
        "missing": list(missing),
        "install": offer.install_command if missing else "",
    }


def _print_lines(offers: list[Offer], problems: list[Problem]) -> None:
    rows = [
        (offer.kind, offer.qualified_name, _origin(offer), _state(offer), offer.component.summary)
        for offer in offers
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row[:4], widths, strict=True))
        print("  ".join([*cells, row[4]]).rstrip())
    for problem in problems:
        print(f"BROKEN  {problem.plugin}  {problem.distribution}  {_broken(problem)}")
    if not rows and not problems:
        print("no plugins are installed")


def _print_table(offers: list[Offer], problems: list[Problem]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "from", "state", "summary"):
        table.add_column(heading, no_wrap=heading in ("kind", "name"))
    for offer in offers:
        state = _state(offer)
        table.add_row(
            offer.kind,
            Text(offer.qualified_name, "bold"),
            Text(_origin(offer), "dim"),
            Text(state, "green" if state == "ready" else "yellow"),
            Text(offer.component.summary),
        )
    for problem in problems:
        table.add_row(
            Text("BROKEN", "red"),
            Text(problem.plugin, "bold"),
            Text(problem.distribution, "dim"),
            Text("broken", "red"),
            Text(_broken(problem)),
        )
    Console().print(table)
