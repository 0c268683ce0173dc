"""The plugin for a NOMAD Oasis, in NOMAD's own client: parse, normalise, what a search finds.

Importing NOMAD takes seconds, so it happens once, in a fixture of this one file.
"""

import asyncio
import importlib.util
import json
import lzma
import shutil
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import distribution, entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nomad_service import run_archive, strained

from epitaxy.artifact import load_artifact, save_artifact
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method, Origin
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import split_random
from epitaxy.training.options import TrainingOptions

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("nomad") is None, reason="needs nomad-lab (extra oasis)"
    ),
    # NOMAD's own use of pydantic, pint and pandas.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:nomad"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]
SHARED = Path(__file__).parents[4] / "shared" / "data"
SMALL = Spec("painn", {"width": 8, "n_layers": 1, "n_radial": 4, "cutoff": 3.5})
METRICS = {
    "valid": {"energy_mae": 0.003, "energy_rmse": 0.004, "n_structures": 3},
    "test": {
        "energy_mae": 0.005,
        "energy_rmse": 0.006,
        "forces_mae": 0.1,
        "forces_rmse": 0.15,
        "energy_error_std_ratio": 1.4,
        "energy_rank_correlation": 0.6,
        "n_structures": 2,
        "by_group": {
            "hot": {"forces_mae": 0.2, "forces_rmse": 0.3},
            "cold": {"forces_mae": 0.05, "forces_rmse": 0.07},
        },
    },
}


class Log:
    """Keeps what NOMAD's processing logs."""

    def __init__(self):
        self.errors, self.warnings = [], []

    def bind(self, **_):
        return self

    def error(self, message, **facts):
        self.errors.append((message, facts))

    def warning(self, message, **facts):
        self.warnings.append(message)

    warn = warning

    def info(self, *_, **__):
        pass

    debug = info


