"""The check of a set as a whole, as an operation that drops nothing."""

from __future__ import annotations

from typing import Literal

from epitaxy.curation.consistency import check_consistency
from epitaxy.curation.findings import ConsistencyReport
from epitaxy.curation.outliers import find_outliers
from epitaxy.curation.plausible import doubts_about
from epitaxy.curation.step import recorded
from epitaxy.dataset import Dataset

OnInconsistent = Literal["error", "warn"]


def check(
    dataset: Dataset, *, on_inconsistent: OnInconsistent = "error", labels: bool = True
) -> Dataset:
    """Compare the labels with each other and the set with what sets look like; drop nothing.

    Args:
        dataset: to check.
        on_inconsistent: what to do if labels contradict each other.
        labels: whether to compare energies, forces and stresses with each other.

    Raises:
        ConsistencyError: labels contradict each other; the message has culprit and remedy.
    """
    report = check_consistency(dataset) if labels else ConsistencyReport(())
    warnings: list[str] = []
    if on_inconsistent == "error":
        report.raise_if_inconsistent()
    elif report.inconsistent:
        warnings.append(report.message())
    warnings += [*report.doubts, *doubts_about(dataset)]
    return recorded(
        dataset,
        dataset,
        "consistency",
        options={"on_inconsistent": on_inconsistent, "labels": labels},
        counts={"n_seen": len(dataset), "n_dropped": 0},
        facts={
            "findings": report.step()["findings"],
            "said": [str(finding) for finding in report.findings],
            "warnings": warnings,
        },
    )


def outlier_warnings(dataset: Dataset) -> list[str]:
    """Return what to say of energies that no chemistry explains, where nothing is dropped."""
    said = []
    for target in ("energy", "formation_energy"):
        found = find_outliers(dataset, target=target)
        if len(found.rows):
            named = ", ".join(found.names(dataset)[:5])
            said.append(
                f"{len(found.rows):,} of {len(dataset):,} entries have an unlikely {target}, far "
                f"from what the others say of their elements ({named}); `epitaxy clean` drops them"
            )
        if warning := found.warning(dataset, target):
            said.append(warning)
    return said
