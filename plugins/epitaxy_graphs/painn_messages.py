"""PaiNN's messages as compiled kernels with hand-written derivatives.

Written edge by edge, a message block stores arrays of (n_edges, 3 * width) and reads them back
a dozen times: training is bound by memory, not by arithmetic. Here neighbors lie in a table
(n_atoms, n_slots) and each kernel is one loop nest that evaluates the radial filter in
registers, multiplies, and sums over the neighbors of an atom, so that nothing of the size of
the edges times the width is stored. `torch.compile` writes the loops.

The graph of a batch holds every pair in both directions with opposite vectors. So the adjoint
of "sum over my neighbors" is again a sum over neighbors, with the direction reversed, and no
derivative needs a scatter. All results are multilinear in what the atoms send (X), the radial
basis (b), the directions (u) and the filter weights (A); with what an atom receives called Y,
the derivatives below are those of

    Phi(Y, X, b, u, A) = sum over edges i <- j and channels f of
        W0 Y0_i X0_j + W1 sum_a Ya_i X(a)_j + W2 (sum_a u_a Ya_i) X4_j,   Wc = sum_k b_k A_ck

which is eqs. 7 and 8 of arXiv 2102.03150 contracted with Y.

Energies can be differentiated by the edge vectors and then once more by the parameters, which
is what training on forces needs; not twice by the vectors.

Shapes: X (n_atoms, 5, width): scalar, three vector components, along the edge. Y (n_atoms, 4,
width): scalar, three vector components. table (n_atoms, n_slots) int64. b (n_atoms, n_slots,
n_basis), zero in empty slots. u (n_atoms, n_slots, 3). A (3, n_basis, width): scalar, along
the vector, along the edge.
"""

# torch is not type-checked here, so its classes are "Any" to mypy.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from epitaxy.graphs.batch import GraphBatch

INLINE_EVERYTHING = {
    # By default the compiler stores an intermediate that is read often: here that would be the
    # radial filter, which is cheaper to evaluate again than to read.
    "realize_opcount_threshold": 100_000,
    "realize_reads_threshold": 100_000,
    "realize_acc_reads_threshold": 100_000,
    "max_fusion_size": 1_000,
}


class Edges(NamedTuple):
    """Geometry of a batch in table form.

    Attributes:
        table: (n_atoms, n_slots) int64, neighbors; 0 in empty slots.
        basis: (n_atoms, n_slots, n_basis), radial functions times the cutoff, then the cutoff.
        directions: (n_atoms, n_slots, 3), unit vectors from the center to the neighbor.
    """

    table: Tensor
    basis: Tensor
    directions: Tensor


def edges_of(graph: GraphBatch, cutoff: float, n_radial: int) -> Edges:
    """Return the neighbors of each atom as rows of a table, with basis and directions."""
    n_atoms = graph.numbers.shape[0]
    degrees = torch.bincount(graph.centers, minlength=n_atoms)
    # Tables of one row or column would be compiled anew: sizes 0 and 1 are special to torch.
    n_slots = max(int(degrees.max()), 2)
    first = degrees.cumsum(0) - degrees
    place = torch.arange(graph.centers.shape[0], device=graph.centers.device)
    slots = place - first[graph.centers] + graph.centers * n_slots
    table = graph.neighbors.new_zeros(n_atoms * n_slots).index_copy(0, slots, graph.neighbors)
    vectors = graph.vectors.new_full((n_atoms * n_slots, 3), 2.0 * cutoff)  # empty: out of reach
    vectors = vectors.index_copy(0, slots, graph.vectors).view(n_atoms, n_slots, 3)
    basis, directions = _Geometry.apply(vectors, cutoff, n_radial)
    return Edges(table.view(n_atoms, n_slots), basis, directions)


def message(sent: Tensor, edges: Edges, weights: Tensor) -> Tensor:
    """Return what each atom receives from its neighbors.

    Args:
        sent: X of the module's docstring, (n_atoms, 5, width).
        edges: neighbors and geometry.
        weights: A of the module's docstring, (3, n_basis, width).

    Returns:
        (n_atoms, 4, width): received scalars and the three components of received vectors.
    """
    table, basis, directions = edges
    # One number, three routes back. autograd skips a route whose input is not asked for: the
    # weights while forces are computed, the geometry while parameters are.
    fixed = (table, basis.detach(), directions.detach())
    received: Tensor = _BySent.apply(sent, fixed, weights)
    return (
        received
        + _ByGeometry.apply(basis, directions, table, sent, weights)
        + _ByWeights.apply(weights, fixed, sent.detach())
    )


