import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from safetensors import SafetensorError

from epitaxy import hookimpl
from epitaxy.artifact import load_artifact, read_manifest, save_artifact
from epitaxy.component import Component
from epitaxy.ensemble import EnsembleModel
from epitaxy.errors import ArtifactError, PluginError
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import split_random
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()
SMALL = Spec("painn", {"width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5})
METRICS = {
    "test": {
        "energy_mae": 0.004,
        "energy_rmse": 0.005,
        "by_group": {"hot": {"forces_mae": 0.1, "forces_rmse": 0.2}},
    }
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_metals):
    dataset = make_metals(12).with_history({"operation": "read", "source": "EMT"})
    split = split_random(dataset, valid=3, test=2)
    run = Run(
        tmp_path_factory.mktemp("run"),
        seed=5,
        training=TrainingOptions(epochs=1, batch_size=4, n_threads=1),
    )
    members = []
    for k in range(2):
        model = build_model(SMALL, REGISTRY)
        model.fit(split.train, split.valid, run=run.child(f"members/{k}"))
        members.append(model)
    return members, split, run


@pytest.fixture
def saved(trained, tmp_path):
    members, split, run = trained
    return save_artifact(members[0], tmp_path / "model", split=split, run=run, metrics=METRICS)


def test_a_loaded_artifact_predicts_the_same(trained, saved):
    members, split, _ = trained
    artifact = load_artifact(saved)
    assert artifact.path == saved
    for name, values in artifact.model.predict(split.test).mean.items():
        np.testing.assert_array_equal(values, members[0].predict(split.test).mean[name])


def test_the_manifest_says_where_the_model_comes_from(trained, saved):
    _, split, _ = trained
    manifest = load_artifact(saved).manifest
    assert manifest["spec"]["use"] == "graphs/painn"
    assert manifest["spec"]["n_layers"] == 1
    assert manifest["seed"] == 5
    assert manifest["training"]["batch_size"] == 4
    assert manifest["data"]["train_digest"] == split.train.digest
    assert manifest["data"]["split_digest"] == split.digest
    assert manifest["data"]["history"] == [{"operation": "read", "source": "EMT"}]
    assert manifest["methods"][0]["code"] == "ASE EMT"
    assert manifest["elements"] == ["Al", "Cu"]
    assert manifest["units"] == {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å^3"}
    assert manifest["metrics"] == METRICS
    assert {"epitaxy", "torch", "numpy", "ase", "python"} <= manifest["versions"].keys()
    assert sorted(p.name for p in saved.iterdir()) == [
        "card.md",
        "manifest.json",
        "weights.safetensors",
    ]


def test_the_card_tells_a_person(saved):
    card = (saved / "card.md").read_text()
    for words in ("Al-Cu", "4 meV/atom", "| hot | forces |", "ASE EMT", "load(", "## Limits"):
        assert words in card


def test_an_ensemble_is_a_folder_of_artifacts(trained, tmp_path):
    members, split, run = trained
    inner = EnsembleModel(members)
    path = save_artifact(EnsembleModel([inner, inner]), tmp_path / "e", split=split, run=run)
    assert read_manifest(path)["kind"] == "ensemble"
    part = load_artifact(path / "members" / "1" / "members" / "0")
    assert part.manifest["kind"] == "model"
    loaded = load_artifact(path).model
    assert isinstance(loaded, EnsembleModel)
    expected, found = EnsembleModel([inner, inner]).predict(split.test), loaded.predict(split.test)
    np.testing.assert_array_equal(found.mean["forces"], expected.mean["forces"])
    np.testing.assert_array_equal(found.std["forces"], expected.std["forces"])
    (path / "members" / "0" / "members" / "1" / "weights.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"members/0/members/1/weights\.safetensors is missing"):
        load_artifact(path)


def edit(path, **changes):
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, **changes}))


def test_damage_is_named(saved):
    manifest, weights = saved / "manifest.json", saved / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=r"weights\.safetensors has .* bytes instead of"):
        load_artifact(saved)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"weights\.safetensors was changed"):
        load_artifact(saved)
    weights.write_bytes(whole)
    edit(manifest, seed=6)
    with pytest.raises(ArtifactError, match=r"manifest\.json was edited"):
        load_artifact(saved)
    edit(manifest, format_version=99)
    with pytest.raises(ArtifactError, match="update epitaxy"):
        load_artifact(saved)
    edit(manifest, format="something")
    with pytest.raises(ArtifactError, match="something"):
        load_artifact(saved)
    manifest.write_text(manifest.read_text()[:100])
    with pytest.raises(ArtifactError, match="damaged"):
        load_artifact(saved)


