"""Schema of a trained model: `MLModel` of nomad-ml-workflows with what an artifact of epitaxy adds.

Scalars in ``data`` are indexed one by one, those of a repeated section once per repetition; so
what can be long (errors by group, methods, trials of a search) stands in arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nomad.datamodel.data import ArchiveSection
from nomad.metainfo import JSON, Datetime, Package, Quantity, Section, SubSection
from nomad_ml_workflows.schema_packages.model import Evaluation, MLModel, ModelArtifact, Training

from epitaxy_nomad.oasis.dataset import LevelOfTheory, StructureDataset
from epitaxy_nomad.oasis.search_entries import find_entry

MODEL = "epitaxy_nomad.oasis.model.TrainedModel"
DATA_SET = "epitaxy_nomad.oasis.dataset.StructureDataset"

m_package = Package(name="epitaxy models", description="Models trained with epitaxy.")


class PredictedTarget(ArchiveSection):
    """A quantity that the model predicts, and how far it is off on structures it has not seen."""

    m_def = Section(label="Predicted quantity")

    name = Quantity(type=str, description="Name of the quantity, for example energy or band_gap.")
    unit = Quantity(type=str, description="Unit of the predictions.")
    error_unit = Quantity(
        type=str, description="Unit of the errors: extensive quantities are compared per atom."
    )
    per = Quantity(type=str, description="structure or atom: what has one value.")
    test_mae = Quantity(type=float, description="Mean absolute error on the test set, error_unit.")
    test_rmse = Quantity(
        type=float, description="Root mean square error on the test set, error_unit."
    )
    valid_mae = Quantity(
        type=float, description="Mean absolute error on the validation set, error_unit."
    )
    valid_rmse = Quantity(
        type=float, description="Root mean square error on the validation set, error_unit."
    )


class ModelFile(ModelArtifact):
    """A file of the model, with the sha256 that proves that it is unchanged."""

    m_def = Section(label="File of the model")

    def _normalize_file_size_format(self, archive, logger):  # type: ignore[no-untyped-def]
        """Keep what the parser found: it compares the file with the manifest."""


class TrainingRun(Training):
    """How and on what the model was trained."""

    m_def = Section(label="Training")

    max_epochs = Quantity(type=int, description="Epochs after which training ends at the latest.")
    schedule = Quantity(type=str, description="Schedule of the learning rate.")
    loss = Quantity(type=str, description="Loss function.")
    seed = Quantity(type=int, description="Seed from which all random choices are derived.")
    device = Quantity(type=str, description="Device, for example cpu or cuda:0.")
    precision = Quantity(type=str, description="Floating point type of the model.")
    options = Quantity(type=JSON, description="All training options.")


class DataSplit(ArchiveSection):
    """What was learnt from, chosen by and tested on; the digests identify the data exactly."""

    m_def = Section(label="Data and split")

    n_train = Quantity(type=int, description="Structures in the training set.")
    n_valid = Quantity(type=int, description="Structures in the validation set.")
    n_test = Quantity(type=int, description="Structures in the test set.")
    train_digest = Quantity(type=str, description="sha256 over the content of the training set.")
    valid_digest = Quantity(type=str, description="sha256 over the content of the validation set.")
    split_digest = Quantity(type=str, description="sha256 over the division.")
    method = Quantity(type=str, description="How the data were divided, for example group.")
    groups = Quantity(type=str, description="What was kept together, for example composition.")
    options = Quantity(type=JSON, description="All options of the division.")
    label_names = Quantity(type=str, shape=["*"], description="Labels of the training set.")
    label_counts = Quantity(
        type=np.int64, shape=["*"], description="Structures that have each of label_names."
    )
    history = Quantity(
        type=JSON, shape=["*"], description="What was done to the data since their source."
    )
    databases = Quantity(type=str, shape=["*"], description="Databases that the data are from.")
    licenses = Quantity(type=str, shape=["*"], description="Licenses of the data.")
    nomad_dataset_ids = Quantity(
        type=str, shape=["*"], description="Data sets of NOMAD that the data were read from."
    )
    nomad_upload_ids = Quantity(
        type=str, shape=["*"], description="Uploads of NOMAD that the data were read from."
    )
    nomad_entry_ids = Quantity(
        type=str, shape=["*"], description="Single entries of NOMAD that the data were read from."
    )
    dataset_digest = Quantity(
        type=str, description="Digest of the whole data set, its lab_id in NOMAD."
    )
    dataset = Quantity(
        type=StructureDataset, description="The data set, where it is on the server."
    )


class ModelEvaluation(Evaluation):
    """An error of one predicted quantity on one set."""

    m_def = Section(label="Error")

    target = Quantity(type=str, description="Predicted quantity.")
    unit = Quantity(type=str, description="Unit of metric_value.")
    n_structures = Quantity(type=int, description="Structures compared.")


class GroupErrors(ArchiveSection):
    """Errors of one set by group of structures, for example by kind of structure."""

    m_def = Section(label="Errors by group")

    dataset_split = Quantity(type=str, description="Set: valid or test.")
    groups = Quantity(type=str, shape=["*"], description="Group of each row.")
    targets = Quantity(type=str, shape=["*"], description="Predicted quantity of each row.")
    units = Quantity(type=str, shape=["*"], description="Unit of each row.")
    mae = Quantity(type=np.float64, shape=["*"], description="Mean absolute error of each row.")
    rmse = Quantity(type=np.float64, shape=["*"], description="Root mean square error of each row.")


class UncertaintyCalibration(ArchiveSection):
    """Whether the predicted standard deviations describe the errors that are made."""

    m_def = Section(label="Calibration of the uncertainty")

    target = Quantity(type=str, description="Predicted quantity.")
    dataset_split = Quantity(type=str, description="Set: valid or test.")
    error_std_ratio = Quantity(
        type=float,
        description=(
            "Root mean square error over root mean square standard deviation: 1 is perfect, "
            "above 1 is overconfident."
        ),
    )
    rank_correlation = Quantity(
        type=float,
        description="Spearman correlation of standard deviation and absolute error.",
    )


class Ensemble(ArchiveSection):
    """Members of an ensemble; the standard deviation is their spread, in population form."""

    m_def = Section(label="Ensemble")

    n_members = Quantity(type=int, description="Models in the ensemble.")
    member_files = Quantity(type=str, shape=["*"], description="Manifest of each member.")
    member_digests = Quantity(
        type=str, shape=["*"], description="sha256 of the content of each member's manifest."
    )


class Lineage(ArchiveSection):
    """Where the model comes from: the model that it was begun with or stands on."""

    m_def = Section(label="Lineage")

    strategy = Quantity(type=str, description="transfer, features, delta or conversion.")
    parent_digest = Quantity(
        type=str, description="sha256 of the parent's manifest, its lab_id in NOMAD."
    )
    parent_path = Quantity(type=str, description="Where the parent was when the model was trained.")
    parent = Quantity(type=MLModel, description="The parent, where it is on the server.")
    mode = Quantity(type=str, description="What was transferred: full, head, layers or adapters.")
    level = Quantity(type=str, description="Level of the parent's features that is read.")
    branch = Quantity(type=str, description="Branch of the parent, of several levels of theory.")
    control = Quantity(
        type=JSON, description="The same model without the parent, trained with an equal budget."
    )
    facts = Quantity(type=JSON, description="All that the manifest says about the origin.")


class HyperparameterSearch(ArchiveSection):
    """The search that chose the options of the model."""

    m_def = Section(label="Search")

    method = Quantity(type=str, description="Search method.")
    metric = Quantity(type=str, description="What was minimised.")
    n_trials = Quantity(type=int, description="Models that were tried.")
    best_value = Quantity(type=float, description="Smallest value of the metric.")
    trial_values = Quantity(
        type=np.float64, shape=["*"], description="Value of the metric of each trial."
    )
    space = Quantity(type=JSON, description="What was varied, and between which values.")
    trial_options = Quantity(type=JSON, description="Options of each trial, as lists by name.")


class TrainedModel(MLModel):
    """A model of atomistic properties that was trained with epitaxy."""

    m_def = Section(label="Trained model (epitaxy)")

    kind = Quantity(
        type=str,
        description="model, ensemble (of equal models) or delta (a difference to a lower level).",
    )
    n_members = Quantity(type=int, description="1, or the number of models in the ensemble.")
    strategy = Quantity(type=str, description="How it was trained: direct, ensemble, transfer ...")
    main_target = Quantity(
        type=str, description="The first predicted quantity that was compared with labels."
    )
    main_error = Quantity(
        type=float,
        description=(
            "Mean absolute error of main_target on the test set, on the validation set where "
            "there is no test set."
        ),
    )
    main_error_unit = Quantity(type=str, description="Unit of main_error.")
    main_error_split = Quantity(type=str, description="Set of main_error: test or valid.")
    energy_error = Quantity(
        type=float,
        unit="eV",
        description="Mean absolute error of the energy per atom, on the same set as main_error.",
    )
    force_error = Quantity(
        type=float,
        unit="eV/angstrom",
        description="Mean absolute error of force components, on the same set as main_error.",
    )
    error_std_ratio = Quantity(
        type=float,
        description=(
            "Calibration of main_target: root mean square error over root mean square standard "
            "deviation; 1 is perfect, above 1 is overconfident."
        ),
    )
    elements = Quantity(type=str, shape=["*"], description="Elements that the model covers.")
    n_elements = Quantity(type=int, description="Number of elements that the model covers.")
    xc_functional = Quantity(
        type=str, description="Functional of the training data; several are joined with a comma."
    )
    code = Quantity(
        type=str, description="Code of the training data; several are joined with a comma."
    )
    method_codes = Quantity(type=str, shape=["*"], description="Code of each level of theory.")
    method_functionals = Quantity(
        type=str, shape=["*"], description="Functional of each level of theory."
    )
    method_settings = Quantity(
        type=str, shape=["*"], description="Settings of each level of theory."
    )
    predicts_forces = Quantity(type=bool, description="Whether it predicts forces.")
    predicts_stress = Quantity(type=bool, description="Whether it predicts the stress.")
    has_uncertainty = Quantity(type=bool, description="Whether predictions have an error bar.")
    composition_only = Quantity(
        type=bool, description="Whether it reads formulas only, without positions."
    )
    is_periodic = Quantity(type=bool, description="Whether it treats periodic structures.")
    cutoff = Quantity(
        type=float, unit="angstrom", description="Range of its shells of neighbors, if any."
    )
    specification = Quantity(type=JSON, description="The recipe of the model, with all options.")
    strategy_options = Quantity(type=JSON, description="The recipe of the training strategy.")
    digest = Quantity(type=str, description="sha256 of the content of the manifest.")
    format_version = Quantity(type=int, description="Version of the artifact's format.")
    created = Quantity(type=Datetime, description="When the artifact was written.")
    is_complete = Quantity(
        type=bool, description="Whether all files of the manifest are in the upload, unchanged."
    )
    problems = Quantity(
        type=str, shape=["*"], description="What is missing or damaged, one sentence each."
    )

    levels_of_theory = SubSection(sub_section=LevelOfTheory, repeats=True)
    targets = SubSection(sub_section=PredictedTarget, repeats=True)
    artifacts = SubSection(sub_section=ModelFile, repeats=True)
    training = SubSection(sub_section=TrainingRun)
    split = SubSection(sub_section=DataSplit)
    evaluations = SubSection(sub_section=ModelEvaluation, repeats=True)
    group_errors = SubSection(sub_section=GroupErrors, repeats=True)
    calibrations = SubSection(sub_section=UncertaintyCalibration, repeats=True)
    ensemble = SubSection(sub_section=Ensemble)
    lineage = SubSection(sub_section=Lineage)
    search = SubSection(sub_section=HyperparameterSearch)

    def normalize(self, archive: Any, logger: Any) -> None:
        """Look for the parent and the data set among the entries of the server."""
        super().normalize(archive, logger)
        found: dict[str, str | None] = {}
        wanted = {
            "parent": (self.lineage and self.lineage.parent_digest, MODEL),
            "dataset": (self.split and self.split.dataset_digest, DATA_SET),
        }
        for name, (digest, schema) in wanted.items():
            if digest:
                try:
                    found[name] = find_entry(archive, digest, schema=schema)
                except Exception as error:  # of the search engine; the model is whole without
                    logger.warning(f"epitaxy: the {name} of the model was not searched: {error!r}")
        if found.get("parent") and self.lineage.parent is None:
            self.lineage.parent = found["parent"]
        if found.get("dataset") and self.split.dataset is None:
            self.split.dataset = found["dataset"]
            if self.training is not None:
                self.training.dataset = found["dataset"]


m_package.__init_metainfo__()
