"""Offers two sources and a model, and breaks after the first model."""

from collections.abc import Iterator

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Works."""
    return [Component(name="half", target="raises_half_way:Half", summary="must not stay")]


@hookimpl
def provide_models() -> Iterator[Component]:
    """Breaks after its first component."""
    yield Component(name="half-model", target="raises_half_way:Half", summary="must not stay")
    raise OSError("the list of models cannot be read")
