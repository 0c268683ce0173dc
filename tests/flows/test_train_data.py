"""What `epitaxy train` refuses to learn from, and that a refusal costs nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

import epitaxy.evaluation.metrics
from epitaxy.artifact import load_artifact
from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError

CONFIG = """\
dataset: metals
split: {method: random, valid: 5, test: 6}
model: {use: painn, width: 8, n_layers: 1, n_radial: 4, cutoff: 3.5}
training: {epochs: 1, batch_size: 8, lr: 0.01, n_threads: 1}
output: run
"""


@pytest.fixture
def place(tmp_path, make_metals, monkeypatch):
    make_metals(24).save(tmp_path / "metals")
    (tmp_path / "job.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*changes):
    arguments = [word for change in changes for word in ("--set", change)]
    return main(["train", "job.yaml", "--quiet", *arguments])


def with_forces(entry, change):
    forces = change(np.array(entry.targets["forces"]))
    return replace(entry, targets={**entry.targets, "forces": forces})


def write_frames(path, entries):
    write(path, [entry.to_atoms() for entry in entries], format="extxyz")


def near_frames():
    """One cell, displaced little by little: near frames, which can be compared."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    from epitaxy.entry import Entry

    rng = np.random.default_rng(3)
    entries = []
    for k in range(40):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        atoms.rattle(0.06, rng=rng)
        atoms.calc = EMT()
        targets = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"cu-{k}"))
    return entries


def test_forces_of_the_wrong_sign_in_a_file_are_refused(place, capsys):
    write_frames("flipped.xyz", [with_forces(e, np.negative) for e in near_frames()])
    assert train("dataset=flipped.xyz", "training.stress_weight=0") == 2
    said = capsys.readouterr().err
    assert "flipped.xyz" in said
    assert "--forces-are-gradients" in said
    assert "epitaxy ingest" in said
    assert not (place / "run").exists()


def test_unusable_frames_of_a_file_are_dropped_and_counted(place, caplog):
    entries = near_frames()
    entries[7] = with_forces(entries[7], lambda forces: forces * 1e6)
    write_frames("frames.xyz", [*entries, entries[3]])
    assert train("dataset=frames.xyz", "training.stress_weight=0") == 0
    assert "1 of 41 dropped: |F| > 100 eV/Å" in caplog.text
    assert "1 of 41 dropped: duplicate structure" in caplog.text
    data = load_artifact("run/artifact").manifest["data"]
    assert data["n_train"] == 39 - 5 - 6
    assert data["history"][0]["n_dropped"] == 2
    assert data["history"][1]["operation"] == "consistency check"


def write_gaps(path, entries):
    """Write frames without energies; every fourth has no band gap either."""
    frames = [entry.to_atoms() for entry in entries]
    for k, atoms in enumerate(frames):
        atoms.calc = None
        atoms.info = {"band_gap": 0.1 * k} if k % 4 else {}
    write(path, frames, format="extxyz")


def test_a_property_needs_no_energies(place, make_metals, caplog):
    write_gaps(place / "gaps.extxyz", make_metals(24))
    body = "{use: painn, width: 8, n_layers: 1, n_radial: 4, cutoff: 3.5}"
    model = f"model={{use: property, body: {body}, targets: [band_gap]}}"
    assert train("dataset=gaps.extxyz", model, "split.valid=3", "split.test=3") == 0
    assert "6 of 24 dropped: band_gap missing" in caplog.text
    assert load_artifact(place / "run" / "artifact").manifest["data"]["n_train"] == 12


def test_labels_that_the_model_does_not_learn_are_said(place, make_metals, capsys):
    write_gaps(place / "gaps.extxyz", make_metals(12))
    assert train("dataset=gaps.extxyz") == 2
    said = capsys.readouterr().err
    assert "The model learns energy, forces, the frames have band_gap" in said
    assert "use: property" in said
    assert not (place / "run").exists()


