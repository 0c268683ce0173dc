"""Two datasets side by side: what they share, and how a target differs on what they share.

What section 2 of Speckhard et al., "How big is big data?", Faraday Discuss. 2024,
doi:10.1039/d4fd00102h, does by hand for AFLOW and the Materials Project. Structures are grouped
(same formula and spacegroup, or formula, or a tag); a group that both have is one pair of values,
the median of each side. Every difference is second minus first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from epitaxy.composition import TAG as FORMULA_TAG
from epitaxy.composition import compositions
from epitaxy.curation.comparison import Comparison, Disagreement, Distribution, Side
from epitaxy.curation.element_offsets import element_offsets
from epitaxy.curation.groups import Grouping, duplicate_groups, find_tag
from epitaxy.curation.offsets import paired_statistics
from epitaxy.curation.spacegroup import Engine
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError
from epitaxy.quantities import quantity
from epitaxy.stores.merge import describe_method, methods_of

Value = Literal["median", "mean", "lowest"]
GAP_OF_A_METAL = 0.01
"""eV; a smaller gap counts as a metal."""
N_BINS = 60
_FEWEST_PAIRS = 3
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def compare(
    first: Dataset,
    second: Dataset,
    *,
    target: str,
    group: str = "spacegroup",
    names: tuple[str, str] = ("first", "second"),
    value: Value = "median",
    engine: Engine | None = None,
    symprec: float = 0.1,
    n_workers: int = 1,
    n_worst: int = 20,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare a target of two datasets on the groups that both have.

    Args:
        first: the one.
        second: the other.
        target: a quantity with one number per structure. Extensive ones are compared per atom.
        group: "spacegroup" (formula and spacegroup), "composition" (reduced formula),
            "prototype" (formula and AFLOW prototype), or a tag. Tags of `epitaxy groups` are
            used where both have them.
        names: of the two, in texts.
        value: what stands for a group with several values on a side.
        engine: find the groups anew with "moyopy" or "spglib", whatever tags there are.
        symprec: Å, where groups are found anew.
        n_workers: processes that find groups.
        n_worst: disagreements to list.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: the target is not one number per structure or a side lacks it, groups were
            made in different ways, or structures are needed and there are formulas only.
    """
    sides = (first, second)
    unit = _check_target(sides, target, names)
    labels, described = _labels(sides, group, engine, symprec, n_workers, names)
    return _compare(
        sides,
        labels,
        values=tuple(_values(dataset, target) for dataset in sides),
        unit=unit,
        options={
            "target": target,
            "value": value,
            **described,
            "n_resamples": n_resamples,
            "seed": seed,
        },
        names=names,
        n_worst=n_worst,
    )


# --- what is compared ---


def _check_target(sides: Sequence[Dataset], target: str, names: Sequence[str]) -> str:
    rule = quantity(target)
    if rule.per == "atom" or rule.shape:
        raise DataError(f"{target} is not one number per structure and cannot be compared here")
    for dataset, name in zip(sides, names, strict=True):
        if target not in dataset.targets:
            raise DataError(
                f"{name} has no {target}; it has: {', '.join(dataset.targets) or 'no targets'}"
            )
    return f"{rule.unit}/atom" if rule.extensive else rule.unit


def _values(dataset: Dataset, target: str) -> tuple[np.ndarray, np.ndarray]:
    values, mask = dataset.target(target)
    if quantity(target).extensive:
        values = values / np.maximum(dataset.n_atoms, 1)
    return values, mask


