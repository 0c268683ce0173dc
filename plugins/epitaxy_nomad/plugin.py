"""What the plugin of NOMAD provides."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of NOMAD."""
    return []
