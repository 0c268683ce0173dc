"""Sums over neighbors and activations of edges, with hand-written derivatives.

Left to autograd, a message (n_edges, width) that is made of two atoms, a nonlinearity and a sum is
stored a dozen times over, and its sums over neighbors are scattered row by row. Here each of these
is one step whose first and second derivative are one loop, compiled by `torch.compile`, and sums
run over the rows of an atom one after another.

Energies can be differentiated by the edge vectors and then once more by the parameters, which is
what training on forces needs. `Edges.moves` says whether the edge vectors of a layer depend on
parameters themselves; if not, second derivatives by `radial` are left out (None).

Shapes: by_center, by_neighbor (n_atoms, width); radial (n_edges, n_radial); table (n_radial,
width); weight (n_edges, 1). Source: derivatives of arXiv 2102.09844, eqs. 3 and 5.
"""

# torch is not type-checked here, so its classes are "Any" to mypy.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from epitaxy.graphs.batch import GraphBatch


class Rows(NamedTuple):
    """Which atom each edge belongs to, and the edges of each atom.

    Attributes:
        atom: (n_edges,) int64, the atom of each edge.
        order: (n_edges,) int64, edges sorted by atom.
        starts: (n_atoms,) int64, where the edges of an atom begin in `order`.
    """

    atom: Tensor
    order: Tensor
    starts: Tensor


class Edges(NamedTuple):
    """The edges of a batch, seen from both ends.

    Attributes:
        center: edges by the atom that receives.
        neighbor: edges by the atom that sends.
        moves: whether the edge vectors depend on parameters.
    """

    center: Rows
    neighbor: Rows
    moves: bool


def edges_of(graph: GraphBatch, *, moves: bool = False) -> Edges:
    """Return who is whose neighbor, in the order that sums want."""
    n_edges, n_atoms = graph.centers.shape[0], graph.numbers.shape[0]
    everything = torch.arange(n_edges, device=graph.centers.device)
    order = torch.argsort(graph.neighbors, stable=True)
    return Edges(
        Rows(graph.centers, everything, _starts(graph.centers, n_atoms)),
        Rows(graph.neighbors, order, _starts(graph.neighbors, n_atoms)),
        moves,
    )


def _starts(atoms: Tensor, n_atoms: int) -> Tensor:
    count = torch.bincount(atoms, minlength=n_atoms)
    return count.cumsum(0) - count


def sum_rows(values: Tensor, rows: Rows) -> Tensor:
    """Return the sums (n_atoms, width) over the edges of each atom; not differentiable."""
    if values.dtype == torch.float32 and values.device.type == "cpu":
        # Vectorized over the width, four times as fast as index_add.
        summed: Tensor = embedding_bag(rows.order, values, rows.starts, mode="sum")
        return summed
    zeros = values.new_zeros((rows.starts.shape[0], values.shape[1]))
    return zeros.index_add_(0, rows.atom, values)


# ---------------------------------------------------------------- linear steps


def gather(values: Tensor, rows: Rows) -> Tensor:
    """Return the row of each edge's atom, (n_edges, width)."""
    taken: Tensor = _Gather.apply(values, rows)
    return taken


def add_up(values: Tensor, rows: Rows) -> Tensor:
    """Return the sums (n_atoms, width) over the edges of each atom."""
    summed: Tensor = _AddUp.apply(values, rows)
    return summed


