"""The `Model` around a network: fit, predict, save and load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from epitaxy.composition import TAG
from epitaxy.errors import ArtifactError, CapabilityError, ConfigError, TrainingError
from epitaxy.potential import Potential, fit_energy_scale, fit_reference_energies
from epitaxy.protocols import Capabilities, Predictions
from epitaxy.spec import Spec
from epitaxy.training.batches import LabelledGraphs, graphs_of, names_of
from epitaxy.training.loop import Loop, identity_of
from epitaxy.training.losses import TERMS, weights
from epitaxy.training.task import PotentialTask
from epitaxy.weights import WEIGHTS, fill, read_weights, write_weights

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.registry import Registry
    from epitaxy.run import Run
    from epitaxy.training.start import Start


class GraphModel:
    """Trains, saves and applies a graph network.

    Args:
        spec: the recipe, all options filled in.
        network_factory: builds the network of `spec`, with random weights.
    """

    def __init__(self, spec: Spec, network_factory: Callable[[], nn.Module]) -> None:
        self.spec = spec
        self._network_factory = network_factory
        self._potential: Potential | None = None
        self._targets: tuple[str, ...] = ("energy", "forces")

    def __repr__(self) -> str:
        state = "trained" if self._potential is not None else "untrained"
        return f"<GraphModel {self.spec.use}, {state}>"

    @property
    def potential(self) -> Potential:
        """The trained potential.

        Raises:
            CapabilityError: the model is not trained.
        """
        if self._potential is None:
            raise CapabilityError(f"model {self.spec.use!r} is not trained yet: call fit first")
        return self._potential

    @property
    def cutoff(self) -> float:
        """Reach of the graphs, Å."""
        return self.potential.cutoff

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        return Capabilities(
            targets=self._targets,
            forces=has_forces(self._network_factory),
            stress=has_forces(self._network_factory),
            elements=None if self._potential is None else frozenset(self._potential.elements),
        )

    def to(self, *, device: str | torch.device = "cpu", dtype: str | None = None) -> GraphModel:
        """Move the potential to a device, and to "float32" or "float64"; returns itself."""
        wanted = None if dtype is None else getattr(torch, dtype)
        self.potential.to(device=device, dtype=wanted)
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
            ConfigError: device or dtype cannot be used, or a label with a weight is nowhere.
            TrainingError: training cannot start or go on.
        """
        device, dtype = run.torch_device(), run.torch_dtype()
        known = start.elements & valid.elements if start else frozenset()
        self.check_data(train, valid, run=run, known=known)
        with torch_state(run):
            network = self._network_factory()
            self.start_from(network, train, run=run, known=known)
            factors = start.begin(self.potential, train) if start else {}
            potential = self.potential.to(device=device, dtype=dtype)
            cutoff = potential.cutoff
            graphs, checks = (
                LabelledGraphs(part, cutoff=cutoff, dtype=dtype, device=device)
                for part in (train, valid)
            )
            identity = identity_of(
                run,
                run.training,
                model=self.spec.to_config(),
                train_digest=train.digest,
                valid_digest=valid.digest,
                **({"start": dict(start.facts)} if start else {}),
            )
            task = PotentialTask(potential, graphs, valid=checks, options=run.training)
            metrics = Loop(task, run=run, identity=identity, lr_factors=factors).train()
            if start:
                start.end(potential)
        potential.eval()
        self._targets = tuple(name for name in TERMS if name in train.targets)
        return metrics

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
            ConfigError: a label with a weight is nowhere.
            TrainingError: there is nothing to train on, a label is not finite, or validation
                needs unknown elements.
        """
        check_labels(train, valid, run=run, known=known)
        wanted = [name for name in ("forces", "stress") if weights(run.training)[name] > 0]
        if wanted and not has_forces(self._network_factory):
            raise CapabilityError(
                f"model {self.spec.use!r} is not smooth in the positions, so it has no forces: "
                f"set {', '.join(f'{name}_weight: 0' for name in wanted)}, or take another model"
            )

    def start_from(
        self,
        network: nn.Module,
        train: Dataset,
        *,
        run: Run,
        known: frozenset[int] = frozenset(),
    ) -> None:
        """Put a potential around a network, with references and scale of the training set.

        Args:
            network: whose energies are scaled and shifted.
            train: from which scale and references are fitted.
            run: options.
            known: further elements that are covered, with a reference of 0.
        """
        references = fit_reference_energies(train)
        self._potential = Potential(
            network,
            elements=frozenset(references) | known,
            reference_energies={**dict.fromkeys(known, 0.0), **references},
            scale=fit_energy_scale(train, references),
        )

    def predict(self, dataset: Dataset) -> Predictions:
        """Predict energies, and forces and stresses if the training set had them.

        The work is done in batches of bounded size. The stress of a structure that is not
        periodic in three directions is nan.

        Raises:
            CapabilityError: the model is untrained or does not know an element.
        """
        return Predictions(outputs_of(self.potential, dataset, self._targets))

    def save(self, directory: Path) -> None:
        """Write weights.safetensors: all tensors, and the rest as text in its header.

        Raises:
            ArtifactError: the disk refuses.
        """
        potential = self.potential
        facts = {
            "spec": self.spec.to_config(),
            "elements": list(potential.elements),
            "targets": list(self._targets),
            "dtype": str(potential.dtype).removeprefix("torch."),
        }
        write_weights(directory, potential, facts)

    @classmethod
    def load(cls, directory: Path, *, registry: Registry | None = None) -> GraphModel:
        """Read what `save` wrote; the network's class is found by the recipe in the file.

        Raises:
            ArtifactError: the file is missing, damaged or does not fit the network.
            PluginError: the plugin that provides the network is not installed.
        """
        from epitaxy.models import build_model

        facts, tensors = read_weights(directory)
        path = Path(directory) / WEIGHTS
        if registry is None:
            from epitaxy.registry import Registry

            registry = Registry.from_entry_points()
        model = build_model(Spec.from_config(facts["spec"]), registry)
        if not isinstance(model, cls):
            raise ArtifactError(
                f"{path}: model {facts['spec']['use']!r} is now a {type(model).__name__}, not a "
                f"network: install the version of its plugin that wrote the file"
            )
        model._read(facts, tensors, path)
        return model

    def _read(self, facts: Mapping[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> None:
        elements = [int(z) for z in facts["elements"]]
        potential = Potential(
            self._network_factory(),
            elements=elements,
            reference_energies=dict.fromkeys(elements, 0.0),
            scale=1.0,
        ).to(dtype=getattr(torch, facts["dtype"]))
        fill(potential, tensors, title=f"model {self.spec.use!r} ({path})")
        self._potential = potential.eval()
        self._targets = tuple(facts["targets"])


def outputs_of(
    potential: Potential, dataset: Dataset, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return outputs of a potential for all structures, float64, in batches of bounded size.

    Args:
        potential: is put into evaluation mode.
        dataset: structures.
        names: some of energy (n,), forces (n_atoms_total, 3) and stress (n, 6).

    Raises:
        CapabilityError: it does not know an element.
    """
    device = next(potential.parameters()).device
    empty = {"energy": (0,), "forces": (0, 3), "stress": (0, 6)}
    pieces: dict[str, list[np.ndarray]] = {name: [np.zeros(empty[name])] for name in names}
    potential.eval()
    for _, graph in graphs_of(
        dataset, cutoff=potential.cutoff, dtype=potential.dtype, device=device
    ):
        with torch.no_grad():
            outputs = potential(graph, forces="forces" in names, stress="stress" in names)
        for name, found in pieces.items():
            found.append(getattr(outputs, name).detach().cpu().numpy().astype(np.float64))
    return {name: np.concatenate(found) for name, found in pieces.items()}


