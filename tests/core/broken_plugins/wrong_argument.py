"""Asks a hook for an argument that it does not give."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_models(device: str) -> list[Component]:
    """Is never called."""
    return []
