"""The `Model` that predicts any targets, of any branches, from the features of any body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from epitaxy.errors import ArtifactError, CapabilityError, ConfigError, OptionError, TrainingError
from epitaxy.graph_model import (
    has_forces,
    refuse_compositions,
    refuse_unknown_elements,
    sees_composition_only,
    torch_state,
)
from epitaxy.heads import HeadOptions, kind_of
from epitaxy.multitask import BranchWith, MultitaskNetwork
from epitaxy.potential import Potential
from epitaxy.protocols import Capabilities, Predictions
from epitaxy.quantities import Quantity, quantity
from epitaxy.spec import Spec
from epitaxy.training.batches import graphs_of
from epitaxy.training.loop import Loop, identity_of
from epitaxy.training.losses import weights as fixed_weights
from epitaxy.training.property_task import DERIVATIVES, PropertyBatches, PropertyTask
from epitaxy.weights import WEIGHTS, fill, read_weights, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from epitaxy.dataset import Dataset
    from epitaxy.registry import Registry
    from epitaxy.run import Run
    from epitaxy.training.start import Start


class PropertyModel:
    """Predicts several targets at once: a body with one head per target and branch.

    Targets may be numbers per structure or per atom, vectors, tensors, claims (metal or not) and
    the energy with its forces and stress as derivatives. Missing labels are left out. The
    branches (datasets or levels of theory) share the body.

    Args:
        body: network whose features are read, for example {use: painn, width: 64}.
        targets: names, or name -> how it is predicted (`epitaxy.heads.HeadOptions`): pooling,
            hidden, likelihood (point, gaussian, classes), weight.
        branch_by: tag whose values are the branches, or "method" for the functional; "" for one.
        branch_with: what each branch has of its own: "heads", an "embedding" added to the atom
            features (multi-fidelity), or "both".
        weights: "fixed", as given with the targets, or "learned".

    Raises:
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        *,
        body: Spec,
        targets: Mapping[str, HeadOptions] | Sequence[str],
        branch_by: str = "",
        branch_with: BranchWith = "heads",
        weights: Literal["fixed", "learned"] = "fixed",
    ) -> None:
        named = targets if isinstance(targets, Mapping) else {n: HeadOptions() for n in targets}
        if not named:
            raise OptionError("targets: name at least one quantity")
        for name in named:
            quantity(name)
        self.body = body
        self.targets = dict(named)
        self.branch_by, self.branch_with, self.weights = branch_by, branch_with, weights
        self.branch: str | None = None
        self._network: MultitaskNetwork | None = None
        self._derivatives: frozenset[str] = frozenset()
        self._has_forces = True
        self._composition_only = False

    def __repr__(self) -> str:
        state = "trained" if self._network is not None else "untrained"
        return f"<PropertyModel of {', '.join(self.targets)} on {self.body.use}, {state}>"

    @property
    def spec(self) -> Spec:
        """The recipe."""
        from dataclasses import asdict

        return Spec(
            "property",
            {
                "body": self.body.to_config(),
                "targets": {name: asdict(head) for name, head in self.targets.items()},
                "branch_by": self.branch_by,
                "branch_with": self.branch_with,
                "weights": self.weights,
            },
        )

    @property
    def network(self) -> MultitaskNetwork:
        """The trained network.

        Raises:
            CapabilityError: the model is not trained.
        """
        if self._network is None:
            raise CapabilityError("the model is not trained yet: call fit first")
        return self._network

    @property
    def cutoff(self) -> float:
        """Reach of the graphs, Å."""
        return self.network.cutoff

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches."""
        return self.network.branches

    @property
    def potential(self) -> Potential:
        """The energy of the selected branch as a potential, sharing the weights.

        Raises:
            CapabilityError: the model predicts no energy, or has several branches and none is
                selected (`select`).
        """
        network = self.network
        if not self._has_forces:
            raise CapabilityError(f"{self.body.use} has no smooth forces, so it is no potential")
        if self.branch is None and len(network.branches) > 1:
            raise CapabilityError(
                f"the model has the branches {', '.join(map(repr, network.branches))}: choose one "
                f"with select(...), or branch=... for a calculator"
            )
        index = 0 if self.branch is None else network.branches.index(self.branch)
        return network.potential(index)

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        has_energy = "energy" in self.targets and self._has_forces
        return Capabilities(
            targets=(*self.targets, *(n for n in DERIVATIVES if n in self._derivatives)),
            forces=has_energy,
            stress=has_energy,
            uncertainty=any(
                head.likelihood_of(quantity(name)) == "gaussian"
                for name, head in self.targets.items()
            ),
            composition_only=self._composition_only,
            elements=None if self._network is None else frozenset(self._network.elements),
        )

    def select(self, branch: str | None) -> PropertyModel:
        """Answer for one branch from here on, whatever the dataset says; returns itself.

        Raises:
            CapabilityError: there is no such branch.
        """
        if branch is not None and branch not in self.branches:
            raise CapabilityError(
                f"no branch {branch!r}; the model has {', '.join(map(repr, self.branches))}"
            )
        self.branch = branch
        return self

    def to(self, *, device: str | torch.device = "cpu", dtype: str | None = None) -> PropertyModel:
        """Move the network to a device, and to "float32" or "float64"; returns itself."""
        wanted = None if dtype is None else getattr(torch, dtype)
        self.network.to(device=device, dtype=wanted)
        return self

    def fit(
        self, train: Dataset, valid: Dataset, *, run: Run, start: Start | None = None
    ) -> Mapping[str, float]:
        """Train and keep the weights that are best on `valid`; return their metrics.

        Args:
            train: structures to learn from.
            valid: structures to choose the best weights by; may be empty.
            run: options, seeds, directory.
            start: weights to begin with other than random ones (`epitaxy.training.start`).

        Raises:
            ConfigError: a target has no label, a branch has no structure, or an option cannot be
                used.
            TrainingError: training cannot start or go on.
        """
        known = start.elements & valid.elements if start else frozenset()
        self.check_data(train, valid, run=run, known=known)
        with torch_state(run):
            network = self._new_network(train, run=run, known=known)
            factors = start.begin(network, train) if start else {}
            if run.training.compile and not hasattr(network.body, "compiled_features"):
                raise ConfigError(
                    f"training: {self.body.use} has no compiled features; set compile: false"
                )
            network.compiled = run.training.compile
            task = self._task(network, train, valid, run=run)
            identity = identity_of(
                run,
                run.training,
                model=run.registry.resolve("model", self.spec).to_config(),
                train_digest=train.digest,
                valid_digest=valid.digest,
                **({"start": dict(start.facts)} if start else {}),
            )
            metrics = Loop(task, run=run, identity=identity, lr_factors=factors).train()
            network.compiled = False
            if start:
                start.end(network)
        self._network, self._derivatives = network.eval(), task.derivatives
        return metrics

    def _new_network(self, train: Dataset, *, run: Run, known: frozenset[int]) -> MultitaskNetwork:
        """Return an untrained network for a training set, its scales fitted."""
        self.body = run.registry.resolve("model", self.body)  # what is saved is complete
        branches = tuple(sorted(set(branch_names(train, self.branch_by))))
        network = MultitaskNetwork(
            self._body_factory(run.registry)(),
            targets=self.targets,
            branches=branches,
            branch_with=self.branch_with,
            learned_weights=self.weights == "learned",
            elements=sorted(train.elements | known),
        )
        self._has_forces = has_forces(network.body)
        self._composition_only = sees_composition_only(network.body)
        network.fit_scales(train, self._branch_index(train, branches))
        return network

    def _task(
        self, network: MultitaskNetwork, train: Dataset, valid: Dataset, *, run: Run
    ) -> PropertyTask:
        """Return network, data and loss for the training loop."""
        device, dtype = run.torch_device(), run.torch_dtype()
        network = network.to(device=device, dtype=dtype)
        derivatives = self._learnt_derivatives(train, run)
        names: dict[str, Quantity] = dict(network.targets)
        names |= {name: quantity(name) for name in DERIVATIVES if name in derivatives}
        batches, checks = (
            PropertyBatches(
                part,
                self._branch_index(part, network.branches),
                network=network,
                names=names,
                dtype=dtype,
                device=device,
            )
            for part in (train, valid)
        )
        return PropertyTask(
            network,
            batches,
            valid=checks,
            options=run.training,
            derivatives=derivatives,
            learned=self.weights == "learned",
        )

    def check_data(
        self,
        train: Dataset,
        valid: Dataset,
        *,
        run: Run,
        known: frozenset[int] = frozenset(),
    ) -> None:
        """Check that `fit` can learn from these data, without any work.

        Args:
            train: structures to learn from.
            valid: structures to choose the best weights by.
            run: options.
            known: elements that the weights to begin with know; validation may hold them.

        Raises:
            CapabilityError: entries have no structure.
            ConfigError: a target has no label, or validation has a branch that training lacks.
            TrainingError: there is nothing to train on, or validation needs unknown elements.
        """
        if len(train) == 0:
            raise TrainingError("the training set is empty: check the split")
        if sees_composition_only(self._body_factory(run.registry)):
            self._refuse_positions()
        else:
            refuse_compositions(train)
            refuse_compositions(valid)
        refuse_unknown_elements(train, valid, known=known)
        for name, rule in self.targets.items():
            n_labelled = int(train.target(name)[1].sum()) if name in train.targets else 0
            if not n_labelled:
                raise ConfigError(
                    f"targets: none of the {len(train)} training structures has {name} (there: "
                    f"{', '.join(train.targets) or 'nothing'})"
                )
            if quantity(name).is_claim and rule.likelihood_of(quantity(name)) != "classes":
                raise ConfigError(
                    f"targets: {name} is a claim (0 or 1), not a number: its likelihood is "
                    f"'classes', not {rule.likelihood!r}; leave the likelihood out"
                )
            if rule.likelihood_of(quantity(name)) == "classes":
                values, mask = train.target(name)
                if not np.isin(values[mask], (0.0, 1.0)).all():
                    raise ConfigError(
                        f"targets: {name} has values other than 0 and 1, so it is no claim; use "
                        f"likelihood: point or gaussian"
                    )
        branches = set(branch_names(train, self.branch_by))
        if unknown := set(branch_names(valid, self.branch_by)) - branches:
            raise ConfigError(
                f"branch_by {self.branch_by!r}: the validation set has {sorted(unknown)}, which "
                f"the training set lacks ({sorted(branches)})"
            )

    def _refuse_positions(self) -> None:
        """Raise `ConfigError` if a target needs positions, which the body does not see."""
        wrong = [name for name in self.targets if kind_of(quantity(name)) != "structure"]
        if wrong:
            raise ConfigError(
                f"targets: {', '.join(wrong)} cannot follow from the composition alone, and that "
                f"is all that {self.body.use} sees: take a body that sees the structure"
            )

    def predict(self, dataset: Dataset) -> Predictions:
        """Predict all targets; the probability of 1 for claims.

        Raises:
            CapabilityError: the model is untrained, or does not know an element or a branch.
        """
        network = self.network
        if not self._composition_only:
            refuse_compositions(dataset)
        branch = self._branch_index(dataset, network.branches)
        p = next(network.parameters())
        network.eval()
        names = [*network.targets, *(n for n in DERIVATIVES if n in self._derivatives)]
        means: dict[str, list[np.ndarray]] = {name: [] for name in names}
        stds: dict[str, list[np.ndarray]] = {}
        for rows, graph in graphs_of(
            dataset, cutoff=network.cutoff, dtype=p.dtype, device=p.device
        ):
            with torch.no_grad():
                found = network(
                    graph,
                    torch.as_tensor(branch[rows], device=p.device),
                    forces="forces" in self._derivatives,
                    stress="stress" in self._derivatives,
                )
            for name in names:
                mean = found[name].mean
                if name in self.targets:
                    head, rule = self.targets[name], quantity(name)
                    if head.likelihood_of(rule) == "classes":
                        mean = torch.sigmoid(mean)
                means[name].append(_array(mean))
                if (std := found[name].std) is not None:
                    stds.setdefault(name, []).append(_array(std))
        return Predictions(
            {name: _stacked(parts, quantity(name)) for name, parts in means.items()},
            {name: _stacked(parts, quantity(name)) for name, parts in stds.items()} or None,
        )

    def save(self, directory: Path) -> None:
        """Write weights.safetensors: all tensors, and the rest as text in its header.

        Raises:
            ArtifactError: the disk refuses.
        """
        network = self.network
        facts = {
            "spec": self.spec.to_config(),
            "elements": list(network.elements),
            "branches": list(network.branches),
            "derivatives": sorted(self._derivatives),
            "dtype": str(network.dtype).removeprefix("torch."),
        }
        write_weights(directory, network, facts)

    @classmethod
    def load(cls, directory: Path, *, registry: Registry | None = None) -> PropertyModel:
        """Read what `save` wrote; the body's class is found by the recipe in the file.

        Raises:
            ArtifactError: the file is missing, damaged or does not fit the network.
            PluginError: the plugin that provides the body is not installed.
        """
        if registry is None:
            from epitaxy.registry import Registry

            registry = Registry.from_entry_points()
        facts, tensors = read_weights(directory)
        try:
            options = dict(facts["spec"])
            options.pop("use")
            model = cls(
                **{
                    **options,
                    "body": Spec.from_config(options["body"]),
                    "targets": {n: _head_options(h) for n, h in options["targets"].items()},
                }
            )
            network = MultitaskNetwork(
                model._body_factory(registry)(),
                targets=model.targets,
                branches=facts["branches"],
                branch_with=model.branch_with,
                learned_weights=model.weights == "learned",
                elements=facts["elements"],
            ).to(dtype=getattr(torch, facts["dtype"]))
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{Path(directory) / WEIGHTS}: its header lacks or adds something ({error}); it "
                f"was written by another version of epitaxy"
            ) from error
        model._has_forces = has_forces(network.body)
        model._composition_only = sees_composition_only(network.body)
        fill(network, tensors, title=f"{model!r} ({directory})")
        model._network = network.eval()
        model._derivatives = frozenset(facts["derivatives"])
        return model

    def _body_factory(self, registry: Registry) -> Callable[[], nn.Module]:
        factory: Callable[[], nn.Module] = registry.factory("model", self.body)
        return factory

    def _branch_index(self, dataset: Dataset, branches: Sequence[str]) -> np.ndarray:
        """Return (n,) int64, the branch of each structure."""
        number = {name: k for k, name in enumerate(branches)}
        if self.branch is not None:
            return np.full(len(dataset), number[self.branch], dtype=np.int64)
        if len(branches) == 1:
            return np.zeros(len(dataset), dtype=np.int64)
        names = branch_names(dataset, self.branch_by)
        if unknown := sorted(set(names) - set(number)):
            raise CapabilityError(
                f"{self.branch_by} {', '.join(map(repr, unknown))}: the model has the branches "
                f"{', '.join(map(repr, branches))}; choose one with select(...)"
            )
        return np.array([number[name] for name in names], dtype=np.int64)

    def _learnt_derivatives(self, train: Dataset, run: Run) -> frozenset[str]:
        if "energy" not in self.targets:
            return frozenset()
        if not self._has_forces:
            return frozenset()
        wanted = fixed_weights(run.training)
        return frozenset(
            name
            for name in DERIVATIVES
            if wanted[name] > 0 and name in train.targets and name not in self.targets
        )


def branch_names(dataset: Dataset, branch_by: str) -> list[str]:
    """Return the name of the branch of each structure.

    Args:
        dataset: structures.
        branch_by: a tag, "method" for the functional, or "" for one branch.

    Raises:
        DataError: the dataset has no such tag.
    """
    if not branch_by or not len(dataset):
        return [""] * len(dataset)
    if branch_by == "method":
        return [dataset.method(i).xc_functional for i in range(len(dataset))]
    return [str(word) for word in dataset.tag(branch_by)]


def _head_options(facts: Mapping[str, Any]) -> HeadOptions:
    hidden = facts["hidden"]
    return HeadOptions(**{**facts, "hidden": None if hidden is None else tuple(hidden)})


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy().astype(np.float64)
    return array


def _stacked(parts: Sequence[np.ndarray], rule: Quantity) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, *rule.shape))