@pytest.fixture(scope="module")
def nomad():
    """Import NOMAD and return what the tests use of it."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # nomad-ml-workflows asks for suggestions
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import magic  # noqa: F401
            except ImportError:
                pytest.skip("needs libmagic (Debian: libmagic1)")
            from nomad import client, normalizing  # noqa: F401  (loads all normalizers)
            from nomad.config import config
            from nomad.datamodel import EntryArchive, EntryMetadata
            from nomad.parsing.parsers import match_parser

            config.load_plugins()

            def parse(mainfile, log=None):
                log = log or Log()
                (archive,) = client.parse(str(mainfile), logger=log)
                client.normalize_all(archive, logger=log)
                archive.metadata.apply_archive_metadata(archive)
                return archive

            yield SimpleNamespace(
                parse=parse,
                config=config,
                match=lambda path: match_parser(str(path))[0],
                archive=EntryArchive,
                metadata=EntryMetadata,
                client=client,
            )
    finally:
        monkeypatch.undo()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_metals):
    """Return two models, trained for one epoch, with their split and run."""
    dataset = make_metals(12)
    entries = [
        replace(
            entry,
            method=Method(code="ASE EMT", xc_functional="EMT"),
            origin=Origin(database="made here", license="CC0-1.0"),
        )
        for entry in dataset
    ]
    history = [
        {
            "operation": "ingest",
            "sources": [{"use": "nomad", "dataset_id": "d-1", "entry_ids": ["e-1", "e-2"]}],
        }
    ]
    split = split_random(Dataset.from_entries(entries, history=history), valid=3, test=2)
    run = Run(
        tmp_path_factory.mktemp("run"),
        seed=5,
        training=TrainingOptions(epochs=1, batch_size=4, n_threads=1),
    )
    registry = Registry.from_entry_points()
    models = []
    for k in range(2):
        model = build_model(SMALL, registry)
        model.fit(split.train, split.valid, run=run.child(f"members/{k}"))
        models.append(model)
    return SimpleNamespace(models=models, split=split, run=run)


@pytest.fixture
def single(trained, tmp_path):
    return save_artifact(
        trained.models[0],
        tmp_path / "potential",
        spec=SMALL,
        split=trained.split,
        run=trained.run,
        metrics=METRICS,
    )


@pytest.fixture
def ensemble(trained, tmp_path):
    from epitaxy.ensemble import EnsembleModel

    strategy = Spec("strategies/ensemble", {"n_members": 2})
    model = EnsembleModel(trained.models, spec=SMALL)
    return save_artifact(
        model,
        tmp_path / "both",
        spec=SMALL,
        strategy=strategy,
        split=trained.split,
        run=trained.run,
        metrics=METRICS,
    )


def edit(manifest, **changes):
    """Change a manifest as somebody would who edits it by hand."""
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, **changes}, indent=2))


# --- entry points ---


def test_entry_points_import_neither_torch_nor_pymatgen():
    code = (
        "import sys, nomad.config; before = set(sys.modules)\n"
        "import epitaxy_nomad.oasis.entry_points\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names))"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert set(json.loads(ran.stdout.replace("'", '"'))) <= {"epitaxy_nomad", "nomad"}


def test_nomad_loads_every_entry_point_of_ours(nomad):
    declared = [p.value for p in entry_points(group="nomad.plugin") if p.dist.name == "epitaxy"]
    loaded = nomad.config.plugins.entry_points.options
    assert len(declared) == 8
    assert set(declared) <= set(loaded)
    for name in declared:
        assert loaded[name].name
        if loaded[name].entry_point_type not in ("app", "example_upload"):
            assert loaded[name].load() is not None


def test_a_plain_nomad_beside_epitaxy_goes_on(nomad, monkeypatch, caplog):
    from epitaxy_nomad.oasis import absent

    monkeypatch.setattr(absent, "NEEDED", "a_package_that_nobody_has")
    absent.is_absent.cache_clear()
    try:
        found = {
            name: nomad.config.plugins.entry_points.options[
                f"epitaxy_nomad.oasis.entry_points:{name}"
            ].load()
            for name in ("model_schema", "dataset_schema", "prediction_schema", "manifest_parser")
        }
    finally:
        monkeypatch.undo()
        absent.is_absent.cache_clear()
    parser = found.pop("manifest_parser")
    text = '{"format": "epitaxy-artifact"'
    assert parser.is_mainfile("manifest.json", "application/json", text.encode(), text) is False
    assert not any(package.section_definitions for package in found.values())
    assert caplog.text.count("pip install 'epitaxy[oasis]'") == 1


def test_project_urls_have_the_one_comma_that_nomad_can_read():
    for url in distribution("epitaxy").metadata.get_all("Project-URL") or ():
        assert url.count(",") == 1


# --- trained models ---


def test_an_artifact_becomes_a_trained_model(nomad, single, trained):
    from nomad_ml_workflows.schema_packages.model import MLModel

    log = Log()
    archive = nomad.parse(single / "manifest.json", log)
    model = archive.data
    assert log.errors == []
    assert isinstance(model, MLModel)
    assert (archive.metadata.entry_type, model.kind, model.architecture) == (
        "TrainedModel",
        "model",
        "painn",
    )
    assert archive.metadata.entry_name == "Al-Cu: painn for energy, forces, stress"
    assert (model.predicts_forces, model.has_uncertainty, model.is_complete) == (True, False, True)
    assert model.cutoff.to("angstrom").magnitude == 3.5
    assert (model.xc_functional, model.code) == ("EMT", "ASE EMT")
    assert (model.training.seed, model.training.max_epochs) == (5, 1)
    assert model.training.optimizer.name == "adamw"
    assert model.split.n_train == 7
    assert model.split.train_digest == trained.split.train.digest
    assert dict(zip(model.split.label_names, model.split.label_counts, strict=True)) == {
        "energy": 7,
        "forces": 7,
        "stress": 7,
    }
    files = {file.model_file: file for file in model.artifacts}
    weights = files["weights.safetensors"]
    assert weights.file_size.magnitude == (single / "weights.safetensors").stat().st_size
    digest = sha256((single / "weights.safetensors").read_bytes()).hexdigest()
    assert weights.checksum == f"sha256:{digest}"


def test_a_model_is_found_by_its_elements_and_errors(nomad, single):
    archive = nomad.parse(single / "manifest.json")
    assert archive.results.material.elements == ["Al", "Cu"]
    found = {
        quantity.id: quantity.float_value
        for quantity in archive.metadata.search_quantities
        if quantity.float_value is not None
    }
    schema = "#epitaxy_nomad.oasis.model.TrainedModel"
    assert found[f"data.main_error{schema}"] == 0.005
    assert found[f"data.error_std_ratio{schema}"] == 1.4
    assert found[f"data.energy_error{schema}"] == 0.005  # in the unit of the schema


def test_errors_and_calibration_of_each_set_are_kept(nomad, single):
    model = nomad.parse(single / "manifest.json").data
    errors = {
        (e.dataset_split, e.target, e.metric_name): (e.metric_value, e.unit)
        for e in model.evaluations
    }
    assert errors["test", "energy", "MAE"] == (0.005, "eV/atom")
    assert errors["valid", "energy", "RMSE"] == (0.004, "eV/atom")
    assert errors["test", "forces", "MAE"] == (0.1, "eV/Å")
    (calibration,) = model.calibrations
    assert (calibration.target, calibration.dataset_split) == ("energy", "test")
    assert (calibration.error_std_ratio, calibration.rank_correlation) == (1.4, 0.6)
    (groups,) = model.group_errors
    assert (groups.groups, groups.targets) == (["hot", "cold"], ["forces", "forces"])
    assert groups.mae.tolist() == [0.2, 0.05]
    assert model.main_error_split == "test"


def test_lineage_names_the_nomad_data_set_and_entries(nomad, single):
    split = nomad.parse(single / "manifest.json").data.split
    assert split.nomad_dataset_ids == ["d-1"]
    assert split.nomad_entry_ids == ["e-1", "e-2"]
    assert (split.databases, split.licenses) == (["made here"], ["CC0-1.0"])


def test_an_ensemble_is_one_entry_with_its_members(nomad, ensemble):
    archive = nomad.parse(ensemble / "manifest.json")
    model = archive.data
    assert (model.kind, model.n_members, model.strategy) == ("ensemble", 2, "ensemble")
    assert model.has_uncertainty
    assert model.ensemble.member_files == ["members/0/manifest.json", "members/1/manifest.json"]
    member = ensemble / "members" / "0" / "manifest.json"
    assert model.ensemble.member_digests[0] == sha256(member.read_bytes()).hexdigest()
    assert nomad.match(member) is None
    assert nomad.match(ensemble / "manifest.json") is not None


def test_a_delta_model_refers_to_the_lower_level_as_an_entry(nomad, single, trained, tmp_path):
    from nomad.utils import generate_entry_id

    from epitaxy.delta_model import DeltaModel

    model = DeltaModel(
        load_artifact(single),
        trained.models[1],
        spec=SMALL,
        lineage={"parent": "runs/low", "parent_sha256": "ab", "branch": None, "low": "PBE"},
    )
    path = save_artifact(model, tmp_path / "up" / "sum", spec=SMALL, split=trained.split)
    assert nomad.match(path / "low" / "manifest.json") is not None
    assert nomad.match(path / "difference" / "manifest.json") is None
    metadata = nomad.metadata(upload_id="u-1", entry_id="e-1", mainfile="sum/manifest.json")
    archive = nomad.archive(metadata=metadata)
    nomad.match(path / "manifest.json").parse(str(path / "manifest.json"), archive, Log())
    assert archive.data.kind == "delta"
    lineage = archive.m_to_dict()["data"]["lineage"]
    low = generate_entry_id("u-1", "sum/low/manifest.json")
    assert lineage["parent"] == f"../upload/archive/{low}#/data"
    assert lineage["parent_digest"] == "ab"
    assert archive.data.artifacts[0].model_file.startswith("sum/")


def test_parent_and_data_set_are_looked_up_on_the_server(nomad, single, monkeypatch):
    edit(single / "manifest.json", lineage={"parent": "runs/a", "parent_sha256": "f00"})
    asked = []

    def find_entry(archive, lab_id, *, schema):
        asked.append((lab_id, schema))
        return "../uploads/u-7/archive/e-7#/data"

    monkeypatch.setattr("epitaxy_nomad.oasis.model.find_entry", find_entry)
    archive = nomad.parse(single / "manifest.json")
    assert asked == [("f00", "epitaxy_nomad.oasis.model.TrainedModel")]
    lineage = archive.m_to_dict()["data"]["lineage"]
    assert lineage["parent"] == "../uploads/u-7/archive/e-7#/data"

    def broken(archive, lab_id, *, schema):
        raise ConnectionError("no search engine")

    monkeypatch.setattr("epitaxy_nomad.oasis.model.find_entry", broken)
    log = Log()
    archive = nomad.parse(single / "manifest.json", log)
    assert any("parent of the model was not searched" in said for said in log.warnings)
    assert archive.data.lineage.parent_digest == "f00"


def test_a_search_stands_in_arrays(nomad, single):
    trials = {"values": [0.3, 0.1, 0.2], "options": {"width": [8, 16, 32]}}
    search = {"method": "hpo", "metric": "valid_energy_mae", "n_trials": 3, "best_value": 0.1}
    edit(single / "manifest.json", search={**search, "trials": trials})
    found = nomad.parse(single / "manifest.json").data.search
    assert (found.method, found.n_trials, found.best_value) == ("hpo", 3, 0.1)
    assert found.trial_values.tolist() == [0.3, 0.1, 0.2]
    assert found.trial_options == {"width": [8, 16, 32]}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "an app", "manifest_version": 3}',
        '{"format": "other", "kind": "model", "files": {}}',
        '{"kind": "model", "spec": {"format": "epitaxy-artifact"}}',
        '["epitaxy-artifact"]',
        "",
    ],
)
def test_the_manifest_of_something_else_is_not_claimed(nomad, tmp_path, text):
    file = tmp_path / "manifest.json"
    file.write_text(text)
    parser = nomad.match(file) if text else None
    assert parser is None or "epitaxy" not in parser.name


def test_a_manifest_that_was_cut_short_is_reported(nomad, single):
    manifest = single / "manifest.json"
    manifest.write_text(manifest.read_text()[:700])
    log = Log()
    archive = nomad.parse(manifest, log)
    ((message, facts),) = log.errors
    assert "manifest.json: damaged" in message
    assert facts["mainfile"].endswith("manifest.json")
    assert not archive.data.is_complete
    assert archive.metadata.entry_name == "potential"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"elements": None}, "elements is missing"),
        ({"elements": "Si"}, "elements is 'Si', a list of texts is needed"),
        ({"elements": ["Si", "Xx"]}, "elements has 'Xx', a chemical symbol is needed"),
        ({"spec": {}}, "spec.use is missing"),
        ({"capabilities": []}, "capabilities is [], a mapping is needed"),
        ({"metrics": {"test": {"energy_mae": "small"}}}, "metrics.test.energy_mae is 'small'"),
        ({"data": {"n_train": True}}, "data.n_train is True, a whole number is needed"),
        ({"created": "yesterday"}, "created is 'yesterday'"),
        ({"kind": "thing"}, "kind is 'thing'; known: model, ensemble, delta"),
        ({"format_version": 99}, "manifest.json has format version 99, this epitaxy reads up to 1"),
        ({"seed": 6}, "manifest.json was edited or damaged: its content does not match"),
        ({"files": {"weights.safetensors": 3}}, "files.weights.safetensors is 3, a mapping"),
        ({"files": {"../x": {"size": 1, "sha256": "a"}}}, "../x is outside of the folder"),
        ({"files": {"a\0b": {"size": 1, "sha256": "a"}}}, "'a\\x00b' cannot be read"),
        (
            {"files": {"x" * 300: {"size": 1, "sha256": "a"}}},
            f"'{'x' * 60}' cannot be read: File name too long",
        ),
        ({"training": {"epochs": 10**30}}, "training.epochs is a number of 100 bits"),
        ({"metrics": {"test": {"energy_mae": 10**400}}}, "metrics.test.energy_mae is a number of"),
        ({"device": "\ud800"}, "device is '\\ud800', which is no text in Unicode"),
        ({"methods": {"code": "VASP"}}, "methods is {'code': 'VASP'}, a list is needed"),
    ],
)
def test_a_damaged_key_is_named_and_the_rest_is_kept(nomad, single, changes, said):
    edit(single / "manifest.json", **changes)
    log = Log()
    archive = nomad.parse(single / "manifest.json", log)
    assert any(f"manifest.json: {said}" in message for message, _ in log.errors), log.errors
    assert any(said in problem for problem in archive.data.problems)
    assert archive.data.digest


def test_missing_and_changed_weights_are_named(nomad, single):
    weights = single / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert nomad.parse(single / "manifest.json").data.problems == [
        "manifest.json: weights.safetensors was changed: its sha256 is not the one in the manifest"
    ]
    weights.write_bytes(content[:-5])
    (problem,) = nomad.parse(single / "manifest.json").data.problems
    assert f"weights.safetensors has {len(content) - 5:,} bytes instead of" in problem
    weights.unlink()
    archive = nomad.parse(single / "manifest.json")
    (problem,) = archive.data.problems
    assert "weights.safetensors is missing" in problem
    assert archive.results.material.elements == ["Al", "Cu"]


# --- data sets ---


@pytest.fixture
def from_nomad(make_metals, tmp_path):
    """Return a data set as the source `nomad` makes them, saved."""
    entries = [
        replace(
            entry,
            id=f"e-{i // 2}/run/0/calculation/{i % 2}",
            method=Method(code="FHI-aims", xc_functional="PBE" if i else "LDA"),
            tags={"entry": f"e-{i // 2}", "upload": "u-9", "section": f"run/0/system/{i % 2}"},
        )
        for i, entry in enumerate(make_metals(6))
    ]
    path = tmp_path / "metals"
    Dataset.from_entries(entries, history=[{"operation": "ingest"}]).save(path)
    return path


def test_a_data_set_refers_to_the_systems_of_its_entries(nomad, from_nomad):
    archive = nomad.parse(from_nomad / "manifest.json")
    found = archive.data
    assert archive.metadata.entry_type == "StructureDataset"
    assert (found.n_structures, found.n_atoms, found.largest_structure) == (6, 24, 4)
    assert archive.results.material.elements == ["Al", "Cu"]
    assert found.quantities == ["energy", "forces", "stress"]
    assert found.quantity_units == ["eV", "eV/Å", "eV/Å^3"]
    assert found.label_counts.tolist() == [6, 6, 6]
    assert (found.xc_functional, found.code) == ("LDA, PBE", "FHI-aims")
    assert [level.xc_functional for level in found.levels_of_theory] == ["LDA", "PBE"]
    assert (found.n_source_entries, found.source_entry_ids) == (3, ["e-0", "e-1", "e-2"])
    assert found.source_upload_ids == ["u-9"] * 3
    references = archive.m_to_dict()["data"]["references"]
    assert references[:3] == [
        "../uploads/u-9/archive/e-0#/run/0/system/0",
        "../uploads/u-9/archive/e-0#/run/0/system/1",
        "../uploads/u-9/archive/e-1#/run/0/system/0",
    ]
    assert len(references) == 6
    assert found.digest == Dataset.open(from_nomad).digest
    assert found.is_complete


def test_nomad_follows_a_reference_through_a_calculation_to_its_system(nomad):
    archive = nomad.archive.m_from_dict({"run": run_archive("", strained("Al", 4))["run"]})
    for number, system in ((2, 2), (-1, 3)):
        found = archive.m_resolve(f"/run/0/calculation/{number}/system_ref")
        assert found.m_path() == f"/run/0/system/{system}"


def test_a_data_set_in_bp5_is_read_too(nomad, from_nomad, tmp_path):
    pytest.importorskip("adios2", reason="needs adios2")
    from epitaxy.stores.export import export

    export(Dataset.open(from_nomad), tmp_path / "bp5", format="bp5")
    log = Log()
    found = nomad.parse(tmp_path / "bp5" / "manifest.json", log).data
    assert log.errors == []
    assert (found.store, found.n_structures, found.xc_functional) == ("ADIOS2 BP5", 6, "LDA, PBE")
    assert found.label_counts.tolist() == [6, 6, 6]
    assert found.digest == Dataset.open(from_nomad).digest
    (tmp_path / "bp5" / "part-00000.bp" / "data.0").unlink()
    (problem,) = nomad.parse(tmp_path / "bp5" / "manifest.json").data.problems
    assert problem.startswith("manifest.json: part-00000.bp/data.0 is missing")


def test_a_missing_column_is_named(nomad, from_nomad):
    (from_nomad / "positions.npy").unlink()
    log = Log()
    found = nomad.parse(from_nomad / "manifest.json", log).data
    assert any("manifest.json: positions.npy is missing" in message for message, _ in log.errors)
    assert (found.n_structures, found.is_complete) == (6, False)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("history",), [1.5]),
        (("history", 0), 10**30),
        (("quantities",), "energy"),
        (("columns", "atom_ptr", "file"), "a\0b"),
        (("columns", "atom_ptr", "n_bytes"), "many"),
        (("columns", "atom_ptr", "dtype"), "\ud800"),
        (("columns", "atom_ptr"), []),
    ],
)
def test_a_damaged_key_of_a_data_set_is_named(nomad, from_nomad, where, value):
    file = from_nomad / "manifest.json"
    manifest = part = json.loads(file.read_text())
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    file.write_text(json.dumps(manifest))
    archive = nomad.parse(file)
    assert archive.data.problems
    assert not archive.data.is_complete


def test_a_manifest_without_a_bottom_is_reported(nomad, from_nomad):
    file = from_nomad / "manifest.json"
    deep = "[" * 100_000 + "]" * 100_000
    file.write_text(f'{{"format": "epitaxy-dataset", "history": {deep}}}')
    assert "manifest.json: damaged" in nomad.parse(file).data.problems[0]


def test_a_column_that_was_changed_is_reported(nomad, from_nomad):
    column = from_nomad / "positions.npy"
    content = bytearray(column.read_bytes())
    content[-1] ^= 1
    column.write_bytes(content)
    (problem,) = nomad.parse(from_nomad / "manifest.json").data.problems
    assert "positions.npy: column is edited: sha256" in problem


def test_a_data_set_that_was_cut_short_is_reported(nomad, from_nomad):
    manifest = from_nomad / "manifest.json"
    manifest.write_text(manifest.read_text()[:300])
    log = Log()
    assert nomad.parse(manifest, log).metadata.entry_type == "StructureDataset"
    assert "manifest.json: damaged" in log.errors[0][0]


# --- predictions ---


def test_a_thousand_predictions_make_a_bounded_number_of_search_quantities(nomad, tmp_path):
    def search_quantities(n):
        section = {
            "m_def": "epitaxy_nomad.oasis.predictions.Predictions",
            "name": "many",
            "elements": ["Si"],
            "entry_ids": [f"e-{i}" for i in range(n)],
            "n_atoms": [2] * n,
            "targets": [
                {"name": "energy", "unit": "eV", "values": [0.1] * n, "std": [0.01] * n},
                {"name": "stress", "unit": "eV/Å^3", "components": [[0.0] * 6] * n},
            ],
        }
        file = tmp_path / f"n{n}.archive.json"
        file.write_text(json.dumps({"data": section}))
        archive = nomad.parse(file)
        assert len(archive.data.targets[0].values) == n
        assert archive.results.material.elements == ["Si"]
        return len(archive.metadata.search_quantities)

    assert search_quantities(1000) == search_quantities(2) < 20


def search_quantities_of(part):
    """Yield the names that an app's configuration searches by."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "search_quantity":
                yield value
            else:
                yield from search_quantities_of(value)
    elif isinstance(part, list):
        for value in part:
            yield from search_quantities_of(value)