def test_an_ordinary_import_keeps_properties_without_energies(place, make_metals, capsys):
    write_gaps(place / "gaps.extxyz", make_metals(12))
    assert main(["ingest", "gaps.extxyz", "-o", "gaps"]) == 0
    assert "3 of 12 dropped: energy missing" in capsys.readouterr().out
    assert len(Dataset.open(place / "gaps")) == 9


@pytest.mark.parametrize(("part", "where"), [("training", "dataset"), ("validation", "valid")])
def test_a_label_that_is_no_number_is_refused_by_name(place, make_metals, capsys, part, where):
    entries = [replace(e, id=f"bad-{k}") for k, e in enumerate(make_metals(9, seed=4))]
    dataset = Dataset.from_entries(entries)
    dataset.save(place / "bad")
    # Dataset.from_entries refuses such a label, so it is written into the file.
    forces = np.load(place / "bad" / "target-forces.npy", mmap_mode="r+")
    forces[int(dataset.atom_ptr[5]) + 1, 2] = np.nan
    forces.flush()
    assert train(f"{where}=bad", "split={test: 0, valid: 0}" if part == "training" else "split={}")
    said = capsys.readouterr().err
    if part == "training":
        assert "forces is not a finite number in 1 of the 9 training structures: bad-5" in said
    else:
        assert "entry bad-5: forces is not finite" in said
    assert "lr" not in said
    assert not (place / "run").exists()


def test_a_test_set_that_was_learnt_from_is_refused(place, capsys):
    entries = list(Dataset.open("metals"))
    moved = [replace(e, id=f"other-{k}", targets={}) for k, e in enumerate(entries[:9])]
    Dataset.from_entries(moved).save(place / "same")
    assert train("test=same", "split={valid: 0}") == 2
    said = capsys.readouterr().err
    assert "9 of the 9 structures of the test set are also in the train part: other-0" in said
    assert "4 more" in said
    assert not (place / "run").exists()


def test_a_test_set_that_is_the_validation_set_is_refused(place, make_metals, capsys):
    make_metals(5, seed=9).save(place / "own")
    assert train("test=own", "valid=own", "split={}") == 2
    assert "also in the test part" in capsys.readouterr().err


def test_a_refused_start_leaves_nothing_in_the_way(place, make_metals, capsys):
    entries = [
        replace(e, targets={k: v for k, v in e.targets.items() if k != "forces"})
        for e in Dataset.open("metals")
    ]
    Dataset.from_entries(entries).save(place / "energies")
    assert train("dataset=energies") == 2
    assert "set forces_weight: 0" in capsys.readouterr().err
    assert not (place / "run").exists()
    assert train("dataset=energies", "training.forces_weight=0") == 0


def test_a_strategy_that_cannot_start_leaves_nothing_in_the_way(place, capsys):
    assert train("strategy={use: ensemble, n_members: 0}") == 2
    assert "n_members" in capsys.readouterr().err
    assert not (place / "run").exists()


def test_missing_test_errors_are_said_and_the_model_is_kept(place, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise DataError("the model predicts forces that are not finite")

    monkeypatch.setattr(epitaxy.evaluation.metrics, "evaluate", refuse)
    assert train() == 0
    assert "no errors are known on the test part: the model predicts forces" in caplog.text
    assert load_artifact("run/artifact").manifest["metrics"] == {}


def test_a_full_disk_when_resuming_keeps_the_split(place, monkeypatch, capsys):
    assert train() == 0
    before = (place / "run" / "split.json").read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    assert main(["train", "job.yaml", "--quiet", "--resume"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert (place / "run" / "split.json").read_bytes() == before


def test_a_full_disk_at_the_start_is_one_clear_line(place, monkeypatch, capsys):
    real = Path.write_text

    def full(path, *arguments, **options):
        if path.name.startswith("config.yaml"):
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    assert train() == 2
    said = capsys.readouterr().err
    assert "cannot write run/config.yaml: No space left on device" in said
    assert not (place / "run").exists()
