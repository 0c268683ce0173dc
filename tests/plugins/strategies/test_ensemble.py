import numpy as np
import pytest

from epitaxy.ensemble import EnsembleModel, combine
from epitaxy.errors import ConfigError, OptionError, TrainingError
from epitaxy.protocols import Predictions
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import split_random
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()
SMALL = Spec("painn", {"width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5})
QUICK = TrainingOptions(epochs=2, batch_size=4, n_threads=1)


class Watcher:
    def __init__(self):
        self.epochs: list[tuple[str, int]] = []

    def epoch_finished(self, run, epoch, metrics):
        self.epochs.append((run.name, epoch))


@pytest.fixture
def split(make_metals):
    return split_random(make_metals(12), valid=3, test=2)


def train(directory, split, *, resume=False, observers=(), training=QUICK, model=SMALL, **options):
    run = Run(directory, training=training, resume=resume, observers=observers, registry=REGISTRY)
    strategy = REGISTRY.build("strategy", {"use": "ensemble", **options})
    return strategy(model, split, run=run)


def test_mean_and_spread_are_those_of_the_members(tmp_path, split):
    model = train(tmp_path, split, n_members=3)
    each = [member.predict(split.test).mean["forces"] for member in model.members]
    found = model.predict(split.test)
    np.testing.assert_allclose(found.mean["forces"], np.mean(each, axis=0))
    np.testing.assert_allclose(found.std["forces"], np.std(each, axis=0, ddof=0))
    assert found.std["forces"].min() > 0
    assert model.capabilities.uncertainty
    assert model.capabilities.elements == {13, 29}


def test_a_nested_spread_is_that_of_all_models_inside():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 5))
    inner = [combine([Predictions({"energy": v}) for v in group]) for group in values]
    outer = combine(inner)
    np.testing.assert_allclose(outer.std["energy"], values.reshape(6, 5).std(axis=0))
    np.testing.assert_allclose(outer.mean["energy"], values.reshape(6, 5).mean(axis=0))


def test_ensembles_nest(tmp_path, split):
    model = train(tmp_path, split, n_members=2, member={"use": "ensemble", "n_members": 2})
    assert all(isinstance(member, EnsembleModel) for member in model.members)
    assert (tmp_path / "members" / "1" / "members" / "0" / "metrics.jsonl").exists()
    assert model.predict(split.test).std["energy"].min() > 0


def test_members_in_processes_are_the_same_models(tmp_path, split):
    watcher = Watcher()
    alone = train(tmp_path / "alone", split, n_members=2, bootstrap=True)
    together = train(
        tmp_path / "together", split, n_members=2, bootstrap=True, n_parallel=2, observers=[watcher]
    )
    np.testing.assert_array_equal(
        alone.predict(split.test).mean["forces"], together.predict(split.test).mean["forces"]
    )
    assert sorted(watcher.epochs) == [(f"members/{k}", e) for k in (0, 1) for e in (1, 2)]


def test_an_error_in_a_process_arrives_with_its_name(tmp_path, split):
    training = QUICK.replace(lr=1e30, gradient_clip=0.0, optimizer="sgd", epochs=30)
    with pytest.raises(TrainingError, match=r"members/\d: .*epoch"):
        train(tmp_path, split, n_members=2, n_parallel=2, training=training)


def test_finished_members_are_not_trained_again(tmp_path, split):
    first = train(tmp_path, split, n_members=2)
    weights = tmp_path / "members" / "1" / "artifact" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])  # a damaged one is
    watcher = Watcher()
    (tmp_path / "members" / "1" / "checkpoint.safetensors").unlink()
    second = train(tmp_path, split, n_members=3, resume=True, observers=[watcher])
    assert {name for name, _ in watcher.epochs} == {"members/1", "members/2"}
    for old, new in zip(first.members, second.members, strict=False):
        np.testing.assert_array_equal(
            old.predict(split.test).mean["energy"], new.predict(split.test).mean["energy"]
        )


def test_bootstrap_draws_structures_with_replacement(tmp_path, split):
    from epitaxy.artifact import read_manifest

    train(tmp_path, split, n_members=2, bootstrap=True)
    facts = [read_manifest(tmp_path / "members" / str(k) / "artifact")["data"] for k in range(2)]
    digests = {fact["train_digest"] for fact in facts} | {split.train.digest}
    assert len(digests) == 3
    assert {fact["n_train"] for fact in facts} == {len(split.train)}


def test_wrong_options_are_named_before_training(tmp_path, split):
    with pytest.raises(ConfigError, match="n_members"):
        train(tmp_path, split, n_members=0)
    with pytest.raises(OptionError, match="n_member"):
        train(tmp_path, split, n_member=2)
    with pytest.raises(OptionError, match="epochs"):
        train(tmp_path, split, member={"use": "direct", "epochs": 3})
    assert not list(tmp_path.iterdir())
