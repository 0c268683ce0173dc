"""One target of sets: labels, loss and errors for the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from epitaxy.training.losses import pointwise
from epitaxy_atomsets.inputs import Inputs
from epitaxy_atomsets.network import AtomSetsNetwork, Sets

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.training.options import TrainingOptions
    from epitaxy.training.task import Sums

SETS_AT_ONCE = 20_000


class Labels(NamedTuple):
    """Scaled labels of a batch: what the network should return.

    Attributes:
        values: (n,), 0 where missing.
        mask: (n,) bool.
        unit: (n,), how large 1 is in the unit of the target, per atom if it is extensive.
    """

    values: Tensor
    mask: Tensor
    unit: Tensor


class SetBatches:
    """Sets and labels of a dataset.

    Args:
        dataset: entries.
        inputs: their sets.
        labels: scaled labels of all of them.
        device: where batches live.
    """

    def __init__(
        self, dataset: Dataset, inputs: Inputs, labels: Labels, *, device: torch.device
    ) -> None:
        self.dataset, self.inputs = dataset, inputs
        self._labels = Labels(*(x.to(device) for x in labels))
        self._device = device

    def __len__(self) -> int:
        return len(self.dataset)

    def pieces(self) -> list[np.ndarray]:
        """Return all rows in pieces that can be predicted at once."""
        return pieces(len(self))

    def batch(self, rows: np.ndarray) -> tuple[Sets, Labels]:
        """Return the sets and labels of some entries, in the order of `rows`."""
        index = torch.as_tensor(rows, device=self._device)
        return self.inputs.batch(rows), Labels(*(x[index] for x in self._labels))

    def n_labelled(self) -> int:
        """Return how many entries have a label."""
        return int(self._labels.mask.sum())


def pieces(n: int) -> list[np.ndarray]:
    """Return the rows 0 ... n - 1 in pieces that can be predicted at once."""
    return [np.arange(start, min(start + SETS_AT_ONCE, n)) for start in range(0, n, SETS_AT_ONCE)]


class SetTask:
    """Minimises the error of one target.

    Args:
        network: what to train.
        train: to learn from.
        valid: to choose the best weights by; may be empty.
        target: its name.
        is_claim: whether it is 0 or 1.
        options: kind of loss.
    """

    def __init__(
        self,
        network: AtomSetsNetwork,
        train: SetBatches,
        *,
        valid: SetBatches,
        target: str,
        is_claim: bool,
        options: TrainingOptions,
    ) -> None:
        self.module: nn.Module = network
        self.train, self.valid = train, valid
        self.target, self.is_claim, self.options = target, is_claim, options

    def objective(self) -> Callable[[Any, Any], Tensor]:
        """Return the function from sets and labels to the loss."""

        def objective(sets: Sets, labels: Labels) -> Tensor:
            losses = self.losses(self.module(sets), labels)
            return losses.sum() / labels.mask.sum().clamp_min(1)

        return objective

    def losses(self, found: Tensor, labels: Labels) -> Tensor:
        """Return the loss of each set, 0 where the label is missing."""
        if self.is_claim:
            losses = binary_cross_entropy_with_logits(found, labels.values, reduction="none")
        else:
            kind, delta = self.options.loss, self.options.huber_delta
            losses = pointwise(found - labels.values, kind=kind, huber_delta=delta)
        return torch.where(labels.mask, losses, 0.0)

    def sums(self) -> Sums:
        """Return empty sums of errors."""
        return _SetSums(self)

    def labelled(self) -> dict[str, int]:
        """Return target -> training entries that carry it."""
        return {self.target: self.train.n_labelled()}


class _SetSums:
    def __init__(self, task: SetTask) -> None:
        self._task = task
        self._sums = torch.zeros(4, dtype=torch.float64)  # loss, |error|, error^2, number

    def add(self, inputs: Sets, labels: Labels) -> None:
        task = self._task
        with torch.no_grad():
            found = task.module(inputs)
            losses = task.losses(found, labels)
        if task.is_claim:
            first = ((found > 0) == (labels.values > 0.5)) & labels.mask
            second = torch.zeros_like(losses)
        else:
            errors = torch.where(labels.mask, (found - labels.values) * labels.unit, 0.0)
            first, second = errors.abs(), errors.square()
        sums = [x.to(torch.float64).sum() for x in (losses, first, second, labels.mask)]
        self._sums = self._sums + torch.stack(sums).cpu()

    def metrics(self) -> dict[str, float]:
        loss, first, square, count = self._sums.tolist()
        if count == 0:
            return {"loss": 0.0}
        name = self._task.target
        if self._task.is_claim:
            return {"loss": loss / count, f"{name}_accuracy": first / count}
        return {
            "loss": loss / count,
            f"{name}_mae": first / count,
            f"{name}_rmse": (square / count) ** 0.5,
        }
