"""What the plugin of OPTIMADE provides."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of OPTIMADE."""
    return []
