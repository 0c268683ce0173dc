"""One body with a head per target and per branch: the network behind `epitaxy.property_model`.

A branch is a dataset or a level of theory. Branches share the body; each has heads of its own, or
shares them and is told apart by an embedding (multi-fidelity learning, Chen et al., Nat. Comput.
Sci. 1, 46 (2021)), or both. Heads per dataset are those of HydraGNN (arXiv 2406.12909).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from epitaxy.errors import CapabilityError, OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.heads import (
    LARGEST_LOG_STD,
    SMALLEST_LOG_STD,
    AtomFeatures,
    AtomHead,
    EdgeHead,
    HeadOptions,
    NewHead,
    StructureHead,
    kind_of,
)
from epitaxy.potential import N_NUMBERS, Potential, forces_from, stress_from
from epitaxy.quantities import Quantity, quantity
from epitaxy.references import Compositions, fit_references

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

BranchWith = Literal["heads", "embedding", "both"]


class Predicted(NamedTuple):
    """One target of a batch.

    Attributes:
        mean: (n_structures, *shape) or (n_atoms, *shape) in the unit of the quantity; for a
            claim the logit of its probability.
        std: the same for one standard deviation; None without one.
    """

    mean: Tensor
    std: Tensor | None


class MultitaskNetwork(nn.Module):
    """A body, its heads, and the scales that turn their numbers into quantities.

    Extensive targets and targets per atom are offset by one number per element, others by their
    mean; all are scaled by what is left. Offsets and scales belong to a branch.

    Args:
        body: a network with `features`.
        targets: quantity name -> how it is predicted.
        branches: names of the branches; one, "", if there is nothing to tell apart.
        branch_with: what a branch has of its own.
        learned_weights: whether the weights of the targets in the loss are learnt.
        elements: atomic numbers that the network may be asked about.
    """

    covered: Tensor
    offsets: Tensor
    scales: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        targets: Mapping[str, HeadOptions],
        branches: Sequence[str] = ("",),
        branch_with: BranchWith = "heads",
        learned_weights: bool = False,
        elements: Sequence[int],
    ) -> None:
        super().__init__()
        self.body = body
        self.targets = {name: quantity(name) for name in targets}
        self.options = dict(targets)
        self.branches = tuple(branches)
        self.elements = tuple(sorted(elements))
        n_features, n_own = widths_of(body, self.elements[0])
        new_head = getattr(body, "new_head", None)
        if isinstance(getattr(body, "head", None), nn.Module):
            body.head = nn.Identity()  # its place is taken by the heads below
        self.uses_own = any(
            kind_of(q) == "structure" and targets[name].pooling_of(q, body) == "own"
            for name, q in self.targets.items()
        )
        self.uses_atoms = any(
            kind_of(q) != "structure" or targets[name].pooling_of(q, body) != "own"
            for name, q in self.targets.items()
        )
        own_heads = len(branches) if branch_with != "embedding" else 1
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    _head(q, targets[name], body, (n_features, n_own), new_head)
                    for _ in range(own_heads)
                )
                for name, q in self.targets.items()
            }
        )
        self.levels: nn.Embedding | None = None
        self.own_levels: nn.Embedding | None = None  # of the body's own structure features
        if branch_with != "heads" and len(branches) > 1:
            if self.uses_atoms:
                self.levels = nn.Embedding(len(branches), n_features)
            if self.uses_own:
                self.own_levels = nn.Embedding(len(branches), n_own)
        self.compiled = False  # whether the body's `compiled_features` are asked
        self.log_variances: nn.Parameter | None = None
        if learned_weights:
            self.log_variances = nn.Parameter(torch.zeros(len(targets)))
        covered = torch.zeros(N_NUMBERS, dtype=torch.bool)
        covered[list(self.elements)] = True
        self.register_buffer("covered", covered)
        # Column 0 is the constant offset, the others are per element.
        shape = (len(targets), len(branches))
        self.register_buffer("offsets", torch.zeros((*shape, N_NUMBERS), dtype=torch.float64))
        self.register_buffer("scales", torch.ones(shape, dtype=torch.float64))

    @property
    def cutoff(self) -> float:
        """Cutoff of the body, Å."""
        return float(self.body.cutoff)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return next(p.dtype for p in self.parameters())

    def _apply(self, fn: object, recurse: bool = True) -> MultitaskNetwork:
        """Move or convert, but keep offsets and scales in float64, as `Potential` does."""
        exact = {name: getattr(self, name) for name in ("offsets", "scales")}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            setattr(self, name, value.to(device=getattr(self, name).device))
        return self

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        inner = {name: part for name, part in self.body.parts().items() if name != "head"}
        levels = [one for one in (self.levels, self.own_levels) if one is not None]
        heads = nn.ModuleList([self.heads, *levels])
        return {**inner, "head": heads}

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the features of the body's layers."""
        found: tuple[Tensor, ...] = self.body.features(graph)
        return found

    def forward(
        self,
        graph: GraphBatch,
        branch: Tensor,
        *,
        forces: bool = False,
        stress: bool = False,
    ) -> dict[str, Predicted]:
        """Return every target, and forces and stress as derivatives of the energy if asked.

        Args:
            graph: structures.
            branch: (n_structures,) int64, index into `branches`.
            forces: whether the derivative of the energy is wanted.
            stress: the same for the strain.
        """
        self.check_elements(graph.numbers)
        if not (forces or stress):
            return self._targets(graph, branch)
        with torch.enable_grad():
            vectors = graph.vectors.detach().requires_grad_()
            found = self._targets(graph._replace(vectors=vectors), branch)
            (gradient,) = torch.autograd.grad(
                found["energy"].mean.sum(), vectors, create_graph=self.training
            )
        if forces:
            found["forces"] = Predicted(forces_from(gradient, graph), None)
        if stress:
            found["stress"] = Predicted(stress_from(gradient, graph), None)
        if not self.training:
            found = {n: Predicted(p.mean.detach(), p.std) for n, p in found.items()}
        return found

    def atom_features(self, graph: GraphBatch) -> Tensor:
        """Return the features of the body's last layer, (n_atoms, width)."""
        if self.compiled:
            fast: Tensor = self.body.compiled_features(graph)
            return fast
        return self.features(graph)[-1]

    def _targets(self, graph: GraphBatch, branch: Tensor) -> dict[str, Predicted]:
        own = self.body.structure_features(graph) if self.uses_own else None
        if own is not None and self.own_levels is not None:
            own = own + self.own_levels(branch)
        # The body is not run twice for a readout of its own.
        atoms = self.atom_features(graph) if self.uses_atoms else None
        if atoms is not None and self.levels is not None:
            atoms = atoms + self.levels(branch)[graph.structures]
        features = AtomFeatures(atoms, own, graph, self.cutoff)
        found: dict[str, Predicted] = {}
        for index, (name, rule) in enumerate(self.targets.items()):
            per_atom = rule.per == "atom"
            rows = branch[graph.structures] if per_atom else branch
            numbers = self._numbers(self.heads[name], features, rows)
            found[name] = self._scaled(index, name, rule, numbers, rows, branch, graph)
        return found

    @staticmethod
    def _numbers(heads: nn.Module, features: AtomFeatures, rows: Tensor) -> Tensor:
        """Return the heads' numbers (n_rows, n_out), each row from the head of its branch."""
        assert isinstance(heads, nn.ModuleList)
        if len(heads) == 1:
            first: Tensor = heads[0](features)
            return first
        present = torch.unique(rows).tolist()
        chosen: Tensor | None = None
        for k in present:
            numbers = heads[k](features)
            chosen = (
                numbers if chosen is None else torch.where((rows == k)[:, None], numbers, chosen)
            )
        assert chosen is not None
        return chosen

    def _scaled(
        self,
        index: int,
        name: str,
        rule: Quantity,
        numbers: Tensor,
        rows: Tensor,
        branch: Tensor,
        graph: GraphBatch,
    ) -> Predicted:
        options = self.options[name]
        likelihood = options.likelihood_of(rule)
        offsets, scale = self.offsets[index], self.scales[index][rows]
        shape = (numbers.shape[0], *rule.shape)
        log_std: Tensor | None = None
        if likelihood == "gaussian":
            numbers, log_std = numbers.chunk(2, dim=-1)
        mean = numbers.reshape(shape).to(torch.float64)
        scale = scale.reshape(-1, *[1] * len(rule.shape))
        mean = mean * scale
        if likelihood != "classes" and kind_of(rule) in ("structure", "atoms"):
            if is_by_element(rule):
                each = offsets[branch[graph.structures], graph.numbers]  # (n_atoms,)
                if rule.per != "atom":
                    each = each.new_zeros(graph.n_structures).index_add(0, graph.structures, each)
            else:
                each = offsets[rows, 0]
            mean = mean + each.reshape(-1, *[1] * len(rule.shape))
        std = None
        if log_std is not None:
            log_std = log_std.reshape(shape).clamp(SMALLEST_LOG_STD, LARGEST_LOG_STD)
            std = torch.exp(log_std.to(torch.float64)) * scale
        dtype = torch.float64 if rule.extensive else numbers.dtype
        return Predicted(mean.to(dtype), None if std is None else std.to(dtype))

    def check_elements(self, numbers: Tensor) -> None:
        """Raise `CapabilityError` if an atomic number is not covered, naming the element."""
        if bool(self.covered[numbers].all()):
            return
        from ase.data import chemical_symbols

        unknown = sorted(set(numbers.tolist()) - set(self.elements))
        raise CapabilityError(
            f"elements {', '.join(chemical_symbols[z] for z in unknown)} are not covered: the "
            f"model was trained on {', '.join(chemical_symbols[z] for z in self.elements)}"
        )

    def potential(self, branch: int) -> Potential:
        """Return the energy of one branch as a potential, sharing the weights.

        Raises:
            CapabilityError: the energy is not among the targets.
        """
        if "energy" not in self.targets:
            raise CapabilityError(
                f"the model predicts {', '.join(self.targets)}, no energy: it has no potential"
            )
        index = list(self.targets).index("energy")
        offsets = self.offsets[index, branch]
        return Potential(
            _EnergyOfBranch(self, branch),
            elements=self.elements,
            reference_energies={z: float(offsets[z]) for z in self.elements},
            scale=float(self.scales[index, branch]),
        )

    def fit_scales(self, train: Dataset, branch: np.ndarray) -> None:
        """Set offsets and scales from the labels of a training set.

        Args:
            train: structures with labels.
            branch: (n,) int, index into `branches`.
        """
        for index, (name, rule) in enumerate(self.targets.items()):
            if name not in train.targets or self.options[name].likelihood_of(rule) == "classes":
                continue
            for k in range(len(self.branches)):
                rows = np.flatnonzero((branch == k) & train.target(name)[1])
                if len(rows):
                    offset, scale = offset_and_scale(train, rows, rule)
                    self.offsets[index, k] = torch.from_numpy(offset)
                    self.scales[index, k] = scale


