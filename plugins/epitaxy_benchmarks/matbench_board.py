"""The published leaderboard of MatBench v0.1, as it was in January 2024 (it has not moved since).

The numbers are the means over five folds that the board prints. Those that it calls ROC-AUC are
balanced accuracies: matbench 0.6 turns probabilities into labels before it computes them
(`epitaxy_benchmarks.matbench_scores`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.folds import Fold

DIGITS = 4
"""Decimals that the board prints."""

_FILE = Path(__file__).with_name("matbench_board.json")


@dataclass(frozen=True, slots=True)
class Board:
    """The leaderboard of one task.

    Attributes:
        metric: "mae" or "rocauc".
        folds_sha256: `folds_digest` of the official folds.
        targets_sha256: `targets_digest` of the targets in the official order.
        entries: (algorithm, mean, standard deviation over the folds), best first.
    """

    metric: str
    folds_sha256: str
    targets_sha256: str
    entries: tuple[tuple[str, float, float], ...]

    def rank(self, value: float) -> int:
        """Return the place (from 1) that a mean has among the entries, at their 4 digits."""
        ours = round(value, DIGITS)
        means = [mean for _, mean, _ in self.entries]
        better = [m for m in means if (m < ours if self.metric == "mae" else m > ours)]
        return len(better) + 1

    def entry(self, algorithm: str) -> tuple[float, float] | None:
        """Return mean and standard deviation of an algorithm, None if it has no entry."""
        return next(((mean, std) for name, mean, std in self.entries if name == algorithm), None)

    def place(self, value: float) -> str:
        """Return the place of a mean in words, with the entries around it."""
        rank, ours = self.rank(value), round(value, DIGITS)
        level = [name for name, mean, _ in self.entries if mean == ours]
        texts = [f"{name} {mean:.{DIGITS}f}" for name, mean, _ in self.entries]
        around = [f"after {texts[rank - 2]}"] if rank > 1 else []
        if level:
            around.append(f"level with {', '.join(level)}")
        elif rank <= len(texts):
            around.append(f"before {texts[rank - 1]}")
        return f"place {rank} of {len(texts) + 1} ({', '.join(around)})"


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return document


def source() -> str:
    """Return where the numbers are from."""
    text: str = _document()["source"]
    return text


def board(task: str) -> Board:
    """Return the leaderboard of a task, for example "matbench_steels"."""
    facts = _document()["tasks"][task]
    return Board(
        facts["metric"],
        facts["folds_sha256"],
        facts["targets_sha256"],
        tuple((name, mean, std) for name, mean, std in facts["entries"]),
    )


def folds_digest(folds: Sequence[Fold]) -> str:
    """Return the sha256 of the fold in which each row is tested, one byte per row."""
    n = sum(len(test) for _, test in folds)
    tested = np.zeros(n, dtype=np.uint8)
    for index, (_, test) in enumerate(folds):
        tested[test] = index
    return hashlib.sha256(tested.tobytes()).hexdigest()


def targets_digest(labels: np.ndarray) -> str:
    """Return the sha256 of the targets in their order, as float32: the last digits may differ.

    Args:
        labels: (n,), in our units.
    """
    return hashlib.sha256((labels + 0.0).astype("<f4").tobytes()).hexdigest()
