"""Wraps a hook that only lists things."""

from collections.abc import Iterator

from epitaxy import hookimpl


@hookimpl(wrapper=True)
def provide_models() -> Iterator[None]:
    """Would change what other plugins offer."""
    return (yield)
