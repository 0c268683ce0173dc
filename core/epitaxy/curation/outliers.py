"""Energies that no chemistry explains: far from what the other entries say of their elements.

Per level of theory, one reference energy per element is fitted robustly to energies per atom.
What is left over is the energy of formation, some eV/atom at most; an entry is an outlier if its
remainder exceeds both a floor and a multiple of the spread, where the spread is the largest among
those of the whole set and of the entries that share one of its elements. So chemistry that the
linear picture describes badly (noble gases, oxides of rare metals) is judged by its own kind, and
an entry whose elements hardly occur elsewhere is not judged at all.

Where many entries are outliers it is no accident: two codes, levels of theory or units are mixed.
Then nothing is dropped and the user is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from epitaxy.composition import compositions as formulas_of
from epitaxy.curation.frames import Rejections
from epitaxy.curation.methods import labels_by
from epitaxy.curation.step import kept
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError
from epitaxy.quantities import quantity
from epitaxy.references import Compositions, fit_references

FLOOR = 2.0
SPREADS = 15.0
MAX_SHARE = 0.02
_MIN_ENTRIES = 20  # of one level of theory, to judge them at all
_MIN_FEW = 5  # outliers that are still single accidents, whatever their share
_MIN_SHARED = 5  # entries that an element needs to be judged by
_MAX_LEVERAGE = 0.5  # an entry that decides over its own fit says nothing


@dataclass(frozen=True, slots=True)
class Outliers:
    """What was found.

    Attributes:
        rows: (k,) int64, outliers, the worst first.
        excess: (k,) eV/atom, their energies less what the others say.
        far: (m,) int64, rows of methods in which too many are far off to be accidents.
        far_excess: (m,) eV/atom.
        spreads: method -> eV/atom.
        n_judged: entries that were judged.
    """

    rows: np.ndarray
    excess: np.ndarray
    far: np.ndarray
    far_excess: np.ndarray
    spreads: Mapping[str, float]
    n_judged: int

    def names(self, dataset: Dataset) -> list[str]:
        """Return each outlier as "mp-7 (O2Ti): +3.2 eV/atom", the worst first."""
        formulas = formulas_of(dataset[self.rows])
        return [
            f"{dataset.ids[int(row)] or f'row {row}'} ({formula}): {excess:+.3g} eV/atom"
            for row, formula, excess in zip(self.rows, formulas, self.excess, strict=True)
        ]

    def warning(self, dataset: Dataset, target: str) -> str | None:
        """Return what to say if many entries are far off."""
        if not len(self.far):
            return None
        names = ", ".join(dataset.ids[int(i)] or f"row {i}" for i in self.far[:5])
        return (
            f"{len(self.far):,} of {len(dataset):,} entries differ in {target} by "
            f"{np.median(np.abs(self.far_excess)):.3g} eV/atom (median) from what the others say "
            f"of their elements ({names} ...): two levels of theory, codes or units are mixed; "
            f"nothing was dropped: tag or drop the parts, or `align` them"
        )


def find_outliers(
    dataset: Dataset,
    *,
    target: str = "energy",
    by: str = "method",
    floor: float = FLOOR,
    spreads: float = SPREADS,
    max_share: float = MAX_SHARE,
) -> Outliers:
    """Find energies that the other entries contradict; see the module for how.

    Args:
        dataset: to look at.
        target: an energy; extensive ones are divided by the number of atoms.
        by: "method" or a tag: what must not be compared with each other.
        floor: eV/atom, smaller differences are never outliers.
        spreads: multiple of the spread that is.
        max_share: if more than this part of one method is far off, it is no accident.

    Raises:
        DataError: the target is no energy of a structure.
    """
    rule = quantity(target)
    if rule.per == "atom" or rule.shape or rule.unit not in ("eV", "eV/atom"):
        raise DataError(f"outliers: {target} is not an energy of a structure")
    empty = np.zeros(0, dtype=np.int64)
    if target not in dataset.targets:
        return Outliers(empty, np.zeros(0), empty, np.zeros(0), {}, 0)
    values, known = dataset.target(target)
    (rows,) = known.nonzero()
    compositions = Compositions.of(dataset, rows)
    per_atom = values[rows] / compositions.n_atoms if rule.extensive else values[rows]
    labels = labels_by(dataset, by)[rows]
    found, far = [empty], [empty]
    excess, far_excess = [np.zeros(0)], [np.zeros(0)]
    spread_of_method: dict[str, float] = {}
    n_judged = 0
    for label in np.unique(labels):
        (members,) = (labels == label).nonzero()
        if len(members) < _MIN_ENTRIES:
            continue
        part = compositions.take(members)
        fit = fit_references(part, per_atom[members], robust=True, leverage=True)
        limits = np.maximum(floor, spreads * _own_spreads(part, fit.residuals, fit.spread))
        judged = (fit.leverage < _MAX_LEVERAGE) & np.isfinite(limits)
        (bad,) = (judged & (np.abs(fit.residuals) > limits)).nonzero()
        bad = bad[np.argsort(-np.abs(fit.residuals[bad]), kind="stable")]
        n_judged += int(judged.sum())
        spread_of_method[str(label)] = fit.spread
        (off,) = (np.abs(fit.residuals) > max(floor, spreads * fit.spread)).nonzero()
        if len(off) > max(_MIN_FEW, max_share * len(members)):
            far.append(rows[members[off]])
            far_excess.append(fit.residuals[off])
        else:
            found.append(rows[members[bad]])
            excess.append(fit.residuals[bad])
    return Outliers(
        rows=np.concatenate(found),
        excess=np.concatenate(excess),
        far=np.concatenate(far),
        far_excess=np.concatenate(far_excess),
        spreads=spread_of_method,
        n_judged=n_judged,
    )


def drop_outliers(
    dataset: Dataset,
    *,
    target: str = "energy",
    by: str = "method",
    floor: float = FLOOR,
    spreads: float = SPREADS,
    max_share: float = MAX_SHARE,
) -> Dataset:
    """Drop energies that no chemistry explains.

    Args:
        dataset: to check.
        target: an energy; extensive ones are divided by the number of atoms.
        by: "method" or a tag: what must not be compared with each other.
        floor: eV/atom, smaller differences are never outliers.
        spreads: multiple of the spread that is.
        max_share: if more than this part of one method is far off, nothing of it is dropped.
    """
    options = {
        "target": target,
        "by": by,
        "floor": floor,
        "spreads": spreads,
        "max_share": max_share,
    }
    found = find_outliers(
        dataset, target=target, by=by, floor=floor, spreads=spreads, max_share=max_share
    )
    rejections = Rejections(n_seen=len(dataset))
    reason = f"{target} far from what the other entries say of these elements"
    for name in found.names(dataset):
        rejections.add(reason, name)
    rows = np.delete(np.arange(len(dataset)), found.rows).tolist()
    warning = found.warning(dataset, target)
    facts = {
        "n_judged": found.n_judged,
        "spreads": {label: round(spread, 6) for label, spread in found.spreads.items()},
        **({"warnings": [warning]} if warning else {}),
    }
    return kept(dataset, rows, rejections, "outliers", options, facts=facts)


def _own_spreads(compositions: Compositions, residuals: np.ndarray, spread: float) -> np.ndarray:
    """Return the spread by which each entry is judged, (n,); inf where an element is too rare."""
    by_element = np.full(len(compositions.elements), np.inf)
    order = np.argsort(compositions.columns, kind="stable")
    ends = np.cumsum(compositions.occurrences())
    for k, end in enumerate(ends):
        start = end - (ends[k] - (ends[k - 1] if k else 0))
        sizes = np.abs(residuals[compositions.structures[order[start:end]]])
        if len(sizes) >= _MIN_SHARED:
            by_element[k] = 1.4826 * float(np.median(sizes))
    return np.asarray(np.maximum(spread, compositions.largest(by_element)))