def test_the_app_searches_by_quantities_that_exist(nomad):
    from nomad.config.models.ui import App
    from nomad.metainfo.elasticsearch_extension import entry_type

    app = nomad.config.plugins.entry_points.options[
        "epitaxy_nomad.oasis.entry_points:model_app"
    ].app
    content = app.model_dump(exclude_none=True)
    assert App(**content) == app
    entry_type.create_mapping(nomad.archive.m_def)
    entry_type.reload_quantities_dynamic()
    names = set(search_quantities_of(content)) | set(app.filters_locked)
    assert len(names) > 20
    assert names - set(entry_type.quantities) == set()
    included = app.search_quantities.include
    missing = [n for n in names if "#" in n and not any(n.endswith(i[1:]) for i in included)]
    assert missing == []


# --- fingerprints ---

EV = 1.602176634e-19
HARTREE = 27.211386245988
RECORDED = {
    # Beginning of the sha256 of `bins` of nomad-dos-fingerprints 1.0.2 (with numpy.trapz put
    # back, without which it returns nothing) for these spectra of NOMAD.
    "17661:2634879": "9c69ef4827f47eb7",
    "152827:1405950": "a64c7666d24d4e05",
    "1338403:3885678": "3478fd8fd0fc893d",
    "17287:54265": "abe7fb738fe6ace3",
    "113915:310910": "b88d9810f7791e77",
    "1349094:3916786": "d44ff55884cd2b8b",
    "1380320:4017525": "c489859136863c38",
    "437091:1222041": "e5fed7df614e6519",
    "991127:2867102": "02056d3a6637a663",
    "617798:1748269": "42bb876b8377cba5",
    "729456:2066403": "9a2dbe8a08a8550a",
    "176592:487503": "5afb86adb6f0f191",
    "476472:1333551": "46d2a7d412fa7914",
    "917738:2635848": "fc4571719348bba2",
    "897738:2575219": "f3ef29077ad6b07f",
}
needs_dos = pytest.mark.skipif(not (SHARED / "dos").exists(), reason="needs ../shared/data/dos")


