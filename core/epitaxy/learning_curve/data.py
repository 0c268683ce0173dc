"""What the arms of a learning curve learn from: the same subsets, and some arms more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import ConfigError
from epitaxy.run import Run
from epitaxy.training_data import labels_of, open_dataset

if TYPE_CHECKING:
    from epitaxy.learning_curve.options import CurveConfig
    from epitaxy.registry import Registry
    from epitaxy.split import Split


@dataclass(frozen=True)
class ArmData:
    """The data of one arm.

    Attributes:
        dataset: that of the curve, followed by further ones.
        parts: (first row, number of rows, rows to take) of each further dataset.
    """

    dataset: Dataset
    parts: Sequence[tuple[int, int, int]] = ()

    def more(self, *, seed: int) -> np.ndarray:
        """Return the rows of further data for a seed, (n,) int64; the same for all sizes."""
        rng = Run("", seed=seed).rng("further data of a learning curve")
        chosen = [first + np.sort(rng.permutation(n)[:k]) for first, n, k in self.parts]
        return np.concatenate([np.zeros(0, dtype=np.int64), *chosen])


def arm_data(curve: CurveConfig, split: Split, registry: Registry) -> dict[str, ArmData]:
    """Read the further data of arms; arms that ask for the same share them.

    Raises:
        ConfigError: more structures are asked for than there are.
        EpitaxyError: data cannot be read.
    """
    found: dict[str, ArmData] = {}
    opened: dict[tuple[object, ...], ArmData] = {}
    for arm, config in curve.arms.items():
        wanted = curve.also.get(arm, ())
        key = tuple((str(one.dataset), one.n) for one in wanted)
        if key not in opened:
            labels = labels_of(config.model, registry)
            more = [open_dataset(one.dataset, registry, wanted=labels) for one in wanted]
            opened[key] = _joined(arm, split.dataset, more, [one.n for one in wanted])
        found[arm] = opened[key]
    return found


def _joined(
    arm: str, first: Dataset, more: Sequence[Dataset], numbers: Sequence[int | None]
) -> ArmData:
    if not more:
        return ArmData(first)
    parts, start = [], len(first)
    for dataset, n in zip(more, numbers, strict=True):
        if n is not None and n > len(dataset):
            raise ConfigError(
                f"learning_curve: arm {arm!r}: also asks for {n:,} structures of a dataset that "
                f"has {len(dataset):,}"
            )
        parts.append((start, len(dataset), len(dataset) if n is None else n))
        start += len(dataset)
    joined = Dataset.from_entries(chain(first, *more), history=first.history)
    return ArmData(joined, tuple(parts))


def shared_groups(names: str, test: Dataset, learnt: Sequence[Dataset]) -> Mapping[str, int]:
    """Return the groups of a test set that other data hold, with their numbers of structures.

    Args:
        names: what the groups are, as in `epitaxy.split`; "none" for none.
        test: the test set.
        learnt: what was learnt from.
    """
    from epitaxy.split.labels import labels_of_all

    if names == "none":
        return {}
    labels, _ = labels_of_all([test, *learnt], names)
    held = {str(label) for part in labels[1:] for label in part}
    own, counts = np.unique(labels[0], return_counts=True)
    return {str(g): int(n) for g, n in zip(own, counts, strict=True) if str(g) in held}
