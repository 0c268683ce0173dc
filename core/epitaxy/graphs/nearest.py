"""The nearest neighbors of each atom, out of all within the cutoff."""

from __future__ import annotations

import torch
from torch import Tensor

from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.radial import distances

SAME_DISTANCE = 1e-3
"""Å: neighbors closer together than this are one shell."""


def nearest_neighbors(graph: GraphBatch, n_neighbors: int) -> GraphBatch:
    """Keep the nearest neighbors of each atom; a shell is kept whole or not at all.

    Published models take exactly n neighbors, whichever of several at the same distance the code
    meets first; their results then depend on the order of the atoms. Here the shell of the n-th
    neighbor is kept whole, so an atom may have some more. Where fewer are within the cutoff, an
    atom has fewer. Such graphs change in jumps as atoms move: there are no smooth forces.

    Args:
        graph: all pairs within the cutoff.
        n_neighbors: at least so many per atom, where there are.

    Returns:
        The graph with the edges of each atom from near to far.
    """
    ordered, distance, first = by_distance(graph)
    if not distance.shape[0]:
        return ordered
    count = torch.diff(first)
    last = (first[:-1] + count.clamp_max(n_neighbors) - 1).clamp_min(0)
    reach = distance[last] + SAME_DISTANCE  # (n_atoms,)
    kept = distance <= reach[ordered.centers]
    return ordered._replace(
        centers=ordered.centers[kept],
        neighbors=ordered.neighbors[kept],
        vectors=ordered.vectors[kept],
    )


def by_distance(graph: GraphBatch) -> tuple[GraphBatch, Tensor, Tensor]:
    """Return the graph with the edges of each atom from near to far.

    Returns:
        The graph; distances (n_edges,), Å; and (n_atoms + 1,) where the edges of each atom begin.
    """
    distance = distances(graph.vectors)
    order = torch.argsort(distance.detach(), stable=True)
    order = order[torch.argsort(graph.centers[order], stable=True)]
    count = torch.bincount(graph.centers, minlength=graph.numbers.shape[0])
    first = torch.cat([count.new_zeros(1), count.cumsum(0)])
    ordered = graph._replace(
        centers=graph.centers[order], neighbors=graph.neighbors[order], vectors=graph.vectors[order]
    )
    return ordered, distance[order], first


def shells(graph: GraphBatch) -> Tensor:
    """Return the number of the neighbor shell of each edge, (n_edges,) int64, nearest first.

    Args:
        graph: with the edges of each atom from near to far, as `nearest_neighbors` gives it.
    """
    distance = distances(graph.vectors.detach())
    if not distance.shape[0]:
        return torch.zeros(0, dtype=torch.int64, device=distance.device)
    is_new = torch.ones_like(graph.centers)
    same_atom = graph.centers[1:] == graph.centers[:-1]
    near = (distance[1:] - distance[:-1]) < SAME_DISTANCE
    is_new[1:] = (~(same_atom & near)).to(is_new.dtype)
    total = is_new.cumsum(0)
    count = torch.bincount(graph.centers, minlength=graph.numbers.shape[0])
    first = (count.cumsum(0) - count)[graph.centers]
    return total - total[first]
