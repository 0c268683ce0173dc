"""What the plugin offers to a NOMAD Oasis; light, because every process of NOMAD imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nomad.actions.shared.constant import TaskQueue
from nomad.config.models.plugins import (
    ActionEntryPoint,
    AppEntryPoint,
    ExampleUploadEntryPoint,
    NormalizerEntryPoint,
    ParserEntryPoint,
    SchemaPackageEntryPoint,
)
from pydantic import Field

from epitaxy_nomad.oasis.app import build_app

if TYPE_CHECKING:
    from nomad.actions import Action
    from nomad.metainfo import SchemaPackage
    from nomad.normalizing import Normalizer
    from nomad.parsing import Parser

MANIFEST = r'^\s*\{\s*"format":\s*"epitaxy-(artifact|dataset|dataset-bp5)"'
"""How a manifest of ours begins; also one that was cut short, so that this is reported."""


class ModelSchema(SchemaPackageEntryPoint):
    """Sections of trained models."""

    def load(self) -> SchemaPackage:
        """Return the package."""
        from epitaxy_nomad.oasis.absent import empty_package, is_absent

        if is_absent():
            return empty_package("epitaxy models")
        from epitaxy_nomad.oasis.model import m_package

        return m_package


class DatasetSchema(SchemaPackageEntryPoint):
    """Sections of data sets."""

    def load(self) -> SchemaPackage:
        """Return the package."""
        from epitaxy_nomad.oasis.absent import empty_package, is_absent

        if is_absent():
            return empty_package("epitaxy data sets")
        from epitaxy_nomad.oasis.dataset import m_package

        return m_package


class PredictionSchema(SchemaPackageEntryPoint):
    """Sections of predictions."""

    def load(self) -> SchemaPackage:
        """Return the package."""
        from epitaxy_nomad.oasis.absent import empty_package, is_absent

        if is_absent():
            return empty_package("epitaxy predictions")
        from epitaxy_nomad.oasis.predictions import m_package

        return m_package


class ManifestParserEntryPoint(ParserEntryPoint):
    """Parser of artifacts and data sets, with its options."""

    hash_up_to: int = Field(
        256 * 1024**2,
        description="Bytes of a file up to which its sha256 is compared; of larger ones the size.",
    )
    max_references: int = Field(
        200,
        description=(
            "Structures of other entries that a data set refers to, at most; all ids stand in "
            "source_entry_ids."
        ),
    )

    def load(self) -> Parser:
        """Return the parser."""
        from epitaxy_nomad.oasis.absent import NoParser, is_absent

        options: dict[str, Any] = self.model_dump(exclude={"level"})
        if is_absent():
            return NoParser(name=self.name)
        from epitaxy_nomad.oasis.parser import ManifestParser

        return ManifestParser(**options)


class FingerprintEntryPoint(NormalizerEntryPoint):
    """Normalizer that fingerprints densities of states, with its options."""

    grid: str = Field(
        "dg_cut:56:-2:7:(-10,5)",
        description=(
            "Grid of the fingerprints: that of version 1 of nomad-dos-fingerprints, which NOMAD "
            "stored before, or one of version 2, nonuniform:-2:0.05:1.05:0.5:5.5:7:-8:7:56."
        ),
    )

    def load(self) -> Normalizer:
        """Return the normalizer."""
        import nomad.normalizing  # noqa: F401  (it loads all normalizers, and must come first)

        from epitaxy_nomad.oasis.fingerprints import FingerprintNormalizer

        return FingerprintNormalizer(grid=self.grid)


class PredictEntryPoint(ActionEntryPoint):
    """Action that predicts with a stored model, with its limits."""

    max_structures: int = Field(10_000, gt=0, description="Structures of one call.")
    max_inline: int = Field(
        20_000,
        ge=0,
        description="Numbers of one quantity that stand in the archive; more go into HDF5.",
    )
    max_references: int = Field(
        200, ge=0, description="Structures that an entry of predictions refers to."
    )
    timeout: int = Field(7200, gt=0, description="Seconds that a prediction may take.")
    heartbeat_timeout: int = Field(
        120, gt=0, description="Seconds of silence after which the worker counts as dead."
    )

    def load(self) -> Action:
        """Return the action; torch is imported when it runs, in the action worker."""
        from nomad.actions import Action

        from epitaxy_nomad.oasis.predict_activity import Predicting
        from epitaxy_nomad.oasis.predict_workflow import PredictWorkflow

        return Action(
            task_queue=self.task_queue,
            workflow=PredictWorkflow,
            activities=[Predicting().predict],
        )


model_schema = ModelSchema(
    name="epitaxy models", description="Models trained with epitaxy, extending MLModel."
)
dataset_schema = DatasetSchema(
    name="epitaxy data sets", description="Data sets curated with epitaxy, extending Dataset."
)
manifest_parser = ManifestParserEntryPoint(
    name="epitaxy manifests",
    description="Reads artifacts (trained models) and data sets of epitaxy.",
    mainfile_name_re=r"(.*/)?manifest\.json",
    mainfile_mime_re=r"application/json|text/plain",
    mainfile_contents_re=MANIFEST,
)
prediction_schema = PredictionSchema(
    name="epitaxy predictions", description="What models of epitaxy predict, as arrays."
)
fingerprint_normalizer = FingerprintEntryPoint(
    name="epitaxy fingerprints",
    description="Computes spectral fingerprints of electronic densities of states.",
    execution_order=2,  # after the normalizer that finds the band edges of a DOS
)
model_app = AppEntryPoint(
    name="Trained models", description="Search models trained with epitaxy.", app=build_app()
)
example_upload = ExampleUploadEntryPoint(
    name="epitaxy example",
    title="A trained model and its data (epitaxy)",
    category="Machine learning",
    description=(
        "An interatomic potential for silicon with error bars, trained with epitaxy, and the data "
        "set that it learnt from. README.md says how it was made."
    ),
    resources=["oasis/example/*"],
)
predict_action = PredictEntryPoint(
    name="Predict with a trained model",
    description="Predicts with a stored model on the structures of an upload.",
    task_queue=TaskQueue.CPU,
)
