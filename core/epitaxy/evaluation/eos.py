"""The equation of state of a crystal: equilibrium volume and bulk modulus from E(V).

The third-order Birch-Murnaghan equation is exactly a cubic polynomial in ``V^(-2/3)``, so the
fit is linear least squares: no starting guess, no iteration, one answer.

Sources:
    F. Birch, Phys. Rev. 71, 809 (1947), doi:10.1103/PhysRev.71.809 (finite strain to third
    order); the fit as a polynomial in ``V^(-2/3)``: K. Lejaeghere et al., Science 351, aad3000
    (2016), doi:10.1126/science.aad3000, supplement, whose volumes 0.94 to 1.06 V0 are the usual
    range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from epitaxy.errors import DataError

GPA_PER_EV_PER_CUBIC_ANGSTROM = 160.21766340000002
"""1 eV/Å^3 in GPa, from the elementary charge of the SI (exact since 2019)."""

_N_PARAMETERS = 4
_FARTHEST_MINIMUM = 3.0  # in half ranges of V^(-2/3) from its middle: beyond, it is no result


@dataclass(frozen=True, slots=True, kw_only=True)
class EquationOfState:
    """Third-order Birch-Murnaghan equation of state.

    Attributes:
        energy: E0, energy at the minimum, eV.
        volume: V0, volume at the minimum, Å^3.
        bulk_modulus: B0 at V0, eV/Å^3.
        bulk_modulus_derivative: B0', pressure derivative of the bulk modulus at V0.
        covariance: (4, 4), of (energy, volume, bulk_modulus, bulk_modulus_derivative), from the
            residuals of the fit; nan when there are no more points than parameters.
        residual: root mean square of the residuals, eV.
        volume_range: smallest and largest fitted volume, Å^3.
    """

    energy: float
    volume: float
    bulk_modulus: float
    bulk_modulus_derivative: float
    covariance: np.ndarray = field(repr=False, compare=False)
    residual: float
    volume_range: tuple[float, float]

    @property
    def bulk_modulus_gpa(self) -> float:
        """B0 in GPa."""
        return self.bulk_modulus * GPA_PER_EV_PER_CUBIC_ANGSTROM

    @property
    def std(self) -> np.ndarray:
        """(4,) standard errors in the order and units of `covariance`."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    @property
    def is_inside_range(self) -> bool:
        """Whether V0 lies between the smallest and the largest fitted volume."""
        low, high = self.volume_range
        return low <= self.volume <= high

    def energy_at(self, volumes: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return E(V) in eV for `volumes` in Å^3; same shape.

        Source: Birch (1947); E(V) as in K. Lejaeghere et al., Science 351, aad3000 (2016).
        """
        return _birch_murnaghan(
            np.asarray(volumes, dtype=np.float64),
            (self.energy, self.volume, self.bulk_modulus, self.bulk_modulus_derivative),
        )

    def pressure_at(self, volumes: np.ndarray | Sequence[float]) -> np.ndarray:
        """Return the pressure -dE/dV in eV/Å^3 for `volumes` in Å^3; same shape.

        Source: F. Birch, Phys. Rev. 71, 809 (1947), third-order isothermal equation.
        """
        ratio = self.volume / np.asarray(volumes, dtype=np.float64)
        third = 0.75 * (self.bulk_modulus_derivative - 4.0) * (ratio ** (2 / 3) - 1.0)
        return np.asarray(
            1.5 * self.bulk_modulus * (ratio ** (7 / 3) - ratio ** (5 / 3)) * (1.0 + third)
        )


def _birch_murnaghan(
    volumes: np.ndarray, parameters: tuple[float, float, float, float]
) -> np.ndarray:
    energy, volume, bulk_modulus, derivative = parameters
    eulerian = (volume / volumes) ** (2 / 3) - 1.0
    return np.asarray(
        energy
        + 9.0
        / 16.0
        * volume
        * bulk_modulus
        * (eulerian**3 * derivative + eulerian**2 * (2.0 - 4.0 * eulerian))
    )


def fit_equation_of_state(
    volumes: np.ndarray | Sequence[float], energies: np.ndarray | Sequence[float]
) -> EquationOfState:
    """Fit the third-order Birch-Murnaghan equation.

    Args:
        volumes: (n,) Å^3, any order, n >= 4, at least four different ones.
        energies: (n,) eV, of the same cell as `volumes`.

    Raises:
        DataError: too few points, values that are not finite or positive, or no minimum.
    """
    v = np.asarray(volumes, dtype=np.float64)
    e = np.asarray(energies, dtype=np.float64)
    if v.ndim != 1 or v.shape != e.shape:
        raise DataError(
            f"an equation of state needs as many energies as volumes; got shapes "
            f"{v.shape} and {e.shape}"
        )
    if not (np.isfinite(v).all() and np.isfinite(e).all()):
        raise DataError("an equation of state needs finite volumes and energies; got nan or inf")
    if (v <= 0).any():
        raise DataError(f"a volume must be positive; got {v.min():g} Å^3")
    if len(np.unique(v)) < _N_PARAMETERS:
        raise DataError(
            f"an equation of state has {_N_PARAMETERS} parameters; got {len(np.unique(v))} "
            f"different volumes, give more points"
        )

    # Both axes are centred and scaled: the raw powers of V^(-2/3) are nearly collinear.
    x = v ** (-2 / 3)
    x_mean, x_scale = x.mean(), np.ptp(x) / 2
    t = (x - x_mean) / x_scale
    e_mean = e.mean()
    e_scale = np.ptp(e) or 1.0
    powers = np.vander(t, _N_PARAMETERS, increasing=True)  # (n, 4): 1, t, t^2, t^3
    coefficients, *_ = np.linalg.lstsq(powers, (e - e_mean) / e_scale, rcond=None)
    c0, c1, c2, c3 = coefficients * e_scale

    t_minimum = _minimum(c1, c2, c3)
    x_minimum = x_mean + x_scale * t_minimum if t_minimum is not None else -1.0
    if t_minimum is None or x_minimum <= 0 or abs(t_minimum) > _FARTHEST_MINIMUM:
        raise DataError(
            f"the energies have no minimum near volumes {v.min():.6g} to {v.max():.6g} Å^3: "
            f"choose volumes around the equilibrium (relax the cell first)"
        )
    v0 = float(x_minimum ** (-1.5))
    energy = e_mean + c0 + t_minimum * (c1 + t_minimum * (c2 + t_minimum * c3))
    # Chain rule from t to V at the minimum, where dE/dt = 0.
    second_t = 2 * c2 + 6 * c3 * t_minimum
    third_t = 6 * c3
    first_tv = -2 / 3 * v0 ** (-5 / 3) / x_scale
    second_tv = 10 / 9 * v0 ** (-8 / 3) / x_scale
    second_v = second_t * first_tv**2
    third_v = third_t * first_tv**3 + 3 * second_t * first_tv * second_tv
    bulk_modulus = v0 * second_v
    derivative = -1.0 - v0 * third_v / second_v

    parameters = (float(energy), v0, float(bulk_modulus), float(derivative))
    residuals = e - _birch_murnaghan(v, parameters)
    return EquationOfState(
        energy=parameters[0],
        volume=parameters[1],
        bulk_modulus=parameters[2],
        bulk_modulus_derivative=parameters[3],
        covariance=_covariance(v, parameters, residuals),
        residual=float(np.sqrt(np.mean(residuals**2))),
        volume_range=(float(v.min()), float(v.max())),
    )


def _minimum(c1: float, c2: float, c3: float) -> float | None:
    """Where c1 t + c2 t^2 + c3 t^3 has its minimum, or None.

    The root of ``3 c3 t^2 + 2 c2 t + c1`` with positive curvature is
    ``(-c2 + sqrt(c2^2 - 3 c1 c3)) / (3 c3)``, written here so that c3 = 0 is no special case.
    """
    discriminant = c2 * c2 - 3 * c1 * c3
    if discriminant <= 0:
        return None
    denominator = c2 + float(np.sqrt(discriminant))
    if denominator <= 0:
        return None
    return -c1 / denominator


def _covariance(
    volumes: np.ndarray, parameters: tuple[float, float, float, float], residuals: np.ndarray
) -> np.ndarray:
    """Covariance s^2 (J^T J)^-1 of the four parameters, from the residuals."""
    n_free = len(volumes) - _N_PARAMETERS
    if n_free <= 0:
        return np.full((_N_PARAMETERS, _N_PARAMETERS), np.nan)
    _, volume, bulk_modulus, derivative = parameters
    eulerian = (volume / volumes) ** (2 / 3) - 1.0
    shape = eulerian**3 * derivative + eulerian**2 * (2.0 - 4.0 * eulerian)
    slope = 3 * eulerian**2 * derivative + 4 * eulerian - 12 * eulerian**2
    eulerian_per_volume = 2 / 3 * (eulerian + 1.0) / volume
    jacobian = np.stack(
        [
            np.ones_like(volumes),
            9 / 16 * bulk_modulus * (shape + volume * slope * eulerian_per_volume),
            9 / 16 * volume * shape,
            9 / 16 * volume * bulk_modulus * eulerian**3,
        ],
        axis=1,
    )  # (n, 4)
    scale = np.linalg.norm(jacobian, axis=0)
    normal = (jacobian / scale).T @ (jacobian / scale)
    variance = float(residuals @ residuals) / n_free
    return np.asarray(variance * np.linalg.pinv(normal, hermitian=True) / np.outer(scale, scale))
