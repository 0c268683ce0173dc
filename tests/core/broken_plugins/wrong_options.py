"""Offers components whose options are declared badly, and targets that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epitaxy import Component, hookimpl

if TYPE_CHECKING:
    from collections import OrderedDict


class Positional:
    """Takes its option by position."""

    def __init__(self, width: int) -> None:
        self.width = width


class Untyped:
    """Takes an option without a type."""

    def __init__(self, *, width=3) -> None:
        self.width = width


class Unresolvable:
    """Takes an option whose type exists for the type checker only.

    Args:
        table: anything.
    """

    def __init__(self, *, table: OrderedDict[str, int] | None = None) -> None:
        self.table = table


@hookimpl
def provide_featurizers() -> list[Component]:
    """Offer them."""
    return [
        Component(name="positional", target="wrong_options:Positional", summary="by position"),
        Component(name="untyped", target="wrong_options:Untyped", summary="without a type"),
        Component(name="unresolvable", target="wrong_options:Unresolvable", summary="no such type"),
        Component(name="absent", target="wrong_options:Positionl", summary="no such class"),
        Component(name="nowhere", target="wrong_options_gone:Model", summary="no such module"),
    ]
