"""`epitaxy cross-database`: errors and offsets between databases, and what divided groups hide."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from epitaxy.cli import main
from epitaxy.composition import composition_entry
from epitaxy.dataset import Dataset

SHIFT = 0.7  # eV, of the second database
CONFIG = {
    "model": {"use": "random_forest", "targets": ["band_gap"], "n_trees": 20},
    "cross_database": {
        "datasets": {"first": "first", "second": "second"},
        "target": "band_gap",
        "n_train": 150,
        "n_valid": 10,
        "n_test": 30,
        "seeds": 2,
    },
}


def formulas(seed: int, *, shift: float = 0.0) -> Dataset:
    """Return oxides, each formula twice; the gap is of the formula, up to a shift and noise."""
    rng = np.random.default_rng(seed)
    entries = []
    for index in range(200):
        a, b, o = (int(x) for x in rng.integers(1, 12, 3))
        of_formula = np.random.default_rng((a, b, o)).normal()
        for copy in range(2):
            gap = 2.0 + 3.0 * o / (a + b + o) + 0.3 * of_formula + shift
            gap += 0.02 * float(rng.normal())
            name = f"Ti{a}Fe{b}O{o}"
            entries.append(composition_entry(name, targets={"band_gap": gap}, id=f"{index}-{copy}"))
    return Dataset.from_entries(entries)


@pytest.fixture
def place(tmp_path, monkeypatch):
    formulas(0).save(tmp_path / "first")
    formulas(1, shift=SHIFT).save(tmp_path / "second")
    (tmp_path / "cross.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cross(*words):
    return main(["cross-database", "cross.yaml", "--quiet", "-o", "out", *words])


def test_a_shift_between_databases_is_found_with_its_sign(place, capsys) -> None:
    assert cross() == 0
    assert "tested on second" in capsys.readouterr().out
    document = json.loads((place / "out" / "cross_database.json").read_text())
    found = {(p["learnt_on"], p["tested_on"]): p for p in document["pairs"]}
    assert found["first", "second"]["offset"]["mean"] == pytest.approx(-SHIFT, abs=0.2)
    assert found["second", "first"]["offset"]["mean"] == pytest.approx(SHIFT, abs=0.2)
    assert abs(found["first", "first"]["offset"]["mean"]) < 0.2
    assert found["first", "second"]["times_own"] > 1.5
    low, high = found["first", "second"]["mae"]["interval"]
    assert low <= found["first", "second"]["mae"]["mean"] <= high
    values = np.array(found["first", "second"]["mae"]["by_seed"])
    assert len(values) == 2
    assert high - low == pytest.approx(12.706 * abs(values[1] - values[0]), rel=1e-4)  # Student's t
    assert (place / "out" / "cross_database.png").read_bytes().startswith(b"\x89PNG")


def test_where_no_group_occurs_again_rows_and_groups_are_not_compared(place, capsys) -> None:
    for name in ("first", "second"):
        entries = [
            composition_entry(f"Ti{n + 1}O", targets={"band_gap": n % 3}, id=str(n))
            for n in range(200)
        ]
        Dataset.from_entries(entries).save(place / f"{name}-once")
    names = ("--set", "cross_database.datasets={first: first-once, second: second-once}")
    small = ("--set", "cross_database.n_train=100", "--set", "cross_database.seeds=1")
    assert main(["cross-database", "cross.yaml", "-o", "out", *names, *small]) == 0
    assert "0 entries share their group" in capsys.readouterr().err
    assert json.loads((place / "out" / "cross_database.json").read_text())["groups"] == {
        "dataset": None,
        "ungrouped_mae": None,
        "grouped_mae": None,
        "flatters_by": None,
    }
    asked = ("--set", "cross_database.flattered=second", "-o", "asked")
    assert main(["cross-database", "cross.yaml", *names, *small, *asked]) == 2
    assert "second: 0 entries share their group" in capsys.readouterr().err


def test_one_seed_has_no_interval(place) -> None:
    assert cross("--set", "cross_database.seeds=1") == 0
    document = json.loads((place / "out" / "cross_database.json").read_text())
    assert all(pair["mae"]["interval"] is None for pair in document["pairs"])
    assert (place / "out" / "cross_database.png").exists()


def test_dividing_groups_flatters(place) -> None:
    assert cross() == 0
    document = json.loads((place / "out" / "cross_database.json").read_text())
    assert document["groups"]["dataset"] == "first"
    assert document["groups"]["flatters_by"] > 0.2  # a copy of the formula was learnt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("datasets={first: first}", "give two or more"),
        ("target=formation_energy", "first has no formation_energy"),
        ("target=is_metal", "not one intensive number"),
        ("target=gap", "no quantity named 'gap'"),
        ("n_train=1000", "asked for are 1,010 and 30"),
        ("flattered=third", "flattered 'third' is none of first, second"),
        ("seeds=[1, 1]", "one is there twice"),
        ("datasets={grouped: first, b: second}", "not ungrouped or grouped: choose another"),
        ("datasets={a/b: first, b: second}", "without a slash"),
        ("n_trian=3", "Did you mean 'n_train'?"),
        ("datasets={first: first, second: nowhere}", "nowhere"),
    ],
)
def test_bad_input_is_named_before_any_training(place, capsys, change, message) -> None:
    assert cross("--set", f"cross_database.{change}") == 2
    assert message in capsys.readouterr().err
    assert not (place / "out").exists()


def test_a_model_of_another_target_is_refused_before_any_training(place, capsys) -> None:
    assert cross("--set", "model.targets=[is_metal]") == 2
    assert "target is band_gap, but the model predicts is_metal" in capsys.readouterr().err
    assert not (place / "out").exists()


def test_train_says_which_command_the_file_is_for(place, capsys) -> None:
    assert main(["train", "cross.yaml"]) == 2
    assert "epitaxy cross-database cross.yaml" in capsys.readouterr().err


COMMAND = [sys.executable, "-m", "epitaxy", "cross-database", "cross.yaml"]


def stopped(place, signal_number, *, after):
    """Send a signal once so many trainings are finished; return the status and what was said."""
    process = subprocess.Popen(
        [*COMMAND, "-o", "out", "--set", "model.n_trees=200"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None:
            if len(list((place / "out").glob("*/*/metrics.json"))) >= after:
                process.send_signal(signal_number)
                break
            time.sleep(0.002)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode, errors


def test_a_killed_comparison_keeps_what_is_finished(place, capsys) -> None:
    assert stopped(place, signal.SIGKILL, after=3)[0] == -signal.SIGKILL
    finished = {p: p.stat().st_mtime_ns for p in (place / "out").glob("*/*/metrics.json")}
    assert 3 <= len(finished) < 8  # two seeds of two databases and of two ways to divide
    changed = ("--set", "model.n_trees=200")
    assert cross(*changed) == 2
    assert "--resume" in capsys.readouterr().err
    words = ["cross-database", "cross.yaml", "-o", "out", "--resume", *changed]
    assert main(words) == 0
    assert f"{len(finished)} of 8 trainings were finished before" in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    kept = json.loads((place / "out" / "cross_database.json").read_text())
    assert main(["cross-database", "cross.yaml", "--quiet", "-o", "whole", *changed]) == 0
    assert kept == json.loads((place / "whole" / "cross_database.json").read_text())


def test_an_interrupted_comparison_says_how_to_go_on(place) -> None:
    status, errors = stopped(place, signal.SIGINT, after=1)
    assert status == 130
    assert "epitaxy cross-database cross.yaml --resume -o out --set model.n_trees=200" in errors


def test_trainings_of_another_config_are_not_mixed_in(place, capsys) -> None:
    assert cross() == 0
    before = (place / "out" / "cross_database.json").read_text()
    assert cross("--resume", "--set", "model.n_trees=3") == 2
    assert "made with another config" in capsys.readouterr().err
    assert (place / "out" / "cross_database.json").read_text() == before
