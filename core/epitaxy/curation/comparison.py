"""What `epitaxy.curation.compare` finds out: plain records, ready for JSON and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from epitaxy.curation.offsets import Estimate, Paired


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values of the target: of all structures of a side, or of those in shared groups.

    Attributes:
        n: values.
        mean: of them.
        deviation: standard deviation.
        quantiles: at 0, 5, 25, 50, 75, 95 and 100 %.
        counts: in the bins of the comparison; values outside are in the first and last bin.
    """

    n: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two datasets.

    Attributes:
        name: as given.
        digest: of the dataset.
        n_structures: all.
        n_without_group: those that belong to no group: no formula, no symmetry found.
        n_groups: distinct groups.
        n_labelled: structures with the target.
        n_shared: structures in groups that both sides have.
        methods: level of theory -> structures with the target.
        inside_groups: median over shared groups of several values of (largest - smallest): how
            much the target varies between structures that count as the same here.
        all: distribution of all values.
        shared: distribution of the values in shared groups.
    """

    name: str
    digest: str
    n_structures: int
    n_without_group: int
    n_groups: int
    n_labelled: int
    n_shared: int
    methods: Mapping[str, int]
    inside_groups: float | None
    all: Distribution | None
    shared: Distribution | None


@dataclass(frozen=True, slots=True)
class ElementOffset:
    """Mean difference of the shared groups that contain an element.

    Attributes:
        symbol: of the element.
        n: shared groups that contain it.
        mean: difference, with its interval.
        contrast: mean difference with the element minus that without it, with its interval.
    """

    symbol: str
    n: int
    mean: Estimate
    contrast: Estimate | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One shared group with a large difference; ids are of the structures nearest the values."""

    group: str
    first: float
    second: float
    difference: float
    first_id: str
    second_id: str
    n_first: int
    n_second: int


@dataclass(frozen=True)
class Comparison:
    """What two datasets share and how they differ. Differences are second minus first.

    Attributes:
        options: target, group and what else was asked for.
        unit: of the target and of all differences.
        first: the one side.
        second: the other side.
        n_shared: groups that both have.
        share_of_first: of the groups of the first, 0 to 1.
        share_of_second: of the groups of the second, 0 to 1.
        jaccard: shared groups over groups of either.
        bin_edges: (N_BINS + 1,) of the distributions.
        paired: over shared groups with the target on both sides; None if they are fewer than 3.
        gapped: for band gaps, the same where both sides have a gap.
        metals: for band gaps, how many shared groups are metals on both, one or no side.
        elements: those with 10 groups or more, the largest sure contrast first: the end of its
            interval that is nearer to zero.
        disagreements: the largest first.
        warnings: what limits the comparison.
        pairs: (n, 2) values of both sides, as the page draws them; not in the JSON.
    """

    options: Mapping[str, Any]
    unit: str
    first: Side
    second: Side
    n_shared: int
    share_of_first: float
    share_of_second: float
    jaccard: float
    bin_edges: tuple[float, ...]
    paired: Paired | None
    gapped: Paired | None
    metals: Mapping[str, int] | None
    elements: tuple[ElementOffset, ...]
    disagreements: tuple[Disagreement, ...]
    warnings: tuple[str, ...]
    pairs: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return everything but the single pairs as plain values."""
        from importlib.metadata import version

        facts = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "pairs"}
        for name in ("first", "second", "paired", "gapped"):
            facts[name] = None if facts[name] is None else asdict(facts[name])
        for name in ("elements", "disagreements"):
            facts[name] = [asdict(item) for item in facts[name]]
        kind = {"format": "epitaxy-comparison", "version": 1, "epitaxy": version("epitaxy")}
        return {**kind, "difference": "second - first", **facts}
