"""`epitaxy publish`: put an artifact or a dataset where others find it."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.errors import ConfigError, PublishError

if TYPE_CHECKING:
    from epitaxy.protocols import Receipt

_MANY = 20  # files that a dry run lists
_LONG = 160  # characters of a fact in one line


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", type=Path, help="folder of an artifact or a dataset")
    parser.add_argument(
        "--to", metavar="NAME", help="a publisher; `epitaxy plugins --kind publisher` lists them"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the publisher (`epitaxy show NAME` lists them); VALUE is read as YAML",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with a section `publish:` of such options; `use:` may name the publisher",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="open no socket; say what would be sent"
    )
    parser.add_argument("--json", action="store_true", help="print the receipt as JSON")


def run(args: Namespace) -> int:
    """Publish, keep the receipt beside the manifest, print it; return 1 if it holds errors."""
    from epitaxy.config import read_options
    from epitaxy.protocols import Receipt
    from epitaxy.receipts import append_receipt
    from epitaxy.registry import Registry

    options = read_options("publish", path=args.config, overrides=args.set)
    if not isinstance(options, Mapping):
        raise ConfigError(f"{args.config}: publish: must hold options, not {options!r}")
    name = args.to or options.get("use")
    if not name:
        raise ConfigError("where to? give --to NAME (`epitaxy plugins --kind publisher`)")
    publisher = Registry.from_entry_points().build("publisher", {**options, "use": name})
    if hasattr(publisher, "tell"):
        publisher.tell = lambda line: print(line, file=sys.stderr, flush=True)
    try:
        receipt = publisher.publish(args.path, dry_run=args.dry_run)
    except PublishError as error:
        if isinstance(error.receipt, Receipt):
            try:
                append_receipt(args.path, error.receipt)
            except PublishError as unkept:  # must not hide what went wrong first
                print(unkept, file=sys.stderr)
        raise
    if not args.dry_run:
        append_receipt(args.path, receipt)
    print_receipt(receipt, as_json=args.json, is_rehearsal=args.dry_run)
    if (receipt.facts or {}).get("errors"):
        print("it is there, but with the errors above", file=sys.stderr)
        return 1
    return 0


def print_receipt(receipt: Receipt, *, as_json: bool, is_rehearsal: bool) -> None:
    """Print what a receipt says."""
    from epitaxy.receipts import RECEIPTS, receipt_to_json

    if as_json:
        print(json.dumps(receipt_to_json(receipt), indent=1, ensure_ascii=False))
        return
    facts = dict(receipt.facts or {})
    print(f"{receipt.publisher}: {'would publish ' if is_rehearsal else ''}{receipt.identifier}")
    if receipt.url:
        print(f"url: {receipt.url}")
    for name, value in facts.items():
        for line in _lines(name, value):
            print(line)
    if is_rehearsal:
        print("nothing was sent (--dry-run)")
    else:
        print(f"kept in {RECEIPTS}")


def _lines(name: str, value: Any) -> list[str]:
    if value is None or value == "" or value == [] or value == {}:
        return []
    title = name.replace("_", " ")
    if isinstance(value, Mapping):
        shown = [f"  {key}: {_short(item)}" for key, item in list(value.items())[:_MANY]]
        more = [f"  and {len(value) - _MANY:,} more"] if len(value) > _MANY else []
        return [f"{title}:", *shown, *more]
    if isinstance(value, list):
        shown = [f"  {_short(item)}" for item in value[:_MANY]]
        more = [f"  and {len(value) - _MANY:,} more"] if len(value) > _MANY else []
        return [f"{title}:", *shown, *more]
    return [f"{title}: {_short(value)}"]


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items() if item != "")
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    text = " ".join(str(value).split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."
