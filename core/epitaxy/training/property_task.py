"""Any targets of a `MultitaskNetwork`: labels, loss and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from epitaxy.errors import TrainingError
from epitaxy.heads import HeadOptions
from epitaxy.multitask import MultitaskNetwork, Predicted
from epitaxy.quantities import Quantity
from epitaxy.training.batches import Graphs, ragged_index
from epitaxy.training.losses import pointwise, weights
from epitaxy.training.task import Sums

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy.training.options import TrainingOptions

DERIVATIVES = ("forces", "stress")
"""Targets that follow from the energy where it is predicted and they are not asked for."""


class BranchedGraph(NamedTuple):
    """A batch and the branch of each of its structures.

    Attributes:
        graph: structures.
        branch: (n_structures,) int64.
    """

    graph: GraphBatch
    branch: Tensor


class Label(NamedTuple):
    """One target of a batch.

    Attributes:
        values: (n_rows, *shape), 0 where missing.
        mask: (n_rows,) bool.
        scale: (n_rows,) float64, the unit in which errors are of order one.
        n_atoms: (n_rows,) float64, atoms behind the row: 1 for targets per atom.
    """

    values: Tensor
    mask: Tensor
    scale: Tensor
    n_atoms: Tensor


class PropertyBatches:
    """Graphs and labels of a dataset.

    Args:
        dataset: structures and labels.
        branch: (n,) int, branch of each structure.
        network: whose targets, cutoff and scales are meant.
        names: targets, derivatives of the energy included.
        dtype: floating type of the network.
        device: where batches live.
    """

    def __init__(
        self,
        dataset: Dataset,
        branch: np.ndarray,
        *,
        network: MultitaskNetwork,
        names: Mapping[str, Quantity],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.dataset = dataset
        self._device = device
        self._graphs = Graphs(dataset, cutoff=network.cutoff, dtype=dtype, device=device)
        self._branch = torch.as_tensor(branch, dtype=torch.int64, device=device)
        n_atoms = torch.from_numpy(np.array(dataset.n_atoms, dtype=np.int64)).to(device)
        self._n_atoms = n_atoms
        self._atom_ptr = torch.cat([n_atoms.new_zeros(1), n_atoms.cumsum(0)])
        self._names = dict(names)
        self._labels: dict[str, tuple[Tensor, Tensor]] = {}
        own = list(network.targets)
        self._scales = {
            name: network.scales[own.index(name)] if name in own else None for name in names
        }
        for name, rule in names.items():
            if name not in dataset.targets:
                continue
            values, mask = dataset.target(name)
            kept = torch.float64 if rule.extensive else dtype
            self._labels[name] = (
                torch.as_tensor(np.array(values), dtype=kept, device=device),
                torch.as_tensor(np.array(mask), device=device),
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def pieces(self) -> list[np.ndarray]:
        """Return all rows in pieces that can be predicted at once."""
        return self._graphs.pieces()

    def labelled(self) -> dict[str, int]:
        """Return target -> structures that carry it."""
        return {
            name: int(self._labels[name][1].sum()) if name in self._labels else 0
            for name in self._names
        }

    def batch(self, rows: np.ndarray) -> tuple[BranchedGraph, dict[str, Label]]:
        """Return the graph and the labels of some structures, in the order of `rows`."""
        index = torch.as_tensor(rows, device=self._device)
        branch, n_atoms = self._branch[index], self._n_atoms[index]
        atoms = ragged_index(self._atom_ptr, index)
        labels: dict[str, Label] = {}
        for name, (values, mask) in self._labels.items():
            known, divisor, of_row = mask[index], n_atoms.to(torch.float64), branch
            if self._names[name].per == "atom":
                known = known.repeat_interleave(n_atoms)
                divisor = torch.ones(len(atoms), dtype=torch.float64, device=self._device)
                of_row = branch.repeat_interleave(n_atoms)
            scales = self._scales[name]
            labels[name] = Label(
                values[atoms if self._names[name].per == "atom" else index],
                known,
                torch.ones_like(divisor) if scales is None else scales[of_row],
                divisor,
            )
        return BranchedGraph(self._graphs.batch(rows), branch), labels


class PropertyTask:
    """Minimises the errors of all targets of a network.

    The energy, forces and stress have the weights and units of `TrainingOptions`, as potentials
    do. Any other target counts in units of its scale, with the weight of its head, or, if
    `learned`, with weights that are learnt as exp(-s), with s added to the loss.

    Source of learnt weights: Kendall, Gal, Cipolla, arXiv 1705.07115, eq. 10.

    Args:
        network: what to train.
        train: to learn from.
        valid: to choose the best weights by; may be empty.
        options: kind of loss, weights of energy, forces and stress.
        derivatives: which of forces and stress are learnt as derivatives of the energy.
        learned: whether weights are learnt.
    """

    def __init__(
        self,
        network: MultitaskNetwork,
        train: PropertyBatches,
        *,
        valid: PropertyBatches,
        options: TrainingOptions,
        derivatives: frozenset[str],
        learned: bool,
    ) -> None:
        self.module, self.train, self.valid = network, train, valid
        self.derivatives = derivatives
        self._options, self._learned = options, learned

    def objective(self) -> Callable[[Any, Any], Tensor]:
        """Return the function from inputs and labels to the loss."""
        if not self.module.compiled:
            return self._loss
        is_checked = False

        def objective(inputs: BranchedGraph, labels: dict[str, Label]) -> Tensor:
            nonlocal is_checked
            if not is_checked:
                self._check_compiled(inputs, labels)
                is_checked = True
            return self._loss(inputs, labels)

        return objective

    def _loss(self, inputs: BranchedGraph, labels: dict[str, Label]) -> Tensor:
        found = self.predict(inputs)
        total = torch.zeros((), dtype=torch.float64, device=inputs.branch.device)
        for name, label in labels.items():
            losses, count = self.losses(name, found[name], label)
            total = total + self._weighted(name, losses.sum() / count.clamp_min(1))
        return total

    def _check_compiled(self, inputs: BranchedGraph, labels: dict[str, Label]) -> None:
        """Compare the compiled loss of the first batch with the plain one."""
        found = float(self._loss(inputs, labels).detach())
        self.module.compiled = False
        expected = float(self._loss(inputs, labels).detach())
        self.module.compiled = True
        if not abs(found - expected) <= 1e-4 * abs(expected) + 1e-12:
            raise TrainingError(
                f"the compiled program is not right: on the first batch its loss is {found:.6g}, "
                f"the plain one {expected:.6g}; set compile: false"
            )

    def predict(self, inputs: BranchedGraph) -> dict[str, Predicted]:
        """Return all targets of a batch."""
        found: dict[str, Predicted] = self.module(
            inputs.graph,
            inputs.branch,
            forces="forces" in self.derivatives,
            stress="stress" in self.derivatives,
        )
        return found

    def sums(self) -> Sums:
        """Return empty sums of errors."""
        return _PropertySums(self)

    def labelled(self) -> dict[str, int]:
        """Return target -> training structures that carry it."""
        return self.train.labelled()

    def errors(self, name: str, found: Predicted, label: Label) -> Tensor:
        """Return prediction minus label, 0 where missing; of extensive targets per atom."""
        rule = self._rule(name)
        mask = label.mask.reshape(-1, *[1] * len(rule.shape))
        errors = torch.where(mask, found.mean - label.values, 0.0)
        if rule.extensive and rule.per != "atom":
            errors = errors / label.n_atoms.reshape(-1, *[1] * len(rule.shape))
        return errors

    def losses(self, name: str, found: Predicted, label: Label) -> tuple[Tensor, Tensor]:
        """Return the loss of each number, 0 where missing, and how many numbers there are."""
        rule = self._rule(name)
        shape = [1] * len(rule.shape)
        mask = label.mask.reshape(-1, *shape)
        count = label.mask.sum() * int(np.prod(rule.shape or (1,)))
        options = self.module.options.get(name) or HeadOptions()
        likelihood = options.likelihood_of(rule)
        if likelihood == "classes":
            losses = binary_cross_entropy_with_logits(
                found.mean, label.values.to(found.mean.dtype), reduction="none"
            )
            return torch.where(mask, losses, 0.0), count
        errors = self.errors(name, found, label)
        if name not in weights(self._options):
            errors = errors / label.scale.reshape(-1, *shape)
        if likelihood == "gaussian" and found.std is not None:
            std = found.std / label.scale.reshape(-1, *shape)
            losses = 0.5 * (errors / std) ** 2 + torch.log(std)
            return torch.where(mask, losses, 0.0), count
        kind, delta = self._options.loss, self._options.huber_delta
        return pointwise(errors, kind=kind, huber_delta=delta), count

    def _weighted(self, name: str, loss: Tensor) -> Tensor:
        weight = self.weight(name)
        own = list(self.module.targets)
        if self._learned and name in own:
            assert self.module.log_variances is not None
            s = self.module.log_variances[own.index(name)]
            return weight * (torch.exp(-s) * loss + s)
        return weight * loss

    def weight(self, name: str) -> float:
        """Return the weight of a target in the loss."""
        fixed = weights(self._options)
        if name in fixed:
            return fixed[name]
        return self.module.options[name].weight

    def _rule(self, name: str) -> Quantity:
        from epitaxy.quantities import quantity

        return quantity(name)


class _PropertySums:
    def __init__(self, task: PropertyTask) -> None:
        self._task = task
        self._sums: dict[str, Tensor] = {}

    def add(self, inputs: BranchedGraph, labels: dict[str, Label]) -> None:
        with torch.no_grad():
            found = self._task.predict(inputs)
        for name, label in labels.items():
            predicted = found[name]
            losses, count = self._task.losses(name, predicted, label)
            if self._is_class(name):
                right = ((predicted.mean > 0) == (label.values > 0.5)) & label.mask
                numbers = [right.sum(), torch.zeros(())]
            else:
                errors = self._task.errors(name, predicted, label).to(torch.float64)
                numbers = [errors.abs().sum(), errors.square().sum()]
            sums = torch.stack([x.to(torch.float64) for x in (*numbers, losses.sum(), count)])
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def _is_class(self, name: str) -> bool:
        network = self._task.module
        rule = network.targets.get(name)
        return rule is not None and network.options[name].likelihood_of(rule) == "classes"

    def metrics(self) -> dict[str, float]:
        result: dict[str, float] = {"loss": 0.0}
        for name, sums in self._sums.items():
            first, square, loss, count = sums.tolist()
            if count == 0:
                continue
            if self._is_class(name):
                result[f"{name}_accuracy"] = first / count
            else:
                result[f"{name}_mae"] = first / count
                result[f"{name}_rmse"] = (square / count) ** 0.5
            result["loss"] += self._task.weight(name) * loss / count
        return result
