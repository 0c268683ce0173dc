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

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from epitaxy_graphs.edge_kernels import Edges, run, silu_slopes, spread, sum_rows

SHARPNESS = 4.0
"""s of the soft extremes log(mean(exp(s m))) / s."""
LARGEST_EXPONENT = 20.0
"""s m enters the exponential as 20 tanh(s m / 20), which no message can make overflow."""


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
        return sum_rows(run(forward_kernel, *arrays, *_ends(at)), at.center)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*_Slope.apply(gradient, *ctx.arrays, ctx.edges), None)


class _Slope(Function):
    """Gradients of `_Sums` as functions of Y and of its inputs."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        *arrays, at = inputs
        by_a, by_f, by_weight = run(slope_kernel, gradient, *arrays, *_ends(at))
        ctx.edges = at
        ctx.save_for_backward(gradient, *arrays, by_a, by_f)
        _, _, inside, outside, radial, _ = arrays
        return (
            sum_rows(by_a, at.center),
            sum_rows(by_a, at.neighbor),
            radial.T @ by_a,
            radial.T @ by_f,
            by_a @ inside.T + by_f @ outside.T,
            by_weight,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *changes: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *arrays, first_a, first_f = ctx.saved_tensors
        at, radial = ctx.edges, arrays[4]
        dp, dq, _, _, dradial, dweight = changes
        along, by_a, by_f = run(
            along_kernel, gradient, *arrays, dp, dq, dradial, dweight, *_ends(at)
        )
        return (
            sum_rows(along, at.center),
            sum_rows(by_a, at.center),
            sum_rows(by_a, at.neighbor),
            radial.T @ by_a + dradial.T @ first_a,
            radial.T @ by_f + dradial.T @ first_f,
            None,
            None,
            None,
        )


def _ends(at: Edges) -> tuple[Tensor, Tensor]:
    return at.center.atom, at.neighbor.atom


# ---------------------------------------------------------------- kernels


def _powers(m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bounded = LARGEST_EXPONENT * torch.tanh(m * (SHARPNESS / LARGEST_EXPONENT))
    return m, m * m, torch.exp(bounded), torch.exp(-bounded)


def _slopes(m: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the rows of `powers` and their first and second derivatives by m."""
    t = torch.tanh(m * (SHARPNESS / LARGEST_EXPONENT))
    rising, falling = torch.exp(LARGEST_EXPONENT * t), torch.exp(-LARGEST_EXPONENT * t)
    slope = SHARPNESS * (1 - t * t)  # of the exponent
    bend = slope * t * (-2 * SHARPNESS / LARGEST_EXPONENT)
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
) -> Tensor:
    """Return what each edge adds to the sums, (n_edges, 4 * width)."""
    a = p[center] + q[neighbor] + spread(radial, inside)
    m = a * torch.sigmoid(a) * spread(radial, outside)
    return torch.cat([weight * row for row in _powers(m)], dim=-1)


def slope_kernel(
    gradient: Tensor,
    p: Tensor,
    q: Tensor,
    inside: Tensor,
    outside: Tensor,
    radial: Tensor,
    weight: Tensor,
    center: Tensor,
    neighbor: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first derivatives by a, f (n_edges, width) and by the weight (n_edges, 1)."""
    silu, first, _ = silu_slopes(p[center] + q[neighbor] + spread(radial, inside))
    f = spread(radial, outside)
    rows, rises, _ = _slopes(silu * f)
    y = gradient[center].chunk(4, dim=-1)
    rise = weight * _contract(y, rises)
    return rise * first * f, rise * silu, _contract(y, rows).sum(-1, keepdim=True)


def along_kernel(
    gradient: Tensor,
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the change of the sums (n_edges, 4 * width), and of the derivatives by a and f."""
    silu, first, second = silu_slopes(p[center] + q[neighbor] + spread(radial, inside))
    f = spread(radial, outside)
    da = dp[center] + dq[neighbor] + spread(dradial, inside)
    df = spread(dradial, outside)
    dm = first * f * da + silu * df
    rows, rises, bends = _slopes(silu * f)
    y = gradient[center].chunk(4, dim=-1)
    rise = _contract(y, rises)
    change = dweight * rise + weight * _contract(y, bends) * dm
    rise = weight * rise
    along = [dweight * row + weight * dm * slope for row, slope in zip(rows, rises, strict=True)]
    by_a = change * first * f + rise * (second * da * f + first * df)
    return torch.cat(along, dim=-1), by_a, change * silu + rise * first * da
