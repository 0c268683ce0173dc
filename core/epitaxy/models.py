"""From a spec to a model, whether the component is a bare network or a whole model."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any, cast

from epitaxy.errors import CapabilityError, PluginError
from epitaxy.protocols import Model
from epitaxy.registry import Registry
from epitaxy.spec import Spec


def build_model(spec: Spec, registry: Registry) -> Model:
    """Build the model that a spec describes.

    A target that is a `torch.nn.Module` class, or a function that returns a module, is a
    network: it is wrapped in `epitaxy.graph_model.GraphModel`, which trains, saves and
    differentiates it. Anything else is the model itself.

    Args:
        spec: the component's name and its options; defaults are filled in, so that what an
            artifact records does not change when a default does.
        registry: where components are found.

    Raises:
        OptionError: an option is unknown, missing or has a wrong value.
        PluginError: the component is unknown, broken or lacks a package, or what it builds is
            neither a network nor a model.
    """
    factory = cast("functools.partial[Any]", registry.factory("model", spec))
    target = factory.func
    if not (inspect.isclass(target) and issubclass(cast("type", target), _module_types())):
        built = factory()
        if not isinstance(built, _module_types()):
            missing = [n for n in ("fit", "predict", "save", "load") if not hasattr(built, n)]
            if missing:
                raise PluginError(
                    f"model {spec.use!r} is a {type(built).__name__}, which is no torch.nn.Module "
                    f"and lacks {', '.join(missing)} (see epitaxy.protocols.Model)"
                )
            return cast("Model", built)

    if not getattr(target, "gives_energies", True):
        raise CapabilityError(
            f"model {spec.use!r} gives features, no energies per atom: put heads on it with "
            f"{{use: property, body: {{use: {spec.use}, ...}}, targets: [...]}}"
        )
    from epitaxy.graph_model import GraphModel

    model: Model = GraphModel(registry.resolve("model", spec), factory)
    return model


def _module_types() -> tuple[type, ...]:
    """Return ``(torch.nn.Module,)``, or nothing if no target has imported torch."""
    torch = sys.modules.get("torch")
    return (torch.nn.Module,) if torch is not None else ()
