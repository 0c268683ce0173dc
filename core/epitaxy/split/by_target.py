"""Splits by what is to be predicted: equal distributions, or the best kept for the test."""

from __future__ import annotations

from typing import Literal

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError
from epitaxy.quantities import quantity
from epitaxy.split.assign import evenly, part_fractions, part_sizes
from epitaxy.split.by_group import split_of, with_valid
from epitaxy.split.labels import Groups, group_labels
from epitaxy.split.parts import PARTS, Split

TEST_PART = "test_part"


def split_stratified(
    dataset: Dataset,
    by: str,
    *,
    n_bins: int = 10,
    groups: Groups = "composition",
    valid: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
) -> Split:
    """Divide so that all parts have the same distribution of a target or of a class.

    Groups stay whole: a group belongs to the bin of its mean, or to its commonest class.

    Args:
        dataset: what to divide.
        by: a target (extensive ones count per atom) or a tag.
        n_bins: quantiles of the target, each divided in the same proportions.
        groups: what stays together, as in `split_by_group`.
        valid: part for validation: a fraction below 1 or a number of structures.
        test: part for the test: a fraction below 1 or a number of structures.
        seed: of the choice of groups.

    Raises:
        SplitError: there are too few groups, or `by` is neither a target nor a tag.
    """
    n_valid, n_test = part_sizes(len(dataset), valid, test, "structures")
    labels, name = group_labels(dataset, groups)
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if by in dataset.tags and by not in dataset.targets:
        words, classes = np.unique(dataset.tag(by), return_inverse=True)
        n_of_class = np.zeros((len(names), len(words)), dtype=np.int64)
        np.add.at(n_of_class, (codes, classes), 1)
        strata = n_of_class.argmax(axis=1)
    else:
        if n_bins < 1:
            raise SplitError(f"n_bins = {n_bins}: give at least 1")
        values = target_values(dataset, by)
        known = np.isfinite(values)
        n_known = np.bincount(codes[known], minlength=len(names))
        sums = np.bincount(codes[known], values[known], minlength=len(names))
        mean = sums / np.maximum(n_known, 1)
        edges = np.quantile(mean[n_known > 0], np.linspace(0, 1, n_bins + 1)[1:-1])
        strata = np.where(n_known > 0, np.searchsorted(edges, mean, side="right"), n_bins)
    fractions = part_fractions(n_valid / len(dataset), n_test / len(dataset), "")
    part_of = evenly(
        counts[:, None], strata, valid=fractions[0], test=fractions[1], seed=seed, name=name
    )
    return split_of(
        dataset,
        part_of[codes],
        {
            "method": "stratified",
            "by": by,
            "n_bins": n_bins,
            "groups": name,
            "valid": valid,
            "test": test,
            "seed": seed,
        },
    )


def split_forward(
    dataset: Dataset,
    target: str,
    *,
    direction: Literal["high", "low"] = "high",
    low_test: bool = False,
    groups: Groups = "composition",
    valid: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
) -> Split:
    """Keep the structures with the highest (or lowest) values for the test.

    This asks whether a model finds what is better than anything it has seen (Xiong et al.,
    Comput. Mater. Sci. 171, 109203 (2020), doi:10.1016/j.commatsci.2019.109203). A group goes
    where its most extreme member belongs; structures without the target are for training.

    Args:
        dataset: what to divide.
        target: what counts; extensive ones count per atom.
        direction: "high" or "low", which end is the test.
        low_test: whether the test also gets as many structures of the rest, chosen by group, to
            compare extrapolation (high-test) with interpolation (low-test). Source: Chen and
            Ong, npj Comput. Mater. 7, 173 (2021), forward cross-validation.
        groups: what stays together, as in `split_by_group`.
        valid: part for validation, chosen by group from the rest: a fraction of the rest or a
            number of structures.
        test: the extreme part: a fraction of the structures with the target, or a number.
        seed: of the choice of groups for validation.

    Raises:
        SplitError: the sizes do not fit, or no structure has the target.
    """
    if direction not in ("high", "low"):
        raise SplitError(f"direction {direction!r}: use high or low")
    values = target_values(dataset, target)
    known = np.isfinite(values)
    _, n_test = part_sizes(int(known.sum()), 0, test, f"structures with {target}")
    if not n_test:
        raise SplitError("test = 0: a forward split is made for the test, give its size")
    labels, name = group_labels(dataset, groups)
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    highest = np.full(len(names), -np.inf)
    np.maximum.at(highest, codes[known], values[known] if direction == "high" else -values[known])
    order = np.argsort(-highest, kind="stable")
    reached = np.cumsum(counts[order])
    n_groups = int(np.argmin(np.abs(reached - n_test))) + 1
    n_groups = max(1, min(n_groups, int(np.isfinite(highest).sum())))
    is_high = np.isin(codes, order[:n_groups])
    is_low = np.zeros(len(dataset), dtype=bool)
    if low_test:
        taken = is_high | ~np.isfinite(highest)[codes]
        n_high = int(is_high.sum())
        part = with_valid(dataset, taken, codes, valid=n_high, seed=seed, name=name)
        is_low = part == PARTS.index("valid")
    part_of_row = with_valid(dataset, is_high | is_low, codes, valid=valid, seed=seed, name=name)
    rows = {name: (part_of_row == k).nonzero()[0] for k, name in enumerate(PARTS)}
    method: dict[str, object] = {
        "method": "forward",
        "target": target,
        "direction": direction,
        "low_test": low_test,
        "groups": name,
        "valid": valid,
        "test": test,
        "seed": seed,
    }
    if low_test:  # the test part begins with them
        method["n_high"] = int(is_high.sum())
        rows["test"] = np.concatenate([is_high.nonzero()[0], is_low.nonzero()[0]])
    return Split(
        dataset, train=rows["train"], valid=rows["valid"], test=rows["test"], method=method
    )


def tagged_test(split: Split) -> Dataset:
    """Return the test part of a split; of a forward split with low-test, tagged with both.

    The tag is `TEST_PART`, its values "high-test" and "low-test".
    """
    n_high = split.method.get("n_high")
    if not isinstance(n_high, int):
        return split.test
    words = ["high-test"] * n_high + ["low-test"] * (len(split.test) - n_high)
    return split.test.with_tag(TEST_PART, words)


def target_values(dataset: Dataset, name: str) -> np.ndarray:
    """Return one number per structure, (n,) float64, per atom if extensive; NaN where missing.

    Raises:
        SplitError: there is no such target, or it has several numbers per structure.
    """
    if name not in dataset.targets:
        tags = ", ".join(dataset.tags) or "none"
        raise SplitError(
            f"{name!r} is not a target; there are {', '.join(dataset.targets) or 'none'} "
            f"(tags: {tags})"
        )
    rule = quantity(name)
    if rule.per == "atom" or rule.shape:
        raise SplitError(f"{name} has several numbers per structure: choose a target with one")
    values, mask = dataset.target(name)
    if not mask.any():
        raise SplitError(f"no structure has a value of {name}")
    if rule.extensive:
        values = values / np.maximum(dataset.n_atoms, 1)
    return np.where(mask, values, np.nan)
