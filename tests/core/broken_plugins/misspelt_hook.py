"""Misspells the name of a hook."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_modles() -> list[Component]:
    """Is never called."""
    return []
