"""Errors, groups, calibration and their plots."""

from pathlib import Path

import numpy as np
import pytest

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import DataError, EpitaxyError
from epitaxy.evaluation.calibration import calibrate
from epitaxy.evaluation.metrics import Errors, evaluate
from epitaxy.evaluation.plots import plot_calibration, plot_parity, write_figure
from epitaxy.protocols import Predictions


def dataset() -> Dataset:
    """Three structures of 1, 2 and 3 atoms; the second has no energy, the third no forces."""
    entries = []
    for k, targets in enumerate(({"energy", "forces"}, {"forces"}, {"energy"})):
        n_atoms = k + 1
        values = {"energy": np.array(-5.0 * n_atoms), "forces": np.full((n_atoms, 3), float(k))}
        entries.append(
            Entry(
                numbers=np.full(n_atoms, 14, dtype=np.uint8),
                positions=np.arange(3.0 * n_atoms).reshape(n_atoms, 3),
                cell=np.zeros((3, 3)),
                pbc=np.zeros(3, dtype=bool),
                targets={name: values[name] for name in targets},
                id=f"s{k}",
                tags={"kind": "odd" if k % 2 else "even"},
            )
        )
    return Dataset.from_entries(entries)


def predictions(*, std: bool = False) -> Predictions:
    mean = {
        "energy": np.array([-5.0 + 0.1, 99.0, -15.0 - 0.6]),
        "forces": np.concatenate(
            [np.full((1, 3), 0.5), np.full((2, 3), 1.0), np.full((3, 3), 9.0)]
        ),
    }
    sigma = {name: np.full_like(value, 0.2) for name, value in mean.items()}
    return Predictions(mean, sigma if std else None)


def test_energies_are_compared_per_atom_and_missing_labels_are_left_out() -> None:
    errors = evaluate(predictions(), dataset()).errors
    assert errors["energy"].n == 2
    assert errors["energy"].unit == "eV/atom"
    assert errors["energy"].mae == pytest.approx((0.1 + 0.2) / 2)
    assert errors["energy"].bias == pytest.approx((0.1 - 0.2) / 2)
    assert errors["forces"].n == 9
    assert errors["forces"].mae == pytest.approx((3 * 0.5 + 6 * 0.0) / 9)


def test_groups_are_listed_apart() -> None:
    by_group = evaluate(predictions(), dataset(), group="kind").by_group
    assert set(by_group) == {"even", "odd"}
    assert set(by_group["odd"]) == {"forces"}
    assert by_group["even"]["forces"].mae == pytest.approx(0.5)


def test_the_worst_structures_are_named() -> None:
    assert [name for name, _ in evaluate(predictions(), dataset()).worst("energy", 2)] == [
        "s2",
        "s0",
    ]


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to compare: predicted stress, labelled"):
        evaluate(Predictions({"stress": np.zeros((3, 6))}), dataset())


def test_a_nan_prediction_is_an_error_that_names_the_structure() -> None:
    values = predictions().mean["energy"].copy()
    values[2] = np.nan
    with pytest.raises(DataError, match=r"energy that is not finite for 1 of 3 structures \(s2\)"):
        evaluate(Predictions({"energy": values}), dataset())


def test_rmse_and_r2_have_their_textbook_values() -> None:
    errors = Errors.of(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]), unit="eV")
    assert errors.rmse == pytest.approx(np.sqrt(1 / 3))
    assert errors.r2 == pytest.approx(0.5)


def test_normal_errors_with_true_std_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    std = rng.uniform(0.5, 2.0, 100_000)
    result = calibrate(rng.normal(0, std), std)
    assert result.scale == pytest.approx(1, abs=0.02)
    assert result.coverage == pytest.approx((0.6827, 0.9545), abs=0.01)
    assert result.expected_calibration_error < 0.03
    assert result.rank_correlation > 0.3


def test_overconfidence_shows_as_a_scale_above_one() -> None:
    rng = np.random.default_rng(1)
    std = rng.uniform(0.5, 2.0, 50_000)
    assert calibrate(rng.normal(0, 3 * std), std).scale == pytest.approx(3, abs=0.05)


def test_members_that_agree_exactly_keep_the_numbers_finite() -> None:
    result = calibrate(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.1, 0.2]))
    assert np.isfinite(result.bins).all()
    assert np.isfinite(result.expected_calibration_error)


def test_values_that_are_zero_by_symmetry_do_not_rule_the_scale() -> None:
    rng = np.random.default_rng(2)
    std = rng.uniform(0.5, 2.0, 10_000)
    error = rng.normal(0, 2 * std)
    std[:100], error[:100] = 1e-9, 1e-6
    assert calibrate(error, std).scale == pytest.approx(2, abs=0.05)


def test_a_full_disk_leaves_the_earlier_picture(tmp_path: Path) -> None:
    class Full:
        def savefig(self, path: Path, **_: object) -> None:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    picture = tmp_path / "parity.png"
    picture.write_bytes(b"old")
    with pytest.raises(EpitaxyError, match=r"parity.png could not be written: No space left"):
        write_figure(Full(), picture)
    assert picture.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [picture]


def test_negative_std_is_refused() -> None:
    with pytest.raises(DataError, match="no negative values"):
        calibrate(np.ones(2), -np.ones(2))


def test_plots_are_written(tmp_path: Path) -> None:
    evaluation = evaluate(predictions(std=True), dataset(), group="kind")
    parity = plot_parity(evaluation, tmp_path / "a" / "parity.png", groups=["even", "odd", "even"])
    calibration = plot_calibration(evaluation.calibration, tmp_path / "calibration.png")
    for path in (parity, calibration):
        assert path.read_bytes()[:4] == b"\x89PNG"
