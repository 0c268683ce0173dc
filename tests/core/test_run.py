import logging

import pytest
import torch

from epitaxy.errors import ConfigError
from epitaxy.run import Run


class Watcher:
    def __init__(self, *, fails: bool = False):
        self.seen: list[str] = []
        self.fails = fails

    def run_started(self, run, facts):
        self.seen.append("started")
        if self.fails:
            raise ValueError("the meter is broken")

    def epoch_finished(self, run, epoch, metrics):
        self.seen.append(f"epoch {epoch}")


def test_the_same_seed_and_purpose_give_the_same_numbers(tmp_path):
    first, second = (Run(tmp_path, seed=7) for _ in range(2))
    assert torch.rand(4, generator=first.generator("a")).equal(
        torch.rand(4, generator=second.generator("a"))
    )
    assert first.rng("a").random() == second.rng("a").random()


def test_purposes_and_seeds_are_unrelated(tmp_path):
    run, other = Run(tmp_path, seed=7), Run(tmp_path, seed=8)
    seeds = {run.seed_for("a"), run.seed_for("b"), other.seed_for("a"), other.seed_for("b")}
    assert len(seeds) == 4


def test_children_have_seeds_and_folders_of_their_own(tmp_path):
    run = Run(tmp_path, seed=1, dtype="float64", resume=True)
    children = [run.child(f"members/{k}") for k in range(3)]
    assert len({run.seed, *(child.seed for child in children)}) == 4
    assert children[1].directory == tmp_path / "members" / "1"
    assert children[1].child("members/0").name == "members/1/members/0"
    assert (children[0].dtype, children[0].resume) == ("float64", True)
    assert run.child("x", seed=5).seed == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float16"}, ["float16", "float32"]),
        ({"seed": -1}, ["-1", "seed"]),
        ({"seed": 1.5}, ["1.5"]),
    ],
)
def test_wrong_values_are_named(tmp_path, options, words):
    with pytest.raises(ConfigError) as caught:
        Run(tmp_path, **options)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("device", ["warp", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(tmp_path, device):
    with pytest.raises(ConfigError, match=device):
        Run(tmp_path, device=device).torch_device()


def test_a_failing_observer_is_shown_once_and_left_out(tmp_path, caplog):
    good, bad = Watcher(), Watcher(fails=True)
    run = Run(tmp_path, observers=[bad, good])
    with caplog.at_level(logging.WARNING, logger="epitaxy"):
        run.started({})
        run.epoch_finished(1, {})
        run.epoch_finished(2, {})
    assert good.seen == ["started", "epoch 1", "epoch 2"]
    assert bad.seen == ["started"]
    assert sum("the meter is broken" in record.getMessage() for record in caplog.records) == 1
