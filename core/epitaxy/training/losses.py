"""How wrong a batch of predictions is: one number to minimise, and sums for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from epitaxy.potential import Outputs
    from epitaxy.training.batches import Labels
    from epitaxy.training.options import Loss, TrainingOptions

TERMS = ("energy", "forces", "stress")


def error_terms(outputs: Outputs, labels: Labels) -> dict[str, tuple[Tensor, Tensor]]:
    """Return term -> (errors, mask); errors are 0 where there is no label.

    Energy errors are per atom, (n_structures, 1), eV/atom; forces (n_atoms, 3), eV/Å; stress
    (n_structures, 6), eV/Å^3. Masks have one value per row.
    """
    dtype = labels.forces.dtype
    # In float64 up to here: total energies are large, their errors are small.
    energy = ((outputs.energy - labels.energy) / labels.n_atoms).to(dtype)[:, None]
    zero = torch.zeros((), dtype=dtype, device=energy.device)
    terms = {"energy": (torch.where(labels.has_energy[:, None], energy, zero), labels.has_energy)}
    for name, predicted, label, mask in (
        ("forces", outputs.forces, labels.forces, labels.has_forces),
        ("stress", outputs.stress, labels.stress, labels.has_stress),
    ):
        if predicted is not None:
            terms[name] = (torch.where(mask[:, None], predicted - label, zero), mask)
    return terms


def pointwise(errors: Tensor, *, kind: Loss, huber_delta: float) -> Tensor:
    """Return the loss of each error: its square, its size, or Huber's mixture.

    Source: Huber, Ann. Math. Stat. 35, 73 (1964), equation 3.7 for the mixture.
    """
    if kind == "mse":
        return errors * errors
    size = errors.abs()
    if kind == "mae":
        return size
    return torch.where(
        size < huber_delta, 0.5 * errors * errors, huber_delta * (size - 0.5 * huber_delta)
    )


def batch_loss(outputs: Outputs, labels: Labels, options: TrainingOptions) -> Tensor:
    """Return the weighted loss of a batch: for each kind of label the mean over what is there."""
    terms = error_terms(outputs, labels)
    total = torch.zeros((), dtype=labels.forces.dtype, device=labels.forces.device)
    for name, weight in weights(options).items():
        if weight > 0 and name in terms:
            errors, mask = terms[name]
            losses = pointwise(errors, kind=options.loss, huber_delta=options.huber_delta)
            # Missing labels have error 0, so the sum is over what is there.
            count = (mask.sum() * errors.shape[1]).clamp_min(1)
            total = total + weight * losses.sum() / count
    return total


def weights(options: TrainingOptions) -> dict[str, float]:
    """Return term -> weight."""
    return {
        "energy": options.energy_weight,
        "forces": options.forces_weight,
        "stress": options.stress_weight,
    }


class ErrorSums:
    """Adds up errors over batches, so that metrics are over all values and never a mean of means.

    Args:
        options: kind and weights of the loss.
    """

    def __init__(self, options: TrainingOptions) -> None:
        self._options = options
        self._sums: dict[str, Tensor] = {}

    def add(self, outputs: Outputs, labels: Labels) -> None:
        """Add a batch."""
        for name, (errors, mask) in error_terms(outputs, labels).items():
            errors = errors.detach().to(torch.float64)
            losses = pointwise(
                errors, kind=self._options.loss, huber_delta=self._options.huber_delta
            )
            sums = torch.stack(
                [
                    errors.abs().sum(),
                    (errors * errors).sum(),
                    losses.sum(),
                    (mask.sum() * errors.shape[1]).to(torch.float64),
                ]
            )
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def metrics(self) -> dict[str, float]:
        """Return loss and, per kind of label that is there, MAE and RMSE in ASE units."""
        result: dict[str, float] = {"loss": 0.0}
        for name, sums in self._sums.items():
            absolute, square, loss, count = sums.tolist()
            if count == 0:
                continue
            result[f"{name}_mae"] = absolute / count
            result[f"{name}_rmse"] = (square / count) ** 0.5
            result["loss"] += weights(self._options)[name] * loss / count
        return result
