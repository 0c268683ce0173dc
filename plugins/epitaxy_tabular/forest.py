"""Random forest (Breiman, Machine Learning 45, 5 (2001)) of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from epitaxy.errors import OptionError
from epitaxy.spec import Spec
from epitaxy_tabular.learner import Budget, Table, check_same, forest_threads, sklearn_seed
from epitaxy_tabular.tabular_model import TabularModel, Unseen
from epitaxy_tabular.trees import Trees, stacked

if TYPE_CHECKING:
    from epitaxy.run import Run

_STEPS = 10
_CHECKED_ROWS = 200


def random_forest(
    *,
    features: Spec = Spec("element_statistics"),  # noqa: B008 -- a Spec is immutable
    targets: Sequence[str] = (),
    n_trees: int = 200,
    max_features: float = 0.33,
    min_samples_leaf: int = 1,
    max_depth: int | None = None,
    uncertainty: Literal["trees", "none"] = "trees",
    unseen: Unseen = "auto",
) -> TabularModel:
    """Return a random forest; it needs no validation set.

    Args:
        features: featurizer, for example element_fractions or element_statistics.
        targets: what is predicted; empty for all numbers per structure that the data have.
        n_trees: trees; more never hurt but cost time and space.
        max_features: part of the features that each division may choose from, above 0 up to 1.
        min_samples_leaf: entries per leaf at least.
        max_depth: largest depth; none for trees that are grown out.
        uncertainty: "trees" gives the standard deviation over the trees with each prediction of
            a number; "none" gives none.
        unseen: what to do with elements that the training set lacks: "refuse", "warn", or
            "auto": warn if the features know properties of all elements, else refuse.
    """
    if n_trees < 1 or min_samples_leaf < 1 or not 0 < max_features <= 1:
        raise OptionError(
            f"random_forest: n_trees={n_trees}, min_samples_leaf={min_samples_leaf} must be at "
            f"least 1 and max_features={max_features} above 0 and at most 1"
        )
    learner = Forest(
        n_trees=n_trees,
        max_features=max_features,
        min_samples_leaf=min_samples_leaf,
        max_depth=max_depth,
        gives_std=uncertainty == "trees",
    )
    return TabularModel(learner=learner, features=features, targets=targets, unseen=unseen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """The recipe of one forest."""

    n_trees: int
    max_features: float
    min_samples_leaf: int
    max_depth: int | None
    gives_std: bool

    needs_validation = False
    uses_training = ("max_seconds", "n_threads")

    def fit(self, table: Table, *, run: Run) -> Trees:
        """Grow the trees, in steps, until they are enough or the time is over."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        make = RandomForestClassifier if table.is_claim else RandomForestRegressor
        forest: Any = make(
            n_estimators=0,
            max_features=self.max_features,
            min_samples_leaf=self.min_samples_leaf,
            max_depth=self.max_depth,
            n_jobs=forest_threads(run),
            random_state=sklearn_seed(run, f"forest {table.name}"),
            warm_start=True,
        )
        budget = Budget(run, self.n_trees)
        for step in np.linspace(0, self.n_trees, min(_STEPS, self.n_trees) + 1).round()[1:]:
            forest.set_params(n_estimators=int(step))
            forest.fit(table.features, table.labels)
            budget.report(int(step), **_losses(forest, table))
            if budget.is_spent:
                break
        budget.finish(f"{len(forest.estimators_)} of {self.n_trees} trees")
        trees = Trees(
            **stacked(_nodes(tree.tree_, table.is_claim) for tree in forest.estimators_),
            has_std=self.gives_std and not table.is_claim,
        )
        some = table.features[:_CHECKED_ROWS]
        check_same(trees, _predicted(forest, some, table.is_claim), some)
        return trees


def _predicted(forest: Any, features: np.ndarray, is_claim: bool) -> np.ndarray:
    found = forest.predict_proba(features)[:, 1] if is_claim else forest.predict(features)
    return np.asarray(found)


def _losses(forest: Any, table: Table) -> dict[str, float]:
    predicted = _predicted(forest, table.features, table.is_claim)
    losses = {"train_loss": table.loss(predicted, valid=False)}
    if len(table.valid_labels):
        predicted = _predicted(forest, table.valid_features, table.is_claim)
        losses["valid_loss"] = table.loss(predicted, valid=True)
    return losses


def _nodes(tree: Any, is_claim: bool) -> tuple[np.ndarray, ...]:
    values = tree.value[:, 0, :]
    leaf = values[:, 1] / values.sum(axis=1) if is_claim else values[:, 0]
    is_leaf = tree.children_left < 0
    feature = np.where(is_leaf, -1, tree.feature)
    number = np.where(is_leaf, leaf, tree.threshold)
    return feature, number, tree.children_left, tree.children_right
