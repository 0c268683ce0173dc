"""Graphs and labels of a dataset, ready to be taken batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.builder import build_batch

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

CACHE_BYTES = 2_000_000_000  # graphs of larger sets are built anew for each batch
_BYTES_PER_EDGE = 4 + 4 + 3 * 8
EDGES_AT_ONCE = 60_000  # of a batch that is only predicted: about 1 GB for a network of width 64
EDGES_AT_ONCE_ON_GPU = 500_000
_ATOMS_PER_PIECE = 20_000  # graphs are built in pieces of about this size


class Labels(NamedTuple):
    """The labels of a batch; where a mask is False the value is 0 and means nothing.

    Attributes:
        n_atoms: (n_structures,) atoms per structure, float64.
        energy: (n_structures,) float64, eV.
        has_energy: (n_structures,) bool.
        forces: (n_atoms, 3), eV/Å.
        has_forces: (n_atoms,) bool.
        stress: (n_structures, 6), Voigt, eV/Å^3.
        has_stress: (n_structures,) bool.
    """

    n_atoms: Tensor
    energy: Tensor
    has_energy: Tensor
    forces: Tensor
    has_forces: Tensor
    stress: Tensor
    has_stress: Tensor


class Graphs:
    """All graphs of a dataset on the device, taken by row numbers.

    Graphs are built once and kept if they fit into `cache_bytes`; a batch is then a gather of
    a few arrays. Otherwise each batch is built when it is asked for.

    Args:
        dataset: structures.
        cutoff: reach of the neighbor lists, Å; 0 for no edges, as in `build_batch`.
        dtype: floating type of vectors and volumes.
        device: where batches live.
        cache_bytes: memory that graphs may take.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        cutoff: float,
        dtype: torch.dtype,
        device: torch.device,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.dataset = dataset
        self._cutoff, self._dtype, self._device = cutoff, dtype, device
        self._cached: _GraphCache | None = None
        edges = estimate_edges(dataset, cutoff=cutoff)
        if len(dataset) and edges.sum() * _BYTES_PER_EDGE <= cache_bytes:
            self._cached = _GraphCache(dataset, cutoff=cutoff, dtype=dtype, device=device)

    def batch(self, rows: np.ndarray) -> GraphBatch:
        """Return the graphs of some structures, in the order of `rows`.

        Volumes are 1 where there is none: nan would spoil the gradient of the others.
        """
        if self._cached is not None:
            graph = self._cached.batch(torch.as_tensor(rows, device=self._device))
        else:
            graph = build_batch(
                self.dataset, rows, cutoff=self._cutoff, dtype=self._dtype, device=self._device
            )
        return graph._replace(volumes=torch.nan_to_num(graph.volumes, nan=1.0))

    def pieces(self) -> list[np.ndarray]:
        """Return all rows in pieces that can be predicted at once."""
        if not len(self.dataset):
            return []
        return pack_rows(estimate_edges(self.dataset, cutoff=self._cutoff), EDGES_AT_ONCE)


