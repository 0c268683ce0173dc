"""The loop itself: what it learns, when it stops, and that it goes on to the bit."""

import os
import signal

import numpy as np
import pytest
import torch

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import ConfigError, TrainingError
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.training.journal import read_journal
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()
SMALL = Spec("painn", {"width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5})
QUICK = TrainingOptions(epochs=4, batch_size=4, lr=0.01, n_threads=1)


class Crash:
    """Ends the process's training in an epoch, as a fault would."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def epoch_finished(self, run, epoch, metrics):
        if epoch == self.epoch:
            raise SystemExit("crash")


def train(directory, train_set, valid_set, *, training=QUICK, **options):
    model = build_model(SMALL, REGISTRY)
    run = Run(directory, training=training, registry=REGISTRY, **options)
    return model, model.fit(train_set, valid_set, run=run)


def weights(model):
    return {name: value.clone() for name, value in model.potential.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def changed(dataset, row, **targets):
    entries = list(dataset)
    old = entries[row]
    entries[row] = Entry(
        old.numbers, old.positions, old.cell, old.pbc, {**old.targets, **targets}, id=old.id
    )
    return Dataset.from_entries(entries)


def test_training_learns_and_keeps_the_best_weights(tmp_path, make_metals):
    dataset = make_metals(24)
    options = QUICK.replace(epochs=15, stress_weight=100.0)
    model, metrics = train(tmp_path, dataset[:18], dataset[18:], training=options)
    lines = read_journal(tmp_path / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, 16))
    assert lines[-1]["valid_forces_mae"] < 0.7 * lines[0]["valid_forces_mae"]
    best = min(lines, key=lambda line: line["valid_loss"])
    assert metrics["best_epoch"] == best["epoch"]
    predicted = model.predict(dataset[18:]).mean
    forces, _ = dataset[18:].target("forces")
    assert np.abs(predicted["forces"] - forces).mean() == pytest.approx(
        best["valid_forces_mae"], rel=1e-4
    )
    assert set(predicted) == {"energy", "forces", "stress"}


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path, make_metals):
    dataset = make_metals(10)
    found = [
        weights(train(tmp_path / str(k), dataset[:8], dataset[8:], seed=seed)[0])
        for k, seed in enumerate((1, 1, 2))
    ]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_training_leaves_torch_as_it_was(tmp_path, make_metals):
    dataset = make_metals(8)
    before = torch.get_num_threads(), torch.get_rng_state()
    train(tmp_path, dataset[:6], dataset[6:])
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert not torch.are_deterministic_algorithms_enabled()


def test_energies_alone_are_enough(tmp_path, make_metals):
    entries = [
        Entry(e.numbers, e.positions, e.cell, e.pbc, {"energy": e.targets["energy"]}, id=e.id)
        for e in make_metals(10)
    ]
    dataset = Dataset.from_entries(entries)
    options = QUICK.replace(forces_weight=0.0)
    model, metrics = train(tmp_path, dataset[:8], dataset[8:], training=options)
    assert "valid_forces_mae" not in metrics
    assert set(model.predict(dataset).mean) == {"energy"}
    with pytest.raises(ConfigError, match="forces_weight"):
        train(tmp_path / "again", dataset[:8], dataset[8:])


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "lr": 1e-4},
        {"schedule": "reduce_on_plateau", "schedule_options": {"patience": 0}, "ema_decay": 0.0},
        {"optimizer": "lbfgs", "schedule": "StepLR", "schedule_options": {"step_size": 2}},
    ],
    ids=["adamw", "sgd", "plateau", "lbfgs"],
)
def test_a_crashed_training_goes_on_to_the_bit(tmp_path, make_metals, extra):
    dataset = make_metals(14)
    parts = dataset[:10], dataset[10:]
    options = QUICK.replace(checkpoint_every=2, **extra)
    whole, _ = train(tmp_path / "whole", *parts, training=options)
    with pytest.raises(SystemExit):
        train(tmp_path / "cut", *parts, training=options, observers=[Crash(3)])
    torch.manual_seed(99)
    resumed, _ = train(tmp_path / "cut", *parts, training=options, resume=True)
    assert same(weights(whole), weights(resumed))
    drop = ("seconds", "structures_per_second")
    lines = [
        [{k: v for k, v in line.items() if k not in drop} for line in read_journal(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "cut" / "metrics.jsonl")
    ]
    assert lines[0] == lines[1]


def test_a_checkpoint_of_other_data_is_refused(tmp_path, make_metals):
    dataset = make_metals(10)
    train(tmp_path, dataset[:8], dataset[8:])
    with pytest.raises(TrainingError, match="train_digest"):
        train(tmp_path, dataset[1:8], dataset[8:], resume=True)


def test_a_finished_training_can_be_given_more_epochs(tmp_path, make_metals):
    dataset = make_metals(10)
    train(tmp_path, dataset[:8], dataset[8:])
    train(tmp_path, dataset[:8], dataset[8:], training=QUICK.replace(epochs=6), resume=True)
    assert len(read_journal(tmp_path / "metrics.jsonl")) == 6


def test_ctrl_c_finishes_the_batch_and_leaves_a_checkpoint(tmp_path, make_metals):
    class Impatient:
        def epoch_finished(self, run, epoch, metrics):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    dataset = make_metals(12)
    parts = dataset[:10], dataset[10:]
    whole, _ = train(tmp_path / "whole", *parts)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="epoch 3"):
        train(tmp_path / "cut", *parts, observers=[Impatient()])
    assert signal.getsignal(signal.SIGINT) is handler
    resumed, _ = train(tmp_path / "cut", *parts, resume=True)
    assert same(weights(whole), weights(resumed))


def test_a_loss_that_is_not_finite_names_epoch_and_structures(tmp_path, make_metals):
    forces = np.array(make_metals(8)[3].targets["forces"])
    forces[0, 0] = 1e30  # its square overflows
    dataset = changed(make_metals(8), 3, forces=forces)
    with pytest.raises(TrainingError) as caught:
        train(tmp_path, dataset[:6], dataset[6:])
    assert all(word in str(caught.value) for word in ("epoch 1", "metal-3", "lr"))


def test_patience_and_time_end_a_training(tmp_path, make_metals):
    dataset = make_metals(8)
    parts = dataset[:6], dataset[6:]
    options = QUICK.replace(epochs=50, lr=1e-12, ema_decay=0.0, schedule="constant", patience=3)
    _, metrics = train(tmp_path / "patience", *parts, training=options)
    lines = read_journal(tmp_path / "patience" / "metrics.jsonl")
    assert len(lines) == metrics["best_epoch"] + 3
    options = QUICK.replace(epochs=10**6, max_seconds=0.5)
    _, metrics = train(tmp_path / "time", *parts, training=options)
    assert 0 < metrics["best_epoch"] < 10**6
    last = read_journal(tmp_path / "time" / "metrics.jsonl")[-1]
    assert last["lr"] < 0.1 * QUICK.lr  # the cosine ends with the time


def test_a_training_without_validation_keeps_the_last_weights(tmp_path, make_metals):
    dataset = make_metals(8)
    _, metrics = train(tmp_path, dataset, dataset[:0])
    assert metrics["epoch"] == 4
    assert not any(name.startswith("valid") for name in metrics)


def test_an_empty_set_or_an_unknown_element_is_refused(tmp_path, make_metals):
    dataset = make_metals(8)
    with pytest.raises(TrainingError, match="empty"):
        train(tmp_path, dataset[:0], dataset)
    copper = make_metals(6, elements=("Cu",))
    with pytest.raises(TrainingError, match="Al"):
        train(tmp_path, copper, dataset)


@pytest.mark.slow
def test_a_compiled_training_has_the_same_loss(tmp_path, make_metals):
    dataset = make_metals(12)
    parts = dataset[:8], dataset[8:]
    options = QUICK.replace(epochs=2, stress_weight=10.0)
    metrics = [
        train(tmp_path / str(compiled), *parts, training=options.replace(compile=compiled))[1]
        for compiled in (False, True)
    ]
    names = ("train_loss", "valid_loss", "valid_forces_mae")
    assert [metrics[0][n] for n in names] == pytest.approx([metrics[1][n] for n in names], rel=1e-4)
