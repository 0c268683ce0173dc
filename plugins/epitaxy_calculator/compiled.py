"""Compiled evaluation of a potential, compared with the plain one before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from epitaxy.errors import CapabilityError
from epitaxy.graphs.evaluator import make_evaluator

if TYPE_CHECKING:
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy.potential import Outputs, Potential

Evaluate = Callable[["GraphBatch", bool], "Outputs"]
"""``(graph, stress) -> outputs``."""

TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Largest difference of forces, relative to the largest force and 0.1 eV/Å; rounding is 1e-5."""

_SMALL_FORCE = 0.1  # eV/Å


def evaluators(potentials: Sequence[Potential], *, compile: bool) -> tuple[Evaluate, ...]:
    """Return one function per potential."""
    return tuple(Compiled(p) if compile else _plain(p) for p in potentials)


def _plain(potential: Potential) -> Evaluate:
    def evaluate(graph: GraphBatch, stress: bool) -> Outputs:
        outputs: Outputs = potential(graph, forces=True, stress=stress)
        return outputs

    return evaluate


class Compiled:
    """Evaluates a potential by compiled code.

    A network with a method ``compiled`` (PaiNN) is ready after some ten seconds at the first
    call, any other network is compiled as a whole in about a minute. One compilation serves
    structures of all sizes.

    Args:
        potential: in evaluation mode.
    """

    def __init__(self, potential: Potential) -> None:
        self._plain = _plain(potential)
        self._dtype = potential.dtype
        self._is_checked = False
        if hasattr(potential.network, "compiled"):
            self._compiled: Evaluate = lambda graph, stress: potential(
                graph, forces=True, stress=stress, compiled=True
            )
        else:
            whole = make_evaluator(potential, forces=True, stress=True, compile=True)
            self._compiled = lambda graph, stress: whole(graph)

    def __call__(self, graph: GraphBatch, stress: bool) -> Outputs:
        """Return energies, forces and, if asked for, stress.

        Raises:
            CapabilityError: the network cannot be compiled here, or wrongly.
        """
        if not self._is_checked:
            self._check(graph)
        return self._compiled(graph, stress)

    def _check(self, graph: GraphBatch) -> None:
        expected = self._plain(graph, False).forces
        if expected is None or not graph.centers.shape[0]:
            return  # no pairs, nothing to compare
        try:
            found = self._compiled(graph, False).forces
        except Exception as error:
            if not type(error).__module__.startswith("torch._"):
                raise
            reason = " ".join(str(error).split())[:500]
            raise CapabilityError(
                f"torch.compile failed with {type(error).__name__}: {reason}. It needs a C++ "
                f"compiler (g++ or clang) and a network of plain torch operations; load the "
                f"calculator with compile=False"
            ) from error
        assert found is not None
        size = max(float(expected.abs().max()), _SMALL_FORCE)
        difference = float((found - expected).abs().max()) / size
        if not difference <= TOLERANCES[self._dtype]:
            raise CapabilityError(
                f"the compiled program is not right: its forces differ by {difference:.1e} of the "
                f"plain ones (allowed: {TOLERANCES[self._dtype]:.0e}); load the calculator with "
                f"compile=False"
            )
        self._is_checked = True
