"""Forgets to mark a hook."""

from epitaxy import Component


def provide_models() -> list[Component]:
    """Would be ignored by pluggy without a word."""
    return [Component(name="ghost", target="unmarked_hook:Ghost", summary="never seen")]
