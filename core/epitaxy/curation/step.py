"""One step of curation as the history of a dataset keeps it, and as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epitaxy.curation.frames import Rejections
from epitaxy.dataset import Dataset


def recorded(
    before: Dataset,
    after: Dataset,
    operation: str,
    *,
    options: Mapping[str, Any],
    counts: Mapping[str, int],
    facts: Mapping[str, Any] | None = None,
) -> Dataset:
    """Return a dataset whose history says how it was made from another.

    Args:
        before: what the operation was given.
        after: what it made.
        operation: its name (`epitaxy.curation.operations`).
        options: all of its options, enough to do it again.
        counts: of structures: seen, dropped or changed ...
        facts: what else is worth keeping.
    """
    step: dict[str, Any] = {
        "operation": operation,
        "options": dict(options),
        "counts": dict(counts),
        "digest_before": before.digest,
    }
    return after.with_history({**step, **(facts or {})})


def kept(
    dataset: Dataset,
    rows: Sequence[int],
    rejections: Rejections,
    operation: str,
    options: Mapping[str, Any],
    *,
    facts: Mapping[str, Any] | None = None,
) -> Dataset:
    """Return some rows of a dataset, with the step that dropped the others in the history."""
    after = dataset if len(rows) == len(dataset) else dataset[list(rows)]
    step = rejections.step()
    return recorded(
        dataset,
        after,
        operation,
        options=options,
        counts={"n_seen": step["n_seen"], "n_dropped": step["n_dropped"]},
        facts={"reasons": step["reasons"], **(facts or {})},
    )


def step_lines(step: Mapping[str, Any], *, limit: int = 5) -> list[str]:
    """Return what a step did, one line per reason: "3 of 214 dropped: |F| > 100 eV/Å (a#7 ...)"."""
    n_seen = step.get("counts", step).get("n_seen", 0)
    lines = []
    reasons = step.get("reasons", {})
    for reason, fact in sorted(reasons.items(), key=lambda item: -item[1]["count"]):
        names = fact["examples"][:limit]
        more = fact["count"] - len(names)
        named = ", ".join(names) + (f" and {more:,} more" if more else "")
        lines.append(f"{fact['count']:,} of {n_seen:,} dropped: {reason} ({named})")
    return [*lines, *step.get("said", [])]
