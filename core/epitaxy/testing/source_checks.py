"""Checks of a source: what it says about itself, and what it yields."""

from __future__ import annotations

import functools
import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from unittest import SkipTest

from epitaxy.component import Offer
from epitaxy.registry import Registry
from epitaxy.testing import Check

if TYPE_CHECKING:
    from epitaxy.entry import Entry
    from epitaxy.protocols import Source

LIMIT = 300
"""Entries that a check looks at, at most."""

ENOUGH = 64
"""Entries from which on it can be seen whether they pile up in memory."""

HIGHEST_ATOMIC_NUMBER = 118


def checks(registry: Registry, offer: Offer) -> list[Check]:
    """Return the checks of a source; it is built with `Component.example`."""
    rules: dict[str, Callable[[Source], None]] = {
        "has a card with title, license and known quantities": _has_card,
        "yields entries": _yields_entries,
        "entries are valid": _entries_are_valid,
        "targets are known, finite and on the card": _targets_are_valid,
        "ids are unique": _ids_are_unique,
        "entries say where they come from": _entries_have_an_origin,
        "iterates again in the same order": _is_stable,
        "two iterations do not disturb each other": _is_reentrant,
        "entries do not pile up in memory": _is_bounded,
    }
    return [
        Check(
            f"source/{offer.qualified_name}: {title}",
            functools.partial(_run, registry, offer, rule),
        )
        for title, rule in rules.items()
    ]


def _run(registry: Registry, offer: Offer, rule: Callable[[Source], None]) -> None:
    from epitaxy.options import options_of

    target = registry.load("source", offer.qualified_name)
    example = dict(offer.component.example)
    needed = [option.name for option in options_of(target) if option.required]
    if needed and not example:
        raise SkipTest(
            f"option {', '.join(needed)} has no default: give the Component an `example`"
        )
    rule(registry.build("source", {"use": offer.qualified_name, **example}))


def _entries(source: Source) -> Iterator[Entry]:
    return itertools.islice(iter(source), LIMIT)


def _name(index: int, entry: Entry) -> str:
    return f"entry {index} ({entry.id or 'without id'})"


def _has_card(source: Source) -> None:
    from epitaxy.protocols import Card
    from epitaxy.quantities import quantity

    card = getattr(source, "card", None)
    assert isinstance(card, Card), f"source.card is {card!r}, not an epitaxy.Card"
    assert card.title.strip(), "the card has no title"
    assert card.license.strip(), 'the card has no license: write its SPDX name, or "unknown"'
    assert isinstance(card.quantities, tuple), f"card.quantities is {card.quantities!r}, no tuple"
    for name in card.quantities:
        quantity(name)


def _yields_entries(source: Source) -> None:
    from epitaxy.entry import Entry

    iterator = iter(source)
    assert isinstance(iterator, Iterator), f"iter(source) is a {type(iterator).__name__}"
    first = next(iterator, None)
    assert first is not None, "the source yields nothing with its example options"
    assert isinstance(first, Entry), f"the source yields {type(first).__name__}, not Entry"


def _entries_are_valid(source: Source) -> None:
    import numpy as np

    for index, entry in enumerate(_entries(source)):
        name = _name(index, entry)
        n_atoms = len(entry.numbers)
        assert n_atoms > 0, f"{name} has no atoms"
        for attribute, shape, dtype in (
            ("numbers", (n_atoms,), np.uint8),
            ("positions", (n_atoms, 3), np.float64),
            ("cell", (3, 3), np.float64),
            ("pbc", (3,), np.bool_),
        ):
            array = getattr(entry, attribute)
            assert isinstance(array, np.ndarray), f"{name}: {attribute} is no array"
            assert array.shape == shape, f"{name}: {attribute} has shape {array.shape}, not {shape}"
            assert array.dtype == dtype, (
                f"{name}: {attribute} is {array.dtype}, not {np.dtype(dtype)}"
            )
            assert np.isfinite(array).all(), f"{name}: {attribute} is not finite"
        numbers = entry.numbers
        assert numbers.min() >= 1, f"{name}: atomic number {numbers.min()}"
        assert numbers.max() <= HIGHEST_ATOMIC_NUMBER, f"{name}: atomic number {numbers.max()}"
        rank = np.linalg.matrix_rank(entry.cell[entry.pbc]) if entry.pbc.any() else 0
        assert rank == entry.pbc.sum(), (
            f"{name}: periodic along {entry.pbc.tolist()} but its cell vectors are {entry.cell}"
        )


