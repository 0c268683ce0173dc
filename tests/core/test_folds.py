"""MatBench's folds against what its own records say."""

import csv
import lzma
from pathlib import Path

import numpy as np
import pytest

from epitaxy.errors import SplitError
from epitaxy.folds import matbench_fold_of_ids, matbench_folds

TABLES = Path(__file__).parents[3] / "shared" / "data" / "composition_tables" / "matbench"
needs_tables = pytest.mark.skipif(
    not TABLES.exists(), reason="needs ../shared/data/composition_tables"
)


def targets(name: str) -> list[str]:
    with lzma.open(TABLES / f"{name}.csv.xz", "rt", encoding="utf-8") as stream:
        return [row["target"] for row in csv.DictReader(stream)]


def test_every_row_is_tested_once_and_never_trained_with_in_the_same_fold():
    folds = matbench_folds(312)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(312))
    for train, test in folds:
        assert not set(train) & set(test)
        assert len(train) + len(test) == 312


def test_the_dielectric_folds_are_those_of_the_official_records():
    # matbench_dielectric, records of benchmarks/matbench_v0.1_dummy (ids are rows + 1)
    folds = matbench_folds(4764)
    first = [8, 10, 19, 25, 31, 36, 38, 40, 41, 51, 62, 71, 76, 77, 85, 86, 98, 107, 113, 117]
    assert [row + 1 for row in folds[0][1][:20]] == first
    assert [row + 1 for row in folds[2][1][:3]] == [6, 7, 12]


@needs_tables
@pytest.mark.parametrize(
    ("table", "official"),
    [
        # mean absolute error of the mean of the training part, MatBench leaderboard ("dummy")
        ("steels_yield", 229.7445),
        ("jdft2d", 67.2851),
        ("phonons", 323.9822),
        ("dielectric", 0.8088),
        ("elasticity_log10G_VRH", 0.2931),
        ("elasticity_log10K_VRH", 0.2897),
        ("mp_gap", 1.3272),
        ("mp_e_form", 1.0059),
    ],
)
def test_the_dummy_regression_has_the_official_error(table: str, official: float):
    values = np.array([float(text) for text in targets(table)])
    errors = [
        np.abs(values[test] - values[train].mean()).mean()
        for train, test in matbench_folds(len(values))
    ]
    assert np.mean(errors) == pytest.approx(official, abs=5e-5)


@needs_tables
def test_folds_of_a_classification_hold_the_classes_in_proportion():
    labels = [text == "1" for text in targets("expt_is_metal")]
    share = np.mean(labels)
    for _, test in matbench_folds(len(labels), labels):
        assert np.mean(np.array(labels)[test]) == pytest.approx(share, abs=1e-3)
    assert not np.array_equal(matbench_folds(len(labels))[0][1], matbench_folds(4921, labels)[0][1])


def test_impossible_folds_are_refused():
    with pytest.raises(SplitError, match="3 rows cannot be divided"):
        matbench_folds(3)
    with pytest.raises(SplitError, match=r"labels have shape \(4,\)"):
        matbench_folds(10, [0, 1, 0, 1])
    with pytest.raises(SplitError, match="class 1 has 2 rows"):
        matbench_folds(10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0])


def test_official_ids_keep_their_folds_in_any_order_and_when_rows_were_dropped():
    ids = [f"mb-phonons-{row + 1:04d}" for row in range(1265)]
    whole = matbench_fold_of_ids(ids)
    for fold, (_, test) in enumerate(matbench_folds(1265)):
        assert (whole[test] == fold).all()
    chosen = np.random.default_rng(0).permutation(1265)[:700]
    assert np.array_equal(matbench_fold_of_ids([ids[row] for row in chosen]), whole[chosen])


@needs_tables
def test_official_folds_of_a_classification_need_all_rows_in_any_order():
    labels = np.array([text == "1" for text in targets("expt_is_metal")])
    ids = np.array([f"mb-expt-is-metal-{row + 1:04d}" for row in range(len(labels))])
    whole = matbench_fold_of_ids(list(ids), labels)
    for fold, (_, test) in enumerate(matbench_folds(len(labels), labels)):
        assert (whole[test] == fold).all()
    order = np.random.default_rng(0).permutation(len(labels))
    assert np.array_equal(matbench_fold_of_ids(list(ids[order]), labels[order]), whole[order])
    with pytest.raises(SplitError, match=r"4918 of the 4921 rows .* --keep-duplicates"):
        matbench_fold_of_ids(list(ids[3:]), labels[3:])
    with pytest.raises(SplitError, match="follow from the classes"):
        matbench_fold_of_ids(list(ids))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["mp-149"], "'mp-149' is not an id of MatBench"),
        (["mb-phonons-0001", "mb-steels-001"], "ids of 2 MatBench tasks: phonons, steels"),
        (["mb-phonons-0001", "mb-phonons-0001"], "occur twice"),
        (["mb-phonons-9999"], "not between 1 and 1265"),
    ],
)
def test_other_ids_are_refused(ids: list[str], message: str):
    with pytest.raises(SplitError, match=message):
        matbench_fold_of_ids(ids)
