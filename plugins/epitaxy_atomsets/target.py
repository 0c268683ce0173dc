"""What is learnt: one number or claim per structure, shifted and scaled for the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from epitaxy.errors import ConfigError, OptionError, TrainingError
from epitaxy.multitask import offset_and_scale
from epitaxy.quantities import quantity
from epitaxy_atomsets.task import Labels

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Target:
    """One quantity; an extensive one is learnt per atom, with offsets per element.

    Attributes:
        name: of the quantity.
        offsets: (119,), the constant first, then per atomic number.
        scale: in the unit of the quantity, per atom if it is extensive.
    """

    name: str
    offsets: np.ndarray
    scale: float

    @classmethod
    def fit(cls, name: str, train: Dataset) -> Target:
        """Return offsets and scale of a training set."""
        if is_claim(name):
            return cls(name, np.zeros(119), 1.0)
        rows = np.flatnonzero(train.target(name)[1])
        return cls(name, *offset_and_scale(train, rows, quantity(name)))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Target:
        """Undo `facts`."""
        return cls(str(facts["name"]), np.array(facts["offsets"]), float(facts["scale"]))

    def facts(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {"name": self.name, "offsets": self.offsets.tolist(), "scale": self.scale}

    def labels(self, dataset: Dataset, dtype: torch.dtype) -> Labels:
        """Return what the network should say about each entry."""
        n = len(dataset)
        values, mask = np.zeros(n), np.zeros(n, dtype=bool)
        if self.name in dataset.targets:
            values, mask = (np.array(x) for x in dataset.target(self.name))
        if not is_claim(self.name):
            shift, factor = self._affine(dataset)
            values = np.where(mask, (values - shift) / factor, 0.0)
        return Labels(
            torch.from_numpy(values.astype(np.float64)).to(dtype),
            torch.from_numpy(mask),
            torch.full((n,), self.scale, dtype=dtype),
        )

    def values(self, dataset: Dataset, numbers: np.ndarray) -> np.ndarray:
        """Return the target from the network's numbers (n,); of a claim the probability of 1."""
        if is_claim(self.name):
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * numbers)))
        shift, factor = self._affine(dataset)
        return np.asarray(shift + factor * numbers)

    def _affine(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return shift and factor (n,) from the network's numbers to the target."""
        n = len(dataset)
        if not quantity(self.name).extensive:
            return np.full(n, self.offsets[0]), np.full(n, self.scale)
        n_atoms = np.asarray(dataset.n_atoms)
        owner = np.repeat(np.arange(n), n_atoms)
        each = self.offsets[dataset.gather().numbers]
        return np.bincount(owner, each, minlength=n), self.scale * n_atoms


def is_number(name: str) -> bool:
    """Whether a quantity is one number per structure."""
    rule = quantity(name)
    return rule.per != "atom" and not rule.shape


def is_claim(name: str) -> bool:
    """Whether a quantity is 0 or 1."""
    return name.startswith("is_")


def check_name(targets: Sequence[str]) -> None:
    """Check what a user asks for.

    Raises:
        OptionError: there are several, or one is not a number per structure.
    """
    if len(targets) > 1:
        raise OptionError(f"atomsets: one target, not {', '.join(targets)}; train one for each")
    for name in targets:
        if not is_number(name):
            raise OptionError(f"targets: {name} is not one number per structure")


def chosen(targets: Sequence[str], train: Dataset) -> str:
    """Return the target and check its labels.

    Raises:
        ConfigError: none is named and there are several, it has no label, or a claim has labels
            other than 0 and 1.
        TrainingError: the training set is empty, or a label is not finite.
    """
    if len(train) == 0:
        raise TrainingError("the training set is empty: check the split")
    there = ", ".join(train.targets) or "nothing"
    if not targets:
        targets = [n for n in train.targets if is_number(n) and train.target(n)[1].any()]
        if len(targets) != 1:
            raise ConfigError(f"targets: name the one to learn (there: {there})")
    (name,) = targets
    if name not in train.targets or not train.target(name)[1].any():
        raise ConfigError(
            f"targets: none of the {len(train)} training entries has {name} (there: {there})"
        )
    values, mask = train.target(name)
    if not np.isfinite(values[mask]).all():
        raise TrainingError(f"{name} is not a finite number in some training entries")
    if is_claim(name) and not np.isin(values[mask], (0.0, 1.0)).all():
        raise ConfigError(f"targets: {name} is a claim, but it has labels other than 0 and 1")
    return name