class _Gather(Function):
    """Rows of atoms to edges; its adjoint is `_AddUp`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return values.index_select(0, rows.atom)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _AddUp.apply(gradient, ctx.rows), None


class _AddUp(Function):
    """Sums of edges at atoms; its adjoint is `_Gather`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return sum_rows(values.contiguous(), rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(gradient, ctx.rows), None


# ---------------------------------------------------------------- atoms to edges


def pair_silu(
    by_center: Tensor, by_neighbor: Tensor, radial: Tensor, table: Tensor, edges: Edges
) -> Tensor:
    """Return silu(by_center_i + by_neighbor_j + sum_k radial_k table_k), (n_edges, width)."""
    found: Tensor = _PairSilu.apply(by_center, by_neighbor, radial, table, edges)
    return found


class _PairSilu(Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, radial: Tensor, table: Tensor, at: Edges) -> Tensor:
        before, after = run(pair, p, q, radial, table, at.center.atom, at.neighbor.atom)
        ctx.edges = at
        ctx.save_for_backward(radial, table)  # attached: derivatives depend on them
        ctx.before = before
        ctx.inputs = p, q
        return after

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        radial, table = ctx.saved_tensors
        p, q = ctx.inputs
        return (*_PairSlope.apply(gradient, p, q, radial, table, ctx.before, ctx.edges), None)


class _PairSlope(Function):
    """Gradients of `_PairSilu` as functions of the gradient by what it gives and its inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        p: Tensor,
        q: Tensor,
        radial: Tensor,
        table: Tensor,
        before: Tensor,
        at: Edges,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        slope = torch.ops.aten.silu_backward(gradient, before)
        ctx.save_for_backward(gradient, radial, table, before, slope)
        ctx.edges = at
        return (
            sum_rows(slope, at.center),
            sum_rows(slope, at.neighbor),
            slope @ table.T,
            radial.T @ slope,
        )

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dp: Tensor, dq: Tensor, dradial: Tensor, dtable: Tensor
    ) -> tuple[Tensor | None, ...]:
        gradient, radial, table, before, slope = ctx.saved_tensors
        at = ctx.edges
        along, curved = run(
            pair_along, dp, dq, dradial, table, gradient, before, at.center.atom, at.neighbor.atom
        )
        return (
            along,
            sum_rows(curved, at.center),
            sum_rows(curved, at.neighbor),
            curved @ table.T if at.moves else None,
            radial.T @ curved + dradial.T @ slope,
            None,
            None,
        )


# ---------------------------------------------------------------- edges to edges


def edge_silu(values: Tensor) -> Tensor:
    """Return silu(values), of any shape; its second derivative is one loop."""
    found: Tensor = _Silu.apply(values)
    return found


class _Silu(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.ops.aten.silu(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SiluSlope.apply(gradient, *ctx.saved_tensors)


class _SiluSlope(Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, values)
        return torch.ops.aten.silu_backward(gradient, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor, Tensor]:
        along, curved = run(silu_along, *ctx.saved_tensors, change)
        return along, curved


# ---------------------------------------------------------------- edges to atoms


def silu_sum(values: Tensor, weight: Tensor, edges: Edges) -> Tensor:
    """Return sum_j weight_ij silu(values_ij), (n_atoms, width)."""
    found: Tensor = _SiluSum.apply(values, weight, edges)
    return found


class _SiluSum(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, at: Edges) -> Tensor:
        ctx.edges = at
        ctx.save_for_backward(values, weight)
        return sum_rows(run(weighted, values, weight), at.center)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*_SumSlope.apply(gradient, *ctx.saved_tensors, ctx.edges), None)


class _SumSlope(Function):
    """Gradients of `_SiluSum` as functions of the gradient by what it gives and its inputs."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, values: Tensor, weight: Tensor, at: Edges
    ) -> tuple[Tensor, Tensor]:
        ctx.edges = at
        ctx.save_for_backward(gradient, values, weight)
        by_values, by_weight = run(sum_slope, gradient, values, weight, at.center.atom)
        return by_values, by_weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dvalues: Tensor, dweight: Tensor) -> tuple[Tensor | None, ...]:
        gradient, values, weight = ctx.saved_tensors
        at = ctx.edges
        along, curved = run(sum_along, gradient, values, weight, dvalues, dweight, at.center.atom)
        return sum_rows(along, at.center), curved, None, None


# ---------------------------------------------------------------- kernels


def run(kernel: Callable[..., Any], *arguments: Tensor) -> Any:
    """Call the compiled kernel on plain tensors, so that one compilation serves all calls."""
    with torch.no_grad():
        return _compiled(kernel)(*(a.detach().contiguous() for a in arguments))


@functools.cache
def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(kernel, dynamic=True)
    return compiled


def spread(radial: Tensor, table: Tensor) -> Tensor:
    """Return radial @ table as a sum for the compiler to unroll."""
    terms = [radial[:, k, None] * table[k] for k in range(table.shape[0])]
    return functools.reduce(torch.add, terms)


def silu_slopes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return silu and its first and second derivative."""
    s = torch.sigmoid(x)
    rise = s * (1 - s)
    first = s + x * rise
    return x * s, first, rise * (2 + x * (1 - 2 * s))


def pair(
    p: Tensor, q: Tensor, radial: Tensor, table: Tensor, center: Tensor, neighbor: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what enters the activation and what leaves it."""
    before = p[center] + q[neighbor] + spread(radial, table)
    return before, before * torch.sigmoid(before)


def pair_along(
    dp: Tensor,
    dq: Tensor,
    dradial: Tensor,
    table: Tensor,
    gradient: Tensor,
    before: Tensor,
    center: Tensor,
    neighbor: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the change of silu along the change of its input, and the curvature term."""
    change = dp[center] + dq[neighbor] + spread(dradial, table)
    _, first, second = silu_slopes(before)
    return first * change, gradient * second * change


def silu_along(gradient: Tensor, values: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change of silu along the change of its input, and the curvature term."""
    _, first, second = silu_slopes(values)
    return first * change, gradient * second * change


def weighted(values: Tensor, weight: Tensor) -> Tensor:
    """Return weight * silu(values)."""
    return weight * values * torch.sigmoid(values)


def sum_slope(
    gradient: Tensor, values: Tensor, weight: Tensor, center: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `silu_sum` by values and weight."""
    silu, first, _ = silu_slopes(values)
    at_edge = gradient[center]
    return weight * at_edge * first, (at_edge * silu).sum(-1, keepdim=True)


def sum_along(
    gradient: Tensor,
    values: Tensor,
    weight: Tensor,
    dvalues: Tensor,
    dweight: Tensor,
    center: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the terms whose sum is the change of `silu_sum`, and its curvature by values."""
    silu, first, second = silu_slopes(values)
    along = weight * first * dvalues + dweight * silu
    return along, gradient[center] * (weight * second * dvalues + dweight * first)
