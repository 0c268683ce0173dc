"""`epitaxy learning-curve` as a user runs it: also killed in the middle and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

CONFIG = {
    "dataset": "metals",
    "split": {"method": "random", "valid": 6, "test": 10},
    "model": {"use": "painn", "width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5},
    "training": {"epochs": 4, "batch_size": 2, "lr": 0.01, "n_threads": 1, "ema_decay": 0},
    "learning_curve": {
        "sizes": [8, 16, 32],
        "seeds": 2,
        "metric": "forces_mae",
        "arms": {"direct": {}, "pair": {"strategy": {"use": "ensemble", "n_members": 2}}},
    },
}
COMMAND = [sys.executable, "-m", "epitaxy", "learning-curve", "curve.yaml"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_metals):
    directory = tmp_path_factory.mktemp("curve")
    make_metals(48).save(directory / "metals")
    (directory / "curve.yaml").write_text(yaml.safe_dump(CONFIG))
    return directory


@pytest.fixture(scope="module")
def whole(place):
    done = run(place, "-o", "whole")
    assert done.returncode == 0, done.stderr
    return done


def run(place, *more):
    return subprocess.run(
        [*COMMAND, *more], cwd=place, capture_output=True, text=True, timeout=300, check=False
    )


def numbers(folder):
    document = json.loads((folder / "learning_curve.json").read_text())
    points = [(p["arm"], p["n_train"], p["seed"], p["metrics"]) for p in document["points"]]
    return points, document["findings"]


def test_the_curve_is_printed_drawn_and_written(place, whole) -> None:
    assert "12 points: 2 arms, sizes 8, 16, 32 of 32" in whole.stderr
    assert "[12/12] pair, 32 structures, seed 1" in whole.stderr
    assert "x N^-" in whole.stdout
    assert "gain" in whole.stdout
    assert (place / "whole" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((place / "whole" / "learning_curve.json").read_text())
    assert set(document["data"]) >= {"dataset", "split", "test"}
    assert document["versions"]["torch"]
    assert document["unit"] == "eV/Å"
    tests = {p["digests"]["test"] for p in document["points"]}
    assert len(tests) == 1
    for n, seed in ((8, 0), (16, 1)):
        trains = {p["digests"]["train"] for p in document["points"] if point(p) == (n, seed)}
        assert len(trains) == 1  # both arms learn from the same structures
    fit = document["findings"]["all"]["fits"]["direct"]
    assert fit["slope"] < 0


def point(found):
    return found["n_train"], found["seed"]


def test_a_finished_point_is_an_artifact_with_its_errors(place, whole) -> None:
    folder = place / "whole" / "direct" / "n-16" / "seed-1"
    manifest = json.loads((folder / "artifact" / "manifest.json").read_text())
    tested = json.loads((folder / "metrics.json").read_text())["metrics"]["test"]
    assert manifest["metrics"]["test"] == tested
    assert manifest["data"]["n_train"] == 16
    assert manifest["data"]["n_valid"] == 3  # scaled with the subset
    assert not list((place / "whole").rglob("checkpoint*"))


def test_a_killed_curve_goes_on_and_ends_with_the_same_numbers(place, whole) -> None:
    process = subprocess.Popen(
        [*COMMAND, "-o", "cut"], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        while process.poll() is None:
            if len(list((place / "cut").glob("*/*/*/metrics.json"))) >= 5:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    finished = {p: p.stat().st_mtime_ns for p in (place / "cut").glob("*/*/*/metrics.json")}
    assert 5 <= len(finished) < 12
    refused = run(place, "-o", "cut")
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    done = run(place, "-o", "cut", "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{len(finished)} of 12 points were finished before" in done.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    assert numbers(place / "cut") == numbers(place / "whole")


def test_an_interrupted_curve_says_how_to_go_on(place) -> None:
    process = subprocess.Popen(
        [*COMMAND, "-o", "stopped"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None:
            if list((place / "stopped").glob("*/*/*/metrics.json")):
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.002)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "epitaxy learning-curve curve.yaml --resume -o stopped" in errors


def test_points_of_another_config_are_not_mixed_in(place, whole) -> None:
    changed = run(place, "-o", "whole", "--resume", "--set", "training.lr=0.5")
    assert changed.returncode == 2
    assert "another config" in changed.stderr
    more = run(place, "-o", "whole", "--resume", "--set", "learning_curve.sizes=[8, 16]", "--json")
    assert more.returncode == 0
    assert list(json.loads(more.stdout)["findings"]["all"]["table"]["direct"]) == ["8", "16"]


def test_low_and_high_test_stand_side_by_side(place) -> None:
    forward = {"method": "forward", "target": "energy", "groups": "none", "low_test": True}
    section = {"sizes": [8, 16], "seeds": 1, "metric": "energy_mae"}
    config = {**CONFIG, "split": forward, "learning_curve": section}
    (place / "forward.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "epitaxy"]
    options = {"cwd": place, "capture_output": True, "text": True, "timeout": 300, "check": True}
    subprocess.run([*command, "learning-curve", "forward.yaml", "-o", "forward"], **options)
    document = json.loads((place / "forward" / "learning_curve.json").read_text())
    assert list(document["findings"]) == ["all", "low-test", "high-test"]
    split = ["split", "metals", "-o", "forward.json", "--method", "forward", "--target", "energy"]
    subprocess.run([*command, *split, "--groups", "none", "--low-test"], **options)
    artifact = "forward/model/n-16/seed-0/artifact"
    evaluate = ["evaluate", artifact, "metals", "--split", "forward.json", "--json"]
    found = json.loads(subprocess.run([*command, *evaluate], **options).stdout)
    both = found["by_group"]
    assert set(both) == {"low-test", "high-test"}
    assert both["low-test"]["energy"]["n"] == both["high-test"]["energy"]["n"] == 5


def test_an_element_that_no_training_structure_has_is_refused_at_once(place, make_metals) -> None:
    make_metals(24, elements=("Cu", "Al", "Ni")).save(place / "three", overwrite=True)
    split = {"method": "element", "elements": ["Ni"], "groups": "none"}
    plain = {k: v for k, v in CONFIG.items() if k != "learning_curve"}
    for verb, more in (("train", {}), ("learning-curve", {"learning_curve": {"sizes": [1.0]}})):
        config = {**plain, **more, "dataset": "three", "split": split}
        (place / "element.yaml").write_text(yaml.safe_dump(config))
        done = subprocess.run(
            [sys.executable, "-m", "epitaxy", verb, "element.yaml", "-o", "element"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 2
        assert "holds Ni" in done.stderr
        assert not (place / "element").exists()


@pytest.fixture(scope="module")
def parent(place):
    plain = {k: v for k, v in CONFIG.items() if k != "learning_curve"}
    (place / "parent.yaml").write_text(yaml.safe_dump({**plain, "output": "parent"}))
    command = [sys.executable, "-m", "epitaxy", "train", "parent.yaml", "--quiet"]
    subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=300)
    return "parent/artifact"


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"use": "transfer", "parent": "nowhere"}, "nowhere is not an artifact"),
        ({"use": "delta", "parent": "nowhere"}, "nowhere is not an artifact"),
        ({"use": "transfer", "rank": 4}, "mode 'full' has no adapters"),
        ({"use": "transfer", "mode": "adapters", "rank": 99}, "allowed: 1 to 8"),
        ({"use": "transfer", "mode": "layers", "layers": {"network.x": 1}}, "called 'network.x'"),
        ({"use": "ensemble", "member": {"use": "transfer", "parent": "nowhere"}}, "nowhere"),
        ({"use": "features", "level": "V1"}, "cannot read the features of a parent"),
    ],
    ids=["parent", "delta", "rank", "large rank", "layers", "member", "features"],
)
def test_what_a_late_arm_lacks_is_said_before_any_training(place, parent, arm, message) -> None:
    if arm["use"] != "ensemble":
        arm = {"parent": parent, **arm}
    section = {"sizes": [8], "seeds": 1, "arms": {"scratch": {}, "late": {"strategy": arm}}}
    (place / "late.yaml").write_text(yaml.safe_dump({**CONFIG, "learning_curve": section}))
    command = [sys.executable, "-m", "epitaxy", "learning-curve", "late.yaml", "-o", "late"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "late, 8 structures" in done.stderr
    assert not (place / "late").exists()


def test_elements_that_a_parent_lacks_are_named_before_any_training(
    place, parent, make_metals
) -> None:
    make_metals(24, elements=("Cu", "Al", "Ni")).save(place / "nickel", overwrite=True)
    strategy = {"use": "transfer", "parent": parent}
    arms = {"scratch": {}, "late": {"strategy": strategy}}
    section = {"sizes": [6], "seeds": 1, "arms": arms, "elements": "cover"}
    split = {"method": "random", "valid": 3, "test": 3}
    config = {**CONFIG, "dataset": "nickel", "split": split, "learning_curve": section}
    (place / "late.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "epitaxy", "learning-curve", "late.yaml", "-o", "late"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has not seen Ni" in done.stderr
    assert not (place / "late").exists()


def test_a_number_that_cannot_come_out_is_named_before_any_training(place) -> None:
    for metric, message in (
        ("band_gap_mae", "no structure of the test set has band_gap"),
        ("gap_mae", "a quantity with _mae"),
    ):
        refused = run(place, "-o", "no", "--set", f"learning_curve.metric={metric}")
        assert refused.returncode == 2
        assert message in refused.stderr
        assert not (place / "no").exists()


def test_arms_of_different_targets_need_a_number_to_compare_them_by(place, make_metals) -> None:
    metals = make_metals(30)
    metals.with_target("band_gap", np.linspace(0, 1, 30)).save(place / "gaps", overwrite=True)
    body = {"use": "painn", "width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5}
    gap = {"model": {"use": "property", "body": body, "targets": ["band_gap"]}}
    section = {"sizes": [8], "seeds": 1, "arms": {"energy": {}, "gap": gap}}
    split = {"method": "random", "valid": 4, "test": 4}
    config = {**CONFIG, "dataset": "gaps", "split": split, "learning_curve": section}
    (place / "mixed.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "epitaxy", "learning-curve", "mixed.yaml", "-o", "mixed"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the arms predict different targets" in done.stderr
    assert not (place / "mixed").exists()


def test_train_says_which_command_a_learning_curve_is_for(place) -> None:
    command = [sys.executable, "-m", "epitaxy", "train", "curve.yaml", "-o", "no"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "epitaxy learning-curve curve.yaml" in done.stderr


def test_a_parent_in_the_same_file_is_trained_once(place, make_metals) -> None:
    make_metals(40, seed=7).save(place / "others", overwrite=True)
    transfer = {"use": "transfer", "parent": "big", "mode": "head"}
    section = {
        "sizes": [8],
        "seeds": 1,
        "parents": {"big": {"dataset": "others", "training": {"epochs": 2}}},
        "arms": {"none": {}, "head": {"strategy": transfer}},
    }
    (place / "family.yaml").write_text(yaml.safe_dump({**CONFIG, "learning_curve": section}))
    command = [sys.executable, "-m", "epitaxy", "learning-curve", "family.yaml", "-o", "family"]
    options = {"cwd": place, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr
    manifest = place / "family" / "parents" / "big" / "artifact" / "manifest.json"
    before = manifest.read_bytes()
    assert json.loads(before)["data"]["n_train"] == 24
    document = json.loads((place / "family" / "learning_curve.json").read_text())
    lineage = {p["arm"]: p["lineage"] for p in document["points"]}
    assert lineage["head"]["parent"] == str(Path("family/parents/big/artifact"))
    again = subprocess.run([*command, "--resume"], check=False, **options)
    assert "2 of 2 points were finished before" in again.stderr
    assert manifest.read_bytes() == before
    change = ["--set", "learning_curve.parents.big.training.lr=0.5"]
    other = subprocess.run([*command, "--resume", *change], check=False, **options)
    assert other.returncode == 2
    assert "a parent of another config" in other.stderr


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"model": {"width": 16}}, "it has width: 8, not 16"),
        ({"model": {"cutoff": 4.0}}, "it has cutoff: 3.5, not 4.0"),
        ({"model": {"use": "schnet", "width": 8}}, "weights fit only the same network"),
        ({"strategy": {"mode": "layers"}}, "mode: layers needs layers"),
        ({"strategy": {"parent": "copper"}}, "has not seen Al"),
        ({"strategy": {"parent": "two"}}, "trained with the strategy 'ensemble'"),
        ({"strategy": {"use": "features", "parent": "big", "level": "V1"}}, "cannot read the feat"),
        ({"strategy": {"use": "delta", "parent": "big", "learner": "ensemble"}}, "put delta into"),
    ],
    ids=["width", "cutoff", "network", "layers", "elements", "ensemble", "features", "delta"],
)
def test_what_does_not_fit_a_parent_of_the_file_is_said_before_it_is_trained(
    place, make_metals, arm, message
) -> None:
    make_metals(12, elements=("Cu",)).save(place / "copper", overwrite=True)
    parents = {
        "big": {},
        "copper": {"dataset": "copper", "split": {"valid": 2, "test": 2}},
        "two": {"strategy": {"use": "ensemble", "n_members": 2}},
    }
    strategy = {"use": "transfer", "parent": "big"}
    if arm.get("strategy", {}).get("use") is None:
        arm = {**arm, "strategy": {**strategy, **arm.get("strategy", {})}}
    arms = {"none": {}, "good": {"strategy": strategy}, "late": arm}
    section = {"sizes": [8], "seeds": 1, "parents": parents, "arms": arms}
    (place / "unfit.yaml").write_text(yaml.safe_dump({**CONFIG, "learning_curve": section}))
    command = [sys.executable, "-m", "epitaxy", "learning-curve", "unfit.yaml", "-o", "unfit"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "late, 8 structures" in done.stderr
    assert not (place / "unfit").exists()


def test_an_arm_may_learn_from_further_data(place, make_metals) -> None:
    make_metals(20, seed=7).save(place / "others", overwrite=True)
    section = {
        "sizes": [8],
        "seeds": 1,
        "arms": {"alone": {}, "together": {"also": [{"dataset": "others", "n": 12}]}},
    }
    (place / "also.yaml").write_text(yaml.safe_dump({**CONFIG, "learning_curve": section}))
    command = [sys.executable, "-m", "epitaxy", "learning-curve", "also.yaml", "-o", "also"]
    options = {"cwd": place, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr
    document = json.loads((place / "also" / "learning_curve.json").read_text())
    points = {p["arm"]: p for p in document["points"]}
    assert (points["alone"]["n_train"], points["alone"]["n_also"]) == (8, 0)
    assert (points["together"]["n_train"], points["together"]["n_also"]) == (8, 12)
    assert points["alone"]["digests"]["test"] == points["together"]["digests"]["test"]
    assert points["alone"]["digests"]["train"] != points["together"]["digests"]["train"]
    for change, message in (
        ("[{dataset: others, n: 99}]", "asks for 99 structures of a dataset that has 20"),
        ("[{dataset: nowhere}]", "nowhere"),
        ("[others]", "must be a list of {dataset"),
    ):
        words = ["-o", "no", "--set", f"learning_curve.arms.together.also={change}"]
        refused = subprocess.run([*command[:5], *words], check=False, **options)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert not (place / "no").exists()


def test_groups_of_the_test_in_other_data_are_told(place, make_metals) -> None:
    names = np.array([f"cell-{k}" for k in range(40)])
    make_metals(40).with_tag("cell", names).save(place / "tagged", overwrite=True)
    split = {"method": "group", "groups": "cell", "assignment": "hash", "valid": 0.1, "test": 0.3}
    arms = {"more": {"also": [{"dataset": "tagged", "n": 4}]}}
    section = {"sizes": [6], "seeds": 1, "parents": {"same": {}, "other": {"split": {"seed": 5}}}}
    document = {**CONFIG, "dataset": "tagged", "split": split}
    document["learning_curve"] = {**section, "arms": arms}
    document["training"] = {**CONFIG["training"], "epochs": 1}
    (place / "shared.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "epitaxy", "learning-curve", "shared.yaml", "-o", "shared"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    assert "arm more learns from" in done.stderr
    assert "parent other learns from" in done.stderr
    assert "parent same learns from" not in done.stderr
