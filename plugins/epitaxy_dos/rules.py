"""Rules that keep the part of a dataset whose spectra are converged, or alike."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import DataError
from epitaxy_dos.convergence import members_of
from epitaxy_dos.study import Study

Rule = Literal["converged", "best", "largest"]
RULES: tuple[Rule, ...] = ("converged", "best", "largest")


def kept(study: Study, rule: Rule) -> np.ndarray:
    """Return which entries of a study a rule keeps, (n,) bool.

    Args:
        study: of the dataset.
        rule: "converged": similarity to the best-converged entry of the same structure with
            otherwise the same settings reaches the threshold. "best": that entry alone.
            "largest": of each structure, the entries of its largest homogeneous cluster.

    Raises:
        DataError: the rule needs a best-converged entry, and the study has none.
    """
    chosen: np.ndarray
    if rule == "largest":
        chosen = np.zeros(len(study.ids), dtype=bool)
        for _, members in members_of(study.structures):
            labels, counts = np.unique(study.clusters.labels[members], return_counts=True)
            chosen[members] = study.clusters.labels[members] == labels[np.argmax(counts)]
        return chosen
    if study.best is None:
        raise DataError(
            f"the rule {rule!r} needs a best-converged entry: name parameters that converge "
            "(--parameter) or a reference (--reference)"
        )
    if rule == "best":
        chosen = study.best.reference == np.arange(len(study.ids))
    else:
        chosen = study.best.similarity >= study.options.threshold
    return chosen


def keep(dataset: Dataset, study: Study, rule: Rule = "converged") -> Dataset:
    """Return the entries that a rule keeps, in the dataset's order, with a step in the history.

    Entries without a spectrum are dropped: nothing is known of them. The step has a recipe for
    `epitaxy clean` that does the same again: the ids that were dropped.

    Raises:
        DataError: the study is of another dataset, or nothing is left.
    """
    if study.digest != dataset.digest:
        raise DataError("the study is of another dataset: digests differ")
    chosen = kept(study, rule)
    rows = np.sort(study.fingerprints.rows[chosen])
    if not len(rows):
        raise DataError(f"the rule {rule!r} at {study.options.threshold} keeps no entry")
    facts = study.to_json()
    n_spectra = len(study.ids)
    return dataset[rows].with_history(
        {
            "operation": "similarity",
            "options": {"rule": rule, **facts["options"]},
            "counts": {
                "before": len(dataset),
                "without_spectrum": len(dataset) - n_spectra,
                "dropped": n_spectra - len(rows),
                "after": len(rows),
            },
            "recipe": _recipe(dataset, rows),
            "digest_before": dataset.digest,
        }
    )


def _recipe(dataset: Dataset, rows: np.ndarray) -> list[dict[str, Any]]:
    """Return the core's operation that keeps the same rows; none where ids are not unique."""
    ids = list(dataset.ids)
    stay = {ids[row] for row in rows}
    dropped = [name for name in ids if name not in stay]
    if not dropped or len(dropped) + len(rows) != len(dataset):
        return []
    return [{"operation": "drop", "options": {"ids": dropped}}]
