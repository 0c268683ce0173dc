"""The command line: one verb per step, and only the verb that is used gets imported."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import NoReturn

from epitaxy.errors import EpitaxyError

CORE_VERBS = MappingProxyType(
    {
        "demo": "train, evaluate and use a model on the embedded silicon data, end to end",
        "ingest": "read files or a database into a checked dataset",
        "info": "say what a dataset or an artifact holds",
        "clean": "drop unusable and duplicate entries of a dataset",
        "groups": "label structures that must stay together in a split",
        "split": "split datasets into training, validation and test sets, or check a split",
        "compare": "compare a target of two datasets on what they share",
        "merge": "make one dataset of several, or a dataset longer",
        "export": "write a dataset as extended xyz, ASE database or parquet",
        "train": "train the model that a configuration file describes",
        "learning-curve": "train on growing subsets and compare ways to train",
        "cross-database": "train on each of several databases and test on all of them",
        "evaluate": "compare a model with the labels of a dataset",
        "report": "write the report of a run",
        "publish": "put an artifact or a dataset where others find it",
        "plugins": "list the plugins and what they offer",
        "show": "describe one component and its options",
        "check": "run the conformance checks of a plugin or a component",
        "new-plugin": "write a new plugin that installs and passes its tests",
    }
)
"""Verb -> summary; the module of a verb is ``epitaxy.commands.<verb with _ for ->``."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its module is imported when it is used, not before."""

    name: str
    summary: str
    module: str
    plugin: str = ""

    def load(self) -> ModuleType:
        """Import the module of the verb.

        Raises:
            PluginError: the plugin's module cannot be imported.
        """
        if not self.plugin:
            return import_module(self.module)
        from epitaxy.registry import Registry

        module: ModuleType = Registry.from_entry_points().load(
            "command", f"{self.plugin}/{self.name.rpartition('/')[2]}"
        )
        return module


def core_verbs() -> dict[str, Verb]:
    """Return the verbs of the core."""
    return {
        name: Verb(name, summary, f"epitaxy.commands.{name.replace('-', '_')}")
        for name, summary in CORE_VERBS.items()
    }


def all_verbs() -> tuple[dict[str, Verb], list[str]]:
    """Return the verbs of core and plugins, and a line for each plugin that is broken.

    A verb that core or another plugin also has is listed as ``plugin/verb``.
    """
    from epitaxy.registry import Registry

    registry = Registry.from_entry_points()
    verbs = core_verbs()
    offers = registry.offers["command"]
    names = [offer.component.name for offer in offers]
    for offer in offers:
        name = offer.component.name
        if name in CORE_VERBS or names.count(name) > 1:
            name = offer.qualified_name
        verbs[name] = Verb(name, offer.component.summary, offer.component.target, offer.plugin)
    return verbs, [str(problem) for problem in registry.problems]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0: done; 1: done, and something was found wrong; 2: wrong use or wrong input; 130:
    interrupted. An unexpected exception keeps its traceback: it is a bug.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except EpitaxyError as error:
        print(f"epitaxy: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("epitaxy: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if _stdout_is_open():
            raise
        return 141  # what a shell reports for a program ended by SIGPIPE
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # how a console of rich ends
            return 141
        raise
    except ModuleNotFoundError as error:
        if not (command := _pip_command(error.name or "")):
            raise
        print(
            f"epitaxy: error: this needs {error.name}, which is not installed; "
            f"install it with: {command}",
            file=sys.stderr,
        )
        return 2


def _run(arguments: list[str]) -> int:
    if not arguments:
        _help(sys.stderr)
        return 2
    first = arguments[0]
    if first in ("-h", "--help", "help"):
        _help(sys.stdout)
        return 0
    if first in ("-V", "--version"):
        from importlib.metadata import version

        print(f"epitaxy {version('epitaxy')}")
        return 0
    if first.startswith("-"):
        _stop(f"unknown option {first!r}; `epitaxy --help` lists the verbs")
    verb = core_verbs().get(first) or _plugin_verb(first)
    module = verb.load()
    parser = argparse.ArgumentParser(
        prog=f"epitaxy {verb.name}", description=f"{verb.summary[:1].upper()}{verb.summary[1:]}."
    )
    module.add_arguments(parser)
    status: int = module.run(parser.parse_args(arguments[1:]))
    return status


def _plugin_verb(name: str) -> Verb:
    verbs, problems = all_verbs()
    for verb in verbs.values():
        if name in (verb.name, f"{verb.plugin}/{verb.name}"):
            return verb
    homonyms = [other for other in verbs if other.endswith(f"/{name}")]
    if homonyms:
        _stop(f"{name!r} is a verb of several plugins: use one of {', '.join(homonyms)}")
    close = difflib.get_close_matches(name, verbs, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "; `epitaxy --help` lists the verbs"
    _stop("\n".join([f"no verb named {name!r}{hint}", *problems]))


def _stop(message: str) -> NoReturn:
    raise EpitaxyError(message)


def _help(stream: object) -> None:
    verbs, problems = all_verbs()
    width = max(map(len, verbs))
    lines = ["usage: epitaxy [--help] [--version] VERB ...", "", _package_summary(), ""]
    lines += [f"  {verb.name:{width}}  {verb.summary}" for verb in verbs.values()]
    lines += ["", "`epitaxy VERB --help` explains one verb."]
    lines += [f"note: {problem}" for problem in problems]
    print("\n".join(lines), file=stream)  # type: ignore[call-overload]


def _package_summary() -> str:
    import epitaxy

    return (epitaxy.__doc__ or "").partition("\n")[0]


def _stdout_is_open() -> bool:
    """Whether standard output still has a reader; if not, let the interpreter exit quietly."""
    try:
        sys.stdout.flush()
        if hasattr(select, "poll"):  # unbuffered, there is nothing left to flush
            poll = select.poll()
            poll.register(sys.stdout.fileno(), 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                raise BrokenPipeError
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    except OSError:  # no real file behind it
        return True
    return True


def _pip_command(module: str) -> str:
    """Return how to install a package: with the smallest of our extras that has it, else ""."""
    from importlib.metadata import requires

    packages: dict[str, list[str]] = {}  # of each extra
    for requirement in requires("epitaxy") or ():
        package = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", requirement)
        if package and extra:
            packages.setdefault(extra[1], []).append(package[0].lower())
    wanted = module.partition(".")[0].lower()
    fitting = [extra for extra, names in packages.items() if wanted in names]
    if not fitting:
        return ""
    return f"pip install 'epitaxy[{min(fitting, key=lambda extra: len(packages[extra]))}]'"
