"""Offers a source under a name that another plugin uses too."""

from collections.abc import Iterator

from epitaxy import Component, hookimpl


class Source:
    """Knows who offers it."""

    origin = "first"

    def __iter__(self) -> Iterator[object]:
        """Yield nothing."""
        return iter(())


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the source."""
    return [Component(name="same", target="clash_first:Source", summary="first of two")]
