"""The hooks that a plugin may implement.

Each ``provide_*`` hook takes no argument and returns the components that the plugin offers;
a component names its target as text, so nothing is imported until somebody uses it. The
three observer hooks are called while a model is trained. `identify_path` is asked, plugin by
plugin, until one recognises a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from epitaxy.registry import Component
    from epitaxy.run import Run

PROJECT = "epitaxy"
GROUP = "epitaxy.plugins"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def provide_sources() -> Iterable[Component]:
    """Readers of materials databases and files (`epitaxy.protocols.Source`)."""
    return ()


@hookspec
def provide_featurizers() -> Iterable[Component]:
    """Makers of fixed-length features from entries (`epitaxy.protocols.Featurizer`)."""
    return ()


@hookspec
def provide_models() -> Iterable[Component]:
    """Trainable models (`epitaxy.protocols.Model` or a `torch.nn.Module` network)."""
    return ()


@hookspec
def provide_strategies() -> Iterable[Component]:
    """Ways from a model spec and a split to a trained model (`epitaxy.protocols.Strategy`)."""
    return ()


@hookspec
def provide_publishers() -> Iterable[Component]:
    """Places to put artifacts and datasets (`epitaxy.protocols.Publisher`)."""
    return ()


@hookspec
def provide_calculators() -> Iterable[Component]:
    """ASE calculators around artifacts (`epitaxy.protocols.CalculatorFactory`)."""
    return ()


@hookspec
def provide_commands() -> Iterable[Component]:
    """Verbs of the command line; a target is a module (`epitaxy.protocols.Command`)."""
    return ()


@hookspec(firstresult=True)
def identify_path(path: Path) -> str | None:
    """Return the name of the source that reads `path`, or None to pass it on."""
    return None


@hookspec
def run_started(run: Run, facts: Mapping[str, Any]) -> None:
    """Called once before the first epoch; `facts` are plain values (sizes, spec, seed)."""


@hookspec
def epoch_finished(run: Run, epoch: int, metrics: Mapping[str, float]) -> None:
    """Called after each epoch with the numbers that also go into metrics.jsonl."""


@hookspec
def run_finished(run: Run, metrics: Mapping[str, float]) -> None:
    """Called once when training has ended, well or by an error."""
