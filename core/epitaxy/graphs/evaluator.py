"""The fastest way to energies and forces that a loss can be put on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from epitaxy.graphs.batch import GraphBatch
from epitaxy.potential import Outputs, Potential, forces_from, stress_from, sum_per_structure

Evaluator = Callable[[GraphBatch], Outputs]


def make_evaluator(
    potential: Potential, *, forces: bool = True, stress: bool = False, compile: bool = False
) -> Evaluator:
    """Return a function from graphs to outputs that are differentiable by the parameters.

    It gives what ``potential(graph, forces=..., stress=...)`` gives in training mode, to
    rounding. A loss made of the outputs is differentiated with ``loss.backward()`` as usual,
    once. Derivatives by the positions that only a third derivative would need are not computed.

    With `compile`, a network that has a method ``compiled`` (see `epitaxy_graphs.painn`) is
    evaluated by it; any other network is compiled as a whole, forces included, which takes
    about a minute at the first batch. Batches of any size share one compilation.

    Args:
        potential: what to evaluate; parameters that do not require a gradient stay fixed.
        forces: whether forces are wanted.
        stress: whether stress is wanted.
        compile: whether to use compiled code; needs a C++ compiler.
    """
    if compile and forces and not hasattr(potential.network, "compiled"):
        return _compile_whole(potential, stress=stress)

    def evaluate(graph: GraphBatch) -> Outputs:
        return potential(graph, forces=forces, stress=stress, compiled=compile)  # type: ignore[no-any-return]

    if not forces and not stress:
        return evaluate

    def differentiable(graph: GraphBatch) -> Outputs:
        parameters = [p for p in potential.parameters() if p.requires_grad]
        return Outputs(*_ByParameters.apply(potential, evaluate, graph, *parameters))

    return differentiable


class _ByParameters(torch.autograd.Function):
    """Outputs whose derivative goes to the parameters and nowhere else.

    Forces are a gradient by the edge vectors. Left to itself, the backward pass of a loss would
    go on from the forces to the vectors again, though nobody wants that second derivative.
    """

    @staticmethod
    def forward(
        ctx: Any, potential: Potential, evaluate: Evaluator, graph: GraphBatch, *parameters: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Evaluate with an inner graph of operations and keep it for the backward pass."""
        ctx.set_materialize_grads(False)
        was_training = potential.training
        if not was_training:
            potential.train()
        try:
            with torch.enable_grad():
                ctx.outputs = evaluate(graph)
        finally:
            if not was_training:
                potential.eval()
        ctx.parameters = parameters
        return tuple(None if value is None else value.detach() for value in ctx.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients by the parameters."""
        used = [
            (value, gradient)
            for value, gradient in zip(ctx.outputs, gradients, strict=True)
            if gradient is not None and value is not None and value.requires_grad
        ]
        by_parameters: tuple[Tensor | None, ...] = (None,) * len(ctx.parameters)
        if used and ctx.parameters:
            values, given = zip(*used, strict=True)
            by_parameters = torch.autograd.grad(values, ctx.parameters, given, allow_unused=True)
        ctx.outputs = ctx.parameters = None
        return (None, None, None, *by_parameters)


def _compile_whole(potential: Potential, *, stress: bool) -> Evaluator:
    """Compile energies and their gradient by the vectors as one function of the parameters.

    The gradient must be functional: `torch.compile` does not follow `torch.autograd.grad` with
    ``create_graph=True``.
    """
    network = potential.network

    def evaluate(
        parameters: dict[str, Tensor], buffers: dict[str, Tensor], graph: GraphBatch
    ) -> tuple[Tensor, Tensor]:
        def total(vectors: Tensor) -> tuple[Tensor, Tensor]:
            energies = torch.func.functional_call(
                network, (parameters, buffers), (graph._replace(vectors=vectors),)
            )
            return energies.sum(), energies

        gradient, energies = torch.func.grad(total, has_aux=True)(graph.vectors)
        return energies, gradient

    compiled = torch.compile(evaluate, dynamic=True)

    def outputs(graph: GraphBatch) -> Outputs:
        potential.check_elements(graph.numbers)
        if graph.centers.shape[0] < 2 or graph.numbers.shape[0] < 2:
            return potential(graph, stress=stress)  # type: ignore[no-any-return]
        numbers, gradient = compiled(
            dict(network.named_parameters()), dict(network.named_buffers()), graph
        )
        energies = potential.scale * numbers.to(torch.float64)
        energies = energies + potential.reference_energies[graph.numbers]
        gradient = gradient * potential.scale.to(gradient.dtype)
        return Outputs(
            sum_per_structure(energies, graph),
            energies,
            forces_from(gradient, graph),
            stress_from(gradient, graph) if stress else None,
        )

    return outputs


__all__ = ["Evaluator", "make_evaluator"]