def dos_archive(nomad, channels, *, highest=None, lowest=None, fermi=None):
    """Make an archive of one calculation from energies in eV and values in 1/eV."""
    pytest.importorskip("runschema", reason="needs nomad-schema-plugin-run")
    from runschema.calculation import BandGap, Calculation, Dos, DosValues, Energy
    from runschema.run import Program
    from runschema.run import Run as RunSection

    calculation = Calculation()
    for energies, values in channels:
        dos = Dos(energies=np.array(energies) * EV)
        dos.total.append(DosValues(value=np.array(values) / EV))
        calculation.dos_electronic.append(dos)
    if highest is not None:
        gap = BandGap(energy_highest_occupied=highest * EV)
        if lowest is not None:
            gap.energy_lowest_unoccupied = lowest * EV
        calculation.band_gap.append(gap)
    if fermi is not None:
        calculation.energy = Energy(fermi=fermi * EV)
    archive = nomad.archive(metadata=nomad.metadata())
    run = RunSection(program=Program(name="exciting"))
    run.calculation.append(calculation)
    archive.run.append(run)
    return archive


def fingerprinted(archive, **options):
    """Return what our normalizer stores in each channel, and what it logs."""
    from epitaxy_nomad.oasis.fingerprints import FingerprintNormalizer

    log = Log()
    options = {"grid": "dg_cut:56:-2:7:(-10,5)", **options}
    FingerprintNormalizer(**options).normalize(archive, log)
    return [dos.fingerprint for dos in archive.run[0].calculation[0].dos_electronic], log.warnings


