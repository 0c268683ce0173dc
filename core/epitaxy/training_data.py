"""From the places that a config names to checked data in parts for training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.errors import ConfigError, ConsistencyError, DataError, SplitError
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from epitaxy.config import Config, Place
    from epitaxy.curation.frames import FrameChecker, Rejections
    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry
    from epitaxy.protocols import Source
    from epitaxy.registry import Registry
    from epitaxy.split import Split

SAME_STRUCTURE = 1e-4  # Å: structures of two sets are one if all positions and cells agree so far
_STRUCTURES_AT_ONCE = 10_000
_SHOWN = 5

log = logging.getLogger("epitaxy")


def open_split(config: Config, registry: Registry) -> Split:
    """Read the data of a config and divide them.

    Raises:
        SplitError: they cannot be divided, or a set of its own shares structures with another
            part.
        EpitaxyError: data cannot be read.
    """
    from epitaxy.split import divide

    wanted = labels_of(config.model, registry)
    dataset = open_dataset(config.dataset, registry, wanted=wanted)
    own = {"valid": config.valid, "test": config.test}
    # What has a set of its own takes nothing from the dataset.
    nothing: dict[str, Any] = {name: 0 for name, place in own.items() if place is not None}
    split = divide(dataset, replace(config.split, **nothing))
    extra = {
        name: open_dataset(place, registry, wanted=wanted)
        for name, place in own.items()
        if place is not None
    }
    if extra:
        split = _with_own_sets(split, extra)
    _warn_of_leaks(split)
    return split


def _warn_of_leaks(split: Split) -> None:
    """Say what the parts share; groups only where the split was to keep them whole."""
    from epitaxy.split.leaks import MAX_WORK, leaks

    groups = str(split.method.get("groups", "none"))
    if groups != "composition" and (
        groups not in split.dataset.tags or (split.dataset.tag(groups) == "").any()
    ):
        groups = "none"
    found = leaks(split, groups, max_work=MAX_WORK)
    for line in found.lines():
        log.warning("split: %s; errors on them say little about new structures", line)


def _with_own_sets(split: Split, extra: Mapping[str, Dataset]) -> Split:
    """Put sets of their own beside a split, as one dataset with three parts."""
    from epitaxy.dataset import Dataset
    from epitaxy.split import Split

    _refuse_shared({"train": split.train, "valid": split.valid, "test": split.test, **extra}, extra)
    parts = [split.dataset, *extra.values()]
    joined = Dataset.from_entries(chain.from_iterable(parts), history=split.dataset.history)
    rows = dict(split.rows)
    start = len(split.dataset)
    for name, part in extra.items():
        rows[name] = np.arange(start, start + len(part))
        start += len(part)
    method = {**split.method, "own": sorted(extra)}
    return Split(joined, train=rows["train"], valid=rows["valid"], test=rows["test"], method=method)


def _refuse_shared(parts: Mapping[str, Dataset], own: Iterable[str]) -> None:
    """Refuse a set of its own that holds structures of another part, whatever their labels."""
    keys = {name: list(_geometry_keys(part)) for name, part in parts.items()}
    checked: set[str] = set()
    for name in own:
        checked.add(name)
        for other in [one for one in parts if one not in checked]:
            known = set(keys[other])
            shared = [row for row, key in enumerate(keys[name]) if key in known]
            if shared:
                ids = parts[name].ids
                shown = ", ".join(ids[row] or f"row {row}" for row in shared[:_SHOWN])
                more = f" and {len(shared) - _SHOWN:,} more" if len(shared) > _SHOWN else ""
                raise SplitError(
                    f"{len(shared):,} of the {len(parts[name]):,} structures of the {name} set "
                    f"are also in the {other} part: {shown}{more}. Errors on them would say "
                    f"nothing about new structures: take them out of one of the two, or divide "
                    f"one dataset with `split:`"
                )


def _geometry_keys(dataset: Dataset) -> Iterator[bytes]:
    """Yield a hash of elements, cell, periodicity and positions of each structure."""
    for start in range(0, len(dataset), _STRUCTURES_AT_ONCE):
        some = dataset.gather(np.arange(start, min(start + _STRUCTURES_AT_ONCE, len(dataset))))
        numbers = np.asarray(some.numbers, dtype=np.uint8)
        periodic = np.asarray(some.pbc, dtype=bool)
        positions, cells = (
            np.rint(np.asarray(array) / SAME_STRUCTURE).astype(np.int64)
            for array in (some.positions, some.cells)
        )
        ends = np.cumsum(some.n_atoms)
        for k, (first, end) in enumerate(zip(ends - some.n_atoms, ends, strict=True)):
            hashed = hashlib.sha256(numbers[first:end].tobytes())
            hashed.update(periodic[k].tobytes() + cells[k].tobytes())
            hashed.update(positions[first:end].tobytes())
            yield hashed.digest()[:16]


def labels_of(model: Spec, registry: Registry) -> tuple[str, ...] | None:
    """Return the labels of which a frame needs one to be of use to a model.

    None stands for those of a potential; none at all for a model that learns what there is.
    """
    from epitaxy.graph_model import GraphModel
    from epitaxy.models import build_model

    built = build_model(model, registry)
    if isinstance(built, GraphModel):
        return None
    return tuple(getattr(built, "targets", ())) or built.capabilities.targets


def open_dataset(
    place: Place, registry: Registry, *, wanted: tuple[str, ...] | None = None
) -> Dataset:
    """Open a stored dataset, or read a source into memory with the checks of `epitaxy ingest`.

    Unusable frames of a source are dropped; how many and why goes to the log and the history.

    Args:
        place: where the data are.
        registry: the plugins.
        wanted: see `labels_of`.

    Raises:
        ConsistencyError: labels of the source contradict each other.
        DataError: nothing of the source is usable.
        EpitaxyError: it cannot be read.
    """
    from epitaxy.dataset import Dataset

    if isinstance(place, str):
        path = Path(place)
        if path.is_dir():
            return Dataset.open(path)
        if path.exists():
            name = registry.identify(path)
            if name is None:
                raise ConfigError(
                    f"dataset: no plugin knows how to read {path}; give a source as "
                    f"{{use: name, path: {path}}} (`epitaxy plugins` lists them)"
                )
            place = {"use": name, "path": str(path)}
    spec = registry.resolve("source", place)
    return _checked(registry.build("source", place), spec, wanted)


def _checked(source: Source, spec: Spec, wanted: tuple[str, ...] | None) -> Dataset:
    """Collect the usable frames of a source and compare their labels with each other."""
    from epitaxy.curation.consistency import check_consistency
    from epitaxy.curation.frames import FrameChecker, FrameChecks, Rejections
    from epitaxy.curation.ingest import required_of
    from epitaxy.dataset import Dataset

    checks = FrameChecks(require=required_of([source]) if wanted is None else ())
    rejections, there = Rejections(), dict[str, None]()
    dataset = Dataset.from_entries(
        _usable(source, FrameChecker(checks), rejections, wanted=wanted or (), there=there)
    )
    what = str(spec.options.get("path") or spec.use)
    if not len(dataset):
        reasons = "; ".join(rejections.lines()) or "the source has no frames"
        remedy = _remedy(spec, rejections, wanted, there)
        raise DataError(f"{what}: nothing is left to train on: {reasons}. {remedy}")
    for line in rejections.lines():
        log.warning("%s: %s", what, line)
    report = check_consistency(dataset)
    if report.inconsistent:
        raise ConsistencyError(
            f"{what}: {report.message()}\n  These are options of `epitaxy ingest`: write a dataset "
            f"with it and train from that"
        )
    step = {
        "operation": "read",
        "source": spec.to_config(),
        "checks": asdict(checks),
        **rejections.step(),
    }
    return dataset.with_history(step).with_history(report.step())


def _remedy(
    spec: Spec, rejections: Rejections, wanted: tuple[str, ...] | None, there: Iterable[str]
) -> str:
    """Return what to do where no frame can be used."""
    if not any(reason.endswith(" missing") for reason in rejections.counts):
        return (
            "Where another check is wanted, write a dataset with `epitaxy ingest` and train from "
            "that"
        )
    asks = ", ".join(wanted or ("energy", "forces"))
    if not (found := ", ".join(there)):
        return (
            f"The model learns {asks}, and the frames have no labels: they may be in another file, "
            f"or need an option (`epitaxy show {spec.use}`)"
        )
    return (
        f"The model learns {asks}, the frames have {found}: learn these with model: {{use: "
        f"property, targets: [...], body: ...}}, or see which options the source has (`epitaxy "
        f"show {spec.use}`)"
    )


def _usable(
    source: Iterable[Entry],
    checker: FrameChecker,
    rejections: Rejections,
    *,
    wanted: tuple[str, ...],
    there: dict[str, None],
) -> Iterator[Entry]:
    """Yield the frames that can be used; `there` gets the names of all labels."""
    for entry in source:
        name = entry.id or f"frame {rejections.n_seen}"
        rejections.n_seen += 1
        there.update(dict.fromkeys(entry.targets))
        reason: str | None = f"{', '.join(wanted)} missing"
        if not wanted or set(wanted) & set(entry.targets):
            reason = checker.reason_against(entry)
        if reason is None:
            yield entry
        else:
            rejections.add(reason, name)
