"""Writes a target with a dot where the colon belongs."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_models() -> list[Component]:
    """Returns a malformed component."""
    return [Component(name="dotted", target="malformed_target.Model", summary="no colon")]
