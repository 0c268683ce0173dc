"""`epitaxy benchmark`: official folds, both ROC-AUCs, the board, resuming, the submission."""

import csv
import gzip
import json
import lzma
import re
from pathlib import Path

import numpy as np
import pytest

from epitaxy.cli import main
from epitaxy.errors import DataError, SplitError
from epitaxy_benchmarks.matbench import TASKS
from epitaxy_benchmarks.matbench_board import board
from epitaxy_benchmarks.matbench_fold import fold_split
from epitaxy_benchmarks.matbench_scores import classification_scores, regression_scores
from epitaxy_benchmarks.matbench_submission import digest
from epitaxy_benchmarks.matbench_task import load_task

SHARED = Path(__file__).parents[3] / "shared" / "data"
TABLES = SHARED / "composition_tables" / "matbench"
needs_tables = pytest.mark.skipif(
    not TABLES.exists(), reason="needs ../shared/data/composition_tables"
)
FOREST = "{use: random_forest, n_trees: 8}"


def benchmark(*words: object) -> int:
    return main(["benchmark", *map(str, words), "--quiet"])


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@needs_tables
def test_the_dummy_has_the_numbers_of_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = ["matbench_steels", "matbench_phonons", "matbench_jdft2d"]
    assert benchmark(*tasks, "--path", TABLES, "--model", "dummy", "-o", tmp_path) == 0
    out = capsys.readouterr().out
    for task in tasks:
        dummy = board(task).entry("Dummy")
        assert dummy is not None
        found = results(tmp_path)["tasks"][task]
        assert round(found["scores"]["mae"]["mean"], 4) == dummy[0]
        assert round(found["scores"]["mae"]["std"], 4) == dummy[1]
        assert f"mae {dummy[0]:.4f}, on the board {dummy[0]:.4f}" in out
    assert "official folds (sha256 agrees)" in out


@needs_tables
def test_a_killed_run_goes_on_with_the_folds_that_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["matbench_steels", "--path", TABLES, "--model", FOREST, "-o", tmp_path / "b"]
    assert benchmark(*words) == 0
    whole = results(tmp_path / "b")
    folds = sorted((tmp_path / "b/matbench_steels").iterdir())
    times = {fold.name: (fold / "predictions.json").stat().st_mtime_ns for fold in folds}
    (folds[2] / "predictions.json").unlink()
    assert benchmark(*words) == 0
    for fold in folds:
        is_new = (fold / "predictions.json").stat().st_mtime_ns != times[fold.name]
        assert is_new == (fold == folds[2])
    again = results(tmp_path / "b")
    scores = "tasks", "matbench_steels", "scores"
    assert _at(again, *scores) == _at(whole, *scores)

    capsys.readouterr()
    other = [*words[:-3], "{use: random_forest, n_trees: 9}", "-o", tmp_path / "b"]
    assert benchmark(*other) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert benchmark(*other, "--overwrite") == 0


def _at(document: dict, *keys: str) -> object:
    for key in keys:
        document = document[key]
    return document


@needs_tables
def test_a_part_of_a_task_is_not_comparable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["steels", "--path", TABLES / "steels_yield.csv.xz", "--model", FOREST]
    assert benchmark(*words, "--fold", 0, "--fold", 3, "-o", tmp_path / "folds") == 0
    assert "not comparable with the board: 2 of 5 folds" in capsys.readouterr().out
    assert benchmark(*words, "--limit", 60, "-o", tmp_path / "limit") == 0
    assert "not comparable with the board: 60 of 312 rows" in capsys.readouterr().out
    for part in ("folds", "limit"):
        found = results(tmp_path / part)["tasks"]["matbench_steels"]
        assert found["rank"] is None
        assert not (tmp_path / part / "submission").exists()


