"""``epitaxy new-plugin``: a complete plugin to change, which installs and passes its tests."""

from __future__ import annotations

import keyword
import re
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from epitaxy.errors import ConfigError, EpitaxyError
from epitaxy.registry import Registry


@dataclass(frozen=True, slots=True)
class Sketch:
    """What the templates need to know about one kind of component."""

    hook: str
    summary: str
    requirement: str = "epitaxy"
    needs: tuple[str, ...] = ()
    example: str = "{}"


SKETCHES: Mapping[str, Sketch] = {
    "model": Sketch(
        "provide_models",
        "a pair potential whose shape is learnt",
        requirement="epitaxy[graphs]",
        needs=("torch", "pymatgen", "safetensors"),
    ),
    "source": Sketch("provide_sources", "strained metals labelled with ASE's EMT"),
    "featurizer": Sketch("provide_featurizers", "element fractions and volume per atom"),
    "strategy": Sketch("provide_strategies", "the best of several trainings"),
    "publisher": Sketch(
        "provide_publishers", "copies into a shared folder", example='{"folder": "published"}'
    ),
    "command": Sketch("provide_commands", "count the formulas in a file"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="name of the plugin, for example my-potential")
    parser.add_argument(
        "--kind", choices=SKETCHES, default="model", help="what it offers (default: model)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder to make (default: epitaxy-NAME)"
    )


def run(args: Namespace) -> int:
    """Write the plugin and say what to do next."""
    name = args.name.removeprefix("epitaxy-")
    folder = args.output or Path(f"epitaxy-{name}")
    write_plugin(name, folder, kind=args.kind)
    print(f"{folder} holds a plugin with one {args.kind}. Next:")
    here = folder if folder.is_absolute() else f"./{folder}"
    print(f"  pip install -e '{here}[test]'")
    print(f"  epitaxy check {name}")
    return 0


def write_plugin(name: str, folder: Path, *, kind: str = "model") -> None:
    """Write a complete plugin into a folder that does not exist yet.

    Args:
        name: name of the plugin and of its component.
        folder: what to make; all of it appears at once, or nothing.
        kind: what it offers, a key of `SKETCHES`.

    Raises:
        ConfigError: the name cannot be a Python package or belongs to an installed plugin or
            component, or the folder exists.
        EpitaxyError: the disk refuses.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"name {name!r}: use small letters, digits and single dashes, starting with a "
            f"letter, as in my-potential"
        )
    installed = Registry.from_entry_points()
    if name in installed.plugins or name in [problem.plugin for problem in installed.problems]:
        raise ConfigError(f"a plugin named {name!r} is installed already; choose another name")
    for offer in installed:
        if offer.component.name == name:
            raise ConfigError(
                f"{name!r} is the {offer.kind} {offer.qualified_name} of {offer.distribution}: "
                f"with a second one, configs that name it would have to say which; choose "
                f"another name"
            )
    if folder.exists():
        raise ConfigError(f"{folder} exists; nothing was written. Choose another with -o DIR")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            made = Path(scratch) / "plugin"
            for path, text in _texts(name, kind).items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).write_text(text, encoding="utf-8")
            made.rename(folder)
    except OSError as error:
        raise EpitaxyError(
            f"cannot write {folder}: {error.strerror or error}; nothing was written. Free some "
            f"space or choose another place with -o DIR"
        ) from error


def _texts(name: str, kind: str) -> dict[str, str]:
    """Return the files of a plugin: path -> text."""
    sketch = SKETCHES[kind]
    package = f"epitaxy_{name.replace('-', '_')}"
    module = name.replace("-", "_")
    attribute = "".join(part.capitalize() for part in name.split("-"))
    values = {
        "name": name,
        "kind": kind,
        "hook": sketch.hook,
        "distribution": f"epitaxy-{name}",
        "package": package,
        "module": module,
        "attribute": attribute,
        "target": f"{package}.{module}" + ("" if kind == "command" else f":{attribute}"),
        "summary": sketch.summary,
        "headline": sketch.summary[0].upper() + sketch.summary[1:],
        "requirement": sketch.requirement,
        "needs": repr(sketch.needs).replace("'", '"'),
        "example": sketch.example,
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"src/{package}/__init__.py": "__init__.py",
        f"src/{package}/plugin.py": "plugin.py",
        f"src/{package}/{module}.py": f"{kind}.py",
        "tests/test_plugin.py": "test_plugin.py",
    }
    home = files("epitaxy.commands") / "plugin_template"
    return {
        path: Template((home / f"{template}.template").read_text(encoding="utf-8")).substitute(
            values
        )
        for path, template in templates.items()
    }
