"""``epitaxy show``: one component, where it comes from and which options it takes."""

from __future__ import annotations

import json
import textwrap
from argparse import ArgumentParser, Namespace
from typing import Any

from epitaxy.component import Offer
from epitaxy.registry import RUNTIME, Registry


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="a component: NAME, PLUGIN/NAME or KIND/NAME")
    parser.add_argument("--json", action="store_true", help="print the JSON schema of its options")


def run(args: Namespace) -> int:
    """Describe a component; return 1 if its options cannot be read for want of a package."""
    registry = Registry.from_entry_points()
    offer = registry.find_any(args.name)
    missing = offer.component.missing()
    if args.json:
        print(json.dumps(_to_json(registry, offer), indent=2))
        return 1 if missing else 0
    component = offer.component
    print(f"{offer.kind}/{component.name}: {component.summary}")
    origin = f"{offer.distribution} {offer.version}".strip() or "this program"
    print(f"from    plugin {offer.plugin} ({origin})")
    print(f"target  {component.target}")
    if missing:
        print(f"needs   {', '.join(missing)}: {offer.install_command}")
        print("The options can be read once that is installed.")
        return 1
    if offer.kind == "command":
        print(f"usage   epitaxy {component.name} --help")
        return 0
    _print_options(registry, offer)
    return 0


def _print_options(registry: Registry, offer: Offer) -> None:
    from epitaxy.options import options_of

    target = registry.load(offer.kind, offer.qualified_name)
    options = options_of(target, runtime=RUNTIME.get(offer.kind, frozenset()))
    if not options:
        print("It takes no options.")
        return
    print("options")
    for option in options:
        default = "required" if option.required else f"default {option.default!r}"
        print(f"  {option.name}: {option.type or 'any'}  ({default})")
        if option.doc:
            print(textwrap.indent(textwrap.fill(option.doc, 84), "      "))


def _to_json(registry: Registry, offer: Offer) -> dict[str, Any]:
    from epitaxy.options import json_schema

    component = offer.component
    missing = component.missing()
    description: dict[str, Any] = {
        "kind": offer.kind,
        "name": component.name,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "summary": component.summary,
        "target": component.target,
        "missing": list(missing),
        "install": offer.install_command if missing else "",
        "options": None,
    }
    if not missing and offer.kind != "command":
        target = registry.load(offer.kind, offer.qualified_name)
        description["options"] = json_schema(target, runtime=RUNTIME.get(offer.kind, frozenset()))
    return description