# ---------------------------------------------------------------- routes through autograd


class _BySent(Function):
    """Value of the message, differentiable with respect to what is sent."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, fixed: tuple[Tensor, Tensor, Tensor], A: Tensor) -> Tensor:
        ctx.fixed, ctx.weights = fixed, A  # attached, so that the adjoint can be differentiated
        return _run(receive, sent, *fixed, A)

    @staticmethod
    def backward(ctx: Any, Y: Tensor) -> tuple[Tensor | None, ...]:
        return _Adjoint.apply(Y, ctx.weights, ctx.fixed), None, None


class _ByGeometry(Function):
    """Zero, with the derivatives of the message by basis and directions."""

    @staticmethod
    def forward(ctx: Any, b: Tensor, u: Tensor, table: Tensor, sent: Tensor, A: Tensor) -> Tensor:
        ctx.fixed, ctx.sent, ctx.weights = (table, b.detach(), u.detach()), sent, A
        return _zero_like_received(sent)

    @staticmethod
    def backward(ctx: Any, Y: Tensor) -> tuple[Tensor | None, ...]:
        by_b, by_u = _GeometryGradient.apply(Y, ctx.sent, ctx.weights, ctx.fixed)
        return by_b, by_u, None, None, None


class _ByWeights(Function):
    """Zero, with the derivative of the message by the filter weights."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, fixed: tuple[Tensor, Tensor, Tensor], sent: Tensor) -> Tensor:
        ctx.fixed, ctx.sent = fixed, sent
        return _zero_like_received(sent)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, Y: Tensor) -> tuple[Tensor | None, ...]:
        return _run(weight_gradient, Y, ctx.sent, *ctx.fixed), None, None


class _Adjoint(Function):
    """dPhi/dX as a function of Y and A."""

    @staticmethod
    def forward(ctx: Any, Y: Tensor, A: Tensor, fixed: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        ctx.fixed = fixed
        ctx.save_for_backward(Y, A)
        return _run(send_back, Y, *fixed, A)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, X: Tensor) -> tuple[Tensor | None, ...]:
        Y, A = ctx.saved_tensors
        by_weights = _run(weight_gradient, Y, X, *ctx.fixed) if ctx.needs_input_grad[1] else None
        return _run(receive, X, *ctx.fixed, A), by_weights, None


class _GeometryGradient(Function):
    """dPhi/db and dPhi/du as functions of Y, X and A."""

    @staticmethod
    def forward(
        ctx: Any, Y: Tensor, X: Tensor, A: Tensor, fixed: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        ctx.fixed = fixed
        ctx.save_for_backward(Y, X, A)
        by_b, by_u = _run(geometry_gradient, Y, X, *fixed, A)
        return by_b, by_u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, db: Tensor, du: Tensor) -> tuple[Tensor | None, ...]:
        Y, X, A = ctx.saved_tensors
        fixed, wanted = ctx.fixed, ctx.needs_input_grad
        return (
            _run(receive_along, X, *fixed, db, du, A) if wanted[0] else None,
            _run(send_back_along, Y, *fixed, db, du, A) if wanted[1] else None,
            _run(weight_gradient_along, Y, X, *fixed, db, du) if wanted[2] else None,
            None,
        )


