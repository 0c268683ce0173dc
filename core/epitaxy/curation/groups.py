"""Groups of structures that must not be parted: same reduced formula, same spacegroup.

A label is ``<reduced formula>_<spacegroup number>`` with the elements by atomic number: rutile is
``O2Ti_136``, in any cell, supercell or setting. Mirror images have the same energy, so a
spacegroup counts as its enantiomorph of lower number: quartz is ``O2Si_152``, left or right. The
label is robust at symprec 0.1 Å, and it gathers more than true duplicates: right for splits, wrong
for deleting. Inside such a group,
`epitaxy.curation.matching` tells apart what StructureMatcher tells apart.

Labels of different engines or tolerances differ, so the tag that holds them carries both in its
name, ``spacegroup@moyopy-0.1``, and nothing compares two tags of different names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from epitaxy.composition import compositions
from epitaxy.curation.spacegroup import (
    FAILED,
    NO_STRUCTURE,
    NOT_PERIODIC,
    Engine,
    engine_version,
    spacegroup_numbers,
)
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError

Formula = Literal["reduced", "cell"]
Kind = Literal["spacegroup", "matched", "prototype"]
KINDS: tuple[Kind, ...] = ("spacegroup", "matched", "prototype")
TellStage = Callable[[str, int, int], None]
"""``(what is done, how many of it are done, of how many)``."""

ENANTIOMORPHS = MappingProxyType(
    {78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178}
    | {181: 180, 213: 212}
)
"""The 11 pairs of spacegroups that are mirror images."""

_MARKS = {FAILED: "failed", NOT_PERIODIC: "cluster", NO_STRUCTURE: ""}


@dataclass(frozen=True, slots=True)
class Grouping:
    """How group labels were made: what the name of their tag says.

    Attributes:
        kind: "spacegroup", "matched" (one structure type inside such a group) or "prototype".
        engine: "moyopy" or "spglib".
        symprec: Å.
        formula: "reduced", or "cell" for the full cell as in the paper.
    """

    kind: Kind = "spacegroup"
    engine: Engine = "moyopy"
    symprec: float = 0.1
    formula: Formula = "reduced"

    @property
    def tag(self) -> str:
        """Name of the tag that holds the labels."""
        full = "" if self.formula == "reduced" else "-cell"
        return f"{self.kind}@{self.engine}-{self.symprec:g}{full}"


def duplicate_groups(
    dataset: Dataset,
    *,
    engine: Engine = "moyopy",
    symprec: float = 0.1,
    formula: Formula = "reduced",
    n_workers: int = 1,
    tell: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return ``<formula>_<spacegroup number>`` of every structure, (n,) str.

    Where there is no spacegroup the label says why: ``C2H6_cluster`` (not periodic in three
    directions), ``O2Ti_failed`` (the engine found none), and ``O2Ti`` for a formula without a
    structure.

    Args:
        dataset: structures, formulas, or both.
        engine: "moyopy" or "spglib".
        symprec: Å. At 0.1 strained and shaken copies keep their label, at 0.01 most do not.
        formula: "reduced"; "cell" counts the atoms of the cell as the paper does, so that a
            supercell escapes from its group.
        n_workers: processes.
        tell: called with (structures done, structures in all).

    Raises:
        DataError: an unknown engine, or a symprec that is not positive.
    """
    if formula not in ("reduced", "cell"):
        raise DataError(f"formula {formula!r}: use reduced or cell")
    numbers = spacegroup_numbers(
        dataset, engine=engine, symprec=symprec, n_workers=n_workers, tell=tell
    )
    return labels_of(compositions(dataset, reduced=formula == "reduced"), numbers)


