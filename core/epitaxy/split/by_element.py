"""Splits that hold out elements: does a model know chemistry it has not seen?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError
from epitaxy.split.by_group import split_of, with_valid
from epitaxy.split.labels import Groups, group_labels
from epitaxy.split.parts import Split


def split_by_element(
    dataset: Dataset,
    elements: Sequence[str],
    *,
    groups: Groups = "composition",
    valid: float | int = 0.1,
    seed: int = 0,
) -> Split:
    """Put every structure with one of some elements into the test.

    Args:
        dataset: what to divide.
        elements: symbols, for example ["Co", "Ni"].
        groups: what stays together, as in `split_by_group`. A group with one such structure is
            in the test as a whole.
        valid: part for validation, chosen by group from the rest: a fraction of the rest or a
            number of structures.
        seed: of the choice of groups for validation.

    Raises:
        SplitError: an element is unknown or not in the dataset, or all structures have one.
    """
    from ase.data import atomic_numbers, chemical_symbols

    names = [elements] if isinstance(elements, str) else list(elements)
    if not names:
        raise SplitError("elements: give at least one, for example [Co, Ni]")
    present = [chemical_symbols[z] for z in sorted(dataset.elements)]
    if missing := [name for name in names if name not in present]:
        what = "are not in the dataset" if all(m in atomic_numbers for m in missing) else "unknown"
        raise SplitError(f"elements {', '.join(missing)}: {what}; it has {' '.join(present)}")
    held_out = np.zeros(256, dtype=bool)
    held_out[[atomic_numbers[name] for name in names]] = True
    has_element = np.zeros(len(dataset), dtype=bool)
    for start in range(0, len(dataset), 50_000):
        some = dataset.gather(slice(start, start + 50_000))
        ends = np.cumsum(some.n_atoms)
        before = np.concatenate([[0], np.cumsum(held_out[some.numbers])])
        has_element[start : start + len(ends)] = before[ends] > before[ends - some.n_atoms]
    labels, name = group_labels(dataset, groups)
    _, codes = np.unique(labels, return_inverse=True)
    is_test = np.isin(codes, np.unique(codes[has_element]))
    part_of_row = with_valid(dataset, is_test, codes, valid=valid, seed=seed, name=name)
    return split_of(
        dataset,
        part_of_row,
        {"method": "element", "elements": names, "groups": name, "valid": valid, "seed": seed},
    )
