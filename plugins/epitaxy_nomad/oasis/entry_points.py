"""What the plugin offers to a NOMAD Oasis; light, because every process of NOMAD imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nomad.config.models.plugins import ParserEntryPoint, SchemaPackageEntryPoint
from pydantic import Field

if TYPE_CHECKING:
    from nomad.metainfo import SchemaPackage
    from nomad.parsing import Parser

MANIFEST = r'^\s*\{\s*"format":\s*"epitaxy-(artifact|dataset|dataset-bp5)"'
"""How a manifest of ours begins; also one that was cut short, so that this is reported."""


class ModelSchema(SchemaPackageEntryPoint):
    """Sections of trained models."""

    def load(self) -> SchemaPackage:
        """Return the package."""
        from epitaxy_nomad.oasis.model import m_package

        return m_package


class DatasetSchema(SchemaPackageEntryPoint):
    """Sections of data sets."""

    def load(self) -> SchemaPackage:
        """Return the package."""
        from epitaxy_nomad.oasis.dataset import m_package

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
        from epitaxy_nomad.oasis.parser import ManifestParser

        options: dict[str, Any] = self.model_dump(exclude={"level"})
        return ManifestParser(**options)


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
