"""MEGNet: edges, atoms and a global state update each other.

Chen, Ye, Zuo, Zheng, Ong, Chem. Mater. 31, 3564 (2019), arXiv 1812.05055, with the sizes of its
TensorFlow code, whose trained weights can be read (`epitaxy_graphs.megnet_keras`).

The convention of the edges: in phi_e the receiving atom comes first, and edges are averaged at the
receiving atom. Weights that were trained the other way round give wrong numbers for compounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.graphs.radial import distances
from epitaxy.heads import Set2Set, mean_pooling
from epitaxy_graphs.schnet import ShiftedSoftplus

GAUSSIAN_WIDTH = 0.5  # Å


class Levels(NamedTuple):
    """What each depth of the network knows about a batch.

    Attributes:
        atoms: V0 (the embedding), V1 ... Vn (after each block), each (n_atoms, width).
        states: u0 ... un, each (n_structures, width).
        atom_readout: v_r, set2set over the atoms, (n_structures, 2 n_hidden).
        structures: f, all that the head reads, (n_structures, 4 n_hidden + width).
    """

    atoms: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    atom_readout: Tensor
    structures: Tensor


class MEGNet(nn.Module):
    """A body with a global state, and set2set over atoms and edges as its readout.

    Args:
        embedding_width: features of an element.
        hidden: widths inside a block: first, and second as well as last.
        n_blocks: blocks.
        n_gaussians: Gaussians of the distance, width 0.5 Å.
        longest: Å, center of the last Gaussian.
        n_readout: hidden width of set2set.
        n_passes: steps of set2set.
        cutoff: largest distance of neighbors, Å.
        n_states: numbers of the global state; they are 0 where nothing is known.
        elements: atomic numbers that get an embedding; all 118 if None.

    Raises:
        OptionError: an option is out of range.
    """

    has_forces: ClassVar[bool] = False  # the Gaussians end at the cutoff in a step
    gives_energies: ClassVar[bool] = False
    untrained_parameters: ClassVar[tuple[str, ...]] = ("blocks.0.dense.2.0.weight",)  # state is 0
    centers: Tensor

    def __init__(
        self,
        *,
        embedding_width: int = 16,
        hidden: tuple[int, int] = (64, 32),
        n_blocks: int = 3,
        n_gaussians: int = 100,
        longest: float = 6.0,
        n_readout: int = 16,
        n_passes: int = 3,
        cutoff: float = 5.0,
        n_states: int = 2,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        sizes = (embedding_width, *hidden, n_blocks, n_readout, n_passes, n_states)
        if min(sizes) < 1 or n_gaussians < 2 or not cutoff > 0:
            raise OptionError(
                f"embedding_width, hidden, n_blocks, n_readout, n_passes, n_states = {sizes}, "
                f"n_gaussians={n_gaussians}, cutoff={cutoff}: expected 1 or more (2 or more "
                f"Gaussians) and a cutoff above 0"
            )
        self.cutoff, self.n_states = cutoff, n_states
        wide, narrow = hidden
        self.hidden, self.n_readout = hidden, n_readout
        grid = torch.linspace(0.0, longest, n_gaussians, dtype=torch.float64)
        self.register_buffer("centers", grid, persistent=False)
        self.embedding = ElementEmbedding(embedding_width, elements)
        inputs = [(n_gaussians, embedding_width, n_states)] + [(narrow,) * 3] * (n_blocks - 1)
        self.blocks = nn.ModuleList(Block(n, wide, narrow) for n in inputs)
        self.read_atoms = Set2Set(narrow, n_steps=n_passes, n_hidden=n_readout)
        self.read_edges = Set2Set(narrow, n_steps=n_passes, n_hidden=n_readout)
        self.head = self.new_head(1)

    def new_head(self, n_out: int) -> nn.Module:
        """Return the layers from f to (n_structures, n_out)."""
        narrow, small = self.hidden[1], self.n_readout
        return nn.Sequential(
            nn.Linear(4 * small + narrow, narrow),
            ShiftedSoftplus(),
            nn.Linear(narrow, small),
            ShiftedSoftplus(),
            nn.Linear(small, n_out),
        )

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return one number per structure, (n_structures,)."""
        numbers: Tensor = self.head(self.structure_features(graph))
        return numbers.squeeze(-1)

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return the atom features V0 (n_atoms, embedding_width), V1 ... (n_atoms, narrow)."""
        return self._run(graph)[0]

    def structure_features(self, graph: GraphBatch) -> Tensor:
        """Return f, (n_structures, 4 n_readout + narrow)."""
        return self.levels(graph).structures

    def levels(self, graph: GraphBatch) -> Levels:
        """Return everything that can be transferred to another model."""
        atoms, e, states = self._run(graph)
        n = graph.n_structures
        v_r = self.read_atoms(atoms[-1], graph.structures, n)
        e_r = self.read_edges(e, graph.structures[graph.centers], n)
        return Levels(atoms, states, v_r, torch.cat([v_r, e_r, states[-1]], dim=-1))

    def _run(self, graph: GraphBatch) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
        dtype = graph.vectors.dtype
        d = distances(graph.vectors).unsqueeze(-1)
        e = torch.exp(-(((d - self.centers.to(dtype)) / GAUSSIAN_WIDTH) ** 2))
        v = self.embedding(graph.numbers)
        u = v.new_zeros((graph.n_structures, self.n_states))
        atoms, states = [v], [u]
        for block in self.blocks:
            e, v, u = block(e, v, u, graph)
            atoms.append(v)
            states.append(u)
        return tuple(atoms), e, tuple(states)

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what transfer learning freezes: embedding, body and head."""
        body = nn.ModuleList([self.blocks, self.read_atoms, self.read_edges])
        return {"embedding": self.embedding, "body": body, "head": self.head}


