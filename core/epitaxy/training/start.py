"""How a training may begin with something other than random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from epitaxy.dataset import Dataset


class Start(Protocol):
    """Prepares a module that is about to be trained: what transfer learning gives to `fit`.

    Attributes:
        facts: plain values that a checkpoint must share with the run that resumes it, for
            example the digest of the parent.
        elements: atomic numbers that the module will know before any training.
    """

    @property
    def facts(self) -> Mapping[str, Any]:
        """What identifies the start."""
        ...

    @property
    def elements(self) -> frozenset[int]:
        """What is known about before training: validation may hold them, training need not."""
        ...

    def begin(self, module: nn.Module, train: Dataset) -> Mapping[str, float]:
        """Change the module before training.

        Args:
            module: a `Potential` or a `MultitaskNetwork` with random weights, its offsets and
                scales fitted to the training set.
            train: the training set.

        Returns:
            Parameter name -> factor of the learning rate; 0 freezes; 1 where not named.
        """
        ...

    def end(self, module: nn.Module) -> None:
        """Change the trained module, for example to merge adapters."""
        ...