@needs_tables
def test_the_submission_is_what_matbench_reads(tmp_path: Path) -> None:
    words = ["--path", TABLES, "--model", FOREST, "-o", tmp_path]
    assert benchmark("matbench_steels", *words) == 0
    assert benchmark("matbench_expt_is_metal", *words, "--set", "model.n_trees=8") == 0
    folder = tmp_path / "submission"
    document = json.loads(gzip.decompress((folder / "results.json.gz").read_bytes()))
    # the keys that matbench.bench.MatbenchBenchmark.from_dict asks for, no more
    assert set(document) == {
        *("@module", "@class", "version", "benchmark_name", "tasks", "user_metadata"),
        *("datestamp", "hash"),
    }
    assert document["hash"] == digest({k: v for k, v in document.items() if k != "hash"})
    assert set(document["tasks"]) == {"matbench_steels", "matbench_expt_is_metal"}
    steels = document["tasks"]["matbench_steels"]
    assert set(steels) == {"@module", "@class", "benchmark_name", "dataset_name", "results"}
    assert set(steels["results"]) == {f"fold_{k}" for k in range(5)}
    ids = [name for fold in steels["results"].values() for name in fold["data"]]
    assert sorted(ids) == [f"mb-steels-{k:03d}" for k in range(1, 313)]
    fold = steels["results"]["fold_0"]
    assert set(fold) == {"data", "parameters", "scores", "uncertainty"}
    assert set(fold["scores"]) == {"mae", "rmse", "mape", "max_error"}
    metal = document["tasks"]["matbench_expt_is_metal"]["results"]["fold_0"]
    assert set(metal["scores"]) == {"accuracy", "balanced_accuracy", "f1", "rocauc"}
    assert metal["scores"]["rocauc"] == metal["scores"]["balanced_accuracy"]
    assert all(isinstance(p, float) and 0 <= p <= 1 for p in metal["data"].values())
    info = json.loads((folder / "info.json").read_text())
    wanted = {"authors", "algorithm", "algorithm_long", "bibtex_refs", "notes", "requirements"}
    assert set(info) == wanted


@needs_tables
def test_both_areas_are_printed_and_the_honest_one_is_larger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--path", TABLES, "--model", "{use: random_forest, n_trees: 15}", "-o", tmp_path]
    assert benchmark("matbench_expt_is_metal", *words, "--fold", 0) == 0
    found = results(tmp_path)["tasks"]["matbench_expt_is_metal"]["scores"]
    assert found["rocauc_official"]["mean"] == found["balanced_accuracy"]["mean"]
    assert found["rocauc"]["mean"] > found["rocauc_official"]["mean"] + 0.02
    assert re.search(r"fold +train +valid +test +rocauc_official +rocauc", capsys.readouterr().out)


def test_the_scores_are_those_of_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.3).astype(float)
    probability = np.round(np.clip(0.3 * labels + 0.7 * rng.random(300), 0, 1), 2)  # with ties
    said = probability > 0.5
    found = classification_scores(labels, probability)
    assert found["rocauc"] == pytest.approx(metrics.roc_auc_score(labels, probability))
    assert found["rocauc_official"] == pytest.approx(metrics.roc_auc_score(labels, said))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, said)
    )
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, said))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, said))
    numbers = regression_scores(np.array([1.0, 2.0, 0.0]), np.array([1.5, 2.0, 1.0]))
    assert numbers == pytest.approx(
        {"mae": 0.5, "rmse": np.sqrt(1.25 / 3), "mape": 0.25, "max_error": 1.0}
    )


@needs_tables
@pytest.mark.parametrize("task", ["steels", "glass", "expt_is_metal", "jdft2d", "phonons"])
def test_validation_is_a_part_of_the_training_rows_by_whole_formulas(task: str) -> None:
    from epitaxy.composition import compositions

    loaded = load_task(f"matbench_{task}", TABLES)
    split = fold_split(loaded, 1, valid=0.1, seed=0)
    train, test = loaded.folds[1]
    assert np.array_equal(split.rows["test"], test)
    both = np.concatenate([split.rows["train"], split.rows["valid"]])
    assert np.array_equal(np.sort(both), train)
    assert 0.07 < len(split.valid) / len(train) < 0.13
    assert not set(compositions(split.train)) & set(compositions(split.valid))
    assert split.valid.elements <= split.train.elements


@needs_tables
@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_all_tasks_have_the_official_folds_and_targets(task: str) -> None:
    folder = SHARED / "castelli_perov5" if task == "matbench_perovskites" else TABLES
    loaded = load_task(task, folder)
    assert loaded.is_official
    assert len(loaded.dataset) == TASKS[task].n_rows


