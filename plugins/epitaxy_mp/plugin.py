"""What the plugin of the Materials Project provides."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of the Materials Project."""
    return []
