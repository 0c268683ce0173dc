"""Several models that answer together, with the spread of their answers as an error bar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.errors import ArtifactError, CapabilityError, ConfigError
from epitaxy.protocols import Capabilities, Model, Predictions
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.run import Run


class EnsembleModel:
    """Predicts the mean of its members and their standard deviation.

    y = (1/K) sum_k f_k and sigma = sqrt((1/K) sum_k (f_k - y)^2), the population form. Where a
    member is an ensemble itself, its own variance is added to the spread of the means, which
    for members of equal size gives the spread over all the models inside.

    Source: Pasini et al., arXiv:2406.12909, section on ensemble uncertainty; law of total
    variance for the nested form.

    Args:
        members: the models, all trained on the same targets.
        spec: the recipe of the members, where they do not carry it themselves.

    Raises:
        ConfigError: there is no member.
    """

    def __init__(self, members: Sequence[Model], *, spec: Spec | None = None) -> None:
        if not members:
            raise ConfigError("an ensemble needs at least one member")
        self.members = tuple(members)
        self._spec = spec

    def __repr__(self) -> str:
        return f"<EnsembleModel of {len(self.members)} {self.spec.use}>"

    @property
    def spec(self) -> Spec:
        """The recipe of the members."""
        spec = self._spec or getattr(self.members[0], "spec", None)
        return spec if isinstance(spec, Spec) else Spec(type(self.members[0]).__name__)

    @property
    def uses_training(self) -> tuple[str, ...] | None:
        """Which of the training options the members follow; None for all."""
        return getattr(self.members[0], "uses_training", None)

    @property
    def cutoff(self) -> float | None:
        """The largest cutoff of the members, Å."""
        cutoffs = [c for m in self.members if (c := getattr(m, "cutoff", None)) is not None]
        return max(cutoffs) if cutoffs else None

    @property
    def capabilities(self) -> Capabilities:
        """What all members can do, with error bars."""
        each = [member.capabilities for member in self.members]
        known = [one.elements for one in each]
        return Capabilities(
            targets=tuple(t for t in each[0].targets if all(t in one.targets for one in each)),
            pbc=all(one.pbc for one in each),
            forces=all(one.forces for one in each),
            stress=all(one.stress for one in each),
            uncertainty=True,
            composition_only=each[0].composition_only,
            elements=frozenset.intersection(*(e for e in known if e is not None))
            if all(e is not None for e in known)
            else None,
        )

    def fit(self, train: Dataset, valid: Dataset, *, run: Run) -> Mapping[str, float]:
        """Train each member with a seed of its own; return the mean of their metrics."""
        found = [
            member.fit(train, valid, run=run.child(f"members/{k}"))
            for k, member in enumerate(self.members)
        ]
        return mean_metrics(found)

    def predict(self, dataset: Dataset) -> Predictions:
        """Predict the mean and one standard deviation of every target."""
        each = [member.predict(dataset) for member in self.members]
        return combine(each)

    def save(self, directory: Path) -> None:
        """Write each member into members/k, as an artifact of its own."""
        from epitaxy.artifact import MEMBERS, save_artifact

        for k, member in enumerate(self.members):
            save_artifact(member, Path(directory) / MEMBERS / str(k))

    @classmethod
    def load(cls, directory: Path) -> EnsembleModel:
        """Read what `save` wrote, or an artifact of an ensemble.

        Raises:
            ArtifactError: there are no members, or one is damaged.
        """
        from epitaxy.artifact import MEMBERS, load_artifact

        parts = sorted(
            (p for p in (Path(directory) / MEMBERS).glob("*") if p.name.isdecimal()),
            key=lambda p: int(p.name),
        )
        if not parts:
            raise ArtifactError(f"{directory} holds no ensemble: it has no folder {MEMBERS}/0")
        return cls([load_artifact(part).model for part in parts])


def combine(each: Sequence[Predictions]) -> Predictions:
    """Return the mean and the standard deviation of several predictions.

    Raises:
        CapabilityError: they have no target in common.
    """
    names = [n for n in each[0].mean if all(n in one.mean for one in each)]
    if not names:
        raise CapabilityError(
            "the members of the ensemble predict nothing in common: "
            + json.dumps([list(one.mean) for one in each])
        )
    mean, std = {}, {}
    for name in names:
        stacked = np.stack([np.asarray(one.mean[name], dtype=np.float64) for one in each])
        variance = stacked.var(axis=0)
        inner = [one.std[name] for one in each if one.std is not None and name in one.std]
        if inner:
            variance = variance + np.sum(np.square(inner), axis=0) / len(each)
        mean[name] = stacked.mean(axis=0)
        std[name] = np.sqrt(variance)
    return Predictions(mean, std)


def mean_metrics(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each number that all have."""
    names = [name for name in found[0] if all(name in one for one in found)]
    return {name: float(np.mean([one[name] for one in found])) for name in names}
