"""A trained parent: what can be taken over from it, and why it may not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols
from torch import nn

from epitaxy.artifact import Artifact, load_artifact
from epitaxy.errors import CapabilityError, ConfigError
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.multitask import MultitaskNetwork
from epitaxy.potential import Potential
from epitaxy.quantities import quantity
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.registry import Registry
    from epitaxy.run import Run
    from epitaxy.strategies import PlannedParent


class Parent:
    """The trained module of an artifact.

    Args:
        path: folder of the artifact; for an ensemble that of a member, ``members/0``.
        registry: where its model is found.

    Raises:
        ArtifactError: there is no readable artifact.
        ConfigError: it is an ensemble or a sum, or its units are others.
        CapabilityError: it is no network.
    """

    def __init__(self, path: Path, *, registry: Registry) -> None:
        self.path = Path(path)
        self.artifact: Artifact = load_artifact(self.path, registry=registry)
        model = self.artifact.model
        if getattr(model, "members", None) is not None:
            raise ConfigError(
                f"parent {path} is an ensemble: name one member, for example {path}/members/0"
            )
        if getattr(model, "difference", None) is not None:
            raise ConfigError(
                f"parent {path} is the sum of two models: name the one whose weights are meant, "
                f"{path}/difference or {path}/low"
            )
        for name, unit in self.artifact.manifest["units"].items():
            if unit != quantity(name).unit:
                raise ConfigError(
                    f"parent {path} gives {name} in {unit}, here it is in {quantity(name).unit}: "
                    f"it was made by another version of epitaxy; train it again"
                )
        module = getattr(model, "network", None)
        if not isinstance(module, MultitaskNetwork):
            module = getattr(model, "potential", None)
        if not isinstance(module, MultitaskNetwork | Potential):
            raise CapabilityError(
                f"parent {path} is a {type(model).__name__}, no network: its weights cannot be "
                f"transferred; take a trained network"
            )
        self.module: MultitaskNetwork | Potential = module

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which holds those of all files."""
        return str(self.artifact.manifest["manifest_sha256"])

    @property
    def targets(self) -> tuple[str, ...]:
        """What it was trained on."""
        return tuple(self.artifact.manifest["units"])

    @property
    def functionals(self) -> tuple[str, ...]:
        """The levels of theory of its training set."""
        methods = self.artifact.manifest.get("methods", ())
        return tuple(m["xc_functional"] for m in methods if m.get("xc_functional"))

    def check_elements(self, train: Dataset, *, new_elements: str) -> tuple[int, ...]:
        """Return the elements of a training set that the parent has not seen.

        Raises:
            CapabilityError: there are some and `new_elements` is "refuse".
        """
        return unseen_elements(
            self.path, frozenset(self.module.elements), train, new_elements=new_elements
        )

    def check_options(self, model: Spec, *, registry: Registry) -> None:
        """Check that the body of a model is built as that of the parent; as `check_same_body`."""
        given = Spec.from_config(self.artifact.manifest["spec"])
        check_same_body(self.path, given, model, registry=registry)

    def check_body(self, child: nn.Module) -> None:
        """Check that the body of the parent fits into that of the child.

        Raises:
            ConfigError: the cutoff or the shapes differ; the message names them.
        """
        own = float(self.module.cutoff)
        theirs = float(child.cutoff)
        if abs(own - theirs) > 1e-9:
            raise ConfigError(
                f"the parent {self.path} has the cutoff {own:g} Å, the model {theirs:g} Å: weights "
                f"learnt with one mean nothing with the other; set cutoff: {own:g}"
            )
        given = _comparable(body_of(self.module))
        wanted = _comparable(body_of(child))
        missing = sorted(set(wanted) - set(given))
        wrong = [n for n in wanted if n in given and wanted[n].shape != given[n].shape]
        if missing or wrong:
            what = [f"it has no {n}" for n in missing[:3]]
            what += [
                f"{n}: {tuple(given[n].shape)}, not {tuple(wanted[n].shape)}" for n in wrong[:3]
            ]
            raise ConfigError(
                f"the parent {self.path} ({self.artifact.manifest['spec']}) does not fit the "
                f"model: {'; '.join(what)}; give the model the options of the parent"
            )

    def copy_body(self, child: nn.Module) -> None:
        """Write the weights of the parent's body into that of the child, elements by number."""
        given = dict(body_of(self.module).named_parameters())
        given |= dict(body_of(self.module).named_buffers())
        wanted = dict(body_of(child).named_parameters()) | dict(body_of(child).named_buffers())
        tables = _element_tables(body_of(child))
        with torch.no_grad():
            for name, tensor in wanted.items():
                if name in given and name not in tables and not _is_row_table(name):
                    tensor.copy_(given[name])
            theirs = _element_tables(body_of(self.module))
            for name, embedding in tables.items():
                _copy_elements(theirs[name], embedding, self.module.elements)


def check_planned(
    path: str, planned: PlannedParent, model: Spec, train: Dataset, *, new_elements: str, run: Run
) -> None:
    """Check the recipe of a parent that is yet to be trained.

    Raises:
        CapabilityError: it will not know an element and `new_elements` is "refuse".
        ConfigError: the network or an option differs, or it will be several models.
    """
    kind = planned.strategy.use.rpartition("/")[2]
    if kind in ("ensemble", "delta"):
        raise ConfigError(
            f"parent {path} is trained with the strategy {kind!r} and has weights of several "
            f"models: train it with direct or transfer"
        )
    check_same_body(path, planned.model, model, registry=run.registry)
    unseen_elements(path, planned.elements, train, new_elements=new_elements)


