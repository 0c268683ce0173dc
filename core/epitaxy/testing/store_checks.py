"""Checks of a store: whatever is written comes back bit by bit, or is refused.

For a way to keep datasets that no plugin registers, ours or a stranger's::

    from epitaxy.testing.store_checks import store_checks

    checks = store_checks(write=lambda dataset, path: ..., open=lambda path: ...)
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.testing import Check

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

Write = Callable[["Dataset", Path], Any]
Open = Callable[[Path], Any]
"""Returns a `Dataset`, or what has its ``gather``, ``target``, ``tag``, ``ids`` and ``digest``."""


def store_checks(write: Write, open: Open, *, prefix: str = "store: ") -> list[Check]:
    """Return the checks of a store.

    Args:
        write: keeps a dataset at a path that does not exist.
        open: gives it back.
        prefix: what the names of the checks begin with.
    """
    rules: dict[str, Callable[[Write, Open], None]] = {
        "structures and labels come back bit by bit": _comes_back,
        "a view is kept as what it shows": _view,
        "one structure is kept": _one,
        "what is there is not overwritten": _no_overwriting,
        "the input is left as it was": _input_unchanged,
    }
    return [
        Check(prefix + title, functools.partial(rule, write, open)) for title, rule in rules.items()
    ]


def ragged_dataset() -> Dataset:
    """Return structures of 1 to 7 atoms with gaps in labels and tags, odd cells and -0.0."""
    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry, Method, Origin

    rng = np.random.default_rng(0)
    entries = []
    for i in range(23):
        n = 1 + i % 7
        targets = {"energy": np.array(-3.5 * n if i % 5 else -0.0)}
        if i % 3:
            targets["forces"] = rng.normal(size=(n, 3))
        if i % 4 == 1:
            targets["stress"] = rng.normal(size=6)
        entries.append(
            Entry(
                numbers=rng.integers(1, 95, n).astype(np.uint8),
                positions=rng.normal(scale=5, size=(n, 3)),
                cell=rng.normal(scale=4, size=(3, 3)) if i % 2 else np.zeros((3, 3)),
                pbc=np.array([i % 2, i % 4 == 3, i % 2], dtype=bool),
                targets=targets,
                id=f"entry {i} µ",
                method=Method(code="X", xc_functional="PBE" if i % 2 else "LDA"),
                origin=Origin(url=f"file-{i % 3}"),
                tags={"group": "größer"} if i % 3 == 0 else {},
            )
        )
    return Dataset.from_entries(entries)


def same(found: Any, expected: Dataset) -> None:
    """Assert that a store shows exactly the structures, labels and names of a dataset."""
    assert len(found) == len(expected), f"{len(found)} structures came back of {len(expected)}"
    for name, one, other in zip(
        ("numbers", "positions", "cells", "pbc", "n_atoms"),
        found.gather(np.arange(len(expected))),
        expected.gather(),
        strict=True,
    ):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), f"{name} differ"
    for name in expected.targets:
        if not expected.target(name)[1].any():
            continue  # a label that nothing in a view has need not be kept
        for one, other in zip(
            found.target(name, np.arange(len(expected))), expected.target(name), strict=True
        ):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), f"{name} differs"
    assert list(found.ids) == list(expected.ids), "ids differ"
    for name in expected.tags:
        if not any(expected.tag(name)):
            continue
        assert list(found.tag(name)) == list(expected.tag(name)), f"tag {name} differs"
    assert found.digest == expected.digest, "the digest differs: it must not depend on the store"


def _kept(write: Write, open: Open, dataset: Dataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept"
        write(dataset, path)
        found = open(path)
        same(found, dataset)
        close = getattr(found, "close", None)
        if close is not None:
            close()


def _comes_back(write: Write, open: Open) -> None:
    _kept(write, open, ragged_dataset())


def _view(write: Write, open: Open) -> None:
    _kept(write, open, ragged_dataset()[[7, 2, 2, 19, 0]])


def _one(write: Write, open: Open) -> None:
    _kept(write, open, ragged_dataset()[4:5])


def _no_overwriting(write: Write, open: Open) -> None:
    from epitaxy.errors import StoreError

    dataset = ragged_dataset()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept"
        write(dataset, path)
        try:
            write(dataset[:3], path)
        except StoreError as error:
            refusal = str(error)
        else:
            raise AssertionError("a dataset was overwritten without being asked to")
        assert str(path) in refusal, f"the refusal does not name the place: {refusal}"
        found = open(path)
        same(found, dataset)


def _input_unchanged(write: Write, open: Open) -> None:
    dataset = ragged_dataset()
    digest = dataset.digest
    _kept(write, open, dataset)
    fresh = ragged_dataset()
    assert fresh.digest == digest
    same(dataset, fresh)
