"""What the matrix says about settings: inside and between groups, and one setting at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from epitaxy_dos.matrix import blocks
from epitaxy_dos.spectra import Fingerprints


@dataclass(frozen=True, slots=True)
class Groups:
    """Mean similarity of pairs of entries, by the groups that they are in.

    Attributes:
        names: of the groups, in order.
        sizes: (g,) entries.
        mean: (g, g); nan where there is no pair (one entry alone).
        lowest: (g, g), the least similar pair.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    mean: np.ndarray
    lowest: np.ndarray


@dataclass(frozen=True, slots=True)
class Effect:
    """How much one setting changes the spectra.

    Attributes:
        name: of the setting.
        same: mean similarity of pairs of one structure with the same value of it.
        different: of those with different values.
        n_same: how many pairs have the same value.
        n_different: how many have different values.
        only: mean similarity of pairs that differ in this setting alone; nan without such pairs.
        lowest: the least similar of these.
        n_only: how many there are.
    """

    name: str
    same: float
    different: float
    n_same: int
    n_different: int
    only: float
    lowest: float
    n_only: int


def group_statistics(
    fingerprints: Fingerprints, names: tuple[str, ...], member: np.ndarray, *, n_workers: int = 0
) -> Groups:
    """Return the mean and lowest similarity inside and between groups; no pair with itself.

    Args:
        fingerprints: (n).
        names: of the groups.
        member: (n,) number of each entry's group.
        n_workers: threads; 0 for all processors.
    """
    g = len(names)
    sums, lowest = np.zeros((g, g)), np.full((g, g), np.inf)
    sizes = np.bincount(member, minlength=g)
    order = np.argsort(member, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    present = sizes > 0
    for rows, block in blocks(fingerprints, n_workers=n_workers):
        here = np.arange(rows.start, rows.stop)
        sorted_block = block[:, order]
        part = np.add.reduceat(sorted_block, starts[present], axis=1)
        itself = (np.arange(len(here)), here)
        totals = np.zeros((len(here), g))
        totals[:, present] = part
        totals[np.arange(len(here)), member[here]] -= block[itself]
        np.add.at(sums, member[here], totals)
        block[itself] = np.inf
        least = np.full((len(here), g), np.inf)
        least[:, present] = np.minimum.reduceat(block[:, order], starts[present], axis=1)
        np.minimum.at(lowest, member[here], least)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    with np.errstate(invalid="ignore"):
        mean = np.where(pairs > 0, sums / np.maximum(pairs, 1), np.nan)
    return Groups(names, sizes, mean, np.where(pairs > 0, lowest, np.nan))


def effects(
    fingerprints: Fingerprints,
    settings: Mapping[str, np.ndarray],
    structures: np.ndarray,
    *,
    n_workers: int = 0,
) -> list[Effect]:
    """Return how much each setting changes the spectrum of the same structure.

    Args:
        fingerprints: (n).
        settings: name -> (n,) texts.
        structures: (n,) texts; only entries of the same structure are compared.
        n_workers: threads; 0 for all processors.
    """
    codes = {name: np.unique(texts, return_inverse=True)[1] for name, texts in settings.items()}
    _, structure = np.unique(structures, return_inverse=True)
    totals = {name: np.zeros(6) for name in codes}
    lowest = dict.fromkeys(codes, np.inf)
    for rows, block in blocks(fingerprints, n_workers=n_workers):
        here = np.arange(rows.start, rows.stop)
        pair = structure[here][:, None] == structure[None, :]
        pair &= here[:, None] < np.arange(len(structure))[None, :]
        if not pair.any():
            continue
        differ = {n: (code[here][:, None] != code[None, :]) for n, code in codes.items()}
        n_differ = sum(d.astype(np.int16) for d in differ.values())
        for name, unlike in differ.items():
            only = pair & unlike & (n_differ == 1)
            for i, chosen in enumerate((pair & ~unlike, pair & unlike, only)):
                totals[name][2 * i : 2 * i + 2] += block[chosen].sum(), chosen.sum()
            lowest[name] = min(lowest[name], block[only].min(initial=np.inf))
    found = []
    for name, (s, n_s, d, n_d, o, n_o) in ((n, t.tolist()) for n, t in totals.items()):
        low = lowest[name] if n_o else np.nan
        means = [total / n if n else np.nan for total, n in ((s, n_s), (d, n_d), (o, n_o))]
        found.append(
            Effect(name, means[0], means[1], int(n_s), int(n_d), means[2], float(low), int(n_o))
        )
    return found
