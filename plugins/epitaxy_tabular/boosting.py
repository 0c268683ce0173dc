"""Gradient boosted trees on histograms (LightGBM's method) of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from epitaxy.errors import OptionError
from epitaxy.spec import Spec
from epitaxy_tabular.learner import Budget, Table, check_same, sklearn_seed
from epitaxy_tabular.tabular_model import TabularModel, Unseen
from epitaxy_tabular.trees import Trees, stacked

if TYPE_CHECKING:
    from epitaxy.run import Run

_STEP = 25
_CHECKED_ROWS = 200
_SMALL_TABLE = 20_000

Loss = Literal["squared_error", "absolute_error"]


def gradient_boosting(
    *,
    features: Spec = Spec("element_statistics"),  # noqa: B008 -- a Spec is immutable
    targets: Sequence[str] = (),
    n_trees: int = 600,
    learning_rate: float = 0.05,
    max_leaves: int = 31,
    min_samples_leaf: int = 10,
    l2: float = 0.0,
    max_features: float = 0.5,
    loss: Loss = "squared_error",
    patience: int = 100,
    unseen: Unseen = "auto",
) -> TabularModel:
    """Return gradient boosted trees; the validation set decides how many are kept.

    Args:
        features: featurizer, for example element_fractions or element_statistics.
        targets: what is predicted; empty for all numbers per structure that the data have.
        n_trees: trees at most.
        learning_rate: part of each tree that is added.
        max_leaves: leaves per tree at most.
        min_samples_leaf: entries per leaf at least.
        l2: penalty on the values of the leaves.
        max_features: part of the features that each division may choose from, above 0 up to 1.
        loss: squared_error, or absolute_error; claims have the cross-entropy.
        patience: stop after so many trees (whole steps of 25) without a better validation loss;
            0 grows them all. Without a validation set all are grown.
        unseen: what to do with elements that the training set lacks: "refuse", "warn", or
            "auto": warn if the features know properties of all elements, else refuse.
    """
    if n_trees < 1 or not 0 < learning_rate <= 1 or max_leaves < 2 or not 0 < max_features <= 1:
        raise OptionError(
            f"gradient_boosting: n_trees={n_trees} must be at least 1, max_leaves={max_leaves} at "
            f"least 2, learning_rate={learning_rate} and max_features={max_features} above 0 and "
            f"at most 1"
        )
    learner = Boosting(
        n_trees=n_trees,
        learning_rate=learning_rate,
        max_leaves=max_leaves,
        min_samples_leaf=min_samples_leaf,
        l2=l2,
        max_features=max_features,
        loss=loss,
        patience=patience,
    )
    return TabularModel(learner=learner, features=features, targets=targets, unseen=unseen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosting:
    """The recipe of one sum of trees."""

    n_trees: int
    learning_rate: float
    max_leaves: int
    min_samples_leaf: int
    l2: float
    max_features: float
    loss: Loss
    patience: int

    uses_training = ("max_seconds", "n_threads")
    gives_std = False

    @property
    def needs_validation(self) -> bool:
        """Whether the validation set decides how many trees are kept."""
        return self.patience > 0

    def fit(self, table: Table, *, run: Run) -> Trees:
        """Add trees in steps until the validation loss stops falling."""
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        with threadpool_limits(_threads(run, len(table.labels)), user_api="openmp"):
            return self._fit(table, run)

    def _fit(self, table: Table, run: Run) -> Trees:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        options: dict[str, Any] = {
            "max_iter": 0,
            "learning_rate": self.learning_rate,
            "max_leaf_nodes": self.max_leaves,
            "min_samples_leaf": self.min_samples_leaf,
            "l2_regularization": self.l2,
            "max_features": self.max_features,
            "early_stopping": False,
            "warm_start": True,
            "random_state": sklearn_seed(run, f"boosting {table.name}"),
        }
        model: Any = (
            HistGradientBoostingClassifier(**options)
            if table.is_claim
            else HistGradientBoostingRegressor(loss=self.loss, **options)
        )
        has_valid = len(table.valid_labels) > 0 and self.patience > 0
        budget = Budget(run, self.n_trees)
        best, best_loss, n_trees = 0, np.inf, 0
        while n_trees < self.n_trees and not budget.is_spent:
            n_trees = min(n_trees + _STEP, self.n_trees)
            model.set_params(max_iter=n_trees)
            model.fit(table.features, table.labels)
            if not has_valid:
                best = n_trees
                predicted = self._staged(model, table.features, table.is_claim)[-1]
                budget.report(n_trees, train_loss=table.loss(predicted, valid=False))
                continue
            losses = self._losses(model, table, n_trees)
            budget.report(n_trees, valid_loss=losses[-1])
            lowest = int(np.argmin(losses))
            if losses[lowest] < best_loss:
                best, best_loss = max(n_trees - len(losses), 0) + lowest + 1, losses[lowest]
            elif n_trees - best >= self.patience:
                break
        budget.finish(f"{best} of {n_trees} trees kept")
        trees = _trees(model, best, table)
        some = table.features[:_CHECKED_ROWS]
        check_same(trees, self._staged(model, some, table.is_claim)[best - 1], some)
        return trees

    def _losses(self, model: Any, table: Table, n_trees: int) -> list[float]:
        """Return the validation losses after each of the last trees."""
        last = self._staged(model, table.valid_features, table.is_claim)[-_STEP:]
        return [self._loss(table, predicted) for predicted in last]

    def _loss(self, table: Table, predicted: np.ndarray) -> float:
        if self.loss == "absolute_error" and not table.is_claim:
            return float(np.abs(predicted - table.valid_labels).mean())
        return table.loss(predicted, valid=True)

    @staticmethod
    def _staged(model: Any, features: np.ndarray, is_claim: bool) -> list[np.ndarray]:
        if is_claim:
            return [stage[:, 1] for stage in model.staged_predict_proba(features)]
        return list(model.staged_predict(features))


def _threads(run: Run, n_entries: int) -> int | None:
    """Return the training option n_threads; else one for a small table, where more are slower."""
    if run.training.n_threads is not None:
        return run.training.n_threads
    return 1 if n_entries < _SMALL_TABLE else None


def _trees(model: Any, n_trees: int, table: Table) -> Trees:
    """Take the first trees of a model over; it has no public access to them."""
    nodes = [stage[0].nodes for stage in model._predictors[:n_trees]]
    return Trees(
        **stacked(
            (
                np.where(tree["is_leaf"] == 1, -1, tree["feature_idx"]),
                np.where(tree["is_leaf"] == 1, tree["value"], tree["num_threshold"]),
                tree["left"],
                tree["right"],
            )
            for tree in nodes
        ),
        base=float(np.ravel(model._baseline_prediction)[0]),
        is_mean=False,
        is_logistic=table.is_claim,
        is_single=False,
    )