class _EnergyOfBranch(nn.Module):
    """The atomic energies of one branch: a network as `epitaxy.protocols.Network`."""

    def __init__(self, network: MultitaskNetwork, branch: int) -> None:
        super().__init__()
        self.network = network
        self.branch = branch
        self.cutoff = network.cutoff

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return (n_atoms,) in units of the branch's scale."""
        network = self.network
        atoms = network.body.features(graph)[-1]
        if network.levels is not None:
            atoms = atoms + network.levels.weight[self.branch]
        heads = network.heads["energy"]
        assert isinstance(heads, nn.ModuleList)
        head = heads[self.branch if len(heads) > 1 else 0]
        energies: Tensor = head.perceptron(atoms)[:, 0]
        return energies

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the features of the body's layers."""
        return self.network.features(graph)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return embedding, body and head."""
        return self.network.parts()


def is_by_element(rule: Quantity) -> bool:
    """Whether a quantity is offset by one number per element."""
    return (rule.extensive or rule.per == "atom") and not rule.shape


def offset_and_scale(train: Dataset, rows: np.ndarray, rule: Quantity) -> tuple[np.ndarray, float]:
    """Return the offsets (119,), constant first, and the scale of what is left.

    Extensive targets: least squares on the value per atom (`epitaxy.references`); for the energy
    the scale is the root mean square force component times 1 Å, where there are forces.
    """
    values, _ = train.target(rule.name, rows)
    offsets = np.zeros(N_NUMBERS)
    if rule.shape:
        spread = float(np.sqrt(np.mean(values**2)))
    elif rule.per == "atom":
        numbers = train.gather(rows).numbers
        counts = np.bincount(numbers, minlength=N_NUMBERS)[:N_NUMBERS]
        sums = np.bincount(numbers, values, minlength=N_NUMBERS)[:N_NUMBERS]
        offsets = sums / np.maximum(counts, 1)
        spread = float(np.std(values - offsets[numbers]))
    elif rule.extensive:
        compositions = Compositions.of(train, rows)
        fitted = fit_references(compositions, values / compositions.n_atoms).energies
        for z, energy in fitted.items():
            offsets[int(z)] = energy
        structures = train.gather(rows)
        first = np.cumsum(structures.n_atoms) - structures.n_atoms
        left = values - np.add.reduceat(offsets[structures.numbers], first)
        spread = float(np.std(left / structures.n_atoms))
        if rule.name == "energy" and "forces" in train.targets:
            forces, known = train.target("forces", rows)
            components = forces[np.repeat(known, structures.n_atoms)]
            spread = float(np.sqrt(np.mean(components**2))) if components.size else spread
    else:
        offsets[0] = values.mean()
        spread = float(np.std(values))
    return offsets, spread if spread > 0 else 1.0


def widths_of(body: nn.Module, element: int) -> tuple[int, int]:
    """Return the width of a body's last atom features and of its own structure features.

    Raises:
        OptionError: the body has no `features`.
    """
    if not hasattr(body, "features"):
        raise OptionError(
            f"body: {type(body).__name__} has no features(graph), so no head can read it"
        )
    p = next(body.parameters())
    place = {"device": p.device}
    reach = 0.5 * float(body.cutoff)
    graph = GraphBatch(
        numbers=torch.full((2,), element, **place),
        centers=torch.tensor([0, 1], **place),
        neighbors=torch.tensor([1, 0], **place),
        vectors=torch.tensor([[reach, 0, 0], [-reach, 0, 0]], dtype=p.dtype, **place),
        structures=torch.zeros(2, dtype=torch.int64, **place),
        n_atoms_per_structure=torch.tensor([2], **place),
        volumes=torch.ones(1, dtype=p.dtype, **place),
    )
    with torch.no_grad():
        n_features = int(body.features(graph)[-1].shape[1])
        own = getattr(body, "structure_features", None)
        return n_features, int(own(graph).shape[1]) if own is not None else 0


def _head(
    rule: Quantity,
    options: HeadOptions,
    body: nn.Module,
    widths: tuple[int, int],
    new_head: NewHead | None,
) -> nn.Module:
    n_features, n_own = widths
    kind = kind_of(rule)
    likelihood = options.likelihood_of(rule)
    if kind in ("vector", "tensor"):
        if likelihood != "point":
            raise OptionError(f"{rule.name}: only the likelihood 'point' is there for it")
        return EdgeHead(
            n_features,
            kind=kind,
            per_atom=rule.per == "atom",
            extensive=rule.name in ("dipole", "polarizability"),
            options=options,
        )
    n_out = int(np.prod(rule.shape)) if rule.shape else 1
    n_out *= 2 if likelihood == "gaussian" else 1
    if kind == "atoms":
        return AtomHead(n_features, n_out, options=options)
    pooling = options.pooling_of(rule, body)
    if rule.extensive and pooling != "sum":
        raise OptionError(f"{rule.name} is extensive: its pooling is 'sum', not {pooling!r}")
    if rule.extensive and likelihood == "gaussian":
        raise OptionError(
            f"{rule.name} is extensive: a sum over atoms has no 'gaussian' likelihood here; train "
            f"an ensemble for its error bar"
        )
    return StructureHead(
        n_features, n_own, n_out, options=options, pooling=pooling, new_head=new_head
    )
