"""What the plugin of AFLOW provides."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the reader of AFLOW."""
    return []
