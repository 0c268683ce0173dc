"""Schema of a data set: `Dataset` of nomad-ml-workflows with what epitaxy knows of it."""

from __future__ import annotations

import numpy as np
from nomad.datamodel.data import ArchiveSection
from nomad.metainfo import JSON, Package, Quantity, Section, SubSection
from nomad_ml_workflows.schema_packages.dataset import Dataset

m_package = Package(name="epitaxy data sets", description="Data sets curated with epitaxy.")


class LevelOfTheory(ArchiveSection):
    """Code and functional of some of the data, so that a search finds each of several."""

    m_def = Section(label="Level of theory")

    code = Quantity(type=str, description="Code, with its version where it is known.")
    xc_functional = Quantity(type=str, description="Functional.")


class StructureDataset(Dataset):
    """Structures with labels; `references` leads to the systems of the first source entries."""

    m_def = Section(label="Structure data set (epitaxy)")

    n_structures = Quantity(type=int, description="Structures in the data set.")
    n_atoms = Quantity(type=int, description="Atoms in all structures.")
    largest_structure = Quantity(type=int, description="Atoms in the largest structure.")
    elements = Quantity(type=str, shape=["*"], description="Elements that occur.")
    n_elements = Quantity(type=int, description="Number of elements that occur.")
    main_quantity = Quantity(type=str, description="The first quantity; energy where it is there.")
    quantities = Quantity(type=str, shape=["*"], description="Quantities that are labels.")
    quantity_units = Quantity(type=str, shape=["*"], description="Unit of each of quantities.")
    label_counts = Quantity(
        type=np.int64, shape=["*"], description="Structures that have each of quantities."
    )
    tag_names = Quantity(type=str, shape=["*"], description="Tags that structures have.")
    xc_functional = Quantity(
        type=str, description="Functional; several are joined with a comma, the most common first."
    )
    code = Quantity(
        type=str, description="Code; several are joined with a comma, the most common first."
    )
    method_codes = Quantity(type=str, shape=["*"], description="Code of each level of theory.")
    method_functionals = Quantity(
        type=str, shape=["*"], description="Functional of each level of theory."
    )
    method_settings = Quantity(
        type=str, shape=["*"], description="Settings of each level of theory."
    )
    databases = Quantity(type=str, shape=["*"], description="Databases that the data are from.")
    licenses = Quantity(type=str, shape=["*"], description="Licenses of the data.")
    history = Quantity(
        type=JSON, shape=["*"], description="What was done to the data since their source."
    )
    n_operations = Quantity(type=int, description="Operations in the history.")
    n_source_entries = Quantity(type=int, description="Entries of NOMAD that the data are from.")
    source_entry_ids = Quantity(
        type=str,
        shape=["*"],
        description="Ids of these entries; of many, the first (all are in the files).",
    )
    source_upload_ids = Quantity(
        type=str, shape=["*"], description="Upload of each of source_entry_ids."
    )
    digest = Quantity(type=str, description="sha256 over what the data mean.")
    store = Quantity(type=str, description="How it is stored.")
    format_version = Quantity(type=int, description="Version of the store's format.")
    is_complete = Quantity(
        type=bool, description="Whether all files of the manifest are in the upload."
    )
    problems = Quantity(
        type=str, shape=["*"], description="What is missing or damaged, one sentence each."
    )
    levels_of_theory = SubSection(sub_section=LevelOfTheory, repeats=True)


m_package.__init_metainfo__()