@needs_dos
def test_fingerprints_are_those_of_the_reference_implementation(nomad):
    with lzma.open(SHARED / "dos" / "nomad_dos_fingerprint_test_data.json.xz") as stream:
        spectra = json.load(stream)
    for name, digest in RECORDED.items():
        energies = np.array(spectra[name]["dos_energies"]) / EV
        channels = [(energies, np.array(v) * EV) for v in spectra[name]["dos_values"]]
        # These energies are relative to the highest occupied one already.
        (first, *others), said = fingerprinted(dos_archive(nomad, channels, highest=0.0))
        assert said == []
        assert sha256(first.bins.encode()).hexdigest().startswith(digest), name
        assert (list(first.indices), first.stepsize) == ([0, 145], 0.05)
        assert first.grid_id == "dg_cut:56:-2.0:7.0:(-10.0, 5.0)"
        assert 0.1 < first.filling_factor < 0.6
        assert others == [None] * (len(channels) - 1)  # one for the sum over spins


def silicon():
    """Return the real DOS that exciting wrote: eV relative to its Fermi energy, 1/eV."""
    import xml.etree.ElementTree as ElementTree

    file = SHARED / "recorded_responses" / "nomad" / "dos.xml"
    if not file.exists():
        pytest.skip("needs ../shared/data/recorded_responses/nomad")
    points = ElementTree.parse(file).find("totaldos/diagram").findall("point")
    energies = np.array([float(point.get("e")) for point in points]) * HARTREE
    return energies, np.array([float(point.get("dos")) for point in points]) / HARTREE


