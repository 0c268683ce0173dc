"""Offers a source under a name that another plugin uses too."""

from collections.abc import Iterator

from epitaxy import Component, hookimpl


class Source:
    """Knows who offers it."""

    origin = "second"

    def __iter__(self) -> Iterator[object]:
        """Yield nothing."""
        return iter(())


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the source."""
    return [Component(name="same", target="clash_second:Source", summary="second of two")]