class _Geometry(Function):
    """Edge vectors to basis and directions."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, cutoff: float, n_radial: int) -> tuple[Tensor, Tensor]:
        basis, slope, directions, distances = _run(geometry, vectors, _radial(cutoff, n_radial))
        ctx.save_for_backward(slope, directions, distances)
        return basis, directions

    @staticmethod
    def backward(ctx: Any, by_b: Tensor, by_u: Tensor) -> tuple[Tensor | None, ...]:
        return (
            _VectorGradient.apply(by_b, by_u, *(t.detach() for t in ctx.saved_tensors)),
            None,
            None,
        )


class _VectorGradient(Function):
    """Gradient by the edge vectors from those by basis and directions; linear in both."""

    @staticmethod
    def forward(
        ctx: Any, by_b: Tensor, by_u: Tensor, slope: Tensor, u: Tensor, r: Tensor
    ) -> Tensor:
        ctx.save_for_backward(slope, u, r)
        return _run(vector_gradient, by_b, by_u, slope, u, r)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        db, du = _run(geometry_along, along, *ctx.saved_tensors)
        return db, du, None, None, None


def _zero_like_received(sent: Tensor) -> Tensor:
    return sent.new_zeros(()).expand(sent.shape[0], 4, sent.shape[2])


def _run(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Call the compiled kernel on plain tensors, so that one compilation serves all calls."""
    with torch.no_grad():
        plain = [a.detach().contiguous() if isinstance(a, Tensor) else a for a in arguments]
        return _compiled(kernel)(*plain)


@functools.cache
def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(kernel, dynamic=True, options=INLINE_EVERYTHING)
    return compiled


# ---------------------------------------------------------------- kernels


def _filter(b: Tensor, A: Tensor, kind: int) -> Tensor:
    """Return W of one kind (n_atoms, n_slots, width), as a sum for the compiler to unroll."""
    terms = [b[..., k, None] * A[kind, k] for k in range(A.shape[1])]
    return functools.reduce(torch.add, terms)


def _project(u: Tensor, y: Tensor) -> Tensor:
    """Return sum over a of u_a y_a; `y` holds the components at places 1, 2, 3."""
    return sum(u[..., a, None] * y[:, :, 1 + a] for a in range(3))


def receive(X: Tensor, table: Tensor, b: Tensor, u: Tensor, A: Tensor) -> Tensor:
    """Return dPhi/dY, the message itself."""
    x = X[table]  # (n_atoms, n_slots, 5, width)
    along_vector = _filter(b, A, 1)
    along_edge = _filter(b, A, 2) * x[:, :, 4]
    scalar = (_filter(b, A, 0) * x[:, :, 0]).sum(1)
    vector = [
        (along_vector * x[:, :, 1 + a] + along_edge * u[..., a, None]).sum(1) for a in range(3)
    ]
    return torch.stack([scalar, *vector], 1)


def receive_along(
    X: Tensor, table: Tensor, b: Tensor, u: Tensor, db: Tensor, du: Tensor, A: Tensor
) -> Tensor:
    """Return the change of `receive` when the geometry changes along db, du."""
    x = X[table]
    along_vector = _filter(db, A, 1)
    turned, stretched = _filter(b, A, 2) * x[:, :, 4], _filter(db, A, 2) * x[:, :, 4]
    scalar = (_filter(db, A, 0) * x[:, :, 0]).sum(1)
    vector = [
        (
            along_vector * x[:, :, 1 + a] + stretched * u[..., a, None] + turned * du[..., a, None]
        ).sum(1)
        for a in range(3)
    ]
    return torch.stack([scalar, *vector], 1)


def send_back(Y: Tensor, table: Tensor, b: Tensor, u: Tensor, A: Tensor) -> Tensor:
    """Return dPhi/dX: the neighbors' Y, seen along the reversed edges."""
    y = Y[table]  # (n_atoms, n_slots, 4, width)
    along_vector = _filter(b, A, 1)
    scalar = (_filter(b, A, 0) * y[:, :, 0]).sum(1)
    vector = [(along_vector * y[:, :, 1 + a]).sum(1) for a in range(3)]
    edge = -(_filter(b, A, 2) * _project(u, y)).sum(1)
    return torch.stack([scalar, *vector, edge], 1)


def send_back_along(
    Y: Tensor, table: Tensor, b: Tensor, u: Tensor, db: Tensor, du: Tensor, A: Tensor
) -> Tensor:
    """Return the change of `send_back` when the geometry changes along db, du."""
    y = Y[table]
    along_vector = _filter(db, A, 1)
    scalar = (_filter(db, A, 0) * y[:, :, 0]).sum(1)
    vector = [(along_vector * y[:, :, 1 + a]).sum(1) for a in range(3)]
    edge = -(_filter(db, A, 2) * _project(u, y) + _filter(b, A, 2) * _project(du, y)).sum(1)
    return torch.stack([scalar, *vector, edge], 1)


