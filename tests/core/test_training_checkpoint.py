import random

import numpy as np
import pytest
import torch

from epitaxy.errors import TrainingError
from epitaxy.training.checkpoint import (
    random_state,
    read_checkpoint,
    set_random_state,
    write_checkpoint,
)


def trained_optimizer(kind):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = kind(model.parameters(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = (model(torch.ones(4, 3)) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return model, optimizer, closure


@pytest.mark.parametrize(
    "kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.LBFGS, torch.optim.Adagrad]
)
def test_an_optimizer_goes_on_to_the_bit(tmp_path, kind):
    path = tmp_path / "state.safetensors"
    model, optimizer, closure = trained_optimizer(kind)
    write_checkpoint(path, {"m": dict(model.state_dict()), "o": optimizer.state_dict()})
    for _ in range(3):
        optimizer.step(closure)
    other, again, other_closure = trained_optimizer(kind)
    state = read_checkpoint(path)
    other.load_state_dict(state["m"])
    again.load_state_dict(state["o"])
    for _ in range(3):
        again.step(other_closure)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_plain_values_and_tensors_come_back_as_they_were(tmp_path):
    path = tmp_path / "state.safetensors"
    state = {
        "numbers": [1, 2.5, 1e-300, float("inf"), True, None],
        "pair": (1, ("a", [])),
        "by_index": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "view": torch.arange(6.0).reshape(2, 3).T,
        "float64": torch.tensor([0.1], dtype=torch.float64),
        "numpy": np.float64(0.1),
    }
    write_checkpoint(path, state)
    found = read_checkpoint(path)
    assert found["numbers"] == state["numbers"]
    assert found["pair"] == state["pair"]
    assert list(found["by_index"]) == [0, 1]
    assert torch.equal(found["view"], state["view"])
    assert found["float64"].dtype == torch.float64
    assert found["numpy"] == 0.1


def test_random_generators_go_on_where_they_were(tmp_path):
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, {"random": random_state()})
    expected = torch.rand(3), np.random.rand(3), random.random()
    set_random_state(read_checkpoint(path)["random"])
    found = torch.rand(3), np.random.rand(3), random.random()
    assert torch.equal(expected[0], found[0])
    assert np.array_equal(expected[1], found[1])
    assert expected[2] == found[2]


def test_what_cannot_be_kept_is_named_and_the_old_file_stays(tmp_path):
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, {"epoch": 1})
    with pytest.raises(TrainingError, match=r"state\.function"):
        write_checkpoint(path, {"function": print})
    assert read_checkpoint(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, {"weights": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(TrainingError, match="delete it to train from the start"):
        read_checkpoint(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises((TrainingError, FileExistsError, NotADirectoryError)):
        write_checkpoint(blocked / "state.safetensors", {"epoch": 1})
