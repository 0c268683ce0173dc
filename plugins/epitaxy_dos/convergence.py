"""Convergence: how similar calculations are to the best-converged one, against a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epitaxy.errors import DataError
from epitaxy_dos.matrix import similarities
from epitaxy_dos.settings import magnitudes
from epitaxy_dos.spectra import Fingerprints


@dataclass(frozen=True, slots=True)
class Best:
    """The best-converged entry of each set of calculations of one structure.

    Attributes:
        reference: (n,) int64, number of each entry's best-converged entry.
        similarity: (n,) similarity to it; 1 for itself.
        sets: (n,) text that names each entry's set.
    """

    reference: np.ndarray
    similarity: np.ndarray
    sets: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Similarity to the best-converged calculation against one parameter.

    Attributes:
        parameter: name of the setting on the axis.
        label: the set, and the values of the other parameters.
        values: (k,) magnitudes of the parameter, increasing.
        texts: (k,) the parameter as it is written.
        similarity: (k,); the mean where several entries have the same values.
        reference: number of the best-converged entry.
        has_reference: whether that entry is a point of the curve (the last one, with similarity
            1 to itself); else the other parameters are not the best ones.
    """

    parameter: str
    label: str
    values: np.ndarray
    texts: tuple[str, ...]
    similarity: np.ndarray
    reference: int
    has_reference: bool

    def converged_from(self, threshold: float) -> str | None:
        """Return the first value from which on all similarities reach the threshold, or None.

        That the best-converged entry is like itself shows nothing, so it does not count.
        """
        low = np.nonzero(self.similarity < threshold)[0]
        first = 0 if not len(low) else int(low[-1]) + 1
        n_telling = len(self.texts) - self.has_reference
        return self.texts[first] if first < n_telling else None


def best_converged(
    fingerprints: Fingerprints,
    parameters: Mapping[str, np.ndarray],
    sets: np.ndarray,
    *,
    reference: int | None = None,
) -> Best:
    """Find the best-converged entry of each set, and how similar the others are to it.

    The best has the largest value of every parameter. Where no entry has all of them, the one
    with the highest ranks in sum is taken; of equals the first.

    Args:
        fingerprints: (n).
        parameters: name -> (n,) texts with a number: more is better converged.
        sets: (n,) text that names the structure and what else must be equal.
        reference: number of the entry that everything is compared with instead.

    Raises:
        DataError: no entry of a parameter has a number.
    """
    n = len(fingerprints)
    best = np.empty(n, dtype=np.int64)
    if reference is not None:
        best[:] = reference
    else:
        ranks = np.zeros(n)
        for name, texts in parameters.items():
            numbers = magnitudes(texts)
            if np.isnan(numbers).all():
                raise DataError(f"no value of {name!r} is a number, so none is the largest")
            ranks += np.unique(np.where(np.isnan(numbers), -np.inf, numbers), return_inverse=True)[
                1
            ]
        for _, members in members_of(sets):
            best[members] = members[np.argmax(ranks[members])]
    similarity = np.empty(n)
    for one in np.unique(best):
        (members,) = np.nonzero(best == one)
        similarity[members] = similarities(
            fingerprints, fingerprints, rows=members, columns=np.array([one])
        )[:, 0]
    return Best(best, similarity, sets)


def curves(parameters: Mapping[str, np.ndarray], best: Best) -> list[Curve]:
    """Return a curve for each parameter, set, and values of the other parameters.

    Curves of a single point are left out.
    """
    found = []
    for name, texts in parameters.items():
        others = {other: values for other, values in parameters.items() if other != name}
        numbers = magnitudes(texts)
        for label, members in members_of(best.sets):
            fixed = joined([values[members] for values in others.values()], len(members))
            for _, rows in members_of(fixed):
                chosen = members[rows]
                chosen = chosen[~np.isnan(numbers[chosen])]
                values = np.unique(numbers[chosen])
                if len(values) < 2:
                    continue
                at = [chosen[numbers[chosen] == value] for value in values]
                words = [label, *(f"{other} {o[chosen[0]]}" for other, o in others.items())]
                found.append(
                    Curve(
                        parameter=name,
                        label=", ".join(word for word in words if word),
                        values=values,
                        texts=tuple(str(texts[rows_at[0]]) for rows_at in at),
                        similarity=np.array([best.similarity[r].mean() for r in at]),
                        reference=int(best.reference[chosen[0]]),
                        has_reference=bool((best.reference[at[-1]] == at[-1]).any()),
                    )
                )
    return found


def joined(columns: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Return texts (n,) that join several settings with a comma; "" without any."""
    if not columns:
        return np.full(n, "", dtype="<U1")
    return np.array([", ".join(map(str, words)) for words in zip(*columns, strict=True)])


def members_of(texts: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return (text, rows) of each distinct text, in the order of their first rows."""
    words, first, where = np.unique(texts, return_index=True, return_inverse=True)
    order = np.argsort(where, kind="stable")
    bounds = np.cumsum(np.bincount(where, minlength=len(words)))[:-1]
    rows = np.split(order, bounds)
    return [(str(words[i]), rows[i]) for i in np.argsort(first)]