class Block(nn.Module):
    """Two dense layers on edges, atoms and state, then eqs. 1-3, with the block's input added.

    e' = phi_e(v_center, v_neighbor, e, u);  v' = phi_v(mean of e' at the center, v, u);
    u' = phi_u(mean of e', mean of v', u). In the first block the input of the sum is that after
    the dense layers, in later blocks that before them.
    """

    def __init__(self, inputs: tuple[int, int, int], wide: int, narrow: int) -> None:
        super().__init__()
        self.is_first = inputs[1] != narrow or inputs[0] != narrow or inputs[2] != narrow
        self.dense = nn.ModuleList(layers(n, wide, narrow) for n in inputs)
        self.edge = layers(4 * narrow, wide, wide, narrow)
        self.atom = layers(3 * narrow, wide, wide, narrow)
        self.state = layers(3 * narrow, wide, wide, narrow)

    def forward(
        self, e: Tensor, v: Tensor, u: Tensor, graph: GraphBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new edges (n_edges, narrow), atoms (n_atoms, ...) and states."""
        before = (e, v, u)
        e, v, u = (dense(x) for dense, x in zip(self.dense, before, strict=True))
        if self.is_first:
            before = (e, v, u)
        n_atoms, n = graph.numbers.shape[0], graph.n_structures
        of_edge = graph.structures[graph.centers]
        pair = torch.cat([v[graph.centers], v[graph.neighbors], e, u[of_edge]], dim=-1)
        e = self.edge(pair)
        received = mean_pooling(e, graph.centers, n_atoms)
        v = self.atom(torch.cat([received, v, u[graph.structures]], dim=-1))
        means = mean_pooling(e, of_edge, n), mean_pooling(v, graph.structures, n)
        u = self.state(torch.cat([*means, u], dim=-1))
        return e + before[0], v + before[1], u + before[2]


def layers(*sizes: int) -> nn.Sequential:
    """Return dense layers, each followed by the shifted softplus."""
    found: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        found += [nn.Linear(n_in, n_out), ShiftedSoftplus()]
    return nn.Sequential(*found)


__all__ = ["MEGNet"]
