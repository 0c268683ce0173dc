"""From the manifest of an artifact to the section of a trained model."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nomad_ml_workflows.schema_packages.model import Library, Optimizer

from epitaxy.artifact import read_manifest
from epitaxy.errors import ArtifactError
from epitaxy_nomad.oasis.facts import Facts, Note
from epitaxy_nomad.oasis.lineage import read_lineage
from epitaxy_nomad.oasis.metrics import fill_metrics
from epitaxy_nomad.oasis.model import (
    Ensemble,
    HyperparameterSearch,
    ModelFile,
    PredictedTarget,
    TrainedModel,
    TrainingRun,
)
from epitaxy_nomad.oasis.read_split import read_split
from epitaxy_nomad.oasis.theory import fill_theory
from epitaxy_nomad.oasis.upload_folder import UploadFolder

KINDS = ("model", "ensemble", "delta")
MAX_FILES = 200
"""Files that become sections of their own; an ensemble of a hundred has two hundred."""


def read_model(facts: Facts, folder: UploadFolder, note: Note) -> TrainedModel:
    """Return the section of a trained model.

    Args:
        facts: the manifest of an artifact.
        folder: where it lies.
        note: is told about what is missing or damaged.
    """
    if facts.flag("damaged"):
        return TrainedModel(name=folder.path.name)
    try:
        read_manifest(folder.path)
    except ArtifactError as error:
        note(folder.without_path(str(error)))
    model = TrainedModel()
    _what(model, facts, note)
    fill_theory(
        model,
        (
            (m.text("code") or "", m.text("xc_functional") or "", m.text("settings") or "")
            for m in facts.sections("methods")
        ),
    )
    model.split = read_split(facts, folder)
    model.training = _training(facts)
    if model.training is not None and model.split is not None and model.split.dataset is not None:
        model.training.dataset = model.split.dataset
    fill_metrics(model, facts)
    model.ensemble = _ensemble(facts, folder, note)
    model.lineage = read_lineage(facts, folder)
    model.search = _search(facts)
    _files(model, facts, folder, note)
    model.name = _name(model)
    model.description = _description(model)
    return model


def _what(model: TrainedModel, facts: Facts, note: Note) -> None:
    model.format_version = facts.whole("format_version", needed=True)
    model.kind = facts.text("kind", needed=True)
    if model.kind not in (None, *KINDS):
        note(f"kind is {model.kind!r}; known: {', '.join(KINDS)}")
    model.n_members = facts.whole("n_members")
    spec, strategy = facts.section("spec", needed=True), facts.section("strategy")
    model.architecture = _short(spec.text("use", needed=True))
    model.specification = dict(spec.content)
    model.strategy = _short(strategy.text("use")) or "direct"
    model.strategy_options = dict(strategy.content) or None
    model.digest = facts.text("manifest_sha256", needed=True)
    model.lab_id = model.digest
    model.created = _time(facts.text("created"), note)
    model.datetime = model.created
    model.elements = facts.texts("elements", needed=True)
    model.n_elements = len(model.elements)
    model.cutoff = facts.number("cutoff")
    can, units = facts.section("capabilities", needed=True), facts.section("units", needed=True)
    model.predicts_forces = can.flag("forces")
    model.predicts_stress = can.flag("stress")
    model.has_uncertainty = can.flag("uncertainty")
    model.composition_only = can.flag("composition_only")
    model.is_periodic = can.flag("pbc")
    for name in can.texts("targets", needed=True):
        model.targets.append(PredictedTarget(name=name, unit=units.text(name)))
    model.tasks = ["property-prediction", *(["interatomic-potential"] * bool(can.flag("forces")))]
    model.tags = ["epitaxy", *filter(None, (model.kind, model.architecture, model.strategy))]
    versions = facts.section("versions")
    for name in versions:
        model.libraries.append(Library(name=name, version=versions.text(name)))
    model.model_version = versions.text("epitaxy")


def _training(facts: Facts) -> TrainingRun | None:
    if "training" not in facts:
        return None
    options = facts.section("training")
    return TrainingRun(
        max_epochs=options.whole("epochs"),
        batch_size=options.whole("batch_size"),
        dataset_split="train",
        optimizer=Optimizer(name=options.text("optimizer"), learning_rate=options.number("lr")),
        schedule=options.text("schedule"),
        loss=options.text("loss"),
        seed=facts.whole("seed"),
        device=facts.text("device"),
        precision=facts.text("dtype"),
        options=dict(options.content),
    )


def _ensemble(facts: Facts, folder: UploadFolder, note: Note) -> Ensemble | None:
    if facts.text("kind") != "ensemble":
        return None
    files = facts.section("files")
    n_members = facts.whole("n_members", needed=True) or 0
    names = [f"members/{k}/manifest.json" for k in range(n_members)]
    for name in names:
        if name not in files:
            note(f"files.{name} is missing: the ensemble has {n_members} members")
    names = [name for name in names if name in files]
    return Ensemble(
        n_members=n_members,
        member_files=[folder.name_of(name) for name in names],
        member_digests=[files.section(name).text("sha256") or "" for name in names],
    )


def _search(facts: Facts) -> HyperparameterSearch | None:
    if "search" not in facts:
        return None
    search = facts.section("search")
    trials = search.section("trials")
    return HyperparameterSearch(
        method=_short(search.text("method")),
        metric=search.text("metric"),
        n_trials=search.whole("n_trials"),
        best_value=search.number("best_value"),
        trial_values=trials.numbers("values") or None,
        space=search.mapping("space"),
        trial_options=trials.mapping("options"),
    )


def _files(model: TrainedModel, facts: Facts, folder: UploadFolder, note: Note) -> None:
    files = facts.section("files", needed=True)
    for number, name in enumerate(files):
        known = files.section(name)
        size, sha256 = known.whole("size", needed=True), known.text("sha256", needed=True)
        problem = folder.problem_of(name, size=size, sha256=sha256)
        if problem:
            note(problem)
        if number < MAX_FILES:
            model.artifacts.append(
                ModelFile(
                    model_file=folder.name_of(name),
                    format=name.rpartition(".")[2],
                    file_size=size,
                    checksum=f"sha256:{sha256}",
                )
            )


def _name(model: TrainedModel) -> str:
    elements = model.elements if len(model.elements) <= 6 else [f"{model.n_elements} elements"]
    what = model.architecture or "model"
    if model.kind == "ensemble":
        what = f"ensemble of {model.n_members} {what}"
    if model.kind == "delta":
        what = f"{what} on a lower level"
    targets = [target.name for target in model.targets]
    shown = ", ".join(targets if len(targets) <= 4 else [*targets[:3], f"{len(targets) - 3} more"])
    return f"{'-'.join(elements) or 'no elements'}: {what} for {shown or 'nothing'}"


def _description(model: TrainedModel) -> str:
    parts = [f"Trained with epitaxy {model.model_version or ''}".strip()]
    if model.split is not None:
        parts.append(f"on {model.split.n_train} structures")
    if model.xc_functional:
        parts.append(f"({model.xc_functional})")
    text = " ".join(parts) + "."
    if model.main_error is not None:
        text += (
            f" Mean absolute error of {model.main_target} on the {model.main_error_split} set: "
            f"{model.main_error:.4g} {model.main_error_unit}."
        )
    return text


def _short(name: str | None) -> str | None:
    """Return the name of a component without its plugin."""
    return None if name is None else name.rpartition("/")[2]


def _time(text: str | None, note: Note) -> Any:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        note(f"created is {text!r}, a time as 2026-01-31T12:00:00+00:00 is needed")
        return None
