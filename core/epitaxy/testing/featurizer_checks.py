"""Checks of a featurizer: arrays of fixed shape, the same each time, nothing changed."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np

from epitaxy.component import Offer
from epitaxy.errors import ArtifactError
from epitaxy.registry import Registry
from epitaxy.testing import Check
from epitaxy.testing.structures import crystal, lone_atom, molecule, same, slab

Build = Callable[[], Any]


def checks(registry: Registry, offer: Offer) -> list[Check]:
    """Return the checks of a featurizer; it is built with `Component.example`.

    A parent that is not there is made: a small untrained network that knows all the elements.
    None, if it lacks the methods: the check of the target says so.
    """
    target = registry.load("featurizer", offer.qualified_name)
    if isinstance(target, type) and not hasattr(target, "fit"):
        return []
    spec = {"use": offer.qualified_name, **dict(offer.component.example)}
    build: Build = functools.partial(registry.build, "featurizer", spec)
    parent = spec.get("parent")
    if isinstance(parent, str) and not Path(parent).exists():
        build = WithParent(registry, spec)
    return featurizer_checks(build, prefix=f"featurizer/{offer.qualified_name}: ")


@dataclass(frozen=True)
class WithParent:
    """Builds a featurizer with a parent that is made for one check."""

    registry: Registry
    spec: Mapping[str, Any]

    def __call__(self) -> Any:
        """Return a fresh featurizer, whose parent is not there."""
        return self.registry.build("featurizer", self.spec)

    def inside(self, folder: Path) -> Build:
        """Make the parent in a folder; return what builds the featurizer with it."""
        from epitaxy.testing.calculator_checks import write_sample_artifact

        path = write_sample_artifact(
            folder / "parent",
            registry=self.registry,
            structures=[crystal(), molecule(), lone_atom()],
        )
        spec = {**self.spec, "parent": str(path)}
        return functools.partial(self.registry.build, "featurizer", spec)


def featurizer_checks(build: Build, *, prefix: str = "featurizer: ") -> list[Check]:
    """Return the checks of a featurizer (`epitaxy.protocols.Featurizer`).

    Args:
        build: makes it.
        prefix: what the names of the checks begin with.
    """
    rules: dict[str, Callable[[Build], None]] = {
        "gives finite arrays of the same shapes for every entry": _shapes,
        "gives the same features each time": _repeatable,
        "changes neither the dataset nor its entries": _unchanged,
        "nothing changes with a translation": _translation,
        "what the matrix says is what each entry says": _matrix,
        "restoring its state gives the same features": _state,
    }
    return [
        Check(prefix + title, functools.partial(_run, rule, build)) for title, rule in rules.items()
    ]


def _run(rule: Callable[[Build], None], build: Build) -> None:
    """Run a rule; an example that names a model which is not here cannot be checked.

    Raises:
        SkipTest: the artifact of the example is missing.
    """
    try:
        if isinstance(build, WithParent):
            with tempfile.TemporaryDirectory(prefix="epitaxy-check-") as folder:
                rule(build.inside(Path(folder)))
        else:
            rule(build)
    except ArtifactError as error:
        raise SkipTest(f"give an artifact with --set or example=...: {error}") from error


def _dataset() -> Any:
    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry

    several = [crystal(), molecule(), slab(), lone_atom(), crystal() * (2, 1, 1)]
    return Dataset.from_entries(
        [Entry.from_atoms(atoms, id=f"structure {k}") for k, atoms in enumerate(several)]
    )


def _fitted(build: Build) -> tuple[Any, Any]:
    featurizer, dataset = build(), _dataset()
    featurizer.fit(dataset)
    return featurizer, dataset


def _row(features: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in features.values()])


def _shapes(build: Build) -> None:
    featurizer, dataset = _fitted(build)
    first = featurizer(dataset[0])
    assert isinstance(first, Mapping), f"features are a {type(first).__name__}, not a mapping"
    assert first, "there are no features"
    for entry in dataset:
        found = featurizer(entry)
        assert list(found) == list(first), f"{entry.id} has {list(found)}, the first {list(first)}"
        for name, array in found.items():
            shape, expected = np.shape(array), np.shape(first[name])
            assert shape == expected, f"{name} of {entry.id}: shape {shape}, before {expected}"
            assert np.isfinite(array).all(), f"{name} of {entry.id} is not finite"


def _repeatable(build: Build) -> None:
    (featurizer, dataset), (other, _) = _fitted(build), _fitted(build)
    for entry in dataset:
        before = _row(featurizer(entry))
        assert np.array_equal(before, _row(featurizer(entry))), f"{entry.id}: another second time"
        assert np.array_equal(before, _row(other(entry))), f"{entry.id}: another after a second fit"


def _unchanged(build: Build) -> None:
    featurizer, dataset = build(), _dataset()
    digest = dataset.digest
    featurizer.fit(dataset)
    for entry in dataset:
        featurizer(entry)
    same_data = type(dataset).from_entries(list(dataset))
    assert same_data.digest == digest, "computing features changed the entries"


def _translation(build: Build) -> None:
    from epitaxy.entry import Entry

    featurizer, _ = _fitted(build)
    atoms = crystal()
    before = _row(featurizer(Entry.from_atoms(atoms, id="crystal")))
    atoms.positions += [3.3, -7.1, 11.9]
    after = _row(featurizer(Entry.from_atoms(atoms, id="crystal")))
    same(after, before, "features after a translation", tolerance=1e-6)


def _matrix(build: Build) -> None:
    featurizer, dataset = _fitted(build)
    if not hasattr(featurizer, "matrix"):
        return
    table = featurizer.matrix(dataset)
    rows = np.array([_row(featurizer(entry)) for entry in dataset])
    assert np.shape(table) == rows.shape, f"matrix {np.shape(table)}, entries {rows.shape}"
    same(np.asarray(table, dtype=np.float64), rows, "matrix(dataset)", tolerance=1e-6)


def _state(build: Build) -> None:
    featurizer, dataset = _fitted(build)
    if not hasattr(featurizer, "state"):
        return
    again = build()
    again.restore({name: np.array(array) for name, array in featurizer.state().items()})
    for entry in dataset:
        assert np.array_equal(_row(featurizer(entry)), _row(again(entry))), (
            f"{entry.id}: other features after restore(state())"
        )