def test_whoever_may_read_the_folder_may_read_the_weights(saved):
    weights = saved / "weights.safetensors"
    assert weights.stat().st_mode & 0o777 == saved.stat().st_mode & 0o666


def test_a_note_on_the_card_is_allowed(saved):
    (saved / "card.md").write_text("my notes")
    load_artifact(saved)


def test_a_folder_that_is_no_artifact_is_refused_with_a_hint(saved, tmp_path):
    with pytest.raises(ArtifactError, match=r"did you mean .*model"):
        load_artifact(saved.parent)
    with pytest.raises(ArtifactError, match="no folder"):
        load_artifact(tmp_path / "nowhere")


def test_a_missing_plugin_names_the_artifact_and_what_to_install(saved):
    facts = read_manifest(saved)["plugins"]["graphs"]
    installed = f"{facts['distribution']}=={facts['version']}"
    with pytest.raises(PluginError, match="painn") as caught:
        load_artifact(saved, registry=Registry())
    assert str(saved) in str(caught.value)
    assert f"pip install '{installed}'" in str(caught.value)


def with_another_painn():
    class Rival:
        @hookimpl
        def provide_models(self):
            return [Component(name="painn", target="rival:Painn", summary="of another plugin")]

    registry = Registry.from_entry_points()
    registry.add("rival", Rival())
    return registry


def test_another_plugin_with_the_same_name_changes_nothing(trained, saved):
    _, split, run = trained
    registry = with_another_painn()
    model = load_artifact(saved, registry=registry).model
    ensemble = EnsembleModel([model, model])
    both = save_artifact(ensemble, saved.with_name("both"), split=split, run=run)
    load_artifact(both, registry=registry)


def test_names_without_a_plugin_are_still_read(saved):
    def shorten(path):
        manifest = json.loads(path.read_text())
        manifest["spec"]["use"] = "painn"
        del manifest["plugins"], manifest["manifest_sha256"]
        text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        manifest["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(manifest))

    shorten(saved / "manifest.json")
    load_artifact(saved)


def test_nothing_is_overwritten_or_left_half_written(trained, saved, monkeypatch):
    members, _, _ = trained
    with pytest.raises(ArtifactError, match="there already"):
        save_artifact(members[1], saved)

    def full(directory):
        (directory / "weights.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(members[1], "save", full, raising=False)
    with pytest.raises(ArtifactError, match="No space left"):
        save_artifact(members[1], saved, overwrite=True)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    load_artifact(saved)


def test_a_full_disk_under_the_weights_names_the_file_and_keeps_the_old(
    trained, saved, monkeypatch
):
    members, _, _ = trained
    before = read_manifest(saved)

    def full(*arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: .*No space left"):
        save_artifact(members[1], saved, overwrite=True)
    assert read_manifest(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_ctrl_c_between_the_renames_keeps_the_old_artifact(trained, saved, monkeypatch):
    members, _, _ = trained
    before = read_manifest(saved)
    rename = Path.rename

    def stopped(path, target):
        if path.name.endswith(".tmp"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_artifact(members[1], saved, overwrite=True)
    assert read_manifest(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def killed_between_renames(saved):
    """Return what a process leaves that is killed between the two renames of a replacement."""
    script = (
        "import os, sys; from pathlib import Path; from epitaxy.replacing import *\n"
        "rename = Path.rename\n"
        "def stopped(path, target):\n"
        "    if path.name.endswith('.tmp'): os._exit(9)\n"
        "    return rename(path, target)\n"
        "Path.rename = stopped\n"
        "place = Path(sys.argv[1]); new = beside(place, 'tmp'); new.mkdir()\n"
        "put_in_place(new, place)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(saved)]).returncode == 9
    assert not saved.exists()
    return sorted(p.name for p in saved.parent.iterdir())


def test_an_artifact_is_found_again_after_a_kill_between_the_renames(saved):
    before = read_manifest(saved)
    assert len(killed_between_renames(saved)) == 2
    assert load_artifact(saved).manifest == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_an_artifact_moved_aside_by_a_kill_is_not_overwritten_unasked(trained, saved):
    members, _, _ = trained
    killed_between_renames(saved)
    with pytest.raises(ArtifactError, match="there already"):
        save_artifact(members[1], saved)
    save_artifact(members[1], saved, overwrite=True)
    load_artifact(saved)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
