"""What the parts of splits have in common and should not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epitaxy.curation.fingerprint import same_structures
from epitaxy.errors import SplitError
from epitaxy.split.labels import labels_of_all
from epitaxy.split.parts import PARTS, Split

_SHOWN = 5
MAX_WORK = 3e8
"""Phases of the comparison of structures: about half a minute. `epitaxy split --check` has no
limit."""


@dataclass(frozen=True, slots=True)
class Leaks:
    """What is in more than one part.

    Attributes:
        groups_by: what the groups are called.
        groups: label -> {part: number of structures}, of every group that is in several parts.
        n_groups: groups in all.
        equal: part -> ids of its structures that are also in a part before it (train, then
            valid, then test), in whatever cell or order of atoms.
        compared: whether structures were compared with each other.
    """

    groups_by: str
    groups: Mapping[str, Mapping[str, int]]
    n_groups: int
    equal: Mapping[str, tuple[str, ...]]
    compared: bool = True

    def __bool__(self) -> bool:
        """Whether anything leaks."""
        return bool(self.groups) or any(self.equal.values())

    @property
    def n_equal(self) -> int:
        """Structures of valid and test that are also in a part before."""
        return sum(map(len, self.equal.values()))

    def lines(self) -> list[str]:
        """Return what leaks, one sentence each; empty if nothing does."""
        said = []
        if self.groups:
            shown = [
                f"{label.strip(chr(0))} ({', '.join(f'{part} {n:,}' for part, n in parts.items())})"
                for label, parts in list(self.groups.items())[:_SHOWN]
            ]
            more = len(self.groups) - len(shown)
            said.append(
                f"{len(self.groups):,} of {self.n_groups:,} groups by {self.groups_by} are in "
                f"several parts: {'; '.join(shown)}{f' and {more:,} more' if more else ''}"
            )
        for part, names in self.equal.items():
            if names:
                before = " or ".join(PARTS[: PARTS.index(part)])
                more = len(names) - _SHOWN
                said.append(
                    f"{len(names):,} structures of {part} are the same as one of {before}: "
                    f"{', '.join(names[:_SHOWN])}{f' and {more:,} more' if more > 0 else ''}"
                )
        return said

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "groups_by": self.groups_by,
            "n_groups": self.n_groups,
            "leaking_groups": {label: dict(parts) for label, parts in self.groups.items()},
            "equal_structures": {part: list(names) for part, names in self.equal.items()},
            "structures_compared": self.compared,
        }


def leaks(
    splits: Split | Sequence[Split],
    groups: str | Sequence[Sequence[str] | np.ndarray] | None = None,
    *,
    structures: bool = True,
    max_work: float = np.inf,
) -> Leaks:
    """Look for groups and for equal structures in several parts, of one split or of several.

    Two structures are equal if a translation, rotation, reordering of atoms or another cell,
    supercells included, makes one of the other (`epitaxy.curation.fingerprint`).

    Args:
        splits: of one dataset, or of several whose parts must not share anything either.
        groups: as in `split_by_group`, or labels for each split; by default those that the
            splits were made with, else "composition".
        structures: compare structures too.
        max_work: skip that comparison where it takes more, see `MAX_WORK`.

    Raises:
        SplitError: labels of the wrong number.
        DataError: there is no such tag, or it was made with different engines or tolerances.
    """
    several = [splits] if isinstance(splits, Split) else list(splits)
    if not several:
        raise SplitError("no splits to check")
    datasets = [split.dataset for split in several]
    labels, name = labels_of_all(datasets, default_groups(several) if groups is None else groups)
    parts = [part_of_rows(split) for split in several]
    used = [part >= 0 for part in parts]
    marks = np.concatenate([part[some] for part, some in zip(parts, used, strict=True)])
    words = np.concatenate([text[some] for text, some in zip(labels, used, strict=True)])
    names, codes = np.unique(words, return_inverse=True)
    counts = np.zeros((len(names), len(PARTS)), dtype=np.int64)
    np.add.at(counts, (codes.reshape(-1), marks), 1)
    leaking = ((counts > 0).sum(axis=1) > 1).nonzero()[0]
    leaking = leaking[np.argsort(-counts[leaking].sum(axis=1), kind="stable")]
    found = {
        str(names[g]): {p: int(n) for p, n in zip(PARTS, counts[g], strict=True) if n}
        for g in leaking
    }
    equal = {part: () for part in PARTS[1:]}
    numbers = None
    if structures:
        views = [dataset[some] for dataset, some in zip(datasets, used, strict=True)]
        numbers = same_structures(
            views, marks=[p[s] for p, s in zip(parts, used, strict=True)], max_work=max_work
        )
        if numbers is not None:
            ids = [name for view in views for name in view.ids]
            equal = _equal(np.concatenate(numbers), marks, ids)
    return Leaks(name, found, len(names), equal, compared=numbers is not None)


def part_of_rows(split: Split) -> np.ndarray:
    """Return the part of each row, (n,) index into `PARTS`; -1 for rows that are in none."""
    parts = np.full(len(split.dataset), -1)
    for k, rows in enumerate(split.rows.values()):
        parts[rows] = k
    return parts


def default_groups(splits: Sequence[Split]) -> str:
    """Return the groups that splits were made with, "composition" where they had none."""
    names = {str(split.method.get("groups", "composition")) for split in splits}
    name = names.pop() if len(names) == 1 else "composition"
    usable = name == "composition" or all(name in split.dataset.tags for split in splits)
    return name if usable else "composition"


def _equal(numbers: np.ndarray, marks: np.ndarray, ids: Sequence[str]) -> dict[str, Any]:
    """Return the ids of each part whose structure is also in a part before."""
    compared = numbers >= 0
    first = np.full(numbers.max(initial=-1) + 1, len(PARTS))
    np.minimum.at(first, numbers[compared], marks[compared])
    repeated = np.zeros(len(numbers), dtype=bool)
    repeated[compared] = marks[compared] > first[numbers[compared]]
    return {
        part: tuple(ids[row] or f"row {row}" for row in (repeated & (marks == k)).nonzero()[0])
        for k, part in enumerate(PARTS)
        if k
    }
