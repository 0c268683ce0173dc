"""What a benchmark gave: per fold, over the folds, beside the board, and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.quantities import quantity
from epitaxy_benchmarks import matbench_board, matbench_scores
from epitaxy_benchmarks.matbench_fold import FoldResult, write_json
from epitaxy_benchmarks.matbench_submission import (
    recorded_tasks,
    submission,
    task_record,
    write_submission,
)

if TYPE_CHECKING:
    from epitaxy.config import Config
    from epitaxy_benchmarks.matbench_task import LoadedTask

RESULTS = "results.json"
SUBMISSION = "submission"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """The result of one task.

    Attributes:
        task: the task.
        folds: what was run.
        scores: of each fold.
    """

    task: LoadedTask
    folds: list[FoldResult]
    scores: list[dict[str, float]]

    @classmethod
    def of(cls, task: LoadedTask, folds: list[FoldResult]) -> TaskReport:
        """Score the folds."""
        row = {name: index for index, name in enumerate(task.dataset.ids)}
        found = []
        for fold in folds:
            labels = task.labels[[row[name] for name in fold.ids]]
            found.append(
                matbench_scores.scores(
                    labels, np.array(fold.predicted), is_claim=task.facts.is_classification
                )
            )
        return cls(task=task, folds=folds, scores=found)

    @property
    def not_comparable(self) -> str:
        """Why the numbers cannot be set against the board; "" if they can."""
        task = self.task
        if not task.is_official:
            return f"{len(task.dataset):,} of {task.facts.n_rows:,} rows, with folds of their own"
        if len(self.folds) < len(task.folds):
            return f"{len(self.folds)} of {len(task.folds)} folds"
        return ""

    @property
    def metric(self) -> str:
        """The score that the board ranks by."""
        return "rocauc_official" if self.task.facts.is_classification else "mae"

    @property
    def summary(self) -> dict[str, dict[str, float]]:
        """Score -> mean, std, min, max over the folds."""
        return matbench_scores.over_folds(self.scores)

    @property
    def rank(self) -> int | None:
        """Place among the entries of the board, None if not comparable."""
        if self.not_comparable:
            return None
        return self.task.board.rank(self.summary[self.metric]["mean"])

    def document(self) -> dict[str, Any]:
        """Return everything as plain values."""
        task = self.task
        return {
            "task": task.name,
            "quantity": task.facts.quantity,
            "unit": quantity(task.facts.quantity).unit,
            "file": task.path.name,
            "inputs": "structures" if task.has_structures else "formulas",
            "n_rows": len(task.dataset),
            "folds_sha256": matbench_board.folds_digest(task.folds),
            "is_official": task.is_official,
            "not_comparable": self.not_comparable or None,
            "metric": self.metric,
            "scores": self.summary,
            "rank": self.rank,
            "n_board_entries": len(task.board.entries),
            "board_source": matbench_board.source(),
            "mae_of_mean": task.mean_error,
            "folds": [
                {
                    **{k: v for k, v in asdict(fold).items() if k not in _LONG},
                    "n_test": len(fold.ids),
                    "scores": score,
                }
                for fold, score in zip(self.folds, self.scores, strict=True)
            ],
        }


_LONG = ("ids", "predicted", "std")


def lines_of(report: TaskReport) -> list[str]:
    """Return the report of a task as lines of text."""
    task = report.task
    unit = quantity(task.facts.quantity).unit
    state = "official folds (sha256 agrees)" if task.is_official else "folds of its own"
    inputs = "structures" if task.has_structures else "formulas alone"
    lines = [f"{task.name}: {len(task.dataset):,} rows, {inputs}, {state}"]
    names = (
        ("rocauc_official", "rocauc", "balanced_accuracy", "f1", "accuracy")
        if task.facts.is_classification
        else ("mae", "rmse", "mape", "max_error")
    )
    heads = ["fold", "train", "valid", "test", *names, "seconds"]
    rows = [
        [
            str(fold.fold),
            *(f"{n}" for n in (fold.n_train, fold.n_valid, len(fold.ids))),
            *(f"{score[name]:.4f}" for name in names),
            f"{fold.seconds:.1f}",
        ]
        for fold, score in zip(report.folds, report.scores, strict=True)
    ]
    summary = report.summary
    for kind in ("mean", "std"):
        rows.append([kind, "", "", "", *(f"{summary[name][kind]:.4f}" for name in names), ""])
    lines += [f"  {line}" for line in aligned([heads, *rows])]
    if unit:
        lines.append(f"  mae, rmse and max_error in {unit}")
    n_by_mean = sum(fold.n_by_mean for fold in report.folds)
    if n_by_mean:
        lines.append(
            f"  {n_by_mean} test entries hold elements that the training part lacks: they have "
            f"its mean"
        )
    if task.mean_error is not None and task.is_official:
        dummy = task.board.entry("Dummy")
        beside = f", on the board {dummy[0]:.4f}" if dummy else ""
        lines.append(f"  the mean of the training parts: mae {task.mean_error:.4f}{beside}")
    return [*lines, f"  {_verdict(report)}"]


def _verdict(report: TaskReport) -> str:
    if report.not_comparable:
        return f"not comparable with the board: {report.not_comparable}"
    note = (
        "; the board's rocauc is the balanced accuracy"
        if report.task.facts.is_classification
        else ""
    )
    return f"board: {report.task.board.place(report.summary[report.metric]['mean'])}{note}"


def table_of(reports: Sequence[TaskReport]) -> list[str]:
    """Return one line per task, with the numbers of the board beside it."""
    rows = [
        ["task", "metric", "mean", "std", "place", "best of the board", "RF-SCM/Magpie", "Dummy"]
    ]
    for report in reports:
        board = report.task.board
        best, best_mean, _ = board.entries[0]
        others = [board.entry(name) for name in ("RF-SCM/Magpie", "Dummy")]
        score = report.summary[report.metric]
        rows.append(
            [
                report.task.name,
                report.metric,
                f"{score['mean']:.4f}",
                f"{score['std']:.4f}",
                f"{report.rank} of {len(board.entries) + 1}" if report.rank else "not comparable",
                f"{best} {best_mean:.4f}",
                *(f"{other[0]:.4f}" if other else "-" for other in others),
            ]
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, columns flush left in the first and right in the others."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def write_reports(
    reports: Sequence[TaskReport], output: Path, *, config: Config, algorithm: str
) -> list[Path]:
    """Write results.json and, if a task is complete and official, the submission.

    Tasks that the same model has run there before stay in both.

    Raises:
        DataError: the disk refuses.
    """
    path = output / RESULTS
    model = {
        "model": config.model.to_config(),
        "strategy": config.strategy.to_config(),
        "training": config.training.to_config(),
        "seed": config.seed,
    }
    before = _before(path, model)
    tasks = {**before, **{report.task.name: report.document() for report in reports}}
    write_json(path, {**_plain(model), "tasks": dict(sorted(tasks.items()))})
    written = [path]
    complete = [report for report in reports if not report.not_comparable]
    if complete:
        folder = output / SUBMISSION
        records = {
            name: record
            for name, record in recorded_tasks(folder).items()
            if name in before and before[name]["not_comparable"] is None
        }
        records |= {report.task.name: _record(report, model) for report in complete}
        document = submission(records, metadata={"algorithm": algorithm})
        write_submission(folder, document, algorithm=algorithm)
        written.append(folder / "results.json.gz")
    return written


def _before(path: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tasks that an earlier run of the same model has written there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_same = all(found.get(key) == value for key, value in _plain(model).items())
    tasks: dict[str, Any] = found.get("tasks", {}) if is_same else {}
    return tasks


def _record(report: TaskReport, model: Mapping[str, Any]) -> dict[str, Any]:
    scores = [
        matbench_scores.recorded(score, is_claim=report.task.facts.is_classification)
        for score in report.scores
    ]
    return task_record(report.task.name, report.folds, scores, _plain(model))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