def band_edges(energies, dos):
    """Return the highest occupied and the lowest unoccupied energy around zero."""
    filled = energies[dos > 1e-8]
    return float(filled[filled < 0].max()), float(filled[filled > 0].min())


def test_a_fingerprint_does_not_depend_on_the_zero_of_energy(nomad):
    from epitaxy.spectra import OLD_GRID, fingerprints
    from epitaxy_nomad.oasis.fingerprint_text import heights_of

    energies, dos = silicon()
    highest, lowest = band_edges(energies, dos)
    assert 0.4 < lowest - highest < 0.8  # LDA; at the points of the DOS
    expected = fingerprints(energies - highest, dos, grid=OLD_GRID)[0]
    assert expected.sum() > 500
    for shift in (0.0, 0.19731007 * HARTREE, -7.5):
        archive = dos_archive(
            nomad,
            [(energies + shift, dos)],
            highest=highest + shift,
            lowest=lowest + shift,
            fermi=shift,
        )
        (found,), said = fingerprinted(archive)
        heights = heights_of(found.bins, found.indices, OLD_GRID)
        assert said == []
        # Sums of shifted energies differ in the last digit, which may cost single pixels.
        assert np.abs(heights.astype(int) - expected).sum() <= 3


def test_spin_channels_are_added_up_and_metals_aligned_at_the_fermi_energy(nomad):
    energies, dos = silicon()
    highest, lowest = band_edges(energies, dos)
    (whole,), _ = fingerprinted(
        dos_archive(nomad, [(energies, dos)], highest=highest, lowest=lowest)
    )
    (up, down), _ = fingerprinted(
        dos_archive(nomad, [(energies, dos / 2)] * 2, highest=highest, lowest=lowest)
    )
    assert up.bins == whole.bins
    assert down is None
    (metal,), _ = fingerprinted(dos_archive(nomad, [(energies, dos)], fermi=highest))
    assert metal.bins == whole.bins


def test_a_fingerprint_of_the_newer_grid_is_written_as_runs(nomad):
    from epitaxy.spectra import DEFAULT_GRID, fingerprints
    from epitaxy_nomad.oasis.fingerprint_text import heights_of

    energies, dos = silicon()
    highest, lowest = band_edges(energies, dos)
    archive = dos_archive(nomad, [(energies, dos)], highest=highest, lowest=lowest)
    (found,), _ = fingerprinted(archive, grid=DEFAULT_GRID.id)
    assert found.grid_id == DEFAULT_GRID.id
    heights = heights_of(found.bins, found.indices, DEFAULT_GRID)
    assert np.array_equal(heights, fingerprints(energies - highest, dos)[0])


