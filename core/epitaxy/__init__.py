"""From scattered materials data to a trusted ASE calculator with an error bar.

Every public name can be imported from here; what is behind it is imported when it is used, so
``import epitaxy`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epitaxy.artifact import Artifact, load_artifact, save_artifact
    from epitaxy.component import Component
    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry, Method, Origin
    from epitaxy.errors import EpitaxyError
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy.hookspecs import hookimpl
    from epitaxy.models import build_model
    from epitaxy.protocols import Capabilities, Card, Predictions, Receipt
    from epitaxy.quantities import QUANTITIES, Quantity, quantity
    from epitaxy.registry import Registry
    from epitaxy.run import Run
    from epitaxy.spec import Spec
    from epitaxy.split import Split, split_by_group, split_by_ids, split_random
    from epitaxy.training.options import TrainingOptions

_HOME = {
    "Artifact": "epitaxy.artifact",
    "Capabilities": "epitaxy.protocols",
    "Card": "epitaxy.protocols",
    "Component": "epitaxy.component",
    "Dataset": "epitaxy.dataset",
    "Entry": "epitaxy.entry",
    "EpitaxyError": "epitaxy.errors",
    "GraphBatch": "epitaxy.graphs.batch",
    "Method": "epitaxy.entry",
    "Origin": "epitaxy.entry",
    "Predictions": "epitaxy.protocols",
    "QUANTITIES": "epitaxy.quantities",
    "Quantity": "epitaxy.quantities",
    "Receipt": "epitaxy.protocols",
    "Registry": "epitaxy.registry",
    "Run": "epitaxy.run",
    "Spec": "epitaxy.spec",
    "Split": "epitaxy.split",
    "TrainingOptions": "epitaxy.training.options",
    "build_model": "epitaxy.models",
    "hookimpl": "epitaxy.hookspecs",
    "load_artifact": "epitaxy.artifact",
    "quantity": "epitaxy.quantities",
    "save_artifact": "epitaxy.artifact",
    "split_by_group": "epitaxy.split",
    "split_by_ids": "epitaxy.split",
    "split_random": "epitaxy.split",
}

__all__ = [
    "QUANTITIES",
    "Artifact",
    "Capabilities",
    "Card",
    "Component",
    "Dataset",
    "Entry",
    "EpitaxyError",
    "GraphBatch",
    "Method",
    "Origin",
    "Predictions",
    "Quantity",
    "Receipt",
    "Registry",
    "Run",
    "Spec",
    "Split",
    "TrainingOptions",
    "build_model",
    "hookimpl",
    "load_artifact",
    "quantity",
    "save_artifact",
    "split_by_group",
    "split_by_ids",
    "split_random",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("epitaxy")
    if name not in _HOME:
        raise AttributeError(f"module 'epitaxy' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
