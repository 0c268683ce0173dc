"""Power laws, equal errors and paired comparisons; subsets; what a config may say."""

import math

import numpy as np
import pytest

from epitaxy.config import read_config
from epitaxy.errors import CapabilityError, ConfigError, DataError, OptionError
from epitaxy.evaluation.learning_curve import (
    Point,
    compare_arms,
    equivalent_rows,
    fit_power_law,
    sign_flip_p,
)
from epitaxy.learning_curve import Findings, learning_curve, read_curve, training_order
from epitaxy.learning_curve.options import CurveOptions, sizes_of
from epitaxy.split import split_random

SIZES = (50, 100, 200, 400, 800)


def curve(arm, *, scale, slope=-0.5, noise=0.0, seeds=5, sizes=SIZES):
    rng = np.random.default_rng(1)
    return [
        Point(arm, n, seed, scale * n**slope * math.exp(noise * rng.normal()))
        for seed in range(seeds)
        for n in sizes
    ]


def test_a_power_law_is_found_exactly() -> None:
    fit = fit_power_law(curve("a", scale=3.0, slope=-0.4))
    assert fit.slope == pytest.approx(-0.4)
    assert math.exp(fit.intercept) == pytest.approx(3.0)
    assert fit.r2 == pytest.approx(1.0)
    assert fit.slope_interval == pytest.approx((-0.4, -0.4))
    assert fit.error(10_000) == pytest.approx(3.0 * 10_000**-0.4)
    assert fit.drawn == "seeds"


def test_the_fit_is_that_of_numpy_and_its_interval_holds_the_truth() -> None:
    points = curve("a", scale=3.0, slope=-0.4, noise=0.2)
    fit = fit_power_law(points)
    expected = np.polyfit(np.log([p.n_train for p in points]), np.log([p.error for p in points]), 1)
    assert (fit.slope, fit.intercept) == pytest.approx(tuple(expected))
    assert fit.slope_interval[0] < -0.4 < fit.slope_interval[1]
    assert fit.slope_interval[0] < fit.slope < fit.slope_interval[1]


def test_two_points_have_a_line_without_an_interval() -> None:
    fit = fit_power_law([Point("a", 10, 0, 1.0), Point("a", 40, 0, 0.5)])
    assert fit.slope == pytest.approx(-0.5)
    assert all(math.isnan(x) for x in (*fit.slope_interval, *fit.intercept_interval))


def test_with_few_seeds_points_are_drawn() -> None:
    assert fit_power_law(curve("a", scale=3.0, noise=0.1, seeds=1)).drawn == "points"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([Point("a", 10, 0, 0.0), Point("a", 20, 0, 1.0)], "zero"),
        ([Point("a", 10, 0, 1.0), Point("a", 10, 1, 2.0)], "two sizes"),
    ],
)
def test_what_has_no_power_law_is_refused(points, message) -> None:
    with pytest.raises(DataError, match=message):
        fit_power_law(points)


def test_half_the_error_is_worth_four_times_the_structures() -> None:
    reference, other = curve("scratch", scale=2.0), curve("transfer", scale=1.0)
    found = equivalent_rows(reference, other)
    assert [e.n_train for e in found] == list(SIZES)
    assert [e.rows for e in found] == pytest.approx([4.0 * n for n in SIZES])
    assert found[0].interval == pytest.approx((200.0, 200.0))


def test_far_extrapolation_is_refused_unless_asked_for() -> None:
    reference, other = curve("scratch", scale=10.0), curve("transfer", scale=1.0)
    found = equivalent_rows(reference, other)
    assert found[0].rows == pytest.approx(5000)
    assert found[-1].rows is None
    assert "more than 8,000 structures" in found[-1].reason
    asked = equivalent_rows(reference, other, extrapolate=True)
    assert asked[-1].rows == pytest.approx(80_000)


def test_a_reference_that_does_not_learn_has_no_equivalent() -> None:
    found = equivalent_rows(curve("scratch", scale=1.0, slope=0.1), curve("other", scale=0.5))
    assert all(e.rows is None and "does not fall" in e.reason for e in found)


def test_sign_flips_give_exact_probabilities() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 32)
    assert sign_flip_p([1.0, -1.0]) == 1.0
    assert sign_flip_p([0.0, 0.0]) == 1.0
    assert sign_flip_p(np.full(30, 0.5)) < 1e-3


def test_arms_are_compared_in_pairs_of_one_seed() -> None:
    rng = np.random.default_rng(0)
    luck = {seed: math.exp(rng.normal()) for seed in range(5)}  # far larger than the gain
    scratch = [Point("scratch", n, s, luck[s] / n) for s in luck for n in (10, 20)]
    other = [Point("other", p.n_train, p.seed, 0.9 * p.error) for p in scratch]
    found = compare_arms(scratch, other)
    assert [c.n_train for c in found] == [10, 20, None]
    assert [c.relative for c in found] == pytest.approx([0.1, 0.1, 0.1])
    assert found[0].gain == pytest.approx(0.1 * np.mean(list(luck.values())) / 10)
    assert found[2].interval == pytest.approx((-math.log(0.9), -math.log(0.9)))
    assert all(c.p == pytest.approx(2 / 32) for c in found)