class LabelledGraphs:
    """All graphs and labels of a dataset on the device, taken by row numbers.

    Args:
        dataset: structures and labels.
        cutoff: reach of the neighbor lists, Å.
        dtype: floating type of vectors, forces and stress.
        device: where batches live.
        cache_bytes: memory that graphs may take.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        cutoff: float,
        dtype: torch.dtype,
        device: torch.device,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.dataset = dataset
        self._dtype, self._device = dtype, device
        n_atoms = torch.from_numpy(np.array(dataset.n_atoms, dtype=np.int64))
        self._n_atoms = n_atoms.to(device)
        self._atom_ptr = _pointers(n_atoms).to(device)
        self._labels = self._read_labels()
        self._graphs = Graphs(
            dataset, cutoff=cutoff, dtype=dtype, device=device, cache_bytes=cache_bytes
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def pieces(self) -> list[np.ndarray]:
        """Return all rows in pieces that can be predicted at once."""
        return self._graphs.pieces()

    def labelled(self, name: str) -> int:
        """Return how many structures carry the label `name`."""
        return int(self.dataset.target(name)[1].sum()) if name in self.dataset.targets else 0

    def _read_labels(self) -> Labels:
        n_structures, n_atoms = len(self.dataset), int(self._n_atoms.sum())
        values: dict[str, Tensor] = {}
        for name, shape, dtype in (
            ("energy", (n_structures,), torch.float64),
            ("forces", (n_atoms, 3), self._dtype),
            ("stress", (n_structures, 6), self._dtype),
        ):
            if name in self.dataset.targets:
                array, mask = self.dataset.target(name)
                values[name] = torch.as_tensor(np.array(array), dtype=dtype)
                values[f"has_{name}"] = torch.as_tensor(np.array(mask))
            else:
                values[name] = torch.zeros(shape, dtype=dtype)
                values[f"has_{name}"] = torch.zeros(n_structures, dtype=torch.bool)
        values["has_forces"] = values["has_forces"].repeat_interleave(self._n_atoms.cpu())
        values["n_atoms"] = self._n_atoms.to(torch.float64)
        return Labels(**{name: tensor.to(self._device) for name, tensor in values.items()})

    def batch(self, rows: np.ndarray) -> tuple[GraphBatch, Labels]:
        """Return the graph and the labels of some structures, in the order of `rows`."""
        index = torch.as_tensor(rows, device=self._device)
        atoms = ragged_index(self._atom_ptr, index)
        labels = self._labels
        taken = Labels(
            labels.n_atoms[index],
            labels.energy[index],
            labels.has_energy[index],
            labels.forces[atoms],
            labels.has_forces[atoms],
            labels.stress[index],
            labels.has_stress[index],
        )
        return self._graphs.batch(rows), taken


class _GraphCache:
    """The graphs of a whole dataset in a few flat arrays, indices counted per structure."""

    def __init__(
        self, dataset: Dataset, *, cutoff: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        pieces: list[GraphBatch] = []
        n_edges: list[Tensor] = []
        for rows in pack_rows(np.asarray(dataset.n_atoms), _ATOMS_PER_PIECE):
            piece = build_batch(dataset, rows, cutoff=cutoff, dtype=dtype)
            of_edge = piece.structures[piece.centers]
            first = _pointers(piece.n_atoms_per_structure)[of_edge]
            n_edges.append(torch.bincount(of_edge, minlength=piece.n_structures))
            pieces.append(
                piece._replace(
                    centers=(piece.centers - first).to(torch.int32),
                    neighbors=(piece.neighbors - first).to(torch.int32),
                )
            )

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(piece, name) for piece in pieces]).to(device)

        self._numbers = joined("numbers")
        self._centers = joined("centers")
        self._neighbors = joined("neighbors")
        self._vectors = joined("vectors")
        self._volumes = joined("volumes")
        self._amounts: Tensor | None = None
        if any(piece.amounts is not None for piece in pieces):
            each = [
                torch.ones_like(piece.numbers, dtype=torch.float64)
                if piece.amounts is None
                else piece.amounts
                for piece in pieces
            ]
            self._amounts = torch.cat(each).to(device)
        self._n_atoms = joined("n_atoms_per_structure")
        self._atom_ptr = _pointers(self._n_atoms)
        self._n_edges = torch.cat(n_edges).to(device)
        self._edge_ptr = _pointers(self._n_edges)

    def batch(self, index: Tensor) -> GraphBatch:
        n_atoms = self._n_atoms[index]
        atoms = ragged_index(self._atom_ptr, index)
        edges = ragged_index(self._edge_ptr, index)
        offsets = _pointers(n_atoms)[:-1]
        shift = torch.repeat_interleave(
            offsets, self._n_edges[index], output_size=edges.shape[0]
        )  # (n_edges,)
        return GraphBatch(
            numbers=self._numbers[atoms],
            centers=self._centers[edges] + shift,
            neighbors=self._neighbors[edges] + shift,
            vectors=self._vectors[edges],
            structures=torch.repeat_interleave(n_atoms, output_size=atoms.shape[0]),
            n_atoms_per_structure=n_atoms,
            volumes=self._volumes[index],
            amounts=None if self._amounts is None else self._amounts[atoms],
        )


def _pointers(counts: Tensor) -> Tensor:
    """Return (n + 1,) cumulative counts, beginning with 0."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def ragged_index(pointers: Tensor, rows: Tensor) -> Tensor:
    """Return the positions of all items of some rows of a ragged array, in order.

    Args:
        pointers: (n + 1,) where each row begins.
        rows: (k,) which rows.
    """
    starts = pointers[rows]
    counts = pointers[rows + 1] - starts
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    shift = torch.repeat_interleave(starts - ends + counts, counts, output_size=total)
    return shift + torch.arange(total, device=pointers.device)


def estimate_edges(dataset: Dataset, *, cutoff: float) -> np.ndarray:
    """Return (n,) about how many directed edges each structure has, from its mean density.

    Structures that are not periodic in all directions are counted as complete graphs up to
    the density of a close-packed metal (0.09 atoms/Å^3, that of copper). Without a cutoff, where
    there are no edges, atoms are counted.
    """
    if cutoff == 0:
        return np.asarray(dataset.n_atoms, dtype=np.float64)
    structures = dataset.gather()
    n_atoms = np.asarray(structures.n_atoms, dtype=np.float64)
    sphere = 4.0 / 3.0 * np.pi * cutoff**3
    volumes = np.abs(np.linalg.det(np.asarray(structures.cells, dtype=np.float64)))
    periodic = np.asarray(structures.pbc).all(axis=1) & (volumes > 0)
    density = n_atoms / np.where(periodic, volumes, np.inf)
    cluster = np.minimum(n_atoms - 1, 0.09 * sphere)
    return np.asarray(n_atoms * np.where(periodic, density * sphere, cluster))


def pack_rows(sizes: np.ndarray, budget: float) -> list[np.ndarray]:
    """Return consecutive rows in groups whose sizes add up to at most `budget`.

    A row that alone exceeds the budget is a group of its own.
    """
    groups: list[np.ndarray] = []
    start, filled = 0, 0.0
    for row, size in enumerate(sizes.tolist()):
        if row > start and filled + size > budget:
            groups.append(np.arange(start, row))
            start, filled = row, 0.0
        filled += size
    if len(sizes):
        groups.append(np.arange(start, len(sizes)))
    return groups


def graphs_of(
    dataset: Dataset, *, cutoff: float, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[np.ndarray, GraphBatch]]:
    """Yield consecutive rows and their graphs, to be predicted in bounded memory.

    Args:
        dataset: structures.
        cutoff: reach of the neighbor lists, Å; 0 for no edges.
        dtype: floating type of vectors and volumes.
        device: where the graphs live; a GPU takes more at once.
    """
    at_once = EDGES_AT_ONCE_ON_GPU if device.type == "cuda" else EDGES_AT_ONCE
    for rows in pack_rows(estimate_edges(dataset, cutoff=cutoff), at_once):
        yield rows, build_batch(dataset, rows, cutoff=cutoff, dtype=dtype, device=device)


def names_of(dataset: Dataset, rows: Sequence[int] | np.ndarray, *, most: int = 8) -> str:
    """Return the ids of some structures for a message."""
    ids = [str(dataset.ids[int(row)]) for row in rows[:most]]
    return ", ".join(ids) + (f" and {len(rows) - most} more" if len(rows) > most else "")
