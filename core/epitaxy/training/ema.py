"""A moving average of the weights, which is validated and kept instead of the last step's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class MovingAverage:
    """Exponential moving average of parameters.

    The decay grows from 0.1 to its final value as (1 + n) / (10 + n) over the steps n, so that
    the random first weights are forgotten.

    Args:
        parameters: name -> parameter.
        decay: final decay per step; 0 makes the average the parameters themselves.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], *, decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self._n_steps = 0
        self._average = (
            {name: value.detach().clone() for name, value in self._parameters.items()}
            if decay
            else {}
        )

    def update(self) -> None:
        """Take in the parameters after a step."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + self._n_steps) / (10 + self._n_steps))
        self._n_steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._average.values()), list(self._parameters.values()), 1.0 - decay
            )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the parameters for a while."""
        if not self._decay:
            yield
            return
        with torch.no_grad():
            kept = {name: value.detach().clone() for name, value in self._parameters.items()}
            for name, value in self._parameters.items():
                value.copy_(self._average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in self._parameters.items():
                    value.copy_(kept[name])

    def state_dict(self) -> dict[str, object]:
        """Return the average and the number of steps."""
        return {"n_steps": self._n_steps, "average": dict(self._average)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from a state."""
        n_steps, average = state["n_steps"], state["average"]
        assert isinstance(n_steps, int)
        assert isinstance(average, Mapping)
        self._n_steps = n_steps
        with torch.no_grad():
            for name, value in self._average.items():
                value.copy_(average.get(name, value))