def has_forces(network: object) -> bool:
    """Whether a network, its class or its factory has energies that are smooth in positions.

    A network without says so by ``has_forces = False``.
    """
    return bool(getattr(getattr(network, "func", network), "has_forces", True))


def sees_composition_only(network: object) -> bool:
    """Whether a network, its class or its factory ignores positions.

    Such a network says so by ``composition_only = True``; its cutoff is 0.
    """
    return bool(getattr(getattr(network, "func", network), "composition_only", False))


def check_labels(
    train: Dataset, valid: Dataset, *, run: Run, known: frozenset[int] = frozenset()
) -> None:
    """Check that what is to be learnt is there.

    Raises:
        ConfigError: a kind of label has a weight but no structure carries it.
        TrainingError: there is nothing to train on, a label is not finite, or validation needs
            unknown elements.
    """
    if len(train) == 0:
        raise TrainingError("the training set is empty: check the split")
    for name, weight in weights(run.training).items():
        if weight <= 0:
            continue
        n_labelled = int(train.target(name)[1].sum()) if name in train.targets else 0
        if n_labelled == 0:
            there = ", ".join(train.targets) or "nothing"
            raise ConfigError(
                f"training: {name}_weight is {weight:g}, but none of the {len(train)} training "
                f"structures has {name} (there: {there}); set {name}_weight: 0"
            )
    for what, part in (("training", train), ("validation", valid)):
        _refuse_non_finite(part, what)
    refuse_compositions(train)
    refuse_unknown_elements(train, valid, known=known)


