"""What the arms of a learning curve learn from: the same subsets, and some arms more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import ConfigError
from epitaxy.run import Run
from epitaxy.split.labels import labels_of_all
from epitaxy.training_data import labels_of, open_dataset

if TYPE_CHECKING:
    from epitaxy.learning_curve.options import CurveConfig
    from epitaxy.registry import Registry
    from epitaxy.split import Split

log = logging.getLogger("epitaxy")


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
            warn_of_shared(f"arm {arm}", split, more)
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


def warn_of_shared(what: str, split: Split, learnt: Sequence[Dataset]) -> None:
    """Warn where other data hold groups of a test set: it is then easier than it seems.

    Args:
        what: who learns from the other data, for the message.
        split: of a learning curve; its test, and what it keeps together.
        learnt: the other data.
    """
    groups = str(split.method.get("groups", "none"))
    if groups != "composition" and not all(groups in part.tags for part in learnt):
        return
    (labels, *others), _ = labels_of_all([split.test, *learnt], groups)
    held = np.isin(labels, np.concatenate(others)) if others else np.zeros(len(labels), dtype=bool)
    if held.any():
        log.warning(
            "%s learns from %d groups by %s that %d of the %d structures of the test set belong "
            "to: divide all sets by the same tag with assignment: hash",
            what,
            len(np.unique(labels[held])),
            groups,
            int(held.sum()),
            len(labels),
        )
