"""What the training loop needs to know about what it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from epitaxy.training.losses import TERMS, ErrorSums, weights
from epitaxy.training.objective import make_objective

if TYPE_CHECKING:
    import numpy as np

    from epitaxy.dataset import Dataset
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy.potential import Potential
    from epitaxy.training.batches import LabelledGraphs, Labels
    from epitaxy.training.options import TrainingOptions


class Batches(Protocol):
    """Inputs and labels of a dataset, taken by row numbers."""

    @property
    def dataset(self) -> Dataset:
        """The structures behind the rows."""
        ...

    def __len__(self) -> int:
        """Number of structures."""
        ...

    def batch(self, rows: np.ndarray) -> tuple[Any, Any]:
        """Return inputs and labels of some structures, in the order of `rows`."""
        ...

    def pieces(self) -> Sequence[np.ndarray]:
        """Return all rows in pieces that can be predicted at once."""
        ...


class Sums(Protocol):
    """Errors added up over batches."""

    def add(self, inputs: Any, labels: Any) -> None:
        """Predict a batch, without a gradient, and add its errors."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return "loss" and further numbers, all over all values at once."""
        ...


class Task(Protocol):
    """A module, its data and what is to be minimised.

    Attributes:
        module: what is trained.
        train: to learn from.
        valid: to choose the best weights by; may be empty.
    """

    @property
    def module(self) -> nn.Module:
        """What is trained, on the run's device and in its dtype."""
        ...

    @property
    def train(self) -> Batches:
        """To learn from."""
        ...

    @property
    def valid(self) -> Batches:
        """To choose the best weights by; may be empty."""
        ...

    def objective(self) -> Callable[[Any, Any], Tensor]:
        """Return the function from inputs and labels to the loss."""
        ...

    def sums(self) -> Sums:
        """Return empty sums of errors."""
        ...

    def labelled(self) -> dict[str, int]:
        """Return kind of label -> training structures that carry it."""
        ...


class PotentialTask:
    """Energies, forces and stresses of a potential.

    Args:
        potential: what to train.
        train: to learn from.
        valid: to choose the best weights by; may be empty.
        options: loss and weights.
    """

    def __init__(
        self,
        potential: Potential,
        train: LabelledGraphs,
        *,
        valid: LabelledGraphs,
        options: TrainingOptions,
    ) -> None:
        self.module, self.train, self.valid = potential, train, valid
        self._options = options

    def objective(self) -> Callable[[Any, Any], Tensor]:
        """Return the loss of `epitaxy.training.losses`."""
        return make_objective(self.module, self._options)

    def sums(self) -> Sums:
        """Return empty sums of errors."""
        return _PotentialSums(self.module, self._options)

    def labelled(self) -> dict[str, int]:
        """Return kind of label -> training structures that carry it."""
        return {name: self.train.labelled(name) for name in TERMS}


class _PotentialSums:
    def __init__(self, potential: Potential, options: TrainingOptions) -> None:
        self._potential, self._options = potential, options
        self._sums = ErrorSums(options)
        metric = options.validation_metric.rpartition("_")[0]
        self._wanted = {name for name, w in weights(options).items() if w > 0 or name == metric}

    def add(self, inputs: GraphBatch, labels: Labels) -> None:
        with torch.no_grad():
            outputs = self._potential(
                inputs,
                forces="forces" in self._wanted,
                stress="stress" in self._wanted,
                compiled=self._options.compile,
            )
        self._sums.add(outputs, labels)

    def metrics(self) -> dict[str, float]:
        return self._sums.metrics()
