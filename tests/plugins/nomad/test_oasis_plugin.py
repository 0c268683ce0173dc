"""The plugin for a NOMAD Oasis, in NOMAD's own client: parse, normalise, what a search finds.

Importing NOMAD takes seconds, so it happens once, in a fixture of this one file.
"""

import importlib.util
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import distribution, entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

from epitaxy.artifact import load_artifact, save_artifact
from epitaxy.dataset import Dataset
from epitaxy.entry import Method, Origin
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
            from nomad import client
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
    assert (model.training.seed, model.training.epochs) == (5, 1)
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
        ({"spec": {}}, "spec.use is missing"),
        ({"capabilities": []}, "capabilities is [], a mapping is needed"),
        ({"metrics": {"test": {"energy_mae": "small"}}}, "metrics.test.energy_mae is 'small'"),
        ({"data": {"n_train": True}}, "data.n_train is True, a whole number is needed"),
        ({"created": "yesterday"}, "created is 'yesterday'"),
        ({"kind": "thing"}, "kind is 'thing'; known: model, ensemble, delta"),
        ({"format_version": 99}, "format_version is 99, this plugin reads up to 1"),
        ({"files": {"weights.safetensors": 3}}, "files.weights.safetensors is 3, a mapping"),
        ({"files": {"../x": {"size": 1, "sha256": "a"}}}, "../x is outside of the folder"),
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


def test_a_missing_column_is_named(nomad, from_nomad):
    (from_nomad / "positions.npy").unlink()
    log = Log()
    found = nomad.parse(from_nomad / "manifest.json", log).data
    assert any("manifest.json: positions.npy is missing" in message for message, _ in log.errors)
    assert (found.n_structures, found.is_complete) == (6, False)


def test_a_data_set_that_was_cut_short_is_reported(nomad, from_nomad):
    manifest = from_nomad / "manifest.json"
    manifest.write_text(manifest.read_text()[:300])
    log = Log()
    assert nomad.parse(manifest, log).metadata.entry_type == "StructureDataset"
    assert "manifest.json: damaged" in log.errors[0][0]
