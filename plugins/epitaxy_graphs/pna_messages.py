"""PNA's messages and their weighted sums, with hand-written derivatives.

With a_ij = P_i + Q_j + g_ij C and f_ij = g_ij G, a message is m = silu(a) f, and an atom needs
sum_j w_ij phi_c(m_ij) for four functions phi_c (`powers`). Contracted with Y,

    Phi = sum over edges and channels of w Psi(m),    Psi = sum_c Y_c phi_c

the first derivatives are da = w Psi' silu'(a) f, df = w Psi' silu(a), dw = Psi, and the second ones
are those along changes of a, f and w; all are one loop over the edges each. Second derivatives by
the geometry, which training does not need, are left out; see `epitaxy_graphs.edge_kernels`.

Shapes: P, Q (n_atoms, width); g = radial (n_edges, n_radial); C = inside and G = outside
(n_radial, width); w = weight (n_edges, 1); Y (n_atoms, 4 * width).
"""

# torch is not type-checked here, so its classes are "Any" to mypy.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from epitaxy_graphs.edge_kernels import Edges, run, silu_slopes, spread, sum_rows

SHARPNESS = 4.0
"""s of the soft extremes log(mean(exp(s m))) / s."""
LARGEST_EXPONENT = 20.0
"""T. s m enters the exponential as h = s m / sqrt(1 + (s m / T)^2), which cannot overflow."""


def powers(messages: Tensor) -> Tensor:
    """Return m, m^2, exp(s m) and exp(-s m), (n_edges, 4 * width)."""
    return torch.cat(_powers(messages), dim=-1)


def weighted_sums(
    ends: tuple[Tensor, Tensor, Tensor, Tensor], radial: Tensor, weight: Tensor, edges: Edges
) -> Tensor:
    """Return sum_j w_ij powers(m_ij), (n_atoms, 4 * width).

    Args:
        ends: P, Q, C and G of the module's docstring.
        radial: (n_edges, n_radial), g.
        weight: (n_edges, 1), w.
        edges: who is whose neighbor.
    """
    sums: Tensor = _Sums.apply(*ends, radial, weight, edges)
    return sums


class _Sums(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *arrays, at = inputs
        ctx.arrays, ctx.edges = arrays, at  # attached: derivatives depend on them
        return _sums(run(forward_kernel, *arrays, *_ends(at)), at)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*_Slope.apply(gradient, *ctx.arrays, ctx.edges), None)


class _Slope(Function):
    """Gradients of `_Sums` as functions of Y and of its inputs."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        *arrays, at = inputs
        y = gradient.chunk(4, dim=-1)
        by_a, by_f, psi = run(slope_kernel, *y, *arrays, *_ends(at))
        ctx.edges = at
        ctx.save_for_backward(gradient, *arrays, by_a, by_f)
        _, _, inside, outside, radial, _ = arrays
        return (
            sum_rows(by_a, at.center),
            sum_rows(by_a, at.neighbor),
            radial.T @ by_a,
            radial.T @ by_f,
            by_a @ inside.T + by_f @ outside.T,
            psi.sum(-1, keepdim=True),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *changes: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *arrays, first_a, first_f = ctx.saved_tensors
        at, radial = ctx.edges, arrays[4]
        dp, dq, _, _, dradial, dweight = changes
        y = gradient.chunk(4, dim=-1)
        *along, by_a, by_f = run(along_kernel, *y, *arrays, dp, dq, dradial, dweight, *_ends(at))
        return (
            _sums(along, at),
            sum_rows(by_a, at.center),
            sum_rows(by_a, at.neighbor),
            radial.T @ by_a + dradial.T @ first_a,
            radial.T @ by_f + dradial.T @ first_f,
            None,
            None,
            None,
        )


def _sums(values: Sequence[Tensor], at: Edges) -> Tensor:
    return torch.cat([sum_rows(value, at.center) for value in values], dim=-1)


def _ends(at: Edges) -> tuple[Tensor, Tensor]:
    return at.center.atom, at.neighbor.atom


# ---------------------------------------------------------------- kernels
# They take and give lists of (n_edges, width) instead of one concatenated array: the compiler
# writes one loop for the former, and one per piece for the latter.


def _powers(m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    u = m * (SHARPNESS / LARGEST_EXPONENT)
    rising = torch.exp(LARGEST_EXPONENT * u * torch.rsqrt(1 + u * u))
    return m, m * m, rising, 1 / rising


def _slopes(m: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the rows of `powers` and their first and second derivatives by m."""
    u = m * (SHARPNESS / LARGEST_EXPONENT)
    shrink = torch.rsqrt(1 + u * u)
    rising = torch.exp(LARGEST_EXPONENT * u * shrink)
    falling = 1 / rising
    slope = SHARPNESS * shrink * shrink * shrink  # h'
    bend = (-3 * SHARPNESS / LARGEST_EXPONENT) * u * shrink * shrink * slope  # h''
    square = slope * slope
    return (
        (m, m * m, rising, falling),
        (torch.ones_like(m), 2 * m, slope * rising, -slope * falling),
        (
            torch.zeros_like(m),
            torch.full_like(m, 2.0),
            (square + bend) * rising,
            (square - bend) * falling,
        ),
    )


