"""The loss of a batch as a function that can be differentiated, plain or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from epitaxy.errors import TrainingError
from epitaxy.graphs.evaluator import make_evaluator
from epitaxy.training.losses import batch_loss

if TYPE_CHECKING:
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy.potential import Potential
    from epitaxy.training.batches import Labels
    from epitaxy.training.options import TrainingOptions

Objective = Callable[["GraphBatch", "Labels"], Tensor]

# Largest relative difference of (loss, gradient) between compiled and plain code. Rounding gives
# about 1e-6 and 1e-4 in float32; a wrong program that was met gave 2e-5 and 1e-2 in float64.
_TOLERANCES = {torch.float32: (1e-4, 5e-3), torch.float64: (1e-8, 1e-6)}


def make_objective(potential: Potential, options: TrainingOptions) -> Objective:
    """Return the function from a batch to its loss.

    With ``options.compile`` it runs compiled code (see `epitaxy.graphs.evaluator`), which is
    compared with the plain code on the first batch.
    """
    if not options.compile:
        return _objective(potential, options, compile=False)
    return Checked(potential, options)


def _objective(potential: Potential, options: TrainingOptions, *, compile: bool) -> Objective:
    evaluate = make_evaluator(
        potential,
        forces=options.forces_weight > 0,
        stress=options.stress_weight > 0,
        compile=compile,
    )

    def objective(graph: GraphBatch, labels: Labels) -> Tensor:
        return batch_loss(evaluate(graph), labels, options)

    return objective


class Checked:
    """A compiled loss that is compared with the plain one at its first call.

    Args:
        potential: what is trained.
        options: kind and weights of the loss.
    """

    def __init__(self, potential: Potential, options: TrainingOptions) -> None:
        self._plain = _objective(potential, options, compile=False)
        self._compiled = _objective(potential, options, compile=True)
        self._parameters = [p for p in potential.parameters() if p.requires_grad]
        self._tolerances = _TOLERANCES[potential.dtype]
        self._is_checked = False

    def __call__(self, graph: GraphBatch, labels: Labels) -> Tensor:
        """Return the loss of a batch.

        Raises:
            TrainingError: the network cannot be compiled here, or wrongly; the message says why.
        """
        if not self._is_checked:
            self._check(graph, labels)
        return self._compiled(graph, labels)

    def _check(self, graph: GraphBatch, labels: Labels) -> None:
        loss, gradient = self._differentiated(self._plain, graph, labels)
        if not (loss.isfinite() and gradient.isfinite().all()):
            return  # the loop refuses such a batch, with the names of its structures
        try:
            found, found_gradient = self._differentiated(self._compiled, graph, labels)
        except Exception as error:
            if not type(error).__module__.startswith("torch._"):
                raise
            reason = " ".join(str(error).split())[:500]
            raise TrainingError(
                f"torch.compile failed with {type(error).__name__}: {reason}. It needs a C++ "
                f"compiler (g++ or clang) and a network of plain torch operations; set "
                f"compile: false to train without"
            ) from error
        differences = (
            float((found - loss).abs() / loss.abs().clamp_min(1e-12)),
            float((found_gradient - gradient).norm() / gradient.norm().clamp_min(1e-12)),
        )
        if any(d > t for d, t in zip(differences, self._tolerances, strict=True)):
            raise TrainingError(
                f"the compiled program is not right: on the first batch its loss differs by "
                f"{differences[0]:.1e} and its gradient by {differences[1]:.1e} of the plain one "
                f"(allowed: {self._tolerances[0]:.0e}, {self._tolerances[1]:.0e}); set "
                f"compile: false"
            )
        self._is_checked = True

    def _differentiated(
        self, objective: Objective, graph: GraphBatch, labels: Labels
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient by all parameters as one vector."""
        loss = objective(graph, labels)
        if not loss.requires_grad:
            return loss, torch.zeros(1)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        return loss.detach(), torch.cat([g.flatten() for g in gradients if g is not None])
