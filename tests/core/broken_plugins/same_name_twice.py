"""Offers two models of one name."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_models() -> list[Component]:
    """Return two components that nobody can tell apart."""
    return [
        Component(name="twin", target="same_name_twice:A", summary="one"),
        Component(name="twin", target="same_name_twice:B", summary="two"),
    ]