def geometry_gradient(
    Y: Tensor, X: Tensor, table: Tensor, b: Tensor, u: Tensor, A: Tensor
) -> tuple[Tensor, Tensor]:
    """Return dPhi/db (n_atoms, n_slots, n_basis) and dPhi/du (n_atoms, n_slots, 3)."""
    x, y = X[table], Y[:, None]
    scalar, vector, edge = _products(x, y, u)
    by_b = [
        (A[0, k] * scalar + A[1, k] * vector + A[2, k] * edge).sum(-1) for k in range(A.shape[1])
    ]
    along_edge = _filter(b, A, 2) * x[:, :, 4]
    by_u = [(along_edge * y[:, :, 1 + a]).sum(-1) for a in range(3)]
    return torch.stack(by_b, -1), torch.stack(by_u, -1)


def _products(x: Tensor, y: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return dPhi/dW for the three kinds of filter, each (n_atoms, n_slots, width)."""
    vector = sum(y[:, :, 1 + a] * x[:, :, 1 + a] for a in range(3))
    return y[:, :, 0] * x[:, :, 0], vector, _project(u, y) * x[:, :, 4]


def weight_gradient(Y: Tensor, X: Tensor, table: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Return dPhi/dA (3, n_basis, width)."""
    products = torch.cat(_products(X[table], Y[:, None], u), -1).flatten(0, 1)
    by_weights = b.flatten(0, 1).T @ products  # (n_basis, 3 * width)
    return by_weights.view(b.shape[-1], 3, -1).transpose(0, 1)


def weight_gradient_along(
    Y: Tensor, X: Tensor, table: Tensor, b: Tensor, u: Tensor, db: Tensor, du: Tensor
) -> Tensor:
    """Return the change of `weight_gradient` when the geometry changes along db, du."""
    x, y = X[table], Y[:, None]
    stretched = torch.cat(_products(x, y, u), -1).flatten(0, 1)
    turned = (_project(du, y) * x[:, :, 4]).flatten(0, 1)
    by_weights = (db.flatten(0, 1).T @ stretched).view(b.shape[-1], 3, -1).transpose(0, 1)
    edge = by_weights[2] + b.flatten(0, 1).T @ turned
    return torch.stack([by_weights[0], by_weights[1], edge])


def _radial(cutoff: float, n_radial: int) -> tuple[float, int]:
    return float(cutoff), int(n_radial)


def geometry(vectors: Tensor, radial: tuple[float, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return basis, its slope, directions and distances (n_atoms, n_slots, 1).

    The same functions as `epitaxy.graphs.radial` gives, with their derivatives by the distance.
    """
    cutoff, n_radial = radial
    r = vectors.square().sum(-1, keepdim=True).sqrt()
    inside = (r < cutoff).to(r.dtype)
    weight = 0.5 * (torch.cos(r * (math.pi / cutoff)) + 1.0) * inside
    fall = -0.5 * (math.pi / cutoff) * torch.sin(r * (math.pi / cutoff)) * inside
    order = torch.arange(1, n_radial + 1, dtype=r.dtype, device=r.device) * (math.pi / cutoff)
    wave = torch.sin(r * order) / r
    rise = (order * torch.cos(r * order) - wave) / r
    basis = torch.cat([weight * wave, weight], -1)
    slope = torch.cat([fall * wave + weight * rise, fall], -1)
    return basis, slope, vectors / r, r


def vector_gradient(by_b: Tensor, by_u: Tensor, slope: Tensor, u: Tensor, r: Tensor) -> Tensor:
    """Return the gradient by the vectors: along the edge by the basis, across by the direction."""
    across = by_u - u * (by_u * u).sum(-1, keepdim=True)
    return u * (by_b * slope).sum(-1, keepdim=True) + across / r


def geometry_along(along: Tensor, slope: Tensor, u: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change of basis and directions when the vectors change along `along`."""
    stretch = (along * u).sum(-1, keepdim=True)
    return slope * stretch, (along - u * stretch) / r
