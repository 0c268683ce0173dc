"""Imports something heavy and talks while it is loaded."""

import numpy  # noqa: F401

from epitaxy import Component, hookimpl

print("hello from heavy")


@hookimpl
def provide_models() -> list[Component]:
    """Offer nothing."""
    return []