def test_a_dos_without_a_reference_energy_is_left_out_and_logged(nomad):
    energies, dos = silicon()
    (found,), (warning,) = fingerprinted(dos_archive(nomad, [(energies, dos)]))
    assert found is None
    assert "calculation 0: density of states without Fermi energy" in warning
    (found,), (warning,) = fingerprinted(dos_archive(nomad, [(energies, dos * 0)], fermi=0.0))
    assert found is None
    assert "empty fingerprint" in warning


def test_the_whole_chain_of_normalizers_fingerprints_a_dos(nomad):
    energies, dos = silicon()
    archive = dos_archive(nomad, [(energies, dos)], fermi=0.0)
    nomad.client.normalize_all(archive, logger=Log())
    first = archive.run[0].calculation[0].dos_electronic[0].fingerprint
    assert first.bins
    nomad.client.normalize_all(archive, logger=Log())
    assert archive.run[0].calculation[0].dos_electronic[0].fingerprint is first


# --- the example upload ---


@pytest.fixture
def example(nomad, tmp_path):
    """Return the folder that the example upload makes, as NOMAD does it."""
    upload = tmp_path / "upload"
    upload.mkdir()
    points = nomad.config.plugins.entry_points.options
    points["epitaxy_nomad.oasis.entry_points:example_upload"].load(str(upload))
    return upload


def parsed_as_on_a_server(nomad, upload, mainfile):
    """Parse a file of an upload with the metadata that a server gives to it."""
    from nomad.utils import generate_entry_id

    metadata = nomad.metadata(
        upload_id="u-1", entry_id=generate_entry_id("u-1", mainfile), mainfile=mainfile
    )
    archive = nomad.archive(metadata=metadata)
    log = Log()
    nomad.match(upload / mainfile).parse(str(upload / mainfile), archive, log)
    return archive, log


def test_the_example_upload_is_whole_and_small(nomad, example):
    from nomad.utils import generate_entry_id

    files = [file for file in example.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 500_000
    claimed = [
        str(file.relative_to(example))
        for file in files
        if (parser := nomad.match(file)) is not None and "epitaxy" in parser.name
    ]
    assert sorted(claimed) == ["silicon-data/manifest.json", "silicon-model/artifact/manifest.json"]
    archive, log = parsed_as_on_a_server(nomad, example, "silicon-model/artifact/manifest.json")
    assert log.errors == []
    assert archive.data.is_complete
    assert archive.data.artifacts[0].model_file.startswith("silicon-model/artifact/members/0/")
    assert archive.data.split.method == "random"
    data, log = parsed_as_on_a_server(nomad, example, "silicon-data/manifest.json")
    assert log.errors == []
    assert data.data.digest == archive.data.split.dataset_digest
    reference = archive.m_to_dict()["data"]["split"]["dataset"]
    assert reference == (
        f"../upload/archive/{generate_entry_id('u-1', 'silicon-data/manifest.json')}#/data"
    )
    assert archive.m_to_dict()["data"]["training"]["dataset"] == reference


# --- the action ---


class FolderUpload:
    """An upload in a folder, with archives as a server would have made them."""

    def __init__(self, folder, archives, *, published=False):
        self.upload_id, self.folder, self.archives = "u-1", folder, archives
        self.published = published

    def check_writable(self):
        from epitaxy.errors import PublishError

        if self.published:
            raise PublishError("upload u-1 is published and takes no files")

    def entry_ids(self):
        return list(self.archives)

    def mainfile(self, entry_id):
        return "silicon-model/artifact/manifest.json" if entry_id == "model-entry" else None

    def archive(self, entry_id):
        return self.archives.get(entry_id)

    @contextmanager
    def open(self, path):
        with (self.folder / path).open("rb") as stream:
            yield stream

    def has(self, path):
        return (self.folder / path).is_file()

    def add(self, files, folder):
        (self.folder / folder).mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, self.folder / folder)


@pytest.fixture
def uploaded(example):
    """Return the example as an upload."""
    archives = {
        file.name.removesuffix(".archive.json"): json.loads(file.read_text())
        for file in sorted((example / "structures").glob("*.archive.json"))
    }
    return FolderUpload(example, {**archives, "model-entry": {"data": {"kind": "ensemble"}}})


def run_action(upload, *, limits=None, **request):
    """Run the activity as a worker does, without a server."""
    from temporalio.testing import ActivityEnvironment

    from epitaxy_nomad.oasis.predict_activity import Predicting
    from epitaxy_nomad.oasis.predict_models import PredictInput, PredictJob, PredictLimits

    given = {"max_structures": 10, "max_inline": 1000, "max_references": 3, **(limits or {})}
    job = PredictJob(
        request=PredictInput(upload_id="u-1", user_id="me", **request),
        limits=PredictLimits(**given),
    )
    return ActivityEnvironment().run(Predicting(lambda *_: upload).predict, job)


