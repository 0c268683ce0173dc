"""Returns names instead of components."""

from epitaxy import hookimpl


@hookimpl
def provide_models() -> list[str]:
    """Returns the wrong type."""
    return ["painn"]
