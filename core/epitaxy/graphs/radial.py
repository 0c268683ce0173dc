"""Functions of the distance between two atoms: cutoffs and radial bases."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def distances(vectors: Tensor) -> Tensor:
    """Return the lengths (n_edges,) of the edge vectors (n_edges, 3), Å."""
    return vectors.square().sum(dim=-1).sqrt()


def cosine_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """Return a weight that falls from 1 to 0 at the cutoff, with zero slope at both ends.

    Energies and forces built on it are continuous when an atom crosses the cutoff.

    Source: Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4.
    """
    inside = (distances < cutoff).to(distances.dtype)
    return 0.5 * (torch.cos(distances * (math.pi / cutoff)) + 1.0) * inside


def bessel_basis(distances: Tensor, cutoff: float, n_radial: int) -> Tensor:
    """Return ``sin(n pi r / cutoff) / r`` for n = 1 ... n_radial: (n_edges, n_radial), 1/Å.

    Source: Gasteiger, Groß, Günnemann, arXiv 2003.03123, eq. 7, without the constant factor,
    as used by PaiNN (arXiv 2102.03150, section 3.4).
    """
    order = torch.arange(1, n_radial + 1, dtype=distances.dtype, device=distances.device)
    r = distances.unsqueeze(-1)
    return torch.sin(r * (order * (math.pi / cutoff))) / r


def gaussian_basis(distances: Tensor, cutoff: float, n_radial: int) -> Tensor:
    """Return Gaussians on a grid from 0 to the cutoff: (n_edges, n_radial).

    The width of each equals the spacing of the grid.

    Source: Schütt et al., arXiv 1706.08566, section 4.2.2: ``exp(-gamma (r - mu_k)^2)``.
    """
    centers = torch.linspace(0, cutoff, n_radial, dtype=distances.dtype, device=distances.device)
    spacing = cutoff / (n_radial - 1)
    return torch.exp(-0.5 * ((distances.unsqueeze(-1) - centers) / spacing).square())
