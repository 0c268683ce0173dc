"""Is written for a plugin interface of the future."""

from epitaxy import Component, hookimpl

epitaxy_api = 99


@hookimpl
def provide_models() -> list[Component]:
    """Is never called."""
    return []
