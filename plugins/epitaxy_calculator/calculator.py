"""The ASE calculator of a trained potential or of an ensemble of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)

from epitaxy.errors import ArtifactError, OptionError, StructureError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy_calculator.compiled import evaluators
from epitaxy_calculator.evaluate import evaluate, results_of
from epitaxy_calculator.members import Members, load_members
from epitaxy_calculator.skin import VerletList
from epitaxy_calculator.structure import (
    SMALLEST_DISTANCE,
    check_apart,
    check_distances,
    check_positions,
    check_structure,
)

EDGES_ON_CPU, EDGES_ON_GPU = 4_000, 400_000
"""Pairs evaluated at once by `predict`; on a CPU the fastest of `bench/calculator.py`."""
EDGES_COMPILED = 16_000
"""The same for compiled code on a CPU, which writes far less per pair."""


class Frame(NamedTuple):
    """What stays the same while only positions change, checked and converted once.

    Attributes:
        key: copies of numbers, cell and pbc.
        is_bulk: whether it is periodic in three directions.
        tensors: the constant fields of a `GraphBatch`.
    """

    key: tuple[np.ndarray, np.ndarray, np.ndarray]
    is_bulk: bool
    tensors: dict[str, torch.Tensor]


class PotentialCalculator(Calculator):
    """ASE calculator of an artifact: energy, forces, stress, and error bars of an ensemble.

    One evaluation gives all results, so asking for forces after the energy is free. With an
    ensemble the results are means over its members, and `results` also holds their standard
    deviations (root mean square over the members, as `epitaxy.ensemble`): energy_std (eV),
    energies_std (n_atoms,), forces_std (n_atoms, 3) per component, stress_std (6,), and
    energy_members (n_members,).

    The potential is fixed at construction: weights are never changed by the calculator, and
    torch's global settings (default dtype, threads) are left alone.

    Attributes:
        members: the potentials with their device, dtype and cutoff.
        skin: Å beyond the cutoff up to which neighbors are kept.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]
    # The potential sees neither charges nor magnetic moments.
    ignored_changes: ClassVar[set[str]] = {"initial_charges", "initial_magmoms"}

    def __init__(
        self,
        source: Any,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        skin: float = 1.0,
        edges_per_batch: int | None = None,
        compile: bool = False,
    ) -> None:
        """Load a potential.

        Args:
            source: folder of an artifact, a loaded artifact, a trained model, or potentials.
            device: torch device, "cpu" or "cuda".
            dtype: "float32" or "float64"; None keeps that of the weights.
            skin: Å added to the cutoff so that the neighbor list can be reused; 0 turns it off.
            edges_per_batch: how many neighbor pairs `predict` evaluates at once: bounds memory.
                None takes 4,000 on a CPU, where more fall out of its cache (16,000 of compiled
                code), 400,000 on a GPU.
            compile: whether to run compiled code, checked against the plain code at the first
                call, which takes some ten seconds (PaiNN) or a minute (other networks); needs a
                C++ compiler. Worth it for long simulations and many structures.

        Raises:
            ArtifactError: the folder holds no readable artifact.
            CapabilityError: the model has no forces.
            ConfigError: unknown dtype or device.
            OptionError: a negative skin or an empty batch.
        """
        if not (np.isfinite(skin) and skin >= 0):
            raise OptionError(f"skin is {skin} Å; it must be 0 or more (1.0 is usual)")
        if edges_per_batch is not None and edges_per_batch < 1:
            raise OptionError(f"edges_per_batch is {edges_per_batch}; it must be 1 or more")
        super().__init__()
        self.atoms: Atoms | None = None
        self.results: dict[str, Any] = {}
        self.members: Members = load_members(source, device=device, dtype=dtype)
        self.skin = float(skin)
        on_cpu = EDGES_COMPILED if compile else EDGES_ON_CPU
        default = on_cpu if self.members.device.type == "cpu" else EDGES_ON_GPU
        self.edges_per_batch = edges_per_batch or default
        self.compile = bool(compile)
        self._start()

    def _start(self) -> None:
        """Make the parts that belong to this calculator alone."""
        self._list = VerletList(
            self.members.cutoff,
            skin=self.skin,
            dtype="float64" if self.members.dtype == torch.float64 else "float32",
        )
        self._frame: Frame | None = None
        self._evaluators = evaluators(self.members.potentials, compile=self.compile)

    # What ASE asks for

    def _get_name(self) -> str:
        return "epitaxy"

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse to change options: the potential is fixed when it is loaded."""
        if kwargs:
            raise OptionError(
                f"{', '.join(kwargs)}: options of a calculator are fixed when it is loaded; "
                f"load it again with other options"
            )
        return {}

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return what identifies the calculator, for databases and trajectories."""
        return {
            "artifact": str(self.members.path or ""),
            "manifest_sha256": self.members.digest,
            "dtype": str(self.members.dtype).removeprefix("torch."),
            "n_members": len(self.members.potentials),
        }

    def reset(self) -> None:
        """Forget the last structure, its results and its neighbor list."""
        super().reset()
        self._list.clear()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last calculation, as ASE does, in a tenth of the time.

        Args:
            atoms: the structure to compare.
            tol: changes of positions and cell up to this many Å do not count.
        """
        last = self.atoms
        if last is None:
            return list(all_changes)
        changes = []
        if not _is_close(last.positions, atoms.positions, tol):
            changes.append("positions")
        if not np.array_equal(last.numbers, atoms.numbers):
            changes.append("numbers")
        if not _is_close(last.cell.array, atoms.cell.array, tol):
            changes.append("cell")
        if not np.array_equal(last.pbc, atoms.pbc):
            changes.append("pbc")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate energy, forces and, for a bulk structure, stress at once.

        Raises:
            StructureError: the structure is refused; the message says why.
            PropertyNotImplementedError: stress of a structure that is not periodic in three
                directions.
        """
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise StructureError("the calculator has no atoms: attach it with atoms.calc = ...")
        if "stress" in properties and not atoms.pbc.all():
            raise PropertyNotImplementedError(
                f"stress needs a structure that is periodic in three directions; this one has "
                f"pbc={atoms.pbc.tolist()}"
            )
        frame = self._frame_of(atoms)
        graph = self._graph(atoms, frame)
        answers = evaluate(self._evaluators, graph, stress=frame.is_bulk)
        results = results_of(answers, 0, slice(0, len(atoms)), stress=frame.is_bulk)
        self.atoms = atoms.copy()
        self.results = results

    def check(self, atoms: Atoms, *, name: str = "structure") -> None:
        """Refuse a structure that the potential cannot answer for.

        Raises:
            StructureError: the message calls the structure `name` and says why.
        """
        check_structure(atoms, elements=self.members.elements, name=name)

    def _frame_of(self, atoms: Atoms) -> Frame:
        frame = self._frame
        cell = atoms.cell.array
        if (
            frame is not None
            and np.array_equal(frame.key[0], atoms.numbers)
            and np.array_equal(frame.key[1], cell)
            and np.array_equal(frame.key[2], atoms.pbc)
        ):
            check_positions(atoms.positions, name="structure")
            return frame
        self.check(atoms)
        device = self.members.device
        is_bulk = bool(atoms.pbc.all())
        volume = abs(float(np.linalg.det(cell))) if is_bulk else float("nan")
        self._frame = Frame(
            key=(atoms.numbers.copy(), cell.copy(), atoms.pbc.copy()),
            is_bulk=is_bulk,
            tensors={
                "numbers": torch.as_tensor(atoms.numbers, dtype=torch.int64, device=device).clone(),
                "structures": torch.zeros(len(atoms), dtype=torch.int64, device=device),
                "n_atoms_per_structure": torch.tensor([len(atoms)], device=device),
                "volumes": torch.tensor([volume], dtype=self.members.dtype, device=device),
            },
        )
        return self._frame

    def _graph(self, atoms: Atoms, frame: Frame) -> GraphBatch:
        try:
            edges = self._list.edges(atoms.positions, frame.key[1], frame.key[2])
        except StructureError:
            check_apart(atoms, name="structure")
            raise
        check_distances(edges.centers, edges.neighbors, edges.squared_distances)
        device = self.members.device
        return GraphBatch(
            centers=torch.from_numpy(edges.centers).to(device),
            neighbors=torch.from_numpy(edges.neighbors).to(device),
            vectors=torch.from_numpy(edges.vectors).to(device),
            **frame.tensors,
        )

    # Beyond ASE

    @property
    def neighbor_list_counts(self) -> dict[str, int]:
        """How often the neighbor list was built and how often it was reused."""
        return {"builds": self._list.n_builds, "reuses": self._list.n_reuses}

    @property
    def has_uncertainty(self) -> bool:
        """Whether `results` holds standard deviations (an ensemble of two or more)."""
        return len(self.members.potentials) > 1

    def get_uncertainty(self, atoms: Atoms | None = None) -> dict[str, Any]:
        """Return the standard deviations in `results`; empty without an ensemble.

        Args:
            atoms: structure to evaluate; the last one if None.
        """
        self.get_property("energy", atoms)
        return {
            name: copy.copy(value) for name, value in self.results.items() if name.endswith("_std")
        }

    def predict(
        self, structures: Sequence[Atoms], *, names: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the results of many structures, several at a time; order is kept.

        Nothing is cached and no calculator needs to be attached. Small structures run several
        times faster than one by one; memory is bounded by `edges_per_batch`.

        Args:
            structures: any mixture of cells, molecules, slabs and elements.
            names: how an error calls each structure; "structure 0" and so on if empty.

        Returns:
            For each structure what ASE's `results` would hold; "stress" only where it is
            periodic in three directions.

        Raises:
            StructureError: naming the first structure that is refused.
        """
        names = names or [f"structure {index}" for index in range(len(structures))]
        for atoms, name in zip(structures, names, strict=True):
            self.check(atoms, name=name)
        predicted: list[dict[str, Any]] = []
        for batch in self._batches(structures):
            first = len(predicted)
            predicted += self._predict_batch(batch, names=names[first : first + len(batch)])
        return predicted

    def _predict_batch(
        self, batch: Sequence[Atoms], *, names: Sequence[str]
    ) -> list[dict[str, Any]]:
        members = self.members
        try:
            graph = build_batch_from_atoms(
                batch, cutoff=members.cutoff, dtype=members.dtype, device=members.device
            )
        except StructureError:
            for atoms, name in zip(batch, names, strict=True):
                check_apart(atoms, name=name)
            raise
        squared = (graph.vectors * graph.vectors).sum(dim=1)
        if len(squared) and float(squared.min()) < SMALLEST_DISTANCE**2:
            for atoms, name in zip(batch, names, strict=True):
                check_apart(atoms, name=name)
        bulk = [bool(atoms.pbc.all()) for atoms in batch]
        answers = evaluate(self._evaluators, graph, stress=any(bulk))
        ends = np.cumsum([len(atoms) for atoms in batch]).tolist()
        return [
            results_of(answers, index, slice(end - len(atoms), end), stress=is_bulk)
            for index, (atoms, end, is_bulk) in enumerate(zip(batch, ends, bulk, strict=True))
        ]

    def _batches(self, structures: Sequence[Atoms]) -> Iterator[Sequence[Atoms]]:
        start, n_edges = 0, 0.0
        for index, atoms in enumerate(structures):
            more = _expected_edges(atoms, self.members.cutoff)
            if index > start and n_edges + more > self.edges_per_batch:
                yield structures[start:index]
                start, n_edges = index, 0.0
            n_edges += more
        if start < len(structures):
            yield structures[start:]

    # Copies

    def __deepcopy__(self, memo: dict[int, Any]) -> PotentialCalculator:
        """Copy everything but the weights, which no calculator changes."""
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        shared: dict[str, Any] = dict.fromkeys(("_list", "_frame", "_evaluators"))
        shared["members"] = self.members
        for name, value in self.__dict__.items():
            other.__dict__[name] = shared[name] if name in shared else copy.deepcopy(value, memo)
        other._start()
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path of the artifact rather than its weights, where there is one."""
        options = {
            "skin": self.skin,
            "edges_per_batch": self.edges_per_batch,
            "compile": self.compile,
        }
        dtype = str(self.members.dtype).removeprefix("torch.")
        path = self.members.path
        source: Any = self.members.potentials if path is None else str(path)
        arguments = (source, str(self.members.device), dtype, options, self.members.digest)
        return _restore, arguments, {"atoms": self.atoms, "results": self.results}


def _restore(
    source: Any, device: str, dtype: str, options: dict[str, Any], digest: str
) -> PotentialCalculator:
    calculator = PotentialCalculator(source, device=device, dtype=dtype, **options)
    if digest != calculator.members.digest:
        raise ArtifactError(f"{source} has changed since the calculator was pickled; load it anew")
    return calculator


def _is_close(first: np.ndarray, second: np.ndarray, tol: float) -> bool:
    """Whether no element differs by more than `tol`; nan is never close."""
    return first.shape == second.shape and bool((np.abs(first - second) <= tol).all())


def _expected_edges(atoms: Atoms, cutoff: float) -> float:
    """Estimate the number of pairs from the density, for memory only."""
    n_atoms = len(atoms)
    if not atoms.pbc.all():
        return min(n_atoms * (n_atoms - 1.0), 100.0 * n_atoms) + 1.0
    sphere = 4.0 / 3.0 * np.pi * cutoff**3
    return float(n_atoms * n_atoms * sphere / abs(np.linalg.det(atoms.cell.array))) + 1.0