def test_pairs_that_one_arm_lacks_are_left_out() -> None:
    scratch = [Point("scratch", 10, s, 1.0) for s in range(3)]
    found = compare_arms(scratch, [Point("other", 10, 1, 0.5), Point("other", 10, 7, 0.1)])
    assert found[0].n_pairs == 1
    assert found[0].interval is None


def test_the_table_has_the_sample_standard_deviation() -> None:
    points = [Point("a", 10, 0, 1.0), Point("a", 10, 1, 3.0)]
    findings = Findings.of(points, reference="a")
    assert findings.table()["a"][10] == pytest.approx((2.0, math.sqrt(2.0), 2))
    assert not findings.fits


def test_subsets_are_nested_differ_by_seed_and_can_cover_elements(make_metals) -> None:
    split = split_random(make_metals(40, elements=("Cu", "Al", "Ni")), valid=4, test=6)
    plain = training_order(split, seed=0, cover=False)
    assert sorted(plain) == list(range(len(split.train)))
    np.testing.assert_array_equal(plain, training_order(split, seed=0, cover=False))
    assert not np.array_equal(plain, training_order(split, seed=1, cover=False))
    order = training_order(split, seed=0, cover=True)
    assert sorted(order) == sorted(plain)
    assert split.train[np.sort(order[:3])].elements == split.train.elements


def test_sizes_are_numbers_or_parts() -> None:
    assert sizes_of(CurveOptions(sizes=[1.0, 5, 0.5]), 40) == [5, 20, 40]
    with pytest.raises(ConfigError, match="only 40"):
        sizes_of(CurveOptions(sizes=[41]), 40)
    with pytest.raises(ConfigError, match="there already"):
        sizes_of(CurveOptions(sizes=[20, 0.5]), 40)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sizes": []}, "empty"),
        ({"sizes": [0]}, "size 0"),
        ({"sizes": [1.5]}, "size 1.5"),
        ({"sizes": [4], "seeds": [1, 1]}, "different"),
        ({"sizes": [4], "seeds": 0}, "seeds"),
        ({"sizes": [4], "arms": {"a/b": {}}}, "folder"),
        ({"sizes": [4], "arms": {"a": {"split": {}}}}, "changes split"),
        ({"sizes": [4], "reference": "b"}, "no arm"),
        ({"sizes": [4], "vlaid": "fixed"}, "vlaid"),
        (None, "section learning_curve"),
    ],
)
def test_mistakes_in_the_section_are_named(section, message) -> None:
    document = {"dataset": "d", "model": "painn", "learning_curve": section}
    with pytest.raises((ConfigError, OptionError), match=message):
        read_curve(document)


def test_an_arm_changes_or_replaces_sections() -> None:
    arms = {
        "wide": {"model": {"width": 32}, "training": {"lr": 0.1}},
        "other": {"model": {"use": "schnet", "cutoff": 4.0}, "strategy": "ensemble"},
    }
    document = {
        "dataset": "d",
        "model": {"use": "painn", "width": 8, "cutoff": 3.0},
        "training": {"epochs": 3, "lr": 0.2},
        "learning_curve": {"sizes": [4], "arms": arms},
    }
    found = read_curve(document).arms
    assert found["wide"].model.to_config() == {"use": "painn", "width": 32, "cutoff": 3.0}
    assert (found["wide"].training.lr, found["wide"].training.epochs) == (0.1, 3)
    assert found["other"].model.to_config() == {"use": "schnet", "cutoff": 4.0}
    assert found["other"].strategy.use == "ensemble"
    assert (
        found["other"].training
        == read_config({k: v for k, v in document.items() if k != "learning_curve"}).training
    )


def test_a_subset_that_lacks_an_element_is_refused_before_training(make_metals, tmp_path) -> None:
    make_metals(40, elements=("Cu", "Al", "Ni", "Pd")).save(tmp_path / "metals")
    document = {
        "dataset": str(tmp_path / "metals"),
        "split": {"method": "random", "valid": 4, "test": 10},
        "model": {"use": "painn", "width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5},
        "training": {"epochs": 1, "n_threads": 1},
        "learning_curve": {"sizes": [1, 8], "seeds": 1},
        "output": str(tmp_path / "run"),
    }
    with pytest.raises(CapabilityError, match="elements: cover"):
        learning_curve(read_curve(document))
    assert not (tmp_path / "run").exists()
    document["learning_curve"] = {"sizes": [4, 8], "seeds": 1, "elements": "cover"}
    result = learning_curve(read_curve(document))
    assert list(result.findings["all"].table()["model"]) == [4, 8]
