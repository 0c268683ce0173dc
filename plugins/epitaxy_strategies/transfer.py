"""Begin with the weights of a trained parent instead of random ones.

Protocols: Hoffmann, Schmidt, Botti, Marques, Digital Discovery 2, 1368 (2023), doi
10.1039/d3dd00030c (full and head-only transfer between functionals and between properties).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from ase.data import chemical_symbols
from torch import nn

from epitaxy.errors import CapabilityError, ConfigError, OptionError
from epitaxy.graph_model import GraphModel
from epitaxy.models import build_model
from epitaxy.multitask import MultitaskNetwork
from epitaxy.potential import Potential
from epitaxy.spec import Spec
from epitaxy.strategies import refuses_early
from epitaxy_strategies.adapters import add_adapters, check_rank, merge_adapters
from epitaxy_strategies.parent import (
    Parent,
    body_of,
    check_layers,
    check_planned,
    matching,
    outside_head,
    part_of_parameters,
)

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.protocols import Model
    from epitaxy.run import Run
    from epitaxy.split import Split

Mode = Literal["full", "head", "layers", "adapters"]
Scale = Literal["refit", "keep"]
NewElements = Literal["refuse", "initialise"]
RANK = 8
ADVICE = 0.1  # of the usual learning rate, between properties


def check_transfer(
    model: Spec,
    split: Split,
    *,
    run: Run,
    parent: str,
    mode: Mode = "full",
    layers: Mapping[str, float] | None = None,
    rank: int | None = None,
    scale: Scale = "refit",
    new_elements: NewElements = "refuse",
    control: bool | None = None,
) -> frozenset[int]:
    """Check options, parent and elements; arguments and errors as `transfer`.

    Returns:
        Elements that the parent knows.
    """
    planned = run.planned.get(parent)
    if planned is not None:
        _untrained(model, split, run, mode=mode, layers=layers, rank=rank, control=control)
        check_planned(parent, planned, model, split.train, new_elements=new_elements, run=run)
        return planned.elements
    _, known, _ = _prepared(
        model,
        split,
        run,
        parent=parent,
        mode=mode,
        layers=layers,
        rank=rank,
        scale=scale,
        new_elements=new_elements,
        control=control,
    )
    return frozenset(known.module.elements)


@refuses_early(check_transfer)
def transfer(
    model: Spec,
    split: Split,
    *,
    run: Run,
    parent: str,
    mode: Mode = "full",
    layers: Mapping[str, float] | None = None,
    rank: int | None = None,
    scale: Scale = "refit",
    new_elements: NewElements = "refuse",
    control: bool | None = None,
) -> Model:
    """Train a model that begins with the weights of a parent.

    The optimizer is new. What of the parent is used, what is frozen and what is refitted stands
    in the manifest under "lineage".

    Args:
        model: the recipe; its body must be that of the parent.
        split: training and validation parts; the test part is not touched.
        run: seeds, options, directory.
        parent: folder of the parent's artifact.
        mode: "full" trains all weights; "head" only the head; "layers" as `layers` says;
            "adapters" the head and low-rank changes of the other matrices.
        layers: for mode "layers": name of a part or a parameter, or its beginning -> learning rate
            as a part of the usual one, 0 freezes: {embedding: 0, body: 0.1, head: 1}.
        rank: of the adapters, for mode "adapters": 8 if not given, and no more than the largest
            matrix of the body has; smaller matrices take their own.
        scale: whether offsets (reference energies) and scales are refitted to the new labels
            ("refit") or kept from the parent ("keep"; elements that it has not seen are fitted).
        new_elements: what to do with elements that the parent has not seen.
        control: whether the same model is also trained from random weights with an equal budget,
            in the folder "control"; None does so between different properties.

    Raises:
        ArtifactError: the parent cannot be read.
        CapabilityError: the parent is no network, or has not seen an element.
        ConfigError: the parent's body or cutoff does not fit, or `layers` names nothing.
        OptionError: options contradict each other.
    """
    built, known, unseen = _prepared(
        model,
        split,
        run,
        parent=parent,
        mode=mode,
        layers=layers,
        rank=rank,
        scale=scale,
        new_elements=new_elements,
        control=control,
    )
    same_property = _tell(known, built, split.train, run)
    start = TransferStart(
        known, mode=mode, layers=dict(layers or {}), rank=rank or RANK, scale=scale, unseen=unseen
    )
    metrics = built.fit(split.train, split.valid, run=run, start=start)  # type: ignore[call-arg]
    scratch: Mapping[str, float] | None = None
    # Afterwards, because only the fit above finds out whether the parent fits the model.
    alone = _known_to_parent_alone(split)
    if alone:
        run.progress.note(
            f"the validation part has {alone}, which the parent knows and the training part lacks"
        )
    if control if control is not None else not (same_property or alone):
        run.progress.note("control: the same model from random weights, with an equal budget")
        scratch = build_model(model, run.registry).fit(
            split.train, split.valid, run=run.child("control")
        )
    lineage = dict(start.facts)
    if scratch is not None:
        name = f"valid_{run.training.validation_metric}"
        lineage["control"] = {"from_scratch": scratch.get(name), "transferred": metrics.get(name)}
        run.progress.note(
            f"{name}: {metrics.get(name, float('nan')):.4g} with the parent, "
            f"{scratch.get(name, float('nan')):.4g} from scratch"
        )
    built.lineage = lineage  # type: ignore[attr-defined]
    return built


def _prepared(
    model: Spec,
    split: Split,
    run: Run,
    *,
    parent: str,
    mode: Mode,
    layers: Mapping[str, float] | None,
    rank: int | None,
    scale: Scale,
    new_elements: NewElements,
    control: bool | None,
) -> tuple[Model, Parent, tuple[int, ...]]:
    """Return the untrained model, its parent, and the elements that the parent has not seen."""
    built = _untrained(model, split, run, mode=mode, layers=layers, rank=rank, control=control)
    known = Parent(Path(parent), registry=run.registry)
    known.check_options(model, registry=run.registry)
    unseen = known.check_elements(split.train, new_elements=new_elements)
    is_potential = isinstance(built, GraphModel)
    if layers:
        check_layers(layers, body_of(known.module), top="network" if is_potential else "body")
    if mode == "adapters":
        check_rank(outside_head(body_of(known.module)), rank=rank)
    if scale == "keep" and isinstance(known.module, Potential) != is_potential:
        raise _keeps_nothing()
    return built, known, unseen


def _untrained(
    model: Spec,
    split: Split,
    run: Run,
    *,
    mode: Mode,
    layers: Mapping[str, float] | None,
    rank: int | None,
    control: bool | None,
) -> Model:
    """Return the untrained model; raise what is wrong whatever the parent."""
    if (mode == "layers") != bool(layers):
        raise OptionError(
            "mode: layers needs layers: {NAME: RATE, ...}, for example {embedding: 0, body: 0.1}"
            if not layers
            else f"layers is {dict(layers)}, but mode is {mode!r}: set mode: layers, or no layers"
        )
    if rank is not None and mode != "adapters":
        raise OptionError(f"rank is {rank}, but mode {mode!r} has no adapters: leave rank out")
    built = build_model(model, run.registry)
    if "start" not in inspect.signature(built.fit).parameters:
        raise CapabilityError(
            f"model {model.use!r} cannot begin with given weights; take a graph network"
        )
    if control and (names := _known_to_parent_alone(split)):
        raise OptionError(
            f"control: a network from random weights knows nothing about {names}, which the "
            f"validation part has and the training part lacks: set control: false, or split anew"
        )
    return built


def _known_to_parent_alone(split: Split) -> str:
    """Return the elements that the validation part has and the training part lacks, as text."""
    return ", ".join(
        chemical_symbols[z] for z in sorted(split.valid.elements - split.train.elements)
    )


class TransferStart:
    """Writes the parent's weights into a new module and says what is trained how fast.

    Args:
        parent: where the weights come from.
        mode: see `transfer`.
        layers: see `transfer`.
        rank: see `transfer`.
        scale: see `transfer`.
        unseen: elements that the parent has not seen.
    """

    def __init__(
        self,
        parent: Parent,
        *,
        mode: Mode,
        layers: Mapping[str, float],
        rank: int,
        scale: Scale,
        unseen: tuple[int, ...],
    ) -> None:
        self._parent, self._mode, self._layers = parent, mode, layers
        self._rank, self._scale, self._unseen = rank, scale, unseen

    @property
    def facts(self) -> Mapping[str, Any]:
        """What identifies the start: it goes into checkpoints and into the manifest."""
        return {
            "parent": str(self._parent.path),
            "parent_sha256": self._parent.digest,
            "mode": self._mode,
            "layers": dict(self._layers),
            "scale": self._scale,
            "unseen_elements": list(self._unseen),
            **({"rank": self._rank} if self._mode == "adapters" else {}),
        }

    @property
    def elements(self) -> frozenset[int]:
        """What the parent has learnt about."""
        return frozenset(self._parent.module.elements)

    def begin(self, module: nn.Module, train: Dataset) -> Mapping[str, float]:
        """Copy the weights; return parameter name -> factor of the learning rate."""
        self._parent.check_body(module)
        self._parent.copy_body(module)
        copy_heads(self._parent.module, module)
        unfitted = frozenset(module.elements) - train.elements
        if self._scale == "keep":
            keep_scales(self._parent.module, module)
        elif unfitted:
            keep_offsets(self._parent.module, module, unfitted)
        part = part_of_parameters(module)
        if self._mode == "head":
            return {name: 0.0 for name, of in part.items() if of != "head"}
        if self._mode == "layers":
            by_part = {n: self._layers[of] for n, of in part.items() if of in self._layers}
            named = {n: f for n, f in self._layers.items() if n not in set(part.values())}
            return {**by_part, **matching(list(part), named)}
        if self._mode == "adapters":
            head = {name for name, of in part.items() if of == "head"}
            for layers in outside_head(body_of(module)):
                add_adapters(layers, rank=self._rank)
            is_new = ("parametrizations.weight.0.down", "parametrizations.weight.0.up")
            return {
                name: 0.0
                for name, _ in module.named_parameters()
                if name not in head and not name.endswith(is_new)
            }
        return {}

    def end(self, module: nn.Module) -> None:
        """Merge adapters into their matrices."""
        if self._mode == "adapters":
            merge_adapters(module)


def copy_heads(parent: nn.Module, child: nn.Module) -> None:
    """Copy the heads of targets that both have, where their shapes agree."""
    if isinstance(parent, Potential) and isinstance(child, Potential):
        given = parent.network.state_dict()
        own = child.network.state_dict()
        same = {n: t for n, t in given.items() if n in own and own[n].shape == t.shape}
        heads = {n: t for n, t in same.items() if n.startswith("head.")}
        child.network.load_state_dict({**own, **heads})
    if isinstance(parent, MultitaskNetwork) and isinstance(child, MultitaskNetwork):
        for name in child.heads:
            if name not in parent.heads:
                continue
            first = parent.heads[name][0].state_dict()
            for k, branch in enumerate(child.branches if len(child.heads[name]) > 1 else [""]):
                given = first
                if branch in parent.branches and len(parent.heads[name]) > 1:
                    given = parent.heads[name][parent.branches.index(branch)].state_dict()
                own = child.heads[name][k].state_dict()
                if {n: t.shape for n, t in own.items()} == {n: t.shape for n, t in given.items()}:
                    child.heads[name][k].load_state_dict(given)


def keep_scales(parent: nn.Module, child: nn.Module) -> None:
    """Take over offsets and scales; elements that the parent has not seen keep their own."""
    seen = torch.zeros(len(child.covered), dtype=torch.bool)
    seen[list(parent.elements)] = True
    with torch.no_grad():
        if isinstance(parent, Potential) and isinstance(child, Potential):
            table = parent.reference_energies.cpu()
            child.reference_energies.copy_(torch.where(seen, table, child.reference_energies))
            child.scale.copy_(parent.scale)
        elif isinstance(parent, MultitaskNetwork) and isinstance(child, MultitaskNetwork):
            seen[0] = True  # the constant offset
            for name in set(child.targets) & set(parent.targets):
                i, j = list(child.targets).index(name), list(parent.targets).index(name)
                for k, branch in enumerate(child.branches):
                    m = parent.branches.index(branch) if branch in parent.branches else 0
                    child.offsets[i, k] = torch.where(
                        seen, parent.offsets[j, m], child.offsets[i, k]
                    )
                    child.scales[i, k] = parent.scales[j, m]
        else:
            raise _keeps_nothing()


def keep_offsets(parent: nn.Module, child: nn.Module, elements: frozenset[int]) -> None:
    """Take over the offsets of elements that no training structure has, where kinds agree."""
    rows = sorted(elements)
    with torch.no_grad():
        if isinstance(parent, Potential) and isinstance(child, Potential):
            child.reference_energies[rows] = parent.reference_energies[rows].cpu()
        elif isinstance(parent, MultitaskNetwork) and isinstance(child, MultitaskNetwork):
            for name in set(child.targets) & set(parent.targets):
                i, j = list(child.targets).index(name), list(parent.targets).index(name)
                child.offsets[i][:, rows] = parent.offsets[j, 0, rows].cpu()


def _keeps_nothing() -> ConfigError:
    return ConfigError(
        "scale: keep needs a parent and a model of one kind (both potentials, or both "
        "'property'); use scale: refit"
    )


def _tell(parent: Parent, model: Model, train: Dataset, run: Run) -> bool:
    """Say what differs between parent and task; return whether the property is the same."""
    wanted = [t for t in getattr(model, "targets", ("energy",)) if t in train.targets]
    same = any(t in parent.targets for t in wanted)
    ours = sorted({m.xc_functional for m in train.methods if m.xc_functional})
    theirs = sorted(set(parent.functionals))
    if ours and theirs and ours != theirs:
        run.progress.note(f"level of theory: parent {', '.join(theirs)}, here {', '.join(ours)}")
    if not same:
        run.progress.note(
            f"the parent predicts {', '.join(parent.targets)}, here {', '.join(wanted)} is learnt: "
            f"transfer between properties can paralyse a network; try lr: "
            f"{ADVICE * run.training.lr:g} (a tenth), and compare with the control from scratch"
        )
    return same