def test_the_action_predicts_and_writes_an_entry(nomad, uploaded):
    output = run_action(uploaded, model="model-entry")
    assert (output.n_structures, output.n_skipped, output.has_uncertainty) == (4, 2, True)
    assert output.reasons == {"the model does not know Ge": 1, "no structure": 1}
    assert output.targets == ["energy", "forces", "stress"]
    assert output.mainfile == "predictions/predictions.archive.json"
    log = Log()
    archive = nomad.parse(uploaded.folder / output.mainfile, log)
    assert log.errors == []
    found = archive.data
    assert archive.metadata.entry_type == "Predictions"
    assert archive.results.material.elements == ["Si"]
    assert found.entry_ids == [
        "silicon-polymorph",
        "silicon-rattled",
        "silicon-strained",
        "silicon-vacancy",
    ]
    assert found.skipped_entry_ids == ["germanium", "model-entry"]
    content = archive.m_to_dict()["data"]
    assert content["model"] == f"../uploads/u-1/archive/{_id('silicon-model/artifact')}#/data"
    assert content["structures"] == [
        f"../upload/archive/{name}#/results/properties/structures/structure_original"
        for name in found.entry_ids[:3]
    ]
    # The same numbers as those of the artifact itself.
    model = load_artifact(uploaded.folder / "silicon-model" / "artifact").model
    atoms = [_atoms(uploaded.archives[name]) for name in found.entry_ids]
    expected = model.predict(Dataset.from_entries([Entry.from_atoms(a) for a in atoms]))
    energy, forces, stress = found.targets
    np.testing.assert_allclose(energy.values, expected.mean["energy"], rtol=1e-6)
    np.testing.assert_allclose(energy.std, expected.std["energy"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(forces.components, expected.mean["forces"], atol=1e-4)
    np.testing.assert_allclose(stress.components_std, expected.std["stress"], atol=1e-5)
    assert (energy.unit, forces.per, forces.n_values) == ("eV", "atom", 3 * sum(found.n_atoms))
    assert energy.mean_std == pytest.approx(np.mean(energy.std))


def _id(folder):
    from nomad.utils import generate_entry_id

    return generate_entry_id("u-1", f"{folder}/manifest.json")


def _atoms(archive):
    from ase import Atoms

    structure = archive["results"]["properties"]["structures"]["structure_original"]
    return Atoms(
        structure["species_at_sites"],
        positions=np.array(structure["cartesian_site_positions"]) * 1e10,
        cell=np.array(structure["lattice_vectors"]) * 1e10,
        pbc=True,
    )


def test_many_predictions_go_into_a_file_beside_the_entry(nomad, uploaded):
    import h5py

    output = run_action(
        uploaded, model="silicon-model/artifact", name="large", limits={"max_inline": 10}
    )
    found = nomad.parse(uploaded.folder / output.mainfile).data
    energy, forces, _ = found.targets
    assert len(energy.values) == 4
    assert forces.components is None or len(forces.components) == 0
    assert forces.values_file == "predictions/large.h5#/forces/values"
    with h5py.File(uploaded.folder / "predictions" / "large.h5") as stream:
        assert stream["forces/values"].shape == (sum(found.n_atoms), 3)
        assert stream["forces/std"][()].mean() == pytest.approx(forces.mean_std)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"model": "nothing"}, "'nothing' is neither the entry of a trained model nor the folder"),
        ({"model": "silicon-data"}, "of format 'epitaxy-dataset', not 'epitaxy-artifact'"),
        ({"model": "model-entry", "targets": ["band_gap"]}, "does not predict band_gap"),
        (
            {"model": "model-entry", "entry_ids": ["germanium", "elsewhere"]},
            "no entry of upload u-1 can be predicted",
        ),
        ({"model": "model-entry", "limits": {"max_structures": 2}}, "more than 2 structures"),
    ],
)
def test_the_action_says_why_it_refuses(nomad, uploaded, request_, said):
    from temporalio.exceptions import ApplicationError

    with pytest.raises(ApplicationError, match=said) as caught:
        run_action(uploaded, **request_)
    assert caught.value.non_retryable
    assert not (uploaded.folder / "predictions").exists()


def test_the_action_refuses_a_published_upload_and_changed_weights(nomad, uploaded):
    from temporalio.exceptions import ApplicationError

    weights = uploaded.folder / "silicon-model" / "artifact" / "members" / "1"
    content = (weights / "weights.safetensors").read_bytes()
    (weights / "weights.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ApplicationError, match=r"1/weights\.safetensors was changed"):
        run_action(uploaded, model="model-entry")
    uploaded.published = True
    with pytest.raises(ApplicationError, match="published"):
        run_action(uploaded, model="model-entry")


def test_a_name_that_leads_elsewhere_is_refused(nomad):
    from pydantic import ValidationError

    from epitaxy_nomad.oasis.predict_models import PredictInput

    with pytest.raises(ValidationError):
        PredictInput(upload_id="u", user_id="me", model="m", name="../../x")


def test_the_workflow_can_be_imported_in_temporals_sandbox(nomad):
    from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
    from temporalio.workflow import _Definition

    points = nomad.config.plugins.entry_points.options
    action = points["epitaxy_nomad.oasis.entry_points:predict_action"].load()
    definition = _Definition.must_from_class(action.workflow)

    async def prepare():  # as a worker does when it starts
        SandboxedWorkflowRunner().prepare_workflow(definition)

    asyncio.run(prepare())
    assert action.task_queue == "cpu-task-queue"


def test_the_form_of_the_action_asks_for_what_it_needs(nomad):
    from nomad.actions.plugin_adapter import _get_param_schema as form

    points = nomad.config.plugins.entry_points.options
    point = points["epitaxy_nomad.oasis.entry_points:predict_action"]
    assert set(form(point.load().workflow.run, point)["required"]) == {"upload_id", "model"}


def test_loading_the_action_does_not_import_torch():
    code = (
        "import sys\n"
        "from epitaxy_nomad.oasis.entry_points import predict_action\n"
        "predict_action.load()\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip().splitlines()[-1] == "False"
