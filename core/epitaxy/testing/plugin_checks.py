"""Checks of a plugin as a whole, and of what every component must have."""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from unittest import SkipTest

from epitaxy.component import Offer
from epitaxy.registry import RUNTIME, Registry
from epitaxy.testing import Check

HEAVY = (
    "adios2",
    "ase",
    "deephyper",
    "gpaw",
    "h5py",
    "matplotlib",
    "mpi4py",
    "numpy",
    "pandas",
    "pymatgen",
    "ray",
    "scipy",
    "sklearn",
    "torch",
)
"""Packages that may be imported by the module that does the work, never by a plugin module."""

METHODS = MappingProxyType(
    {
        "source": ("__iter__",),
        "featurizer": ("fit", "__call__"),
        "model": ("fit", "predict", "save", "load"),
        "strategy": ("__call__",),
        "publisher": ("publish",),
    }
)
"""What a class of each kind must be able to do (`epitaxy.protocols`)."""

MAX_SUMMARY = 100
"""Characters of a summary, so that a line of `epitaxy plugins` stays readable."""

_PROBE = """
import json, sys
path, module, plugin, heavy = json.loads(sys.argv[1])
sys.path[:] = path
from importlib import import_module
loaded = import_module(module)
if plugin:
    from epitaxy.registry import Registry
    Registry().add(plugin, loaded)
else:
    import argparse
    loaded.add_arguments(argparse.ArgumentParser())
print()
print(*(name for name in heavy if name in sys.modules))
"""


def checks(registry: Registry, plugin: str) -> list[Check]:
    """Return the checks of a plugin as a whole."""
    return [
        Check(f"{plugin}: loads", functools.partial(_loads, registry, plugin)),
        Check(
            f"{plugin}: imports nothing heavy and prints nothing",
            functools.partial(_is_light, registry, plugin),
        ),
    ]


def component_checks(registry: Registry, offer: Offer) -> list[Check]:
    """Return the checks that any component must pass."""
    title = f"{offer.kind}/{offer.qualified_name}"
    found = [
        Check(f"{title}: summary is one short line", functools.partial(_has_summary, offer)),
        Check(f"{title}: target can be imported", functools.partial(_target, registry, offer)),
    ]
    if offer.kind == "command":
        return [
            *found,
            Check(
                f"{title}: declares arguments lightly", functools.partial(_command, registry, offer)
            ),
        ]
    return [
        *found,
        Check(
            f"{title}: options are keyword-only, typed and documented",
            functools.partial(_options, registry, offer),
        ),
        Check(
            f"{title}: example options are accepted", functools.partial(_example, registry, offer)
        ),
        Check(
            f"{title}: target does what its kind asks", functools.partial(_methods, registry, offer)
        ),
    ]


def _loads(registry: Registry, plugin: str) -> None:
    problems = [str(problem) for problem in registry.problems if problem.plugin == plugin]
    assert not problems, problems[0]


def _is_light(registry: Registry, plugin: str) -> None:
    if plugin not in registry.plugins:
        raise SkipTest("it does not load")
    loaded = registry.plugins[plugin]
    if not isinstance(loaded, ModuleType) or find_spec(loaded.__name__) is None:
        raise SkipTest("the plugin is not a module that another process can import")
    heavy = _imported_by(loaded.__name__, plugin)
    assert not heavy, (
        f"the plugin module imports {', '.join(heavy)}: name the target as text and import "
        f"in its own module"
    )


def _imported_by(module: str, plugin: str) -> list[str]:
    """Return the heavy packages that a fresh process has imported after loading a module."""
    arguments = json.dumps([sys.path, module, plugin, HEAVY])
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{module} cannot be loaded alone: {done.stderr[-800:]}"
    *printed, heavy = done.stdout.splitlines()
    assert not "".join(printed), f"{module} prints while it is loaded: {printed[0]!r}"
    return heavy.split()


def _has_summary(offer: Offer) -> None:
    summary = offer.component.summary
    assert summary.strip(), "the summary is empty"
    assert "\n" not in summary, f"the summary has several lines: {summary!r}"
    assert len(summary) <= MAX_SUMMARY, (
        f"the summary has {len(summary)} characters, at most {MAX_SUMMARY} fit"
    )


def _skip_if_missing(offer: Offer) -> None:
    if missing := offer.component.missing():
        raise SkipTest(f"needs {', '.join(missing)}: {offer.install_command}")


def _target(registry: Registry, offer: Offer) -> None:
    _skip_if_missing(offer)
    target = registry.load(offer.kind, offer.qualified_name)
    assert offer.kind == "command" or callable(target), f"{target!r} cannot be called"


def _command(registry: Registry, offer: Offer) -> None:
    _skip_if_missing(offer)
    module = registry.load("command", offer.qualified_name)
    for name in ("add_arguments", "run"):
        assert callable(getattr(module, name, None)), f"{module.__name__} has no function {name}"
    heavy = _imported_by(module.__name__, "")
    assert not heavy, f"{module.__name__} imports {', '.join(heavy)} before run(args) is called"


def _options(registry: Registry, offer: Offer) -> None:
    from epitaxy.options import options_of, options_schema

    _skip_if_missing(offer)
    target = registry.load(offer.kind, offer.qualified_name)
    runtime = RUNTIME.get(offer.kind, frozenset())
    options_schema(target, runtime=runtime)  # every annotation can be evaluated
    for option in options_of(target, runtime=runtime):
        assert option.type, f"option {option.name!r} has no type"
        assert option.doc, (
            f"option {option.name!r} is not explained in the Args section of the docstring"
        )
    check = getattr(target, "check", None) if not inspect.isclass(target) else None
    if offer.kind == "strategy" and check is not None:
        given, own = inspect.signature(check).parameters, inspect.signature(target).parameters
        assert [*given] == [*own], (
            f"check takes {', '.join(given)}, the strategy {', '.join(own)}: they must be the same"
        )
    is_called_late = offer.kind == "calculator" or (
        offer.kind == "strategy" and not inspect.isclass(target)
    )
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            raise AssertionError(f"**{parameter.name} hides which options there are")
        if parameter.kind is not parameter.KEYWORD_ONLY and not is_called_late:
            raise AssertionError(f"option {parameter.name!r} must be keyword-only (after a *)")


def _example(registry: Registry, offer: Offer) -> None:
    from epitaxy.options import options_of

    _skip_if_missing(offer)
    target = registry.load(offer.kind, offer.qualified_name)
    runtime = RUNTIME.get(offer.kind, frozenset())
    example = dict(offer.component.example)
    needed = [option.name for option in options_of(target, runtime=runtime) if option.required]
    if needed and not example:
        raise SkipTest(f"no Component.example gives {', '.join(needed)}")
    registry.resolve(offer.kind, {"use": offer.qualified_name, **example})


def _methods(registry: Registry, offer: Offer) -> None:
    _skip_if_missing(offer)
    target = registry.load(offer.kind, offer.qualified_name)
    if not inspect.isclass(target):
        assert callable(target)
        return
    torch = sys.modules.get("torch")
    is_network = torch is not None and issubclass(target, torch.nn.Module)
    wanted = ("forward",) if is_network else METHODS.get(offer.kind, ())
    for name in wanted:
        assert callable(getattr(target, name, None)), (
            f"{target.__name__} has no method {name} (see epitaxy.protocols)"
        )
