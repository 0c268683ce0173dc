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

_FILE = Path(__file__).with_name("matbench_board.json")


@dataclass(frozen=True, slots=True)
class Board:
    """The leaderboard of one task.

    Attributes:
        metric: "mae" or "rocauc".
        folds_sha256: `folds_digest` of the official folds.
        entries: (algorithm, mean, standard deviation over the folds), best first.
    """

    metric: str
    folds_sha256: str
    entries: tuple[tuple[str, float, float], ...]

    def rank(self, value: float) -> int:
        """Return the place (from 1) that a mean would have among the entries."""
        better = [
            v for _, v, _ in self.entries if (v < value if self.metric == "mae" else v > value)
        ]
        return len(better) + 1

    def entry(self, algorithm: str) -> tuple[float, float] | None:
        """Return mean and standard deviation of an algorithm, None if it has no entry."""
        return next(((mean, std) for name, mean, std in self.entries if name == algorithm), None)

    def neighbors(self, rank: int) -> tuple[str, str]:
        """Return the entries right above and right below a place, "" where there is none."""
        texts = [f"{name} {mean:g}" for name, mean, _ in self.entries]
        above = texts[rank - 2] if rank > 1 else ""
        return above, texts[rank - 1] if rank <= len(texts) else ""


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
        tuple((name, mean, std) for name, mean, std in facts["entries"]),
    )


def folds_digest(folds: Sequence[Fold]) -> str:
    """Return the sha256 of the fold in which each row is tested, one byte per row."""
    n = sum(len(test) for _, test in folds)
    tested = np.zeros(n, dtype=np.uint8)
    for index, (_, test) in enumerate(folds):
        tested[test] = index
    return hashlib.sha256(tested.tobytes()).hexdigest()
