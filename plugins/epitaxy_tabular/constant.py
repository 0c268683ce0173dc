"""The mean of the training set: what any model must beat, and what a constant is learnt as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.spec import Spec

if TYPE_CHECKING:
    from epitaxy.run import Run
    from epitaxy_tabular.learner import Table
    from epitaxy_tabular.tabular_model import TabularModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One value for everything, with the spread of the labels if asked for.

    Attributes:
        value: the prediction.
    """

    value: float

    kind = "constant"

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the value for every row."""
        return np.full(len(features), self.value), None

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return the value as an array."""
        return {"value": np.array([self.value])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Constant:
        """Make the same again."""
        return cls(value=float(arrays["value"][0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The recipe: mean of the labels, for a claim the part that is 1."""

    needs_validation = False
    uses_training = ()
    gives_std = False

    def fit(self, table: Table, *, run: Run) -> Constant:
        """Return the mean of the labels."""
        return Constant(value=float(table.labels.mean()))


def dummy(
    *,
    features: Spec = Spec("element_fractions"),  # noqa: B008 -- a Spec is immutable
    targets: Sequence[str] = (),
) -> TabularModel:
    """Return a model that predicts the mean of the training labels, whatever it is given.

    Args:
        features: featurizer; what it says is not used.
        targets: what is predicted; empty for all numbers per structure that the data have.
    """
    from epitaxy_tabular.tabular_model import TabularModel

    return TabularModel(learner=Mean(), features=features, targets=targets, unseen="warn")
