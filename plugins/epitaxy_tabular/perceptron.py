"""Multilayer perceptron of scikit-learn, trained with Adam."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.errors import OptionError
from epitaxy.spec import Spec
from epitaxy_tabular.layers import Activation, Layers, Scaler
from epitaxy_tabular.learner import Budget, Table, sklearn_seed
from epitaxy_tabular.tabular_model import TabularModel, Unseen

if TYPE_CHECKING:
    from epitaxy.run import Run


def mlp(
    *,
    features: Spec = Spec("element_statistics"),  # noqa: B008 -- a Spec is immutable
    targets: Sequence[str] = (),
    hidden: Sequence[int] = (128, 64),
    activation: Activation = "relu",
    unseen: Unseen = "auto",
) -> TabularModel:
    """Return a multilayer perceptron on standardised features.

    Of the training options it follows epochs, lr (constant), batch_size, weight_decay (the L2
    penalty), patience and max_seconds; it keeps the weights that are best on the validation set.

    Args:
        features: featurizer, for example element_fractions or element_statistics.
        targets: what is predicted; empty for all numbers per structure that the data have.
        hidden: widths of the hidden layers.
        activation: relu, tanh or logistic.
        unseen: what to do with elements that the training set lacks: "refuse", "warn", or
            "auto": warn if the features know properties of all elements, else refuse.
    """
    if not hidden or min(hidden) < 1:
        raise OptionError(f"mlp: hidden={list(hidden)} must be one or more widths of at least 1")
    learner = Perceptron(hidden=tuple(hidden), activation=activation)
    return TabularModel(learner=learner, features=features, targets=targets, unseen=unseen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceptron:
    """The recipe of one network."""

    hidden: tuple[int, ...]
    activation: Activation

    needs_validation = True
    uses_training = ("epochs", "batch_size", "lr", "weight_decay", "patience", "max_seconds")
    gives_std = False

    def fit(self, table: Table, *, run: Run) -> Layers:
        """Train epoch by epoch and keep the best weights."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        options = run.training
        model: Any = (MLPClassifier if table.is_claim else MLPRegressor)(
            hidden_layer_sizes=self.hidden,
            activation=self.activation,
            learning_rate_init=options.lr,
            batch_size=min(options.batch_size, len(table.labels)),
            alpha=options.weight_decay,
            random_state=sklearn_seed(run, f"mlp {table.name}"),
        )
        scaler = Scaler.of(table.features, table.labels, is_claim=table.is_claim)
        x, y = scaler.features(table.features), scaler.labels(table.labels)
        classes = {"classes": np.array([0.0, 1.0])} if table.is_claim else {}
        budget = Budget(run, options.epochs)
        best: Layers | None = None
        best_loss, best_epoch = np.inf, 0
        for epoch in range(1, options.epochs + 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.partial_fit(x, y, **classes)
            now = Layers(
                scaler=scaler,
                weights=[weight.copy() for weight in model.coefs_],
                biases=[bias.copy() for bias in model.intercepts_],
                activation=self.activation,
                is_logistic=table.is_claim,
            )
            if len(table.valid_labels):
                loss = table.loss(now.predict(table.valid_features)[0], valid=True)
                budget.report(epoch, train_loss=float(model.loss_), valid_loss=loss)
            else:
                loss = -float(epoch)  # the last weights are kept
                budget.report(epoch, train_loss=float(model.loss_))
            if loss < best_loss or best is None:
                best, best_loss, best_epoch = now, loss, epoch
            waited = epoch - best_epoch
            if budget.is_spent or (options.patience is not None and waited >= options.patience):
                break
        budget.finish(f"best weights of epoch {best_epoch}")
        assert best is not None  # epochs are at least 1
        return best