def _labels(
    sides: Sequence[Dataset],
    group: str,
    engine: Engine | None,
    symprec: float,
    n_workers: int,
    names: Sequence[str],
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return the group of every structure of both sides ("" for none), and how it was found."""
    if group == "composition":
        return [compositions(dataset) for dataset in sides], {"group": "composition"}
    if group not in ("spacegroup", "prototype"):
        tag = find_tag(list(sides), group)
        for dataset, name in zip(sides, names, strict=True):
            if tag not in dataset.tags:
                raise DataError(
                    f"{name} has no tag {group!r}; it has: {', '.join(dataset.tags) or 'none'}. "
                    "Or use --group spacegroup, composition or prototype"
                )
        return [dataset.tag(tag) for dataset in sides], {"group": tag}
    tagged = [any(t == group or t.startswith(f"{group}@") for t in d.tags) for d in sides]
    if engine is None and all(tagged):
        tag = find_tag(list(sides), group)  # refuses different engines and tolerances
        found = [dataset.tag(tag) for dataset in sides]
    else:
        engine = engine or "moyopy"
        tag = Grouping("spacegroup" if group == "spacegroup" else "prototype", engine, symprec).tag
        found = [_find(d, group, engine, symprec, n_workers) for d in sides]
    if group == "prototype":
        found = [
            np.where((p == "failed") | (p == ""), "", np.char.add(np.char.add(f, " "), p))
            for p, f in zip(found, [compositions(d) for d in sides], strict=True)
        ]
    else:
        found = [_without_failed(labels) for labels in found]
    for dataset, labels, name in zip(sides, found, names, strict=True):
        if FORMULA_TAG in dataset.tags:
            found_formula = dataset.tag(FORMULA_TAG) != ""
            labels[found_formula] = ""
        if len(labels) and not (labels != "").any():
            raise DataError(
                f"{name} has no structure with a {group}: compare formulas with --group composition"
            )
    return found, {"group": tag}


def _find(
    dataset: Dataset, group: str, engine: Engine, symprec: float, n_workers: int
) -> np.ndarray:
    if group == "spacegroup":
        return duplicate_groups(dataset, engine=engine, symprec=symprec, n_workers=n_workers)
    from epitaxy.curation.prototypes import prototype_labels

    return prototype_labels(dataset, engine=engine, symprec=symprec, n_workers=n_workers)


def _without_failed(labels: np.ndarray) -> np.ndarray:
    """Return labels without those of structures whose symmetry is unknown."""
    return np.where(np.char.endswith(labels, "_failed"), "", labels)


# --- the comparison ---


@dataclass(frozen=True, slots=True)
class _Groups:
    """Values of one side by group.

    Attributes:
        codes: (g,) groups with a value, ascending.
        values: (g,) what stands for each.
        rows: (g,) the structure nearest that value.
        sizes: (g,) how many values.
        spans: (g,) largest minus smallest.
    """

    codes: np.ndarray
    values: np.ndarray
    rows: np.ndarray
    sizes: np.ndarray
    spans: np.ndarray


def _by_group(codes: np.ndarray, values: np.ndarray, mask: np.ndarray, value: Value) -> _Groups:
    rows = (mask & (codes >= 0)).nonzero()[0]
    rows = rows[np.lexsort((rows, values[rows], codes[rows]))]
    found, starts, sizes = np.unique(codes[rows], return_index=True, return_counts=True)
    ordered = values[rows]
    low, high = starts + (sizes - 1) // 2, starts + sizes // 2
    if value == "median":
        chosen = 0.5 * (ordered[low] + ordered[high])
    elif value == "lowest":
        chosen, low = ordered[starts], starts
    elif value == "mean":
        chosen = np.add.reduceat(ordered, starts) / sizes if len(starts) else ordered
    else:
        raise DataError(f"value {value!r}: use median, mean or lowest")
    return _Groups(found, chosen, rows[low], sizes, ordered[starts + sizes - 1] - ordered[starts])


def _compare(
    sides: Sequence[Dataset],
    labels: list[np.ndarray],
    *,
    values: tuple[tuple[np.ndarray, np.ndarray], ...],
    unit: str,
    options: Mapping[str, Any],
    names: tuple[str, str],
    n_worst: int,
) -> Comparison:
    words, joined = np.unique(np.concatenate(labels), return_inverse=True)
    joined = joined.reshape(-1)
    if len(words) and words[0] == "":
        joined = joined - 1  # structures without a group get -1
        words = words[1:]
    codes = [joined[: len(labels[0])], joined[len(labels[0]) :]]
    has = [np.bincount(c[c >= 0], minlength=len(words)) > 0 for c in codes]
    shared = has[0] & has[1]
    n_groups = [int(h.sum()) for h in has]
    n_shared = int(shared.sum())
    n_either = n_groups[0] + n_groups[1] - n_shared

    by_group = [_by_group(c, *v, options["value"]) for c, v in zip(codes, values, strict=True)]
    both, at_first, at_second = np.intersect1d(
        by_group[0].codes, by_group[1].codes, assume_unique=True, return_indices=True
    )
    at = (at_first, at_second)
    pairs = np.stack([g.values[k] for g, k in zip(by_group, at, strict=True)], axis=1)
    difference = pairs[:, 1] - pairs[:, 0]

    edges = _edges([v[mask] for v, mask in values])
    n_resamples, seed = options["n_resamples"], options["seed"]
    described = [
        _side(
            names[k],
            sides[k],
            options["target"],
            codes[k],
            shared,
            values[k],
            edges,
            by_group[k],
            at[k],
            n_groups[k],
        )
        for k in (0, 1)
    ]
    paired = gapped = metals = None
    if len(both) >= _FEWEST_PAIRS:
        paired = paired_statistics(pairs[:, 0], pairs[:, 1], n_resamples=n_resamples, seed=seed)
    if options["target"] == "band_gap":
        gap = pairs > GAP_OF_A_METAL
        open_both = gap.all(axis=1)
        metals = {
            "both_metal": int((~gap).all(axis=1).sum()),
            "only_first_metal": int((~gap[:, 0] & gap[:, 1]).sum()),
            "only_second_metal": int((gap[:, 0] & ~gap[:, 1]).sum()),
            "both_gapped": int(open_both.sum()),
        }
        if open_both.sum() >= _FEWEST_PAIRS:
            chosen = pairs[open_both]
            gapped = paired_statistics(
                chosen[:, 0], chosen[:, 1], n_resamples=n_resamples, seed=seed
            )
    formulas = compositions(sides[0][by_group[0].rows[at_first]])
    return Comparison(
        options=dict(options),
        unit=unit,
        first=described[0],
        second=described[1],
        n_shared=n_shared,
        share_of_first=n_shared / max(1, n_groups[0]),
        share_of_second=n_shared / max(1, n_groups[1]),
        jaccard=n_shared / max(1, n_either),
        bin_edges=tuple(edges.tolist()),
        paired=paired,
        gapped=gapped,
        metals=metals,
        elements=element_offsets(formulas, difference),
        disagreements=_worst(sides, words[both], pairs, by_group, at, n_worst),
        warnings=_warnings(described, len(both), options["target"]),
        pairs=pairs,
    )


def _side(
    name: str,
    dataset: Dataset,
    target: str,
    codes: np.ndarray,
    shared: np.ndarray,
    values: tuple[np.ndarray, np.ndarray],
    edges: np.ndarray,
    by_group: _Groups,
    at: np.ndarray,
    n_groups: int,
) -> Side:
    inside = np.zeros(len(codes), dtype=bool)
    inside[codes >= 0] = shared[codes[codes >= 0]]
    spans = by_group.spans[at][by_group.sizes[at] > 1]
    methods = methods_of(dataset, target)
    return Side(
        name=name,
        digest=dataset.digest,
        n_structures=len(dataset),
        n_without_group=int((codes < 0).sum()),
        n_groups=n_groups,
        n_labelled=int(values[1].sum()),
        n_shared=int(inside.sum()),
        methods={describe_method(method): count for method, count in methods.items()},
        inside_groups=float(np.median(spans)) if len(spans) else None,
        all=_distribution(values[0][values[1]], edges),
        shared=_distribution(values[0][values[1] & inside], edges),
    )


def _edges(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the edges of bins that hold the central 99 % of both sides, (N_BINS + 1,)."""
    ends = [np.quantile(v, (0.005, 0.995)) for v in values if len(v)]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 1.0)
    edges: np.ndarray = np.linspace(low, high if high > low else low + 1.0, N_BINS + 1)
    return edges


