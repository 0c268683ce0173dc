import numpy as np
import pytest
import torch

from epitaxy.errors import ArtifactError, CapabilityError, PluginError
from epitaxy.graph_model import GraphModel
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()
SMALL = {"width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5}


@pytest.fixture(scope="module", params=["painn", "schnet"])
def trained(request, tmp_path_factory, make_metals):
    options = {**SMALL} if request.param == "painn" else {"cutoff": 3.5}
    model = build_model(Spec(request.param, options), REGISTRY)
    run = Run(
        tmp_path_factory.mktemp(request.param),
        dtype="float64",
        training=TrainingOptions(epochs=2, batch_size=4, n_threads=1),
    )
    dataset = make_metals(12)
    model.fit(dataset[:9], dataset[9:], run=run)
    return model


def test_an_untrained_model_says_so():
    model = build_model(Spec("painn", SMALL), REGISTRY)
    assert model.capabilities.elements is None
    with pytest.raises(CapabilityError, match="not trained"):
        model.potential  # noqa: B018


def test_what_was_trained_is_declared(trained):
    can = trained.capabilities
    assert can.elements == {13, 29}
    assert can.targets == ("energy", "forces", "stress")
    assert can.forces
    assert can.stress
    assert trained.potential.dtype == torch.float64


def test_predictions_do_not_depend_on_the_batches(trained, make_metals, monkeypatch):
    dataset = make_metals(6)
    whole = trained.predict(dataset).mean
    monkeypatch.setattr("epitaxy.training.batches.EDGES_AT_ONCE", 1)
    for name, values in trained.predict(dataset).mean.items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-10, atol=1e-10)
    assert whole["forces"].shape == (24, 3)
    assert whole["stress"].shape == (6, 6)


def test_a_saved_model_predicts_the_same(trained, make_metals, tmp_path):
    dataset = make_metals(5)
    trained.save(tmp_path)
    loaded = GraphModel.load(tmp_path)
    assert loaded.spec == trained.spec
    assert loaded.capabilities == trained.capabilities
    for name, values in loaded.predict(dataset).mean.items():
        np.testing.assert_array_equal(values, trained.predict(dataset).mean[name])


def test_a_loaded_model_changes_its_precision_on_request(trained, make_metals, tmp_path):
    dataset = make_metals(3)
    trained.save(tmp_path)
    single = GraphModel.load(tmp_path).to(dtype="float32")
    assert single.potential.dtype == torch.float32
    np.testing.assert_allclose(
        single.predict(dataset).mean["energy"], trained.predict(dataset).mean["energy"], rtol=1e-5
    )


def test_an_unknown_element_is_refused_by_name(trained, make_metals):
    with pytest.raises(CapabilityError, match="Ni"):
        trained.predict(make_metals(3, elements=("Ni",)))


def test_an_empty_dataset_gives_empty_predictions(trained, make_metals):
    mean = trained.predict(make_metals(3)[:0]).mean
    assert [mean[name].shape for name in ("energy", "forces", "stress")] == [(0,), (0, 3), (0, 6)]


def test_a_damaged_weights_file_is_named(trained, tmp_path):
    trained.save(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        GraphModel.load(tmp_path)


def test_a_missing_plugin_is_named(trained, tmp_path):
    trained.save(tmp_path)
    with pytest.raises(PluginError, match=trained.spec.use):
        GraphModel.load(tmp_path, registry=Registry())