def _contract(y: tuple[Tensor, ...], rows: tuple[Tensor, ...]) -> Tensor:
    return y[0] * rows[0] + y[1] * rows[1] + y[2] * rows[2] + y[3] * rows[3]


def forward_kernel(
    p: Tensor,
    q: Tensor,
    inside: Tensor,
    outside: Tensor,
    radial: Tensor,
    weight: Tensor,
    center: Tensor,
    neighbor: Tensor,
) -> list[Tensor]:
    """Return the four terms that each edge adds to the sums, (n_edges, width) each."""
    a = p[center] + q[neighbor] + spread(radial, inside)
    m = a * torch.sigmoid(a) * spread(radial, outside)
    return [weight * row for row in _powers(m)]


def slope_kernel(
    y0: Tensor,
    y1: Tensor,
    y2: Tensor,
    y3: Tensor,
    p: Tensor,
    q: Tensor,
    inside: Tensor,
    outside: Tensor,
    radial: Tensor,
    weight: Tensor,
    center: Tensor,
    neighbor: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first derivatives by a and f, and Psi, (n_edges, width) each."""
    silu, first, _ = silu_slopes(p[center] + q[neighbor] + spread(radial, inside))
    f = spread(radial, outside)
    rows, rises, _ = _slopes(silu * f)
    y = (y0[center], y1[center], y2[center], y3[center])
    rise = weight * _contract(y, rises)
    return rise * first * f, rise * silu, _contract(y, rows)


def along_kernel(
    y0: Tensor,
    y1: Tensor,
    y2: Tensor,
    y3: Tensor,
    p: Tensor,
    q: Tensor,
    inside: Tensor,
    outside: Tensor,
    radial: Tensor,
    weight: Tensor,
    dp: Tensor,
    dq: Tensor,
    dradial: Tensor,
    dweight: Tensor,
    center: Tensor,
    neighbor: Tensor,
) -> list[Tensor]:
    """Return the change of the four terms, and of the derivatives by a and f."""
    silu, first, second = silu_slopes(p[center] + q[neighbor] + spread(radial, inside))
    f = spread(radial, outside)
    da = dp[center] + dq[neighbor] + spread(dradial, inside)
    df = spread(dradial, outside)
    dm = first * f * da + silu * df
    rows, rises, bends = _slopes(silu * f)
    y = (y0[center], y1[center], y2[center], y3[center])
    rise = _contract(y, rises)
    change = dweight * rise + weight * _contract(y, bends) * dm
    rise = weight * rise
    along = [dweight * row + weight * dm * slope for row, slope in zip(rows, rises, strict=True)]
    by_a = change * first * f + rise * (second * da * f + first * df)
    return [*along, by_a, change * silu + rise * first * da]
