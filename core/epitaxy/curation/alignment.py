"""Energies of several sources on one scale.

Two codes, pseudopotentials or functionals differ, to first order, by one energy per element and
method. With y the energy per atom, x the atomic fractions and m the level of theory,

    y = x . reference + x . shift_m + (energy of formation),  shift = 0 for the scale to align onto.

Compounds that both levels have tell the shift alone: the energies of formation cancel in
y_m - y_onto. So the differences of the lowest energies at equal composition are fitted along with
the energies themselves, weighed by how much more exact they are; where no compound is shared,
the energies themselves decide. The fit is robust (Huber 1964) and of least norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from epitaxy.composition import compositions as formulas_of
from epitaxy.curation.methods import labels_by, matches
from epitaxy.curation.step import recorded
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError
from epitaxy.references import Compositions, solve_blocks, spread_of

_BLOCK = 4096
_ROUNDS = 12
_TRUST = (1.0, 20.0)  # times that differences of equal compounds may be more exact than energies


@dataclass(frozen=True, slots=True)
class Alignment:
    """How one scale of energies differs from another.

    Attributes:
        onto: the level of theory that keeps its energies.
        shifts: level of theory -> symbol of element -> eV per atom to subtract.
        undetermined: level of theory -> symbols whose shift the data leave open.
        n_shared: level of theory -> compositions that it shares with `onto`.
        before: level of theory -> eV/atom, spread of the differences at equal composition.
        after: the same once aligned, by differences that the fit has seen.
        spread: eV/atom, of what references and shifts leave of all energies: their energies of
            formation.
    """

    onto: str
    shifts: Mapping[str, Mapping[str, float]]
    undetermined: Mapping[str, tuple[str, ...]]
    n_shared: Mapping[str, int]
    before: Mapping[str, float]
    after: Mapping[str, float]
    spread: float

    def warnings(self) -> list[str]:
        """Return one sentence for every shift that rests on too little."""
        return [
            f"{label}: {self.n_shared[label]} compositions shared for {len(shifts)} elements: the "
            f"shifts also hold what the energies of formation of different compounds differ by "
            f"(their spread is {self.spread:.2g} eV/atom); add compounds that both have"
            for label, shifts in self.shifts.items()
            if self.n_shared[label] < len(shifts)
        ]

    def lines(self) -> list[str]:
        """Return one sentence per level of theory."""
        said = []
        for label, shifts in self.shifts.items():
            named = ", ".join(f"{symbol} {value:+.3f}" for symbol, value in shifts.items())
            line = f"{label} onto {self.onto}: {self.n_shared[label]:,} compositions shared"
            if self.n_shared[label]:
                line += (
                    f", they differ by {self.before[label]:.3g} eV/atom before and "
                    f"{self.after[label]:.3g} after"
                )
            line += f"; subtracted, eV per atom: {named}"
            if self.undetermined[label]:
                line += f"; not determined by the data: {', '.join(self.undetermined[label])}"
            said.append(line)
        return said


def find_alignment(dataset: Dataset, *, by: str = "method", onto: str = "") -> Alignment:
    """Find by how much levels of theory (or sources) differ, per element.

    Args:
        dataset: entries of all of them.
        by: "method", or a tag that names the source.
        onto: which one keeps its energies; that with the most entries by default.

    Raises:
        DataError: there is one level of theory only, or `onto` names none or several.
    """
    return _find(dataset, by=by, onto=onto)[0]


def align(dataset: Dataset, *, by: str = "method", onto: str = "") -> Dataset:
    """Express the energies of all levels of theory on the scale of one.

    Args:
        dataset: entries of all of them; their forces and stresses stay as they are.
        by: "method", or a tag that names the source.
        onto: which one keeps its energies; that with the most entries by default.

    Raises:
        DataError: there is one level of theory only, or `onto` names none or several.
    """
    found, known, labels, offsets = _find(dataset, by=by, onto=onto)
    values, mask = dataset.target("energy")
    values = values.copy()
    values[known] -= offsets
    n_changed = int((labels != found.onto).sum())
    after = dataset.with_target("energy", values, mask)
    return recorded(
        dataset,
        after,
        "align",
        options={"by": by, "onto": found.onto},
        counts={"n_seen": len(dataset), "n_changed": n_changed},
        facts={
            "said": found.lines(),
            "warnings": found.warnings(),
            "spread": found.spread,
            "shifts": {label: dict(shifts) for label, shifts in found.shifts.items()},
            "undetermined": {label: list(names) for label, names in found.undetermined.items()},
        },
    )


def _find(
    dataset: Dataset, *, by: str, onto: str
) -> tuple[Alignment, np.ndarray, np.ndarray, np.ndarray]:
    """Return the alignment, rows with an energy, their labels, and eV to subtract from each."""
    from ase.data import chemical_symbols

    values, mask = dataset.target("energy")
    (known,) = mask.nonzero()
    labels = labels_by(dataset, by)[known]
    onto = _chosen(labels, onto, by)
    others = [str(label) for label in np.unique(labels) if label != onto]
    counts = Compositions.of(dataset, known)
    per_atom = values[known] / counts.n_atoms
    group = np.searchsorted(np.array([onto, *others])[np.argsort([onto, *others])], labels)
    group = np.argsort([onto, *others])[group]  # 0 is `onto`
    shared = _shared(formulas_of(dataset)[known], group, per_atom, len(others))
    n_elements = len(counts.elements)
    triangle, solution = _fit(counts, per_atom, group, shared, len(others))
    table = solution.reshape(1 + len(others), n_elements).copy()
    table[0] = 0.0  # the references themselves stay
    open_part = _undetermined(triangle, 1 + len(others), n_elements)
    present = np.zeros((1 + len(others), n_elements), dtype=bool)
    present[group[counts.structures], counts.columns] = True
    symbols = [chemical_symbols[z] for z in counts.elements]
    share = counts.counts / counts.n_atoms[counts.structures]
    shift = np.bincount(
        counts.structures,
        share * table[group[counts.structures], counts.columns],
        minlength=len(counts),
    )
    shifts, undetermined, n_shared, before, after = {}, {}, {}, {}, {}
    for k, label in enumerate(others, start=1):
        shifts[label] = {symbols[j]: round(float(table[k, j]), 6) for j in present[k].nonzero()[0]}
        undetermined[label] = tuple(symbols[j] for j in (present[k] & open_part[k]).nonzero()[0])
        mine = shared[:, 2] == k
        first, second = shared[mine, 0], shared[mine, 1]
        difference = per_atom[second] - per_atom[first]
        n_shared[label] = int(mine.sum())
        before[label] = float(np.median(np.abs(difference))) if mine.any() else 0.0
        left = difference - shift[second]
        after[label] = float(np.median(np.abs(left))) if mine.any() else 0.0
    references = np.bincount(
        counts.structures, share * solution[:n_elements][counts.columns], minlength=len(counts)
    )
    left = per_atom - shift - references
    spread = spread_of(left - np.median(left))
    found = Alignment(onto, shifts, undetermined, n_shared, before, after, spread)
    return found, known, labels, shift * counts.n_atoms


def _chosen(labels: np.ndarray, onto: str, by: str) -> str:
    present, n_entries = np.unique(labels, return_counts=True)
    named = ", ".join(f"{label} ({n:,})" for label, n in zip(present, n_entries, strict=True))
    if len(present) < 2:
        raise DataError(
            f"align: all energies have the same {by} ({named or 'none'}): nothing to align"
        )
    if not onto:
        return str(present[np.argmax(n_entries)])
    meant = [str(label) for label in present if label == onto]
    meant = meant or [str(label) for label in present if matches(str(label), onto)]
    if len(meant) != 1:
        problem = "is none of the" if not meant else "is more than one of the"
        raise DataError(f"align: {onto!r} {problem} {by}s there are: {named}")
    return meant[0]


def _shared(
    formulas: np.ndarray, group: np.ndarray, per_atom: np.ndarray, n_others: int
) -> np.ndarray:
    """Return (row of the reference, row of the other, its group) of equal compounds, (s, 3).

    Of several polymorphs the lowest stands for the compound.
    """
    _, codes = np.unique(formulas, return_inverse=True)
    lowest = np.full((n_others + 1, int(codes.max()) + 1), -1)
    for row in np.argsort(-per_atom, kind="stable"):  # the last one written is the lowest
        lowest[group[row], codes[row]] = row
    found = [
        (lowest[0, code], lowest[k, code], k)
        for k in range(1, n_others + 1)
        for code in ((lowest[0] >= 0) & (lowest[k] >= 0)).nonzero()[0]
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _fit(
    counts: Compositions, per_atom: np.ndarray, group: np.ndarray, shared: np.ndarray, n_others: int
) -> tuple[np.ndarray, np.ndarray]:
    k = len(counts.elements)
    n_unknowns = (1 + n_others) * k
    difference = per_atom[shared[:, 1]] - per_atom[shared[:, 0]]
    middle = float(np.median(per_atom[group == 0]))
    weights, weights_shared = np.ones(len(per_atom)), np.ones(len(shared))
    trust = _TRUST[1]
    of_shared = np.zeros((len(shared), k))
    if len(shared):
        part = counts.take(np.unique(shared[:, 1]))
        where = np.searchsorted(counts.elements, part.elements)
        of_shared[:, where] = part.fractions()[
            np.searchsorted(np.unique(shared[:, 1]), shared[:, 1])
        ]

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(per_atom), _BLOCK):
            stop = min(start + _BLOCK, len(per_atom))
            yield _own_rows(counts, group, start, stop, n_others, weights, per_atom - middle)
        matrix = np.zeros((len(shared), n_unknowns))
        for i, other in enumerate(shared[:, 2]):
            matrix[i, other * k : (other + 1) * k] = of_shared[i]
        root = trust * np.sqrt(weights_shared)
        yield matrix * root[:, None], difference * root

    triangle, solution = solve_blocks(rows(), n_unknowns)
    for _ in range(_ROUNDS):
        table = solution.reshape(-1, k)
        share = counts.counts / counts.n_atoms[counts.structures]
        said = (
            table[0, counts.columns]
            + np.where(
                group[counts.structures] > 0, table[group[counts.structures], counts.columns], 0.0
            )
        ) * share
        left = per_atom - middle - np.bincount(counts.structures, said, minlength=len(counts))
        spread = spread_of(left)
        weights = np.minimum(1, 2 * spread / np.maximum(np.abs(left), 1e-12))
        if len(shared):
            left = difference - (of_shared * table[shared[:, 2]]).sum(axis=1)
            own = spread_of(left)
            weights_shared = np.minimum(1, 2 * own / np.maximum(np.abs(left), 1e-12))
            trust = float(np.clip(spread / own, *_TRUST))
        triangle, solution = solve_blocks(rows(), n_unknowns)
    return triangle, solution


def _own_rows(
    counts: Compositions,
    group: np.ndarray,
    start: int,
    stop: int,
    n_others: int,
    weights: np.ndarray,
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the equations of the energies themselves, (rows, unknowns) and (rows,)."""
    k = len(counts.elements)
    fractions = counts.fractions(start, stop)
    matrix = np.zeros((stop - start, (1 + n_others) * k))
    matrix[:, :k] = fractions
    for other in range(1, n_others + 1):
        mine = group[start:stop] == other
        matrix[mine, other * k : (other + 1) * k] = fractions[mine]
    root = np.sqrt(weights[start:stop])
    return matrix * root[:, None], values[start:stop] * root


def _undetermined(triangle: np.ndarray, n_groups: int, n_elements: int) -> np.ndarray:
    _, sizes, axes = np.linalg.svd(triangle)
    null = axes[sizes <= 1e-9 * max(float(sizes[0]), 1e-300)]
    return np.asarray(np.sqrt((null**2).sum(axis=0)) > 1e-6).reshape(n_groups, n_elements)
