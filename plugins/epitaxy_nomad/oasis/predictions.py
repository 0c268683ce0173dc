"""Schema of predictions: arrays with summary scalars, never a section per structure.

A thousand repeated sections made 4,008 search quantities; a thousand rows of an array make none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nomad.datamodel.data import ArchiveSection, Schema
from nomad.datamodel.hdf5 import HDF5Reference
from nomad.datamodel.metainfo.basesections import Entity
from nomad.datamodel.results import Material, Results
from nomad.metainfo import Package, Quantity, Section, SubSection
from nomad_ml_workflows.schema_packages.model import MLModel

m_package = Package(name="epitaxy predictions", description="What models of epitaxy predict.")


class TargetPredictions(ArchiveSection):
    """Predictions of one quantity for all structures, in the order of the entry's arrays."""

    m_def = Section(label="Predictions of one quantity")

    name = Quantity(type=str, description="Predicted quantity.")
    unit = Quantity(type=str, description="Unit of all numbers here.")
    per = Quantity(
        type=str,
        description=(
            "structure or atom: what has one row. Atoms of all structures stand one after another; "
            "n_atoms of the entry says where each structure ends."
        ),
    )
    n_values = Quantity(type=int, description="Numbers predicted.")
    minimum = Quantity(type=float, description="Smallest number.")
    maximum = Quantity(type=float, description="Largest number.")
    mean = Quantity(type=float, description="Mean of all numbers.")
    mean_std = Quantity(type=float, description="Mean standard deviation, where there is one.")
    largest_std = Quantity(type=float, description="Largest standard deviation.")
    values = Quantity(type=np.float64, shape=["*"], description="Numbers, one per row.")
    std = Quantity(
        type=np.float64, shape=["*"], description="Standard deviation of each of values."
    )
    components = Quantity(
        type=np.float64, shape=["*", "*"], description="Vectors or tensors (Voigt), one per row."
    )
    components_std = Quantity(
        type=np.float64,
        shape=["*", "*"],
        description="Standard deviation of each of components.",
    )
    values_file = Quantity(
        type=HDF5Reference, description="Where the numbers are instead, if they are many."
    )
    std_file = Quantity(
        type=HDF5Reference, description="Where the standard deviations are instead."
    )


class Predictions(Entity, Schema):
    """Predictions of one model for structures of other entries."""

    m_def = Section(label="Predictions (epitaxy)")

    model = Quantity(type=MLModel, description="The model, where it is an entry in NOMAD.")
    model_digest = Quantity(
        type=str, description="sha256 of the content of the model's manifest, its lab_id in NOMAD."
    )
    model_path = Quantity(type=str, description="Folder of the model in its upload.")
    architecture = Quantity(type=str, description="Component of epitaxy, for example painn.")
    main_target = Quantity(type=str, description="First predicted quantity.")
    mean_std = Quantity(type=float, description="Mean standard deviation of main_target.")
    has_uncertainty = Quantity(type=bool, description="Whether there are standard deviations.")
    n_structures = Quantity(type=int, description="Structures that were predicted.")
    n_skipped = Quantity(type=int, description="Entries that were left out.")
    elements = Quantity(type=str, shape=["*"], description="Elements of the structures.")
    entry_ids = Quantity(type=str, shape=["*"], description="Entry of each structure.")
    systems = Quantity(
        type=str, shape=["*"], description="Section of the structure in its entry, if known."
    )
    formulas = Quantity(type=str, shape=["*"], description="Formula of each structure.")
    n_atoms = Quantity(type=np.int64, shape=["*"], description="Atoms of each structure.")
    skipped_entry_ids = Quantity(type=str, shape=["*"], description="Entries that were left out.")
    skipped_reasons = Quantity(type=str, shape=["*"], description="Why, for each of them.")
    structures = Quantity(
        type=ArchiveSection,
        shape=["*"],
        description="The sections of the structures; of many, the first.",
    )
    epitaxy_version = Quantity(type=str, description="Version of epitaxy that predicted.")
    targets = SubSection(sub_section=TargetPredictions, repeats=True)

    def normalize(self, archive: Any, logger: Any) -> None:
        """Let the entry be found by its elements."""
        super().normalize(archive, logger)
        if self.elements:
            if archive.results is None:
                archive.results = Results()
            if archive.results.material is None:
                archive.results.material = Material()
            archive.results.material.elements = list(self.elements)


m_package.__init_metainfo__()
