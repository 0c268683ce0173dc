"""From a spec to a model: networks are wrapped, whole models are used as they are."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

from epitaxy import Component, GraphBatch, Registry, Spec, build_model, hookimpl
from epitaxy.errors import OptionError, PluginError
from epitaxy.graph_model import GraphModel


class Network(nn.Module):
    """The sum of the distances to the neighbors, times a weight."""

    def __init__(self, *, cutoff: float = 4.0, width: int = 3) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.width = width
        self.head = nn.Linear(1, 1)

    def forward(self, graph: GraphBatch) -> Tensor:
        distances = graph.vectors.norm(dim=-1)
        energies = distances.new_zeros(len(graph.numbers)).index_add(0, graph.centers, distances)
        return self.head(energies[:, None]).squeeze(-1)


def make_network(*, width: int = 5) -> nn.Module:
    """Return a network, as a function."""
    return Network(width=width)


class Mean:
    """A model that is no network."""

    def __init__(self, *, value: float = 1.0) -> None:
        self.value = value

    def fit(self, train: Any, valid: Any, *, run: Any) -> Mapping[str, float]:
        return {}

    def predict(self, dataset: Any) -> Any: ...

    def save(self, directory: Path) -> None: ...

    @classmethod
    def load(cls, directory: Path) -> "Mean":
        return cls()


class Neither:
    """Neither a network nor a model."""

    def fit(self) -> None: ...


class Models:
    @hookimpl
    def provide_models(self) -> list[Component]:
        names = ("Network", "make_network", "Mean", "Neither")
        return [Component(name=n, target=f"models_of_a_test:{n}", summary=n) for n in names]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    module: Any = SimpleNamespace(
        Network=Network, make_network=make_network, Mean=Mean, Neither=Neither
    )
    monkeypatch.setitem(sys.modules, "models_of_a_test", module)
    registry = Registry()
    registry.add("models", Models())
    return registry


@pytest.mark.parametrize(("name", "width"), [("Network", 3), ("make_network", 5)])
def test_a_network_becomes_a_model_with_every_option_recorded(
    registry: Registry, name: str, width: int
) -> None:
    model = build_model(Spec(name), registry)
    assert isinstance(model, GraphModel)
    assert model.spec.use == f"models/{name}"
    assert model.spec.options["width"] == width
    changed = build_model(Spec(name, {"width": "7"}), registry)
    assert isinstance(changed, GraphModel)
    assert changed.spec.options["width"] == 7


def test_a_model_is_used_as_it_is(registry: Registry) -> None:
    model = build_model(Spec("Mean", {"value": 2}), registry)
    assert isinstance(model, Mean)
    assert model.value == 2.0


def test_something_else_is_refused_with_what_it_lacks(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"is a Neither, .* lacks predict, save, load"):
        build_model(Spec("Neither"), registry)


def test_options_are_checked_before_anything_is_built(registry: Registry) -> None:
    with pytest.raises(OptionError, match="Did you mean 'width'"):
        build_model(Spec("Network", {"widht": 3}), registry)
