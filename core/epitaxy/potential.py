"""A network, reference energies and a scale: energy, forces and stress of structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from epitaxy.errors import CapabilityError, TrainingError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.references import Compositions, fit_references

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

N_NUMBERS = 119
"""Length of a table indexed by atomic number (oganesson is 118)."""


class Outputs(NamedTuple):
    """What a potential says about a batch.

    Attributes:
        energy: (n_structures,) float64, eV.
        energies: (n_atoms,) float64, eV, the energy of each atom; they sum to `energy`.
        forces: (n_atoms, 3), eV/Å, or None if not asked for.
        stress: (n_structures, 6), eV/Å^3, Voigt order xx yy zz yz xz xy, ASE sign (positive
            when the energy grows on expansion); nan where a structure is not periodic in
            three directions; None if not asked for.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    stress: Tensor | None


class Potential(nn.Module):
    """Energies from a network, with forces and stress as their exact derivatives.

    E = sum over atoms i of reference[Z_i] + scale * network(graph)_i

    Args:
        network: see `epitaxy.protocols.Network`.
        elements: atomic numbers that it may be asked about.
        reference_energies: eV per atom, in the order of `elements` or by atomic number.
        scale: eV, the unit of the network's output.
    """

    reference_energies: Tensor
    scale: Tensor
    covered: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        elements: Sequence[int] | frozenset[int],
        reference_energies: Sequence[float] | Mapping[int, float],
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.elements = tuple(sorted(int(z) for z in elements))
        if isinstance(reference_energies, Mapping):
            by_number = {int(z): float(reference_energies[z]) for z in self.elements}
        else:
            by_number = dict(
                zip((int(z) for z in elements), map(float, reference_energies), strict=True)
            )
        table = torch.zeros(N_NUMBERS, dtype=torch.float64)
        covered = torch.zeros(N_NUMBERS, dtype=torch.bool)
        for z, energy in by_number.items():
            table[z] = energy
            covered[z] = True
        self.register_buffer("reference_energies", table)
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))
        self.register_buffer("covered", covered, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Potential:
        """Move or convert, but keep reference energies and scale in float64.

        A total energy of thousands of eV leaves float32 only meV.
        """
        exact = {name: getattr(self, name) for name in ("reference_energies", "scale")}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            setattr(self, name, value.to(device=getattr(self, name).device))
        return self

    @property
    def cutoff(self) -> float:
        """Cutoff of the network, Å."""
        return float(self.network.cutoff)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network's parameters: build graphs with it."""
        return next(
            (p.dtype for p in self.network.parameters() if p.is_floating_point()), torch.float32
        )

    def forward(
        self,
        graph: GraphBatch,
        *,
        forces: bool = True,
        stress: bool = False,
        compiled: bool = False,
    ) -> Outputs:
        """Return energies and, on request, forces and stress.

        In training mode the results can be differentiated with respect to the parameters; see
        `epitaxy.graphs.evaluator` for the fastest way to do so.

        Args:
            graph: structures.
            forces: whether to compute forces.
            stress: whether to compute stress.
            compiled: whether to ask the network's ``compiled`` method, if it has one.

        Raises:
            CapabilityError: the graph holds elements that the potential does not cover.
        """
        self.check_elements(graph.numbers)
        if not (forces or stress):
            with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
                energies = self.atomic_energies(graph, compiled=compiled)
            return Outputs(sum_per_structure(energies, graph), energies, None, None)
        with torch.enable_grad():
            vectors = graph.vectors.detach().requires_grad_()
            energies = self.atomic_energies(graph._replace(vectors=vectors), compiled=compiled)
            (gradient,) = torch.autograd.grad(
                energies.sum(),
                vectors,
                create_graph=self.training,
                allow_unused=True,
                materialize_grads=True,
            )
        if not self.training:
            energies = energies.detach()
        return Outputs(
            sum_per_structure(energies, graph),
            energies,
            forces_from(gradient, graph) if forces else None,
            stress_from(gradient, graph) if stress else None,
        )

    def atomic_energies(self, graph: GraphBatch, *, compiled: bool = False) -> Tensor:
        """Return the energy of each atom, (n_atoms,) float64, eV."""
        network = getattr(self.network, "compiled", self.network) if compiled else self.network
        scaled: Tensor = self.scale * network(graph).to(torch.float64)
        return scaled + self.reference_energies[graph.numbers]

    def energy_and_gradient(self, graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return energy, atomic energies and the gradient of the energy by edge vector.

        The gradient is functional (`torch.func`), so the whole may stand inside
        `torch.compile` and be differentiated once more by the parameters. Elements are not
        checked here.

        Returns:
            energy (n_structures,) float64 eV; energies (n_atoms,) float64 eV; gradient
            (n_edges, 3) eV/Å.
        """

        def total(vectors: Tensor) -> tuple[Tensor, Tensor]:
            energies = self.atomic_energies(graph._replace(vectors=vectors))
            return energies.sum(), energies

        gradient, energies = torch.func.grad(total, has_aux=True)(graph.vectors)
        return sum_per_structure(energies, graph), energies, gradient

    def check_elements(self, numbers: Tensor) -> None:
        """Raise `CapabilityError` if an atomic number is not covered, naming the element."""
        if bool(self.covered[numbers].all()):
            return
        from ase.data import chemical_symbols

        unknown = sorted(set(numbers.tolist()) - set(self.elements))
        raise CapabilityError(
            f"elements {', '.join(chemical_symbols[z] for z in unknown)} are not covered: the "
            f"potential was trained on {', '.join(chemical_symbols[z] for z in self.elements)}; "
            f"use one that was trained on all of them"
        )


def sum_per_structure(energies: Tensor, graph: GraphBatch) -> Tensor:
    """Sum values per atom (n_atoms,) to values per structure (n_structures,)."""
    return energies.new_zeros(graph.n_structures).index_add(0, graph.structures, energies)


def forces_from(gradient: Tensor, graph: GraphBatch) -> Tensor:
    """Return forces (n_atoms, 3), eV/Å, from dE/dvector (n_edges, 3), eV/Å.

    A vector reaches from its center to its neighbor: moving the center shortens it.
    """
    zeros = gradient.new_zeros((graph.numbers.shape[0], 3))
    return zeros.index_add(0, graph.centers, gradient).index_add(0, graph.neighbors, -gradient)


def stress_from(gradient: Tensor, graph: GraphBatch) -> Tensor:
    """Return stress (n_structures, 6), eV/Å^3, from dE/dvector (n_edges, 3), eV/Å.

    A homogeneous strain eps turns every vector v into (1 + eps) v, so that
    stress = (1 / V) dE/deps = (1 / V) sum of v (x) dE/dv, made symmetric.
    """
    v, g = graph.vectors, gradient
    x, y, z = v.unbind(dim=-1)
    gx, gy, gz = g.unbind(dim=-1)
    virial = torch.stack(
        [
            x * gx,
            y * gy,
            z * gz,
            0.5 * (y * gz + z * gy),
            0.5 * (x * gz + z * gx),
            0.5 * (x * gy + y * gx),
        ],
        dim=-1,
    )
    structure_of_edge = graph.structures[graph.centers]
    total = virial.new_zeros((graph.n_structures, 6)).index_add(0, structure_of_edge, virial)
    periodic = graph.volumes.isfinite()
    # Dividing by nan would send nan back into the gradient of a loss that leaves it out.
    stress = total / torch.where(periodic, graph.volumes, 1.0).unsqueeze(-1)
    return torch.where(periodic.unsqueeze(-1), stress, torch.nan)


def fit_reference_energies(train: Dataset) -> dict[int, float]:
    """Return the energy of each element, eV per atom, that explains the energies best.

    Least squares on energies per atom, each structure counting the same; where the
    compositions do not determine the elements (for example all structures are GaN), the
    solution of least norm is taken.

    Raises:
        TrainingError: no structure has an energy.
    """
    rows = np.zeros(0, dtype=np.int64)
    if "energy" in train.targets:
        energies, known = train.target("energy")
        rows = np.flatnonzero(known)
    if len(rows) == 0:
        raise TrainingError(
            f"none of the {len(train)} training structures has an energy: reference energies "
            f"need at least one"
        )
    compositions = Compositions.of(train, rows)
    fitted = fit_references(compositions, energies[rows] / compositions.n_atoms).energies
    # Elements that occur only where the energy is unknown are covered, with no energy of their own.
    return {int(z): fitted.get(int(z), 0.0) for z in sorted(train.elements)}


def fit_energy_scale(train: Dataset, reference_energies: Mapping[int, float]) -> float:
    """Return the natural unit of energy of a training set, eV.

    The root mean square force component times 1 Å, so that scaled forces are of order one;
    where there are no forces, the standard deviation of the energies per atom after
    subtraction of the references; 1 eV if both vanish.
    """
    if "forces" in train.targets:
        forces, known = train.target("forces")
        components = forces[np.repeat(known, train.n_atoms)]
        scale = float(np.sqrt(np.mean(components**2))) if len(components) else 0.0
        if scale > 0:
            return scale
    energies, known = train.target("energy")
    rows = np.flatnonzero(known)
    structures = train.gather(rows)
    table = np.zeros(N_NUMBERS)
    for z, energy in reference_energies.items():
        table[z] = energy
    ends = np.cumsum(structures.n_atoms)
    sums = np.add.reduceat(table[structures.numbers], ends - structures.n_atoms)
    residual = (energies[rows] - sums) / structures.n_atoms
    spread = float(np.std(residual))
    return spread if spread > 0 else 1.0
