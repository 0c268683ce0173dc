"""A model of a difference, on top of a model of a lower level of theory.

    y_high(x) = f_low(x) + f_difference(x)

Source: Ramakrishnan, Dral, Rupp, von Lilienfeld, J. Chem. Theory Comput. 11, 2087 (2015), doi
10.1021/acs.jctc.5b00099, eq. 1. Both are kept in one artifact, in the folders low and difference.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from epitaxy.errors import ArtifactError, CapabilityError
from epitaxy.graph_model import outputs_of
from epitaxy.graphs.batch import GraphBatch
from epitaxy.potential import Potential
from epitaxy.protocols import Capabilities, Predictions
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from epitaxy.artifact import Artifact
    from epitaxy.dataset import Dataset
    from epitaxy.protocols import Model
    from epitaxy.registry import Registry
    from epitaxy.run import Run

LOW, DIFFERENCE, FACTS = "low", "difference", "delta.json"
FROM_POTENTIAL = ("energy", "forces", "stress")


class DeltaModel:
    """Predicts the sum of a lower level and of a learnt difference.

    Args:
        low: artifact of the model of the lower level; it is copied when this model is saved.
        difference: trained on labels less what `low` predicts.
        spec: the recipe of `difference`.
        branch: of `low`, where it has several levels of theory.
        lineage: what the manifest says about the origin.
    """

    artifact_kind = "delta"

    def __init__(
        self,
        low: Artifact,
        difference: Model,
        *,
        spec: Spec,
        branch: str | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> None:
        self.low, self.difference, self.spec, self.branch = low, difference, spec, branch
        self.lineage = None if lineage is None else dict(lineage)
        select_branch(low.model, branch)

    def __repr__(self) -> str:
        return f"<DeltaModel {self.spec.use} on {self.low.manifest['spec']['use']}>"

    @property
    def potential(self) -> Potential:
        """The sum as a potential, sharing the weights; of several low models the mean.

        Raises:
            CapabilityError: one of the two has no potential.
        """
        low = potentials_of(self.low.model)
        high = potentials_of(self.difference)
        if not low or not high:
            which = "the lower level" if not low else "the difference"
            raise CapabilityError(f"{which} of {self!r} has no potential, so the sum has none")
        weights = [*[1.0 / len(low)] * len(low), *[1.0 / len(high)] * len(high)]
        elements = sorted(set.intersection(*(set(p.elements) for p in (*low, *high))))
        return Potential(
            SumOfPotentials((*low, *high), weights),
            elements=elements,
            reference_energies=dict.fromkeys(elements, 0.0),
            scale=1.0,
        )

    @property
    def uses_training(self) -> tuple[str, ...] | None:
        """Which of the training options the model of the difference follows; None for all."""
        return getattr(self.difference, "uses_training", None)

    @property
    def cutoff(self) -> float | None:
        """The larger of the two cutoffs, Å; None if neither has one."""
        found = [getattr(m, "cutoff", None) for m in (self.low.model, self.difference)]
        return max((float(c) for c in found if c is not None), default=None)

    @property
    def capabilities(self) -> Capabilities:
        """What both can do."""
        low, high = self.low.model.capabilities, self.difference.capabilities
        known = [c.elements for c in (low, high) if c.elements is not None]
        gradient = bool(potentials_of(self.low.model)) and high.forces
        return Capabilities(
            targets=high.targets,
            pbc=low.pbc and high.pbc,
            forces=gradient,
            stress=gradient and high.stress,
            uncertainty=high.uncertainty,
            composition_only=low.composition_only and high.composition_only,
            elements=frozenset.intersection(*known) if known else None,
        )

    def to(self, *, device: str | torch.device = "cpu", dtype: str | None = None) -> DeltaModel:
        """Move both to a device, and to "float32" or "float64"; returns itself."""
        for model in (self.low.model, self.difference):
            if (move := getattr(model, "to", None)) is not None:
                move(device=device, dtype=dtype)
        return self

    def fit(self, train: Dataset, valid: Dataset, *, run: Run) -> Mapping[str, float]:
        """Refuse: the strategy `delta` trains the difference.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError("a sum of models is trained by the strategy 'delta'")

    def predict(self, dataset: Dataset) -> Predictions:
        """Predict the sum for all targets of the difference, with the error bars of that.

        Raises:
            CapabilityError: one of the two does not know an element.
        """
        found = self.difference.predict(dataset)
        low = predict_targets(self.low.model, dataset, tuple(found.mean))
        mean = {name: low[name] + values for name, values in found.mean.items()}
        return Predictions(mean, found.std)

    def save(self, directory: Path) -> None:
        """Write a copy of the low artifact, the difference as an artifact, and delta.json.

        Raises:
            ArtifactError: the low artifact has gone or was changed, or the disk refuses.
        """
        from epitaxy.artifact import read_manifest, save_artifact

        directory = Path(directory)
        digest = self.low.manifest["manifest_sha256"]
        if read_manifest(self.low.path)["manifest_sha256"] != digest:
            raise ArtifactError(
                f"{self.low.path} was replaced since it was loaded, so the sum cannot be saved "
                f"with it; train the difference again"
            )
        try:
            shutil.copytree(self.low.path, directory / LOW)
            facts = {"branch": self.branch, "low_sha256": digest}
            (directory / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        except OSError as error:
            raise ArtifactError(f"cannot copy {self.low.path}: {error}") from error
        save_artifact(self.difference, directory / DIFFERENCE, spec=self.spec)

    @classmethod
    def load(cls, directory: Path, *, registry: Registry | None = None) -> DeltaModel:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a part is missing or damaged.
        """
        from epitaxy.artifact import load_artifact

        directory = Path(directory)
        low = load_artifact(directory / LOW, registry=registry)
        difference = load_artifact(directory / DIFFERENCE, registry=registry)
        try:
            facts = json.loads((directory / FACTS).read_text(encoding="utf-8"))
            branch = facts["branch"]
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{directory / FACTS} cannot be read: {error}") from error
        spec = Spec.from_config(difference.manifest["spec"])
        return cls(low, difference.model, spec=spec, branch=branch)


class SumOfPotentials(nn.Module):
    """Atomic energies of several potentials, added up with weights: a network in eV.

    Args:
        potentials: each sees the pairs within its own cutoff.
        weights: one per potential.
    """

    def __init__(self, potentials: Sequence[Potential], weights: Sequence[float]) -> None:
        super().__init__()
        self.potentials = nn.ModuleList(potentials)
        self.weights = tuple(weights)
        self.cutoff = max(p.cutoff for p in potentials)

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return (n_atoms,) float64, eV."""
        found = [
            weight * potential.atomic_energies(within(graph, potential.cutoff, self.cutoff))
            for weight, potential in zip(self.weights, self._each(), strict=True)
        ]
        return torch.stack(found).sum(dim=0)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the features of the last potential, that of the difference."""
        last = self._each()[-1]
        found: tuple[Tensor, ...] = last.network.features(within(graph, last.cutoff, self.cutoff))
        return found

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the parts of the last potential, that of the difference."""
        found: Mapping[str, nn.Module] = self._each()[-1].network.parts()
        return found

    def _each(self) -> list[Potential]:
        return [p for p in self.potentials if isinstance(p, Potential)]


def within(graph: GraphBatch, cutoff: float, reach: float) -> GraphBatch:
    """Return a graph with the pairs that a shorter cutoff has.

    Args:
        graph: built with the cutoff `reach`.
        cutoff: Å.
        reach: Å.
    """
    if cutoff >= reach:
        return graph
    near = graph.vectors.detach().norm(dim=1) < cutoff
    return graph._replace(
        centers=graph.centers[near], neighbors=graph.neighbors[near], vectors=graph.vectors[near]
    )


def select_branch(model: object, branch: str | None) -> None:
    """Choose a branch of a model, or of all members of an ensemble.

    Raises:
        CapabilityError: the model has no such branch, or several and none is chosen.
    """
    members = getattr(model, "members", None)
    for member in members or ():
        select_branch(member, branch)
    if members:
        return
    branches = tuple(getattr(model, "branches", ()))
    if branch is None:
        if len(branches) > 1 and getattr(model, "branch", None) is None:
            raise CapabilityError(
                f"the parent has the branches {', '.join(map(repr, branches))}: choose one "
                f"with branch"
            )
        return
    select = getattr(model, "select", None)
    if select is None:
        raise CapabilityError(
            f"branch is {branch!r}, but the parent has no branches (one head for all): leave it out"
        )
    select(branch)


def potentials_of(model: object) -> tuple[Potential, ...]:
    """Return the potentials of a model or of all members of an ensemble; nothing without."""
    members = getattr(model, "members", None)
    if members:
        found = [potentials_of(member) for member in members]
        return tuple(p for one in found for p in one) if all(found) else ()
    try:
        potential = getattr(model, "potential", None)
    except CapabilityError:
        return ()
    return (potential,) if isinstance(potential, Potential) else ()


def predict_targets(model: Model, dataset: Dataset, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Predict targets; energy, forces and stress by the potential where there is one.

    A potential gives forces and stress even if it was not trained on them.

    Args:
        model: trained.
        dataset: structures.
        names: of targets.

    Raises:
        CapabilityError: the model does not predict one of them, or does not know an element.
    """
    found: dict[str, np.ndarray] = {}
    potentials = potentials_of(model)
    derived = [name for name in names if name in FROM_POTENTIAL] if potentials else []
    for potential in potentials if derived else ():
        for name, values in outputs_of(potential, dataset, derived).items():
            found[name] = found.get(name, 0.0) + values / len(potentials)
    if others := [name for name in names if name not in found]:
        predicted = model.predict(dataset).mean
        if missing := [name for name in others if name not in predicted]:
            raise CapabilityError(
                f"{model!r} predicts {', '.join(predicted)}, not {', '.join(missing)}"
            )
        found |= {name: np.asarray(predicted[name], dtype=np.float64) for name in others}
    return found
