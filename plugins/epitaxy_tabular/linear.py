"""Ridge regression, and logistic regression for claims, of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.errors import OptionError
from epitaxy.spec import Spec
from epitaxy_tabular.layers import Layers, Scaler
from epitaxy_tabular.learner import Budget, Table
from epitaxy_tabular.tabular_model import TabularModel, Unseen

if TYPE_CHECKING:
    from epitaxy.run import Run

_MAX_ITERATIONS = 5000


def linear(
    *,
    features: Spec = Spec("element_statistics"),  # noqa: B008 -- a Spec is immutable
    targets: Sequence[str] = (),
    alpha: Sequence[float] = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0),
    unseen: Unseen = "auto",
) -> TabularModel:
    """Return a linear model on standardised features; the validation set chooses the penalty.

    Args:
        features: featurizer, for example element_fractions or element_statistics.
        targets: what is predicted; empty for all numbers per structure that the data have.
        alpha: penalties on the squared coefficients to choose from; without a validation set
            the middle one is used.
        unseen: what to do with elements that the training set lacks: "refuse", "warn", or
            "auto": warn if the features know properties of all elements, else refuse.
    """
    if not alpha or min(alpha) <= 0:
        raise OptionError(f"linear: alpha={list(alpha)} must be one or more numbers above 0")
    learner = Line(alpha=tuple(sorted(alpha)))
    return TabularModel(learner=learner, features=features, targets=targets, unseen=unseen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The recipe of one line."""

    alpha: tuple[float, ...]

    uses_training = ()
    gives_std = False

    @property
    def needs_validation(self) -> bool:
        """Whether the validation set chooses the penalty."""
        return len(self.alpha) > 1

    def fit(self, table: Table, *, run: Run) -> Layers:
        """Fit with each penalty and keep the best."""
        if not self.needs_validation or not len(table.valid_labels):
            return _line(table, self.alpha[len(self.alpha) // 2])
        budget = Budget(run, len(self.alpha))
        lines, losses = [], []
        for step, alpha in enumerate(self.alpha, start=1):
            lines.append(_line(table, alpha))
            predicted, _ = lines[-1].predict(table.valid_features)
            losses.append(table.loss(predicted, valid=True))
            budget.report(step, valid_loss=losses[-1], alpha=alpha)
        best = int(np.argmin(losses))
        budget.finish(f"alpha = {self.alpha[best]:g}")
        return lines[best]


def _line(table: Table, alpha: float) -> Layers:
    from sklearn.linear_model import LogisticRegression, Ridge

    scaler = Scaler.of(table.features, table.labels, is_claim=table.is_claim)
    x, y = scaler.features(table.features), scaler.labels(table.labels)
    model: Any = (
        LogisticRegression(C=1 / alpha, max_iter=_MAX_ITERATIONS)
        if table.is_claim
        else Ridge(alpha=alpha)
    )
    model.fit(x, y)
    return Layers(
        scaler=scaler,
        weights=[np.reshape(model.coef_, (-1, 1))],
        biases=[np.reshape(model.intercept_, 1)],
        is_logistic=table.is_claim,
    )