def _targets_are_valid(source: Source) -> None:
    import numpy as np

    from epitaxy.quantities import quantity

    for index, entry in enumerate(_entries(source)):
        for key, value in entry.targets.items():
            name = f"{_name(index, entry)}: {key}"
            rule = quantity(key)
            assert key in source.card.quantities, (
                f"{name} is not on the card, which promises {source.card.quantities}"
            )
            shape = (len(entry), *rule.shape) if rule.per == "atom" else rule.shape
            array = np.asarray(value)
            assert array.shape == shape, f"{name} has shape {array.shape}, not {shape}"
            assert array.dtype == np.float64, f"{name} is {array.dtype}, not float64"
            assert np.isfinite(array).all(), f"{name} is not finite; leave a missing target out"


def _ids_are_unique(source: Source) -> None:
    seen: dict[str, int] = {}
    for index, entry in enumerate(_entries(source)):
        assert entry.id, f"entry {index} has no id"
        assert "\n" not in entry.id, f"entry {index}: id {entry.id!r} has several lines"
        assert entry.id not in seen, f"entries {seen[entry.id]} and {index} are both {entry.id!r}"
        seen[entry.id] = index


def _entries_have_an_origin(source: Source) -> None:
    for index, entry in enumerate(_entries(source)):
        origin = entry.origin
        assert origin.url or origin.database, (
            f"{_name(index, entry)} names neither origin.url nor origin.database"
        )


def _is_stable(source: Source) -> None:
    import numpy as np

    first, second = list(_entries(source)), list(_entries(source))
    assert len(first) == len(second), f"{len(first)} entries at first, then {len(second)}"
    for index, (old, new) in enumerate(zip(first, second, strict=True)):
        name = _name(index, old)
        assert old.id == new.id, f"{name} is {new.id!r} the second time"
        assert (old.method, old.origin) == (new.method, new.origin), f"{name} changes its origin"
        assert dict(old.tags) == dict(new.tags), f"{name} changes its tags"
        assert set(old.targets) == set(new.targets), f"{name} changes its targets"
        for attribute in ("numbers", "positions", "cell", "pbc"):
            assert np.array_equal(getattr(old, attribute), getattr(new, attribute)), (
                f"{name} changes its {attribute}"
            )
        for key in old.targets:
            assert np.array_equal(old.targets[key], new.targets[key]), f"{name} changes its {key}"


def _is_reentrant(source: Source) -> None:
    expected = [entry.id for entry in _entries(source)]
    outer, inner = [], []
    other = _entries(source)
    for entry in _entries(source):
        outer.append(entry.id)
        inner += [another.id for another in itertools.islice(other, 1)]
    assert outer == expected, "an iteration changes when another one is going on"
    assert inner == expected, "an iteration changes when another one is going on"


def _is_bounded(source: Source) -> None:
    alive: list[weakref.ref[object]] = []
    for entry in _entries(source):
        alive.append(weakref.ref(entry.positions))
    n_entries = len(alive)
    if n_entries < ENOUGH:
        raise SkipTest(f"only {n_entries} entries: too few to see, {ENOUGH} are enough")
    del entry
    gc.collect()
    n_alive = sum(reference() is not None for reference in alive)
    assert n_alive < n_entries // 2, (
        f"{n_alive} of {n_entries} entries are still in memory after they were passed on: "
        f"read and yield them one by one"
    )