def steels(folder: Path, change: str) -> Path:
    with lzma.open(TABLES / "steels_yield.csv.xz", "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if change == "cut":
        rows = rows[:-1]
    if change == "unit":
        rows = [{**row, "target": str(float(row["target"]) / 1000)} for row in rows]
    if change == "swap":  # both are tested in fold 0: the errors of the means stay the same
        rows[2], rows[4] = rows[4], rows[2]
    if change == "digits":
        rows = [{**row, "target": str(float(row["target"]) * (1 + 1e-15))} for row in rows]
    path = folder / "steels_yield.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["formula", "target"])
        writer.writeheader()
        writer.writerows(rows)
    return path


@needs_tables
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut", "311 labelled rows, the official matbench_steels has 312"),
        ("unit", r"has an error of 0\.2297, on the board 229\.7445"),
        ("swap", "rows of matbench_steels are not in the official order"),
    ],
)
def test_a_table_that_is_not_the_official_one_is_refused(
    tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_task("matbench_steels", steels(tmp_path, change))


@needs_tables
def test_the_last_digits_of_targets_may_differ(tmp_path: Path) -> None:
    assert load_task("matbench_steels", steels(tmp_path, "digits")).is_official


@needs_tables
def test_a_cut_file_is_to_be_fetched_again_not_used_in_part(tmp_path: Path) -> None:
    whole = (TABLES / "steels_yield.csv.xz").read_bytes()
    (tmp_path / "steels_yield.csv.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="Get it anew: matbench_steels needs all") as caught:
        load_task("matbench_steels", tmp_path)
    assert "keep-going" not in str(caught.value)


@needs_tables
def test_labels_in_another_order_give_other_folds_and_are_refused(tmp_path: Path) -> None:
    with lzma.open(TABLES / "glass.csv.xz", "rt", encoding="utf-8") as stream:
        header, *rows = stream.read().splitlines()
    (tmp_path / "glass.csv").write_text("\n".join([header, *rows[::-1]]) + "\n")
    with pytest.raises(SplitError, match="the folds of matbench_glass that follow from its labels"):
        load_task("matbench_glass", tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["matbench_steel"], "Did you mean matbench_steels?"),
        (["matbench_steels"], "looked for matbench_steels.json, steels_yield.csv"),
        (["matbench_steels", "--valid", "1.5"], "a fraction from 0 to below 1"),
        (["matbench_steels", "--set", "modle.x=1"], "KEY beginning with one of model"),
        (["matbench_steels", "--set", "model.n_tree=1"], "n_tree"),
    ],
)
def test_bad_input_is_named_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert benchmark(*words, "--path", tmp_path, "--model", FOREST, "-o", tmp_path / "o") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@needs_tables
def test_a_model_that_refuses_an_element_gets_the_mean_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = "{use: linear, features: element_fractions}"
    assert benchmark("expt_gap", "--path", TABLES, "--model", model, "-o", tmp_path) == 0
    found = results(tmp_path)["tasks"]["matbench_expt_gap"]
    n_by_mean = sum(fold["n_by_mean"] for fold in found["folds"])
    assert n_by_mean > 0
    assert f"{n_by_mean} test entries hold elements that the training part lacks" in (
        capsys.readouterr().out
    )


def test_a_graph_network_is_given_a_head_and_trained_on_structures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    path = SHARED / "matbench_phonons"
    if not path.exists():
        pytest.skip("needs ../shared/data/matbench_phonons")
    (tmp_path / "schnet.yaml").write_text(
        "model: {use: schnet, width: 8, n_layers: 1, cutoff: 3.0}\n"
        "training: {epochs: 1, batch_size: 32}\n"
    )
    file = next(path.glob("*.json*"))
    words = ["matbench_phonons", "--path", file, "--model", tmp_path / "schnet.yaml"]
    assert benchmark(*words, "--limit", 40, "--fold", 0, "-o", tmp_path / "o") == 0
    out = capsys.readouterr().out
    assert "structures, folds of its own" in out
    assert results(tmp_path / "o")["tasks"]["matbench_phonons"]["inputs"] == "structures"
