"""The loss of a batch as a function that can be differentiated, plain or compiled."""

# torch is not type-checked here, so its classes are "Any" to mypy.
# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from epitaxy.errors import TrainingError
from epitaxy.potential import Outputs, Potential, forces_from, stress_from
from epitaxy.training.losses import batch_loss

if TYPE_CHECKING:
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy.training.batches import Labels
    from epitaxy.training.options import TrainingOptions

Objective = Callable[["GraphBatch", "Labels"], Tensor]


def make_objective(potential: Potential, options: TrainingOptions) -> Objective:
    """Return the function from a batch to its loss.

    With ``options.compile`` energy, forces and loss become one compiled program: forces are
    then a functional gradient inside it, because torch.compile cannot differentiate twice
    through `torch.autograd.grad`. It is compiled at the first call, for batches of any size.
    """
    plain = Plain(potential, options)
    if not options.compile:
        return plain
    return Compiled(Functional(potential, options))


class Plain(nn.Module):
    """The loss by automatic differentiation step by step."""

    def __init__(self, potential: Potential, options: TrainingOptions) -> None:
        super().__init__()
        self.potential = potential
        self._options = options

    def forward(self, graph: GraphBatch, labels: Labels) -> Tensor:
        """Return the loss of a batch."""
        outputs = self.potential(
            graph,
            forces=self._options.forces_weight > 0,
            stress=self._options.stress_weight > 0,
        )
        return batch_loss(outputs, labels, self._options)


class Functional(nn.Module):
    """The same loss with forces as a functional gradient."""

    def __init__(self, potential: Potential, options: TrainingOptions) -> None:
        super().__init__()
        self.potential = potential
        self._options = options

    def forward(self, graph: GraphBatch, labels: Labels) -> Tensor:
        """Return the loss of a batch."""
        options = self._options
        energy, energies, gradient = self.potential.energy_and_gradient(graph)
        outputs = Outputs(
            energy,
            energies,
            forces_from(gradient, graph) if options.forces_weight > 0 else None,
            stress_from(gradient, graph) if options.stress_weight > 0 else None,
        )
        return batch_loss(outputs, labels, options)


class Compiled:
    """A functional loss, compiled on first use."""

    def __init__(self, module: Functional) -> None:
        self._module = module
        self._parameters = dict(module.named_parameters())
        self._buffers = dict(module.named_buffers())
        self._compiled = torch.compile(self._of_parameters, dynamic=True)
        self._works = False

    def _of_parameters(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        graph: GraphBatch,
        labels: Labels,
    ) -> Tensor:
        loss: Tensor = torch.func.functional_call(
            self._module, (parameters, buffers), (graph, labels)
        )
        return loss

    def __call__(self, graph: GraphBatch, labels: Labels) -> Tensor:
        """Return the loss of a batch.

        Raises:
            TrainingError: the network cannot be compiled here; the message says why.
        """
        if self._works:
            return self._compiled(self._parameters, self._buffers, graph, labels)
        try:
            loss = self._compiled(self._parameters, self._buffers, graph, labels)
        except Exception as error:
            if not type(error).__module__.startswith("torch._"):
                raise
            reason = " ".join(str(error).split())[:500]
            raise TrainingError(
                f"torch.compile failed with {type(error).__name__}: {reason}. It needs a C++ "
                f"compiler (g++ or clang) and a network of plain torch operations; set "
                f"compile: false to train without"
            ) from error
        self._works = True
        return loss
