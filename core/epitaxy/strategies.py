"""What a strategy can refuse before any time is spent.

A strategy may have `check`, which takes what it takes: it raises what the strategy itself would
raise about parent, options, data and nested strategies, does no work, and returns the elements
that the model will know before it is trained. A parent in ``run.planned`` is not trained yet: of it
only the recipe is checked. `epitaxy train` and `epitaxy learning-curve` call it
for all that is to be trained before they begin.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.run import Run
    from epitaxy.spec import Spec
    from epitaxy.split import Split

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class PlannedParent:
    """A parent that is yet to be trained.

    Attributes:
        model: recipe of its model.
        strategy: recipe of the strategy that trains it.
        elements: atomic numbers of its data; it will know no others.
    """

    model: Spec
    strategy: Spec
    elements: frozenset[int]


def refuses_early(check: Callable[..., frozenset[int]]) -> Callable[[F], F]:
    """Mark a strategy that is a function with its check.

    Args:
        check: takes what the strategy takes, returns the elements of a parent's weights.
    """

    def mark(strategy: F) -> F:
        strategy.check = check  # type: ignore[attr-defined]
        return strategy

    return mark


def check_strategy(strategy: Spec, model: Spec, split: Split, *, run: Run) -> frozenset[int]:
    """Let a strategy refuse what it could not train; return the elements known before training.

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
    if check is None:
        return frozenset()
    known: frozenset[int] = check(model, split, run=run, **(built.keywords if is_function else {}))
    return known


def check_data(
    model: Spec, train: Dataset, other: Dataset, *, run: Run, known: frozenset[int] = frozenset()
) -> None:
    """Let a model refuse data that it cannot learn from or be tested on.

    Args:
        model: the recipe; one without a check is left alone.
        train: structures to learn from.
        other: structures for validation or the test.
        run: options.
        known: elements that the model knows before it is trained (`check_strategy`).

    Raises:
        EpitaxyError: what the model would raise.
    """
    from epitaxy.models import build_model

    check = getattr(build_model(model, run.registry), "check_data", None)
    if check is None:
        return
    takes_known = "known" in inspect.signature(check).parameters
    check(train, other, run=run, **({"known": known} if takes_known else {}))
