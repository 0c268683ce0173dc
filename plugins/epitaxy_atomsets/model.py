"""AtomSets: a small network on sets, without or with the features of a trained parent.

Chen, Ong, "AtomSets: a hierarchical transfer learning framework for small and large materials
datasets", npj Comput. Mater. 7, 173 (2021). All variants of its Table 1 are values of `level`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from epitaxy.errors import ArtifactError, CapabilityError, ConfigError, OptionError
from epitaxy.graph_model import torch_state
from epitaxy.hierarchy import Parent, hierarchical_features
from epitaxy.protocols import Capabilities, Predictions
from epitaxy.spec import Spec
from epitaxy.training.loop import Loop, identity_of
from epitaxy.weights import fill, read_weights, write_weights
from epitaxy_atomsets.inputs import STATISTICS, Inputs, elements_of, statistics
from epitaxy_atomsets.network import Activation, AtomSetsNetwork, Readout
from epitaxy_atomsets.target import Target, check_name, chosen, is_claim
from epitaxy_atomsets.task import SetBatches, SetTask, pieces

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.hierarchy import Tell
    from epitaxy.registry import Registry
    from epitaxy.run import Run

NAME = "atomsets/atomsets"
N_ROWS, WIDTH = 95, 32
"""Embedding without transfer: atomic numbers 0 to 94, width as in maml."""
PARENT = "parent"
"""Folder in an artifact with the parent, where it is needed to predict."""
_INITIAL = 0.05  # Keras' uniform initialisation of embeddings, +-


class AtomSets:
    """Predicts one number or claim per structure from a set of elements or atoms.

    Without a parent, with V0 and with V0-stats the structure is ignored, and formulas are
    accepted. V1, V2 ... are sets of atoms; u1 ..., v_r, f and V0-stats one row per structure,
    read by a plain perceptron (the layers `rho`).

    Args:
        targets: the one quantity to predict; empty for the only number per structure there is.
        parent: folder of the parent's artifact; none learns an embedding of 95 x 32 instead.
        level: which of the parent's features: V0, V1 ..., u1 ..., v_r, f, or V0-stats.
        readout: from members to the set: "mean", or "set2set" with weights.
        phi: widths of the layers on each member.
        rho: widths of the layers after the readout.
        activation: "relu" or "softplus".
        n_hidden: width of set2set.
        n_steps: T of set2set.
        tune: whether vectors of elements (no parent, or V0) are learnt too; none: only without a
            parent. A frozen embedding without a parent is the control of transfer.
        initial: how vectors of elements begin without a parent: "uniform" in +-0.05 as in Keras,
            or "normal" with variance 1.
        standardise: shift and scale the features by mean and deviation over the training set;
            the paper does not, and neither way is better everywhere.
        unseen: elements that the parent, or without one the training set, lacks: "refuse", or
            "initialise": they get the mean vector, or without a parent keep a random one.
        cache: folder where features are kept for other runs (`epitaxy.hierarchy`); a model that
            was loaded computes them in memory.

    Raises:
        OptionError: an option is out of range, or options contradict each other.
    """

    def __init__(
        self,
        *,
        targets: Sequence[str] = (),
        parent: Path | None = None,
        level: str | None = None,
        readout: Readout = "mean",
        phi: tuple[int, ...] = (64, 64),
        rho: tuple[int, ...] = (64, 64),
        activation: Activation = "relu",
        n_hidden: int = 512,
        n_steps: int = 3,
        tune: bool | None = None,
        initial: Literal["uniform", "normal"] = "uniform",
        standardise: bool = False,
        unseen: Literal["refuse", "initialise"] = "refuse",
        cache: Path | None = None,
    ) -> None:
        if (parent is None) != (level is None):
            raise OptionError("atomsets: give parent and level together, or neither")
        if not phi:
            raise OptionError("atomsets: phi needs one layer or more")
        check_name(targets)
        if tune and level not in (None, "V0"):
            raise OptionError(f"atomsets: tune is for vectors of elements; {level} is computed")
        self._targets = tuple(targets)
        self._parent_path = None if parent is None else Path(parent)
        self._level = level
        self._network_options: dict[str, Any] = {
            "phi": tuple(phi),
            "rho": tuple(rho),
            "activation": activation,
            "readout": readout,
            "n_hidden": n_hidden,
            "n_steps": n_steps,
        }
        self._tune = level is None if tune is None else tune
        self._initial, self._standardise, self._unseen = initial, standardise, unseen
        self._cache, self._uses_cache = cache, True
        self._given_tune = tune
        self._network: AtomSetsNetwork | None = None
        self._target: Target | None = None
        self._elements: frozenset[int] = frozenset()
        self._table: np.ndarray | None = None  # V0 of elements, for V0-stats
        self._parent: Parent | None = None
        self._parent_folder: Path | None = self._parent_path

    def __repr__(self) -> str:
        state = "trained" if self._network is not None else "untrained"
        return f"<AtomSets on {self._level or 'an embedding of its own'}, {state}>"

    @property
    def spec(self) -> Spec:
        """The recipe."""
        options = {
            "targets": list(self._targets),
            "parent": None if self._parent_path is None else str(self._parent_path),
            "level": self._level,
            **self._network_options,
            "phi": list(self._network_options["phi"]),
            "rho": list(self._network_options["rho"]),
            "tune": self._given_tune,
            "initial": self._initial,
            "standardise": self._standardise,
            "unseen": self._unseen,
            "cache": None if self._cache is None else str(self._cache),
        }
        return Spec(NAME, options)

    @property
    def composition_only(self) -> bool:
        """Whether the structure is ignored."""
        return self._level in (None, "V0", "V0-stats")

    @property
    def network(self) -> AtomSetsNetwork:
        """The trained network.

        Raises:
            CapabilityError: the model is not trained.
        """
        if self._network is None:
            raise CapabilityError("the model is not trained yet: call fit first")
        return self._network

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        return Capabilities(
            targets=self._targets,
            composition_only=self.composition_only,
            elements=self._elements or None,
        )

    # --- learning ---

    def fit(self, train: Dataset, valid: Dataset, *, run: Run) -> Mapping[str, float]:
        """Train and keep the weights that are best on `valid`; return their metrics.

        Raises:
            ArtifactError: the parent cannot be read.
            CapabilityError: the parent lacks the level or an element, or entries have no
                structure.
            ConfigError: the target has no label, or a claim has labels other than 0 and 1.
            TrainingError: training cannot start or go on.
        """
        self.check_data(train, valid, run=run)
        (name,) = self._targets
        parent = self._open_parent(run.registry)
        device, dtype = run.torch_device(), run.torch_dtype()
        self._target = target = Target.fit(name, train)
        self._elements = parent.elements if parent is not None else train.elements
        with torch_state(run):
            if self._level == "V0-stats":
                assert parent is not None
                self._table = _filled(parent.of_elements())
            inputs = [
                self._inputs(part, dtype, device, tell=run.progress.note) for part in (train, valid)
            ]
            network = self._new_network(parent)
            if self._standardise and self._level is not None:
                _standardise(network, inputs[0], np.flatnonzero(train.target(name)[1]))
            batches = [
                SetBatches(part, x, target.labels(part, dtype), device=device)
                for part, x in zip((train, valid), inputs, strict=True)
            ]
            task = SetTask(
                network.to(device=device, dtype=dtype),
                batches[0],
                valid=batches[1],
                target=name,
                is_claim=is_claim(name),
                options=run.training,
            )
            identity = identity_of(
                run,
                run.training,
                model=self.spec.to_config(),
                train_digest=train.digest,
                valid_digest=valid.digest,
                **({"parent": parent.digest} if parent is not None else {}),
            )
            metrics = Loop(task, run=run, identity=identity).train()
        self._network = network.eval()
        if parent is not None:
            self.lineage = {
                "parent": str(self._parent_path),
                "parent_sha256": parent.digest,
                "level": self._level,
            }
        return metrics

    def check_data(self, train: Dataset, valid: Dataset, *, run: Run) -> None:
        """Check that `fit` can learn from these data, without any work.

        Raises:
            ArtifactError: the parent cannot be read.
            CapabilityError: the parent lacks the level or an element, or entries have no
                structure.
            ConfigError: the target has no label, or a claim has labels other than 0 and 1.
            TrainingError: there is nothing to train on.
        """
        self._targets = (chosen(self._targets, train),)
        if run.training.compile:
            raise ConfigError("training: compile is for potentials; set compile: false")
        parent = self._open_parent(run.registry)
        if parent is None:
            self._check_own_elements(valid, train.elements)
            self._check_own_elements(train, train.elements)
            return
        parent.level("V0" if self._level == "V0-stats" else str(self._level))
        for part in (train, valid):
            self._check_parent(parent, part)

    def _check_parent(self, parent: Parent, dataset: Dataset) -> None:
        if not self.composition_only:
            parent.check(dataset, [str(self._level)])
        elif self._unseen == "refuse":
            parent.check_elements(dataset)

    def _check_own_elements(self, dataset: Dataset, known: frozenset[int]) -> None:
        """Refuse elements without a row, or without data."""
        allowed = known if self._unseen == "refuse" else range(N_ROWS)
        unseen = sorted(z for z in dataset.elements if z not in allowed or z >= N_ROWS)
        if unseen:
            from ase.data import chemical_symbols

            symbols = ", ".join(chemical_symbols[z] for z in unseen)
            raise CapabilityError(
                f"the training set does not hold {symbols}, so nothing is learnt about them: leave "
                f"these entries out, take a parent, or set unseen: initialise (up to Pu)"
            )

    def _open_parent(self, registry: Registry | None) -> Parent | None:
        if self._parent is None and self._parent_folder is not None:
            self._parent = Parent.open(self._parent_folder, registry=registry)
        return self._parent

    def _new_network(self, parent: Parent | None) -> AtomSetsNetwork:
        if self._level is None:
            network = AtomSetsNetwork(
                WIDTH, **self._network_options, n_rows=N_ROWS, tune=self._tune
            )
            assert network.embedding is not None
            if self._initial == "uniform":
                nn.init.uniform_(network.embedding.weight, -_INITIAL, _INITIAL)
            return network
        assert parent is not None
        if self._level == "V0":
            table = _filled(parent.of_elements())
            network = AtomSetsNetwork(
                table.shape[1], **self._network_options, n_rows=len(table), tune=self._tune
            )
            assert network.embedding is not None
            with torch.no_grad():
                network.embedding.weight.copy_(torch.from_numpy(table))
            return network
        if self._level == "V0-stats":
            width, per_atom = len(STATISTICS) * parent.level("V0").width, False
        else:
            level = parent.level(self._level)
            width, per_atom = level.width, level.per_atom
        options = self._network_options if per_atom else {**self._network_options, "phi": ()}
        return AtomSetsNetwork(width, **options)

    def _inputs(
        self,
        dataset: Dataset,
        dtype: torch.dtype,
        device: torch.device,
        *,
        tell: Tell | None = None,
    ) -> Inputs:
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        one_each = np.arange(len(dataset) + 1)
        if self.composition_only:
            elements = elements_of(dataset)
            if self._level == "V0-stats":
                assert self._table is not None
                return Inputs(one_each, statistics(elements, self._table), None, **place)
            return Inputs(elements.ptr, elements.numbers, elements.fractions, **place)
        assert self._parent is not None
        level = str(self._level)
        values = hierarchical_features(
            self._parent,
            dataset,
            levels=[level],
            cache=self._cache if self._uses_cache else None,
            tell=tell,
        )[level]
        is_per_atom = self._parent.level(level).per_atom
        ptr = np.asarray(dataset.atom_ptr) if is_per_atom else one_each
        return Inputs(ptr, values, None, **place)

    # --- prediction ---

    def predict(self, dataset: Dataset) -> Predictions:
        """Predict the target; the probability of 1 for a claim.

        Raises:
            CapabilityError: the model is untrained, an element is not covered, or an entry has
                no structure although one is needed.
        """
        network = self.network.eval()
        assert self._target is not None
        if self._level is None:
            self._check_own_elements(dataset, self._elements)
        elif self.composition_only:
            self._check_v0_elements(dataset)
        else:
            parent = self._open_parent(None)
            assert parent is not None
            self._check_parent(parent, dataset)
        p = next(network.parameters())
        inputs = self._inputs(dataset, p.dtype, p.device)
        parts = []
        with torch.no_grad():
            for rows in pieces(len(dataset)):
                parts.append(network(inputs.batch(rows)).double().cpu().numpy())
        found = np.concatenate(parts) if parts else np.zeros(0)
        return Predictions({self._target.name: self._target.values(dataset, found)})

    def _check_v0_elements(self, dataset: Dataset) -> None:
        unseen = sorted(dataset.elements - self._elements)
        if unseen and self._unseen == "refuse":
            from ase.data import chemical_symbols

            raise CapabilityError(
                f"the parent has not seen {', '.join(chemical_symbols[z] for z in unseen)}: leave "
                f"these entries out, or set unseen: initialise"
            )

    # --- saving ---

    def save(self, directory: Path) -> None:
        """Write weights.safetensors, and the parent beside it where predictions need it.

        Raises:
            ArtifactError: the disk refuses.
        """
        network = self.network
        assert self._target is not None
        facts = {
            "spec": self.spec.to_config(),
            "elements": sorted(self._elements),
            "target": self._target.facts(),
            "n_in": len(network.center),
            "per_member": network.has_members,
            "table": None if self._table is None else self._table.tolist(),
            "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
        }
        write_weights(Path(directory), network, facts)
        if not self.composition_only:
            assert self._parent_folder is not None
            try:
                shutil.copytree(self._parent_folder, Path(directory) / PARENT)
            except (OSError, shutil.Error) as error:
                raise ArtifactError(
                    f"the parent {self._parent_folder} cannot be copied: {error}"
                ) from error

    @classmethod
    def load(cls, directory: Path, *, registry: Registry | None = None) -> AtomSets:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged or does not fit.
        """
        facts, tensors = read_weights(directory)
        try:
            options = {k: v for k, v in facts["spec"].items() if k != "use"}
            for key in ("phi", "rho"):
                options[key] = tuple(options[key])
            for key in ("parent", "cache"):
                options[key] = None if options[key] is None else Path(options[key])
            model = cls(**options)
            own = model._network_options
            rows = tensors.get("embedding.weight")
            network = AtomSetsNetwork(
                facts["n_in"],
                **(own if facts["per_member"] else {**own, "phi": ()}),
                n_rows=0 if rows is None else len(rows),
                tune=model._tune,
            ).to(dtype=getattr(torch, facts["dtype"]))
            model._target = Target.from_facts(facts["target"])
            model._elements = frozenset(facts["elements"])
            table = facts["table"]
            model._table = None if table is None else np.array(table, dtype=np.float32)
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{directory}: its header lacks or adds something ({error}); it was written by "
                f"another version of epitaxy"
            ) from error
        fill(network, tensors, title=f"{model!r} ({directory})")
        model._network = network.eval()
        model._uses_cache = False
        if not model.composition_only:
            model._parent_folder = Path(directory) / PARENT
            model._open_parent(registry)
        return model


def _filled(table: np.ndarray) -> np.ndarray:
    """Give elements that the parent has not seen the mean vector."""
    return np.where(np.isnan(table), np.nanmean(table, axis=0), table).astype(np.float32)


def _standardise(network: AtomSetsNetwork, inputs: Inputs, rows: np.ndarray) -> None:
    """Set mean and deviation of the features over the members of the training set."""
    n, sums = 0.0, np.zeros((2, len(network.center)))
    for piece in pieces(len(rows)):
        batch = inputs.batch(rows[piece])
        with torch.no_grad():
            x = batch.members if network.embedding is None else network.embedding(batch.members)
        values = x.double().cpu().numpy()
        weights = batch.weights.double().cpu().numpy()[:, None]
        n += float(weights.sum())
        sums += np.stack([(weights * values).sum(axis=0), (weights * values**2).sum(axis=0)])
    mean = sums[0] / n
    deviation = np.sqrt(np.maximum(sums[1] / n - mean**2, 0.0))
    network.center.copy_(torch.from_numpy(mean))
    network.spread.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))


__all__ = ["AtomSets"]
