"""What a scikit-learn model must be able to do here: learn one target from a table of features."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from epitaxy.errors import TrainingError
from epitaxy.training.journal import FILE_NAME, Journal

if TYPE_CHECKING:
    from epitaxy.run import Run

SAME = 1e-6
"""Largest relative difference of our prediction from scikit-learn's, checked after each fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Features and labels of one target, without missing labels.

    Attributes:
        name: of the target.
        features: (n, width) float64, training.
        labels: (n,) float64; 0 or 1 for a claim.
        valid_features: (m, width) float64; m may be 0.
        valid_labels: (m,) float64.
        is_claim: whether the target is a claim (metal or not): its probability is learnt.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    valid_features: np.ndarray
    valid_labels: np.ndarray
    is_claim: bool

    def loss(self, predicted: np.ndarray, *, valid: bool) -> float:
        """Return the mean square error, for a claim the cross-entropy."""
        labels = self.valid_labels if valid else self.labels
        if not self.is_claim:
            return float(np.mean((predicted - labels) ** 2))
        probability = np.clip(predicted, 1e-12, 1 - 1e-12)
        log = np.where(labels == 1, np.log(probability), np.log1p(-probability))
        return -float(np.mean(log))


class Fitted(Protocol):
    """What was learnt, as plain arrays: saved without pickle, evaluated without scikit-learn."""

    kind: str

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return mean (n,), for a claim the probability of 1, and one standard deviation."""
        ...

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return everything that `from_arrays` needs."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Fitted:
        """Make the same again."""
        ...


class Learner(Protocol):
    """A recipe that learns one target."""

    @property
    def needs_validation(self) -> bool:
        """Whether a validation set changes what is learnt."""
        ...

    @property
    def uses_training(self) -> tuple[str, ...]:
        """Which of the training options it follows."""
        ...

    @property
    def gives_std(self) -> bool:
        """Whether what is learnt predicts standard deviations."""
        ...

    def fit(self, table: Table, *, run: Run) -> Fitted:
        """Learn."""
        ...


@dataclass(slots=True)
class Budget:
    """Steps and wall time of one fit; tells the user, and metrics.jsonl, how far it is.

    Attributes:
        run: whose training options and progress are used.
        n_steps: steps at most.
    """

    run: Run
    n_steps: int
    _start: float = field(default_factory=time.monotonic)
    _journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self._journal = Journal(self.run.directory / FILE_NAME)
        self.run.progress.started(self.run.name, self.n_steps)

    def report(self, step: int, **metrics: float) -> None:
        """Say that so many steps are done."""
        seconds = time.monotonic() - self._start
        line = {"epoch": step, "step": step, "seconds": seconds, **metrics}
        self._journal.write(line)
        self.run.progress.epoch(self.run.name, line)
        self.run.epoch_finished(step, line)

    @property
    def is_spent(self) -> bool:
        """Whether the wall time of the training options is over."""
        limit = self.run.training.max_seconds
        return limit is not None and time.monotonic() - self._start > limit

    def finish(self, message: str) -> None:
        """Say how it ended."""
        self.run.progress.finished(self.run.name, message)


def sklearn_seed(run: Run, purpose: str) -> int:
    """Return a seed in the range that scikit-learn takes."""
    return run.seed_for(purpose) % 2**32


def check_same(fitted: Fitted, expected: np.ndarray, features: np.ndarray) -> None:
    """Compare what was taken over as arrays with scikit-learn's own prediction.

    Raises:
        TrainingError: they differ: this scikit-learn keeps its models differently.
    """
    import sklearn

    found, _ = fitted.predict(features)
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-12)
    worst = float(np.abs(found - expected).max(initial=0.0)) / scale
    if not worst <= SAME:
        raise TrainingError(
            f"the {fitted.kind} taken from scikit-learn {sklearn.__version__} predicts otherwise "
            f"than the original (relative difference {worst:.2g}): use another version of "
            f"scikit-learn, and please report this"
        )


def forest_threads(run: Run) -> int:
    """Return n_jobs: the training option n_threads, else all cores."""
    return run.training.n_threads or -1