def _distribution(values: np.ndarray, edges: np.ndarray) -> Distribution | None:
    if not len(values):
        return None
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Distribution(
        n=len(values),
        mean=float(values.mean()),
        deviation=float(values.std()),
        quantiles=tuple(np.quantile(values, _QUANTILES).tolist()),
        counts=tuple(counts.tolist()),
    )


def _worst(
    sides: Sequence[Dataset],
    words: np.ndarray,
    pairs: np.ndarray,
    by_group: Sequence[_Groups],
    at: tuple[np.ndarray, np.ndarray],
    n_worst: int,
) -> tuple[Disagreement, ...]:
    difference = pairs[:, 1] - pairs[:, 0]
    order = np.argsort(-np.abs(difference), kind="stable")[:n_worst]
    rows = [g.rows[k] for g, k in zip(by_group, at, strict=True)]
    sizes = [g.sizes[k] for g, k in zip(by_group, at, strict=True)]
    ids = [dataset.ids for dataset in sides]
    return tuple(
        Disagreement(
            group=str(words[k]),
            first=float(pairs[k, 0]),
            second=float(pairs[k, 1]),
            difference=float(difference[k]),
            first_id=ids[0][int(rows[0][k])],
            second_id=ids[1][int(rows[1][k])],
            n_first=int(sizes[0][k]),
            n_second=int(sizes[1][k]),
        )
        for k in order
        if difference[k]
    )


def _warnings(sides: Sequence[Side], n_pairs: int, target: str) -> tuple[str, ...]:
    found = []
    first, second = sides
    if first.digest == second.digest:
        found.append(f"{first.name} and {second.name} hold the same data")
    if set(first.methods) != set(second.methods):
        found.append(
            f"levels of theory differ: {first.name} {_listed(first.methods)}; {second.name} "
            f"{_listed(second.methods)}. The offset is that of the methods and the data together"
        )
    for side in sides:
        if len(side.methods) > 1:
            found.append(f"{side.name} mixes levels of theory: {_listed(side.methods)}")
        if "not recorded" in side.methods:
            found.append(
                f"{side.name} has {side.methods['not recorded']:,} values of {target} whose level "
                "of theory is not recorded"
            )
        if side.n_without_group:
            found.append(
                f"{side.n_without_group:,} of {side.n_structures:,} structures of {side.name} "
                "belong to no group and are left out of what is shared"
            )
    if n_pairs < _FEWEST_PAIRS:
        found.append(f"only {n_pairs} shared groups have {target} on both sides: no offset")
    return tuple(found)


def _listed(methods: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in methods.items()) or "none"