def refuse_compositions(dataset: Dataset) -> None:
    """Raise `CapabilityError` if some entries are formulas without a structure."""
    if TAG not in dataset.tags:
        return
    if len(rows := np.flatnonzero(dataset.tag(TAG) != "")):
        raise CapabilityError(
            f"{len(rows)} of the {len(dataset)} entries have a formula but no structure "
            f"({names_of(dataset, rows)}): a graph network needs positions; use a composition "
            f"model (`epitaxy plugins` lists them)"
        )


def refuse_unknown_elements(
    train: Dataset, valid: Dataset, *, known: frozenset[int] = frozenset()
) -> None:
    """Raise `TrainingError` if the validation set has elements that are nowhere else known."""
    if unknown := valid.elements - train.elements - known:
        from ase.data import chemical_symbols

        raise TrainingError(
            f"the validation set holds {', '.join(chemical_symbols[z] for z in sorted(unknown))}, "
            f"which the training set lacks: split anew, for example by composition"
        )


def _refuse_non_finite(dataset: Dataset, what: str) -> None:
    """Refuse labels that are nan or infinite, by the names of their structures."""
    for name in (one for one in TERMS if one in dataset.targets):
        values, has_label = dataset.target(name)
        is_finite = np.isfinite(values).all(axis=tuple(range(1, np.ndim(values))))
        if is_finite.all():
            continue
        if name == "forces":
            owner = np.repeat(np.arange(len(dataset)), dataset.n_atoms)
            is_finite = np.bincount(owner[~is_finite], minlength=len(dataset)) == 0
        if len(rows := np.flatnonzero(~is_finite & has_label)):
            raise TrainingError(
                f"{name} is not a finite number in {len(rows)} of the {len(dataset)} {what} "
                f"structures: {names_of(dataset, rows)}. Drop them (`epitaxy clean` writes a "
                f"dataset without them) or correct their labels"
            )


@contextmanager
def torch_state(run: Run) -> Iterator[None]:
    """Seed torch for the run and make it reproducible; put everything back afterwards."""
    n_threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    devices = [torch.device(run.device)] if run.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(run.seed_for("network"))
        if run.training.n_threads:
            torch.set_num_threads(run.training.n_threads)
        if not devices:
            # With several threads index_add otherwise sums in an order that varies. On a GPU
            # not every operation has a reproducible form.
            torch.use_deterministic_algorithms(True)
            torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            torch.use_deterministic_algorithms(deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = fill
