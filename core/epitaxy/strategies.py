"""What a strategy can refuse before any time is spent.

A strategy may have `check`, which takes what it takes: it raises what the strategy itself would
raise about parent, options, data and nested strategies, and does no work. `epitaxy train` and
`epitaxy learning-curve` call it for all that is to be trained before they begin.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from epitaxy.run import Run
    from epitaxy.spec import Spec
    from epitaxy.split import Split

F = TypeVar("F", bound=Callable[..., Any])


def refuses_early(check: Callable[..., None]) -> Callable[[F], F]:
    """Mark a strategy that is a function with its check.

    Args:
        check: takes what the strategy takes.
    """

    def mark(strategy: F) -> F:
        strategy.check = check  # type: ignore[attr-defined]
        return strategy

    return mark


def check_strategy(strategy: Spec, model: Spec, split: Split, *, run: Run) -> None:
    """Let a strategy refuse what it could not train.

    Args:
        strategy: the recipe of the strategy; of one without a check only the options are checked.
        model: the recipe of the model.
        split: what would be trained on.
        run: as for the strategy; nothing is written.

    Raises:
        EpitaxyError: what the strategy would raise.
    """
    built = run.registry.build("strategy", strategy)
    is_function = isinstance(built, functools.partial)
    check = getattr(built.func if is_function else built, "check", None)
    if check is not None:
        check(model, split, run=run, **(built.keywords if is_function else {}))
