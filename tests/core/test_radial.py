"""Cutoff and radial bases."""

import math

import pytest
import torch

from epitaxy.graphs.radial import bessel_basis, cosine_cutoff, distances, gaussian_basis

CUTOFF = 5.0


def test_distances_are_lengths():
    vectors = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, -2.0]])
    assert distances(vectors).tolist() == [5.0, 2.0]


def test_the_cutoff_falls_from_one_to_zero_with_zero_slope_at_both_ends():
    r = torch.tensor([1e-9, CUTOFF / 2, CUTOFF - 1e-9, CUTOFF, CUTOFF + 1], dtype=torch.float64)
    r.requires_grad_()
    weight = cosine_cutoff(r, CUTOFF)
    (slope,) = torch.autograd.grad(weight.sum(), r)
    torch.testing.assert_close(
        weight, torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert slope[[0, 2, 3, 4]].abs().max() < 1e-8
    assert float(slope[1]) == pytest.approx(-math.pi / (2 * CUTOFF))


def test_bessel_functions_are_orthogonal_in_a_sphere():
    """The integral of b_m b_n r^2 from 0 to the cutoff is cutoff / 2 if m = n and 0 otherwise."""
    n = 4000
    r = (torch.arange(n, dtype=torch.float64) + 0.5) * (CUTOFF / n)
    basis = bessel_basis(r, CUTOFF, 4)
    overlap = (basis * r.unsqueeze(-1) ** 2).T @ basis * (CUTOFF / n)
    torch.testing.assert_close(overlap, torch.eye(4, dtype=torch.float64) * CUTOFF / 2)


def test_gaussians_peak_on_their_grid_and_meet_at_one_spacing():
    grid = torch.linspace(0, CUTOFF, 11, dtype=torch.float64)
    basis = gaussian_basis(grid, CUTOFF, 11)
    assert basis.diagonal().tolist() == [1.0] * 11
    assert basis.diagonal(1).tolist() == pytest.approx([math.exp(-0.5)] * 10)
