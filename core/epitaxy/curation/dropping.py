"""Operations that drop entries: unusable frames, duplicates, and what a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from epitaxy.curation.frames import FrameChecker, FrameChecks, Rejections
from epitaxy.curation.screening import blocks, suspicious_rows
from epitaxy.curation.step import kept
from epitaxy.curation.tell import Tell
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError, OptionError
from epitaxy.quantities import quantity


def drop_unusable(
    dataset: Dataset,
    *,
    require: Sequence[str] = (),
    or_property: bool = False,
    max_force: float | None = 100.0,
    min_distance: float = 0.1,
    max_energy: float | None = 1e6,
    limits: Mapping[str, tuple[float, float] | None] | None = None,
    tell: Tell | None = None,
) -> Dataset:
    """Drop entries that no model should see, each with its reason.

    Args:
        dataset: to check.
        require: targets that every entry must have.
        or_property: keep entries without them that have a label which no force calculation gives.
        max_force: largest force on an atom, eV/Å (Table II of the HydraGNN paper: 100).
        min_distance: shortest distance between atoms (and images), Å; 0 for no limit.
        max_energy: largest magnitude of the energy per atom, eV/atom.
        limits: quantity -> [lowest, highest], changes to the physical ranges; null for none.
        tell: called now and then with the progress.
    """
    for name in require:
        quantity(name)
    checks = FrameChecks(
        require=tuple(require),
        or_property=or_property,
        max_force=max_force,
        min_distance=min_distance,
        max_energy=max_energy,
        limits=dict(limits or {}),
        duplicates=False,
    )
    checker, rejections = FrameChecker(checks), Rejections()
    bad = np.zeros(len(dataset), dtype=bool)
    for rows in blocks(dataset):
        for row in rows[suspicious_rows(dataset, checks, rows)].tolist():
            entry = dataset[row]
            if (reason := checker.unusable(entry)) is not None:
                bad[row] = True
                rejections.add(reason, entry.id or f"row {row}")
        rejections.n_seen += len(rows)
        if tell:
            n_kept = rejections.n_seen - rejections.n_dropped
            tell(rejections.n_seen, n_kept, rejections.n_seen / len(dataset))
    options = {
        "require": list(require),
        "or_property": or_property,
        "max_force": max_force,
        "min_distance": min_distance,
        "max_energy": max_energy,
        "limits": {k: None if v is None else list(v) for k, v in (limits or {}).items()},
    }
    return kept(dataset, (~bad).nonzero()[0].tolist(), rejections, "frames", options)


def drop_duplicates(
    dataset: Dataset, *, distance: float = 1e-5, tell: Tell | None = None
) -> Dataset:
    """Drop entries whose structure at the same level of theory was there before.

    Of formulas without a structure those are dropped whose labels are the same too.

    Args:
        dataset: to check.
        distance: positions and cells, Å, agree when rounded to multiples of this.
        tell: called now and then with the progress.
    """
    checker = FrameChecker(FrameChecks(duplicate_distance=distance))
    rejections = Rejections()
    rows: list[int] = []
    for row, entry in enumerate(dataset):
        rejections.n_seen += 1
        if (reason := checker.repeated(entry)) is None:
            rows.append(row)
        else:
            rejections.add(reason, entry.id or f"row {row}")
        if tell and row % 1000 == 0:
            tell(rejections.n_seen, len(rows), row / len(dataset))
    return kept(dataset, rows, rejections, "duplicates", {"distance": distance})


def drop_named(
    dataset: Dataset,
    *,
    ids: Sequence[str] = (),
    tag: str = "",
    words: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> Dataset:
    """Drop entries by name, by a tag or by level of theory.

    Args:
        dataset: to check.
        ids: names of entries.
        tag: name of a tag.
        words: values of that tag.
        methods: xc functionals, codes or whole methods ("VASP, PBE").

    Raises:
        DataError: one of them does not occur.
        OptionError: a tag without words, or the other way round.
    """
    from epitaxy.curation.methods import matches, method_labels

    if bool(tag) != bool(words):
        raise OptionError("drop: give both a tag and the words of it that go")
    reasons = np.zeros(len(dataset), dtype=object)
    if ids:
        names = list(dataset.ids)
        if unknown := set(ids) - set(names):
            raise DataError(f"no entry is called {', '.join(sorted(unknown)[:5])}")
        wanted = set(ids)
        reasons[[k for k, name in enumerate(names) if name in wanted]] = "named"
    if tag:
        values = dataset.tag(tag)
        for word in words:
            if not (values == word).any():
                raise DataError(f"no entry has {tag} = {word!r}")
            reasons[values == word] = f"{tag} is {word}"
    if methods:
        labels = method_labels(dataset)
        for name in methods:
            found = np.array([matches(label, name) for label in labels], dtype=bool)
            if not found.any():
                present = ", ".join(sorted(set(labels.tolist())))
                raise DataError(f"no entry has the method {name!r}; there are: {present}")
            reasons[found] = f"method is {name}"
    rejections = Rejections(n_seen=len(dataset))
    for row in (reasons != 0).nonzero()[0].tolist():
        rejections.add(str(reasons[row]), dataset.ids[row] or f"row {row}")
    options = {"ids": list(ids), "tag": tag, "words": list(words), "methods": list(methods)}
    return kept(dataset, (reasons == 0).nonzero()[0].tolist(), rejections, "drop", options)