def labels_of(formulas: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Join formulas (n,) str and spacegroup numbers (n,) int to labels (n,) str."""
    found, codes = np.unique(numbers, return_inverse=True)
    words = [_MARKS.get(n, str(ENANTIOMORPHS.get(n, n))) for n in found.tolist()]
    ends = np.array([f"_{word}" if word else "" for word in words], dtype=str)
    return np.char.add(formulas.astype(str), ends[codes]) if len(formulas) else formulas


def add_groups(
    dataset: Dataset,
    *,
    engine: Engine = "moyopy",
    symprec: float = 0.1,
    formula: Formula = "reduced",
    match: bool = False,
    prototype: bool = False,
    n_workers: int = 1,
    tell: TellStage | None = None,
) -> Dataset:
    """Return the dataset with group labels as tags, and the counts in its history.

    The tags are called ``spacegroup@<engine>-<symprec>``, and with `match` and `prototype` also
    ``matched@...`` and ``prototype@...``; `epitaxy split --groups spacegroup` finds them.

    Args:
        dataset: structures, formulas, or both.
        engine: "moyopy" or "spglib".
        symprec: Å.
        formula: "reduced" or "cell".
        match: also compare the structures inside each group with StructureMatcher.
        prototype: also find the AFLOW prototype.
        n_workers: processes.
        tell: called with the progress.

    Raises:
        DataError: an unknown engine, or a symprec that is not positive.
    """
    from epitaxy.curation.matching import match_groups
    from epitaxy.curation.prototypes import prototype_labels

    def telling(stage: str) -> Callable[[int, int], None] | None:
        return None if tell is None else lambda done, total: tell(stage, done, total)

    grouping = Grouping("spacegroup", engine, symprec, formula)
    labels = duplicate_groups(
        dataset,
        engine=engine,
        symprec=symprec,
        formula=formula,
        n_workers=n_workers,
        tell=telling("spacegroups"),
    )
    grouped = dataset.with_tag(grouping.tag, labels.tolist())
    counts: dict[str, Any] = count_groups(labels)
    if prototype:
        prototypes = prototype_labels(
            dataset, engine=engine, symprec=symprec, n_workers=n_workers, tell=telling("prototypes")
        )
        grouped = grouped.with_tag(Grouping("prototype", engine, symprec).tag, prototypes.tolist())
        counts["n_prototypes"] = len(np.unique(prototypes))
        counts["n_without_prototype"] = int((prototypes == "failed").sum())
    if match:
        matched = match_groups(dataset, labels, n_workers=n_workers, tell=telling("matching"))
        tag = Grouping("matched", engine, symprec, formula).tag
        grouped = grouped.with_tag(tag, matched.labels.tolist())
        counts |= {"n_matched_groups": len(np.unique(matched.labels))}
        counts |= {"n_over_the_limit": matched.n_over_the_limit}
    options = {
        "engine": engine,
        "symprec": symprec,
        "formula": formula,
        "match": match,
        "prototype": prototype,
    }
    step = {
        "operation": "groups",
        "options": options,
        "versions": {engine: engine_version(engine)},
        "tag": grouping.tag,
        "counts": counts,
        "digest_before": dataset.digest,
    }
    return grouped.with_history(step)


def count_groups(labels: np.ndarray) -> dict[str, int]:
    """Return how many groups there are, of which sizes, and how many structures have none."""
    _, sizes = np.unique(labels, return_counts=True)
    ends = Counter(str(label).rpartition("_")[2] for label in labels)
    return {
        "n_structures": len(labels),
        "n_groups": len(sizes),
        "n_alone": int((sizes == 1).sum()),
        "largest": int(sizes.max()) if len(sizes) else 0,
        "n_failed": ends["failed"],
        "n_not_periodic": ends["cluster"],
        "n_without_structure": sum("_" not in str(label) for label in labels),
    }


def find_tag(datasets: Dataset | Sequence[Dataset], name: str) -> str:
    """Return the tag that a short name such as "spacegroup" stands for.

    Args:
        datasets: one, or several that will be compared or split together.
        name: a tag, or one of `KINDS`.

    Raises:
        DataError: a dataset has no such groups, has them from several engines or tolerances, or
            the datasets do not agree in engine and tolerance.
    """
    several = [datasets] if isinstance(datasets, Dataset) else list(datasets)
    if name not in KINDS or all(name in dataset.tags for dataset in several):
        return name
    found = [[tag for tag in dataset.tags if tag.startswith(f"{name}@")] for dataset in several]
    for k, tags in enumerate(found):
        which = _which(several[k], k, len(several))
        if not tags:
            option = {"matched": " --match", "prototype": " --prototype"}.get(name, "")
            raise DataError(
                f"{which} has no groups by {name}: make them with "
                f"`epitaxy groups DATASET -o OUTPUT{option}`"
            )
    shared = set(found[0]).intersection(*found[1:])
    if len(shared) == 1:
        return shared.pop()
    if shared:
        raise DataError(
            f"groups by {name} were made in several ways, say which one: "
            f"{', '.join(sorted(shared))}"
        )
    listed = "; ".join(
        f"{_which(several[k], k, len(several))} has {', '.join(tags)}"
        for k, tags in enumerate(found)
    )
    raise DataError(
        f"groups by {name} were made with different engines or tolerances and cannot be "
        f"compared: {listed}. Make them again with the same --engine and --symprec"
    )


def _which(dataset: Dataset, index: int, n: int) -> str:
    if dataset.path is not None:
        return str(dataset.path)
    return "the dataset" if n == 1 else f"dataset {index + 1} of {n}"