def check_same_body(path: Path | str, given: Spec, model: Spec, *, registry: Registry) -> None:
    """Check that the body of a model is built as that of a parent.

    Weights of equal shape may still mean something else, as with another readout.

    Args:
        path: of the parent.
        given: recipe of the parent.
        model: recipe of the model.
        registry: where defaults are found.

    Raises:
        ConfigError: the network or an option differs; the message names them.
    """
    given = _body_spec(given, registry)
    wanted = _body_spec(model, registry)
    if given.use != wanted.use:
        raise ConfigError(
            f"the parent {path} is a {given.use}, the model a {wanted.use}: weights fit "
            f"only the same network"
        )
    differing = [
        f"{name}: {given.options.get(name)!r}, not {value!r}"
        for name, value in wanted.options.items()
        if name != "elements" and given.options.get(name) != value
    ]
    if differing:
        raise ConfigError(
            f"the parent {path} does not fit the model: it has {'; '.join(differing)}; "
            f"give the model the options of the parent"
        )


def unseen_elements(
    path: Path | str, elements: frozenset[int], train: Dataset, *, new_elements: str
) -> tuple[int, ...]:
    """Return the elements of a training set that a parent has not seen.

    Raises:
        CapabilityError: there are some and `new_elements` is "refuse".
    """
    unseen = tuple(sorted(train.elements - elements))
    if unseen and new_elements == "refuse":
        names = ", ".join(chemical_symbols[z] for z in unseen)
        raise CapabilityError(
            f"the parent {path} has not seen {names}; drop the structures that hold them, "
            f"or set new_elements: initialise to learn them from random features"
        )
    return unseen


def _body_spec(spec: Spec, registry: Registry) -> Spec:
    """Return the complete recipe of the network whose features are read, as plain data."""
    body = spec.options.get("body")
    if body is not None:
        spec = Spec.from_config(body)
    return registry.resolve("model", spec)


def body_of(module: nn.Module) -> nn.Module:
    """Return the network whose features are read."""
    if isinstance(module, MultitaskNetwork):
        return module.body
    if isinstance(module, Potential):
        network: nn.Module = module.network
        return network
    return module


def outside_head(body: nn.Module) -> list[nn.Module]:
    """Return the modules of a body that are not its head."""
    return [module for name, module in body.named_children() if name != "head"]


def part_of_parameters(module: nn.Module) -> dict[str, str]:
    """Return parameter name -> "embedding", "body" or "head"; "head" where no part holds it."""
    parts = module.network.parts() if isinstance(module, Potential) else module.parts()
    owner = {id(p): name for name, part in parts.items() for p in part.parameters()}
    return {name: owner.get(id(p), "head") for name, p in module.named_parameters()}


def matching(names: Sequence[str], prefixes: Mapping[str, float]) -> dict[str, float]:
    """Return parameter name -> factor of the longest prefix that fits.

    Raises:
        ConfigError: a prefix fits no parameter.
    """
    found: dict[str, float] = {}
    for prefix in sorted(prefixes, key=len):
        hit = [n for n in names if n == prefix or n.startswith(f"{prefix}.")]
        if not hit:
            tops = sorted({".".join(n.split(".")[:2]) for n in names})
            raise ConfigError(
                f"layers: nothing is called {prefix!r}; there are the parts embedding, body and "
                f"head, and {', '.join(tops)}"
            )
        found |= dict.fromkeys(hit, float(prefixes[prefix]))
    return found


def check_layers(layers: Mapping[str, float], body: nn.Module, *, top: str) -> None:
    """Check that names of layers will be found in a module around a body.

    Args:
        layers: names of parts or parameters, or their beginnings.
        body: the network.
        top: what the module calls it.

    Raises:
        ConfigError: a name fits nothing, or a rate is negative.
    """
    if wrong := {name: rate for name, rate in layers.items() if not rate >= 0}:
        raise ConfigError(f"layers: {wrong}: a part of the learning rate is 0 or more")
    names = [f"{top}.{name}" for name, _ in body.named_parameters()]
    others = ("embedding", "body", "head")
    named = {n: r for n, r in layers.items() if n not in others and n.split(".")[0] != "heads"}
    matching(names, named)


def _comparable(body: nn.Module) -> dict[str, Any]:
    """Return the parameters of a body without its head and its tables of elements."""
    tables = _element_tables(body)
    return {
        name: p
        for name, p in body.named_parameters()
        if name not in tables and not name.startswith("head.")
    }


def _element_tables(body: nn.Module) -> dict[str, ElementEmbedding]:
    return {
        f"{name}.table.weight" if name else "table.weight": module
        for name, module in body.named_modules()
        if isinstance(module, ElementEmbedding)
    }


def _is_row_table(name: str) -> bool:
    return name.endswith("row_of_number")


def _copy_elements(
    given: ElementEmbedding, wanted: ElementEmbedding, elements: Sequence[int]
) -> None:
    for z in elements:
        row, own = int(wanted.row_of_number[z]), int(given.row_of_number[z])
        if row < wanted.table.weight.shape[0] and own < given.table.weight.shape[0]:
            wanted.table.weight[row] = given.table.weight[own]
