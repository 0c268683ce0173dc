"""The parts of the training loop: options, batches, losses, sampler, average, schedules."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import ConfigError, TrainingError
from epitaxy.graphs.builder import build_batch
from epitaxy.potential import Outputs
from epitaxy.training.batches import LabelledGraphs, pack_rows, ragged_index
from epitaxy.training.ema import MovingAverage
from epitaxy.training.journal import Journal, read_journal
from epitaxy.training.losses import ErrorSums, batch_loss
from epitaxy.training.optimizers import WarmupCosine, check_training, make_optimizer, make_schedule
from epitaxy.training.options import TrainingOptions
from epitaxy.training.sampler import Sampler

CPU = torch.device("cpu")


# --- options ---


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"lr": 0.0}, "lr"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"loss": "mxe"}, "loss"),
        ({"validation_metric": "speed"}, "validation_metric"),
        ({"max_seconds": -1}, "max_seconds"),
        ({"energy_weight": 0, "forces_weight": 0}, "energy_weight"),
    ],
)
def test_an_option_out_of_range_is_named(options, name):
    with pytest.raises(ConfigError, match=name):
        TrainingOptions(**options)


def test_options_survive_the_way_through_plain_values():
    options = TrainingOptions(optimizer="sgd", optimizer_options={"momentum": 0.9}, patience=3)
    assert TrainingOptions(**options.to_config()) == options


def test_options_load_without_torch():
    code = "import sys, epitaxy.training.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- batches ---


@pytest.mark.parametrize("cache_bytes", [10**9, 0], ids=["kept", "built anew"])
def test_a_batch_is_the_graph_and_the_labels_of_its_rows(make_metals, cache_bytes):
    dataset = make_metals(9)
    graphs = LabelledGraphs(
        dataset, cutoff=4.0, dtype=torch.float64, device=CPU, cache_bytes=cache_bytes
    )
    rows = np.array([7, 2, 2, 5])
    graph, labels = graphs.batch(rows)
    expected = build_batch(dataset, rows, cutoff=4.0, dtype=torch.float64)
    assert graph.amounts is expected.amounts is None
    for found, wanted in zip(graph[:-1], expected[:-1], strict=True):
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted)
    for name, found in (("energy", labels.energy), ("forces", labels.forces)):
        np.testing.assert_array_equal(found.numpy(), dataset.target(name, rows)[0])
    assert labels.has_forces.shape == (graph.numbers.shape[0],)


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    picks=st.lists(st.integers(0, 7), max_size=8),
)
def test_ragged_index_lists_the_items_of_the_rows(counts, picks):
    rows = [pick % len(counts) for pick in picks]
    pointers = np.concatenate([[0], np.cumsum(counts)])
    expected = [i for row in rows for i in range(pointers[row], pointers[row + 1])]
    found = ragged_index(torch.as_tensor(pointers), torch.tensor(rows, dtype=torch.int64))
    assert found.tolist() == expected


@given(sizes=st.lists(st.integers(1, 50), max_size=30), budget=st.integers(1, 60))
def test_packed_rows_keep_the_order_and_the_budget(sizes, budget):
    groups = pack_rows(np.array(sizes), budget)
    assert [row for group in groups for row in group] == list(range(len(sizes)))
    assert all(len(g) == 1 or sum(sizes[row] for row in g) <= budget for g in groups)


# --- losses ---


def labelled(dataset):
    graphs = LabelledGraphs(dataset, cutoff=4.0, dtype=torch.float64, device=CPU)
    return graphs.batch(np.arange(len(dataset)))


def outputs_near(labels, shift):
    return Outputs(
        labels.energy + shift * labels.n_atoms, None, labels.forces + shift, labels.stress + shift
    )


@pytest.mark.parametrize(
    ("kind", "expected"), [("mse", 0.04), ("mae", 0.2), ("huber", 0.05 * (0.2 - 0.025))]
)
def test_the_loss_of_a_constant_error_is_its_weighted_sum(make_metals, kind, expected):
    _, labels = labelled(make_metals(5))
    options = TrainingOptions(
        loss=kind, huber_delta=0.05, energy_weight=2.0, forces_weight=3.0, stress_weight=5.0
    )
    loss = batch_loss(outputs_near(labels, 0.2), labels, options)
    assert float(loss) == pytest.approx((2 + 3 + 5) * expected)


def test_missing_labels_count_for_nothing(make_metals):
    whole = make_metals(6)
    entries = [
        entry if i % 2 else Entry(entry.numbers, entry.positions, entry.cell, entry.pbc)
        for i, entry in enumerate(whole)
    ]
    _, labels = labelled(Dataset.from_entries(entries))
    _, kept = labelled(whole[[1, 3, 5]])
    assert labels.has_energy.tolist() == [False, True] * 3
    options = TrainingOptions(stress_weight=1.0)
    wrong = outputs_near(labels, 0.1)
    assert float(batch_loss(wrong, labels, options)) == pytest.approx(
        float(batch_loss(outputs_near(kept, 0.1), kept, options))
    )
    sums = ErrorSums(options)
    sums.add(wrong, labels)
    assert sums.metrics()["energy_mae"] == pytest.approx(0.1)


def test_metrics_are_over_all_values_whatever_the_batches(make_metals):
    dataset = make_metals(7)
    options = TrainingOptions()
    graphs = LabelledGraphs(dataset, cutoff=4.0, dtype=torch.float64, device=CPU)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=len(dataset))
    found = []
    for groups in ([range(7)], [range(2), range(2, 7)]):
        sums = ErrorSums(options)
        for rows in groups:
            _, labels = graphs.batch(np.array(rows))
            shift = torch.as_tensor(noise[list(rows)])
            energy = labels.energy + shift * labels.n_atoms
            sums.add(Outputs(energy, None, labels.forces, None), labels)
        found.append(sums.metrics())
    assert found[0] == pytest.approx(found[1])
    assert found[0]["energy_rmse"] == pytest.approx(np.sqrt(np.mean(noise**2)))


# --- sampler, average, journal ---


def test_every_epoch_shows_every_structure_once_in_a_new_order():
    sampler = Sampler(25, batch_size=8, seed=3)
    epochs = [np.concatenate(sampler.batches(epoch)) for epoch in (1, 2)]
    assert all(sorted(order) == list(range(25)) for order in epochs)
    assert not np.array_equal(*epochs)
    assert [len(batch) for batch in sampler.batches(1)] == [7, 6, 6, 6]
    again = Sampler(25, batch_size=8, seed=3).batches(2)
    assert np.array_equal(np.concatenate(again), epochs[1])


def test_the_moving_average_follows_its_formula():
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = MovingAverage([("p", parameter)], decay=0.5)
    expected = 0.0
    for n in range(8):
        with torch.no_grad():
            parameter.fill_(float(n + 1))
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1)
    with average.applied():
        assert parameter.item() == pytest.approx(expected)
    assert parameter.item() == 8.0


def test_a_journal_drops_what_will_be_computed_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    for epoch in (1, 2, 3):
        journal.write({"epoch": epoch, "bad": float("nan")})
    with path.open("a") as file:
        file.write('{"epoch": 4, "train_')  # a crash in the middle of a line
    assert [line["epoch"] for line in read_journal(path)] == [1, 2, 3]
    Journal(path, after_epoch=1).write({"epoch": 2})
    assert read_journal(path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_full_disk_under_a_journal_keeps_its_lines(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    journal.write({"epoch": 1, "loss": 0.5})
    before = path.read_bytes()
    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, text):
            self.file.write(text[:5])
            self.file.flush()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda *args, **options: Full(opened(*args, **options)))
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: No space left.*--resume"):
        journal.write({"epoch": 2, "loss": 0.4})
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_full_disk_when_a_journal_is_opened_again_keeps_its_lines(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    Journal(path).write({"epoch": 1, "loss": 0.5})
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TrainingError, match="No space left"):
        Journal(path, after_epoch=1)
    assert path.read_bytes() == before


def all_optimizers():
    from epitaxy.training.optimizers import OPTIMIZERS

    return sorted(OPTIMIZERS)


@pytest.mark.parametrize("name", all_optimizers())
def test_every_optimizer_on_the_list_can_train(name):
    check_training(TrainingOptions(optimizer=name, epochs=1))


# --- optimizers and schedules ---


@pytest.mark.parametrize("name", ["adamw", "Adam", "SGD", "radam", "nadam", "rmsprop", "lbfgs"])
def test_optimizers_are_found_by_name_and_go_downhill(name):
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = make_optimizer([parameter], TrainingOptions(optimizer=name, lr=0.01))

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    assert parameter.detach().abs().sum().item() < 6.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "adan"}, ["adan", "Adam"]),
        ({"optimizer_options": {"beta": 1}}, ["beta", "betas"]),
        ({"optimizer_options": {"betas": [2, 3]}}, ["AdamW", "beta"]),
        ({"optimizer": "lbfgs", "weight_decay": 0.1}, ["LBFGS", "weight_decay"]),
        ({"schedule": "StepLr"}, ["step_size"]),
        ({"schedule": "cosin"}, ["cosin", "'cosine'"]),
        ({"schedule_options": {"warm": 0.1}}, ["warm", "warmup"]),
        ({"schedule_options": {"warmup": 2}}, ["warmup", "2"]),
        ({"schedule": "LambdaLR"}, ["LambdaLR"]),
        ({"optimizer": "SparseAdam"}, ["no optimizer named 'SparseAdam'", "AdamW"]),
        ({"optimizer": "Muon"}, ["no optimizer named 'Muon'", "AdamW"]),
        ({"schedule": "StepLR"}, ["schedule_options {step_size: ...}", "gamma"]),
        ({"schedule": "OneCycleLR"}, ["schedule_options {max_lr: ...}", "total_steps"]),
        (
            {"schedule": "OneCycleLR", "schedule_options": {"max_lr": 0.1}},
            ["total_steps", "one step per epoch"],
        ),
        (
            {
                "schedule": "OneCycleLR",
                "schedule_options": {"max_lr": 0.1, "total_steps": 5},
                "epochs": 30,
            },
            ["does not reach the end of 30 epochs"],
        ),
    ],
)
def test_mistakes_in_optimizer_and_schedule_are_named_before_any_work(options, words):
    with pytest.raises(ConfigError) as caught:
        check_training(TrainingOptions(**options))
    assert all(word in str(caught.value) for word in words)


def test_cosine_rises_falls_and_ends_where_it_should():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = WarmupCosine(optimizer, warmup=0.1, final=0.01)
    factors = [schedule.factor(p) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert factors == pytest.approx([0.001, 0.5, 1.0, 0.505, 0.01])
    schedule.before_step(0.55)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0505)


@pytest.mark.parametrize(
    ("schedule", "options", "last"),
    [
        ("constant", {}, 0.1),
        ("ExponentialLR", {"gamma": 0.5}, 0.1 * 0.5**4),
        ("steplr", {"step_size": 2, "gamma": 0.1}, 0.1 * 0.1**2),
        ("reduce_on_plateau", {"patience": 1, "factor": 0.5}, 0.05),
    ],
)
def test_schedules_of_torch_change_the_rate_once_per_epoch(schedule, options, last):
    chosen = TrainingOptions(schedule=schedule, schedule_options=options, lr=0.1)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1, requires_grad=True))], chosen)
    changes = make_schedule(optimizer, chosen)
    for _ in range(4):
        changes.before_step(0.5)
        optimizer.step(lambda: torch.zeros(()))
        changes.after_epoch(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(last)
