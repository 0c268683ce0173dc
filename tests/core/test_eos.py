import numpy as np
import pytest
from ase.eos import EquationOfState as AseEquationOfState
from ase.units import GPa

from epitaxy.errors import DataError
from epitaxy.evaluation.eos import (
    GPA_PER_EV_PER_CUBIC_ANGSTROM,
    EquationOfState,
    fit_equation_of_state,
)

# Silicon at PBE, per atom: K. Lejaeghere et al., Science 351, aad3000 (2016), WIEN2k.
SILICON = EquationOfState(
    energy=-5.4,
    volume=20.453,
    bulk_modulus=88.545 / GPA_PER_EV_PER_CUBIC_ANGSTROM,
    bulk_modulus_derivative=4.31,
    covariance=np.zeros((4, 4)),
    residual=0.0,
    volume_range=(19.0, 22.0),
)
VOLUMES = 20.453 * np.linspace(0.94, 1.06, 9)


def test_the_unit_is_that_of_ase() -> None:
    assert pytest.approx(1 / GPa, rel=1e-7) == GPA_PER_EV_PER_CUBIC_ANGSTROM


def test_the_fit_returns_the_parameters_that_made_the_energies() -> None:
    fit = fit_equation_of_state(VOLUMES, SILICON.energy_at(VOLUMES))
    assert fit.energy == pytest.approx(SILICON.energy, abs=1e-10)
    assert fit.volume == pytest.approx(SILICON.volume, rel=1e-8)
    assert fit.bulk_modulus == pytest.approx(SILICON.bulk_modulus, rel=1e-7)
    assert fit.bulk_modulus_derivative == pytest.approx(4.31, rel=1e-5)
    assert fit.residual < 1e-10
    assert fit.is_inside_range


def test_the_fit_agrees_with_that_of_ase_on_noisy_energies() -> None:
    noise = np.random.default_rng(3).normal(0, 2e-5, len(VOLUMES))
    energies = SILICON.energy_at(VOLUMES) + noise
    fit = fit_equation_of_state(VOLUMES, energies)
    volume, energy, bulk_modulus = AseEquationOfState(VOLUMES, energies, eos="birchmurnaghan").fit(
        warn=False
    )
    assert fit.volume == pytest.approx(volume, rel=1e-6)
    assert fit.energy == pytest.approx(energy, abs=1e-8)
    assert fit.bulk_modulus == pytest.approx(bulk_modulus, rel=1e-4)


def test_the_pressure_is_minus_the_slope_of_the_energy() -> None:
    step = 1e-4
    slope = (SILICON.energy_at(VOLUMES + step) - SILICON.energy_at(VOLUMES - step)) / (2 * step)
    np.testing.assert_allclose(SILICON.pressure_at(VOLUMES), -slope, atol=1e-9)


def test_the_bulk_modulus_derivative_is_that_of_the_pressure_curve() -> None:
    v, step = SILICON.volume, 1e-3
    volumes = v + step * np.arange(-2, 3)
    pressures = SILICON.pressure_at(volumes)
    moduli = -volumes[1:-1] * (pressures[2:] - pressures[:-2]) / (2 * step)
    derivative = (moduli[2] - moduli[0]) / (pressures[3] - pressures[1])
    assert moduli[1] == pytest.approx(SILICON.bulk_modulus, rel=1e-6)
    assert derivative == pytest.approx(4.31, rel=1e-4)


def test_the_covariance_is_the_scatter_of_repeated_fits() -> None:
    rng = np.random.default_rng(0)
    energies = SILICON.energy_at(VOLUMES)
    fits = [
        fit_equation_of_state(VOLUMES, energies + rng.normal(0, 1e-4, len(VOLUMES)))
        for _ in range(400)
    ]
    found = np.array(
        [[f.energy, f.volume, f.bulk_modulus, f.bulk_modulus_derivative] for f in fits]
    )
    predicted = np.sqrt(np.mean([np.diag(f.covariance) for f in fits], axis=0))
    np.testing.assert_allclose(predicted, found.std(axis=0), rtol=0.15)


def test_the_order_of_the_points_does_not_matter() -> None:
    energies = SILICON.energy_at(VOLUMES)
    shuffled = np.random.default_rng(1).permutation(len(VOLUMES))
    first = fit_equation_of_state(VOLUMES, energies)
    second = fit_equation_of_state(VOLUMES[shuffled], energies[shuffled])
    assert first.volume == pytest.approx(second.volume, rel=1e-9)


def test_four_points_fit_exactly_and_say_that_they_have_no_error_bar() -> None:
    volumes = VOLUMES[::2][:4]
    fit = fit_equation_of_state(volumes, SILICON.energy_at(volumes))
    assert fit.volume == pytest.approx(SILICON.volume, rel=1e-6)
    assert np.isnan(fit.std).all()


def test_a_minimum_outside_the_volumes_is_noticed() -> None:
    volumes = 20.453 * np.linspace(1.02, 1.10, 7)
    assert not fit_equation_of_state(volumes, SILICON.energy_at(volumes)).is_inside_range


@pytest.mark.parametrize(
    ("volumes", "energies", "message"),
    [
        ([1, 2, 3], [1, 0, 1], "3 different volumes"),
        ([1, 2, 3, 4], [1, 0, 1], "as many energies"),
        ([1, 2, 3, -4], [1, 0, 1, 2], "positive"),
        ([1, 2, 3, 4], [1, 0, np.nan, 2], "finite"),
        ([16, 18, 20, 22, 24], [0.0, 0.3, 0.5, 0.6, 0.65], "no minimum"),
    ],
)
def test_unusable_points_are_refused(
    volumes: list[float], energies: list[float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fit_equation_of_state(volumes, energies)
