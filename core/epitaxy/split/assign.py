"""Which group goes to which part or fold: sizes near those asked for, groups whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from epitaxy.errors import SplitError
from epitaxy.split.parts import PARTS

TRAIN, VALID, TEST = (PARTS.index(name) for name in ("train", "valid", "test"))


def part_sizes(n: int, valid: float | int, test: float | int, what: str) -> tuple[int, int]:
    """Return the sizes of the parts for validation and test in structures.

    Raises:
        SplitError: a size is no size, or nothing is left to train on.
    """
    sizes = []
    for name, size in (("valid", valid), ("test", test)):
        if (
            isinstance(size, (str, bool))
            or not size >= 0
            or (isinstance(size, float) and size >= 1 and not size.is_integer())
        ):
            raise SplitError(f"{name} = {size}: give a fraction below 1 or a number of {what}")
        if 0 < size < 1:
            sizes.append(max(1, round(size * n)))
        else:
            sizes.append(int(size))
    if sum(sizes) >= n:
        raise SplitError(
            f"valid ({sizes[0]}) and test ({sizes[1]}) leave nothing of {n} {what} to train on"
        )
    return sizes[0], sizes[1]


def part_fractions(valid: float | int, test: float | int, why: str) -> tuple[float, float]:
    """Check that the sizes are fractions, where numbers of structures make no sense.

    Raises:
        SplitError: they are not; `why` is said too.
    """
    for name, size in (("valid", valid), ("test", test)):
        if isinstance(size, (str, bool)) or not 0 <= size < 1:
            raise SplitError(f"{name} = {size}: give a fraction below 1 ({why})")
    if not valid + test < 1:
        raise SplitError(f"valid ({valid}) and test ({test}) leave nothing to train on")
    return float(valid), float(test)


def to_sizes(counts: np.ndarray, *, valid: int, test: int, seed: int, name: str) -> np.ndarray:
    """Assign groups at random so that the parts come as near to the sizes as groups allow.

    Args:
        counts: (n_groups,) structures per group.
        valid: structures for validation.
        test: structures for the test.
        seed: of the order of the groups.
        name: what the groups are called.

    Returns:
        (n_groups,) index into `PARTS`.

    Raises:
        SplitError: there are fewer groups than parts.
    """
    wanted = {TEST: test, VALID: valid}
    check_enough(len(counts), 1 + sum(size > 0 for size in wanted.values()), name)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    part_of = np.full(len(counts), TRAIN)
    n_left = len(counts)
    for part, size in wanted.items():
        filled = 0
        for group in order:
            if part_of[group] != TRAIN:
                continue
            if n_left <= 1 + (part == TEST and valid > 0):
                break
            # Take the group if that brings the size nearer to the one asked for.
            if abs(filled + counts[group] - size) < abs(filled - size):
                part_of[group] = part
                filled += int(counts[group])
                n_left -= 1
        if size and not filled:
            candidates = [g for g in order if part_of[g] == TRAIN]
            part_of[min(candidates, key=lambda g: int(counts[g]))] = part
            n_left -= 1
    return part_of


def evenly(
    counts: np.ndarray,
    strata: np.ndarray,
    *,
    valid: float,
    test: float,
    seed: int,
    name: str,
) -> np.ndarray:
    """Assign groups so that every stratum is divided in the same proportions.

    In each stratum the largest groups come first (by powers of two, at random among those), and
    each goes to the part that lacks most.

    Args:
        counts: (n_groups, n_datasets) structures per group in each dataset.
        strata: (n_groups,) int.
        valid: fraction for validation.
        test: fraction for the test.
        seed: of the order of groups of one size.
        name: what the groups are called.

    Returns:
        (n_groups,) index into `PARTS`.

    Raises:
        SplitError: there are fewer groups than parts.
    """
    shares = np.array([1 - valid - test, valid, test])
    check_enough(len(counts), int((shares > 0).sum()), name)
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    order = shuffled[np.lexsort((-_magnitude(counts.sum(axis=1))[shuffled], strata[shuffled]))]
    part_of = np.empty(len(counts), dtype=np.int64)
    filled = np.zeros((3, counts.shape[1]))
    seen = np.zeros(counts.shape[1])
    for group in order:
        seen += counts[group]
        missing = (shares[:, None] * seen - filled) @ counts[group]
        missing[shares == 0] = -np.inf
        part_of[group] = int(np.argmax(missing))
        filled[part_of[group]] += counts[group]
    for part in (shares > 0).nonzero()[0]:
        if not (part_of == part).any():  # too few groups for the proportions: one at least
            rest = np.bincount(part_of, minlength=3)[part_of] > 1
            candidates = rest.nonzero()[0]
            part_of[candidates[np.argmin(counts.sum(axis=1)[candidates])]] = part
    return part_of


def by_hash(labels: Sequence[str], *, valid: float, test: float, seed: int) -> np.ndarray:
    """Assign each group by its label and the seed alone: other data change nothing.

    Sizes are met on average only: n groups deviate by about sqrt(n).

    Returns:
        (n_groups,) index into `PARTS`.
    """
    points = np.array(
        [
            int.from_bytes(hashlib.sha256(f"{seed}:{label}".encode()).digest()[:7], "big") / 2**56
            for label in labels
        ]
    )
    # From the two ends, so that another size of one part leaves the other part alone.
    return np.select([points < test, points >= 1 - valid], [TEST, VALID], TRAIN)


def to_folds(counts: np.ndarray, *, n_folds: int, seed: int, name: str) -> np.ndarray:
    """Assign groups to folds of nearly equal size, the largest first (by powers of two).

    Returns:
        (n_groups,) int, the fold of each group.

    Raises:
        SplitError: there are fewer groups than folds.
    """
    check_enough(len(counts), n_folds, name, "folds")
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    filled = np.zeros(n_folds, dtype=np.int64)
    fold_of = np.empty(len(counts), dtype=np.int64)
    for group in shuffled[np.argsort(-_magnitude(counts)[shuffled], kind="stable")]:
        fold_of[group] = int(np.argmin(filled))
        filled[fold_of[group]] += counts[group]
    return fold_of


def _magnitude(counts: np.ndarray) -> np.ndarray:
    """Return the power of two below each count: coarse, so that the seed has a say in the order."""
    return np.asarray(np.floor(np.log2(np.maximum(counts, 1))))


def check_enough(
    n_groups: int, needed: int, name: str, what: str = "parts", *, tags: Iterable[str] = ()
) -> None:
    """Refuse to divide fewer groups than there are parts.

    Args:
        n_groups: how many there are.
        needed: how many parts.
        name: what the groups are called.
        what: what the parts are called.
        tags: other groups that could be taken.

    Raises:
        SplitError: with what else can be done.
    """
    if n_groups < needed:
        groups = "group" if n_groups == 1 else "groups"
        others = [tag for tag in tags if tag != name]
        there = f" (there are {', '.join(others)})" if others else ""
        raise SplitError(
            f"{n_groups} {groups} by {name} cannot fill {needed} {what}: divide by a tag "
            f"of the data (--groups TAG, `groups: TAG`){there}, or at random, which keeps nothing "
            "together (--method random, `method: random`)"
        )
