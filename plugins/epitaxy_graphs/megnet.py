"""MEGNet: edges, atoms and a global state update each other.

Chen, Ye, Zuo, Zheng, Ong, Chem. Mater. 31, 3564 (2019), arXiv 1812.05055, with the sizes of its
TensorFlow code, whose trained weights can be read (`epitaxy_graphs.megnet_keras`).

The convention of the edges: in phi_e the receiving atom comes first, and edges are averaged at the
receiving atom (`EDGES`). Weights that were trained the other way round give wrong numbers for
compounds, while elements stay right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from epitaxy.errors import OptionError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.embedding import ElementEmbedding
from epitaxy.graphs.radial import distances
from epitaxy.heads import Set2Set, mean_pooling, softmax_per_structure
from epitaxy_graphs.schnet import ShiftedSoftplus

GAUSSIAN_WIDTH = 0.5  # Å
EDGES = "phi_e(center, neighbor, edge, state); edges are averaged at the center"


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
        readout: "standard", or "released": the LSTM of set2set as in the TensorFlow code, which
            forgets its cell at each step and has hard sigmoid gates. Released weights need it.
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
        readout: Literal["standard", "released"] = "standard",
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
        kind = ReleasedSet2Set if readout == "released" else Set2Set
        self.read_atoms: nn.Module = kind(narrow, n_steps=n_passes, n_hidden=n_readout)
        self.read_edges: nn.Module = kind(narrow, n_steps=n_passes, n_hidden=n_readout)
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
    u' = phi_u(mean of e', mean of v', u). The last layer of each phi is linear, as in the released
    code (its text lets one expect otherwise). In the first block the input of the sum is that after
    the dense layers, in later blocks that before them.
    """

    def __init__(self, inputs: tuple[int, int, int], wide: int, narrow: int) -> None:
        super().__init__()
        self.is_first = inputs[1] != narrow or inputs[0] != narrow or inputs[2] != narrow
        self.dense = nn.ModuleList(layers(n, wide, narrow) for n in inputs)
        self.edge = layers(4 * narrow, wide, wide, narrow)[:-1]
        self.atom = layers(3 * narrow, wide, wide, narrow)[:-1]
        self.state = layers(3 * narrow, wide, wide, narrow)[:-1]

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


class ReleasedSet2Set(nn.Module):
    """`epitaxy.heads.Set2Set` with the LSTM of the released TensorFlow code.

    The released loop assigns the new cell to a name that is not read again, so that each step
    begins with an empty cell, and its gates are Keras' hard sigmoid, clip(0.2 x + 0.5, 0, 1).
    Source: megnet 1.3.2, ``megnet/layers/readout/set2set.py`` (BSD-3).

    Args:
        width: of the features.
        n_steps: passes.
        n_hidden: width of the memory.
    """

    def __init__(self, width: int, *, n_steps: int, n_hidden: int) -> None:
        super().__init__()
        self.n_steps, self.n_hidden = n_steps, n_hidden
        self.memory = nn.Linear(width, n_hidden)
        self.gates = nn.Linear(2 * n_hidden, 4 * n_hidden)

    def forward(self, features: Tensor, structures: Tensor, n_structures: int) -> Tensor:
        """Return (n_structures, 2 n_hidden)."""
        m = self.memory(features)
        q_star = m.new_zeros((n_structures, 2 * self.n_hidden))
        for _ in range(self.n_steps):
            write, _keep, new, show = self.gates(q_star).chunk(4, dim=-1)
            q = _hard_sigmoid(show) * torch.tanh(_hard_sigmoid(write) * torch.tanh(new))
            a = softmax_per_structure((m * q[structures]).sum(dim=-1), structures, n_structures)
            r = m.new_zeros((n_structures, self.n_hidden))
            q_star = torch.cat([q, r.index_add(0, structures, a[:, None] * m)], dim=-1)
        return q_star


def _hard_sigmoid(x: Tensor) -> Tensor:
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


def layers(*sizes: int) -> nn.Sequential:
    """Return dense layers, each followed by the shifted softplus."""
    found: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        found += [nn.Linear(n_in, n_out), ShiftedSoftplus()]
    return nn.Sequential(*found)


__all__ = ["EDGES", "GAUSSIAN_WIDTH", "MEGNet"]
