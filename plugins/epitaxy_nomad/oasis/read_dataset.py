"""From the manifest and the columns of a data set to its section."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from epitaxy.dataset import BATCH_ROWS, Dataset
from epitaxy.errors import EpitaxyError, MissingDependencyError
from epitaxy.stores.memory_map import FORMAT, open_columns
from epitaxy_nomad.oasis.dataset import StructureDataset
from epitaxy_nomad.oasis.facts import Facts, Note
from epitaxy_nomad.oasis.lineage import MAX_IDS
from epitaxy_nomad.oasis.theory import fill_theory
from epitaxy_nomad.oasis.upload_folder import UploadFolder

STORES: Mapping[str, str] = {FORMAT: "memory map", "epitaxy-dataset-bp5": "ADIOS2 BP5"}
STRUCTURE = "results/properties/structures/structure_original"
"""The structure of an entry without the tag `section`, of an older epitaxy."""


def read_dataset(
    facts: Facts, folder: UploadFolder, note: Note, *, max_references: int
) -> StructureDataset:
    """Return the section of a data set.

    Args:
        facts: its manifest.
        folder: where it lies.
        note: is told about what is missing or damaged.
        max_references: structures of other entries that are referred to, at most.
    """
    section = StructureDataset(name=folder.path.name)
    if facts.flag("damaged"):
        return section
    section.format_version = facts.whole("version", needed=True)
    section.store = STORES[str(facts.text("format"))]
    section.n_structures = facts.whole("n_structures", needed=True)
    section.n_atoms = facts.whole("n_atoms", needed=True)
    section.digest = facts.text("digest", needed=True)
    section.lab_id = section.digest
    quantities = facts.section("quantities", needed=True)
    section.quantities = list(quantities)
    section.quantity_units = [quantities.section(name).text("unit") or "" for name in quantities]
    section.main_quantity = next((n for n in ("energy", *quantities) if n in quantities), None)
    section.history = facts.mappings("history")
    section.n_operations = len(section.history)
    fill_theory(
        section,
        (
            (m.text("code") or "", m.text("xc_functional") or "", m.text("settings") or "")
            for m in facts.sections("methods")
        ),
    )
    origins = facts.sections("origins")
    section.databases = sorted({text for o in origins if (text := o.text("database"))})
    section.licenses = sorted({text for o in origins if (text := o.text("license"))})
    section.tag_names = facts.texts("tags")
    section.description = _description(section)
    if _check_files(facts, folder, note) == 0:
        try:
            largest = max(_sizes(facts), default=0)
            _columns(
                section,
                folder,
                note,
                max_references=max_references,
                verify=largest <= folder.hash_up_to,
            )
            section.description = _description(section)
        except MissingDependencyError as error:  # of the server; the data set is whole
            section.description += f" Elements and labels are not listed: {error}"
    return section


def _check_files(facts: Facts, folder: UploadFolder, note: Note) -> int:
    """Note missing and cut files; return how many problems there are."""
    columns = facts.section("columns")
    found = [
        folder.problem_of(file, size=column.whole("n_bytes"), sha256=None)
        for name in columns
        if (file := (column := columns.section(name)).text("file", needed=True))
    ]
    for part in facts.sections("parts"):
        name, files = part.text("file", needed=True), part.section("files", needed=True)
        for file in files:
            size = next(iter(files.numbers(file)), None)  # and a digest, of small files
            found.append(
                folder.problem_of(
                    f"{name}/{file}", size=None if size is None else int(size), sha256=None
                )
            )
    problems = [problem for problem in found if problem]
    for problem in problems:
        note(problem)
    return len(problems)


def _sizes(facts: Facts) -> list[int]:
    """Return the sizes in bytes of all files."""
    columns = facts.section("columns")
    sizes: list[float] = [columns.section(name).whole("n_bytes") or 0 for name in columns]
    for part in facts.sections("parts"):
        files = part.section("files")
        sizes += [size for file in files for size in files.numbers(file)[:1]]
    return [int(size) for size in sizes if math.isfinite(size)]


def _columns(
    section: StructureDataset,
    folder: UploadFolder,
    note: Note,
    *,
    max_references: int,
    verify: bool,
) -> None:
    """Fill what only the columns know: elements, labels, source entries.

    Raises:
        MissingDependencyError: the server has not what the store needs.
    """
    try:
        dataset = Dataset.open(folder.path, verify=verify)
        section.elements = [chemical_symbols[z] for z in sorted(dataset.elements)]
        section.largest_structure = int(dataset.n_atoms.max()) if len(dataset) else 0
        section.label_counts = _counts(
            dataset,
            section.quantities or (),
            folder,
            is_memory_map=section.store == STORES[FORMAT],
        )
    except MissingDependencyError:
        raise
    except (EpitaxyError, KeyError, ValueError, OSError) as error:
        note(folder.without_path(str(error)))
        return
    section.n_elements = len(section.elements)
    section.tag_names = list(dataset.tags)
    if not section.method_codes:
        fill_theory(section, ((m.code, m.xc_functional, m.settings) for m in dataset.methods))
        section.databases = sorted({o.database for o in dataset.origins if o.database})
        section.licenses = sorted({o.license for o in dataset.origins if o.license})
    _sources(section, dataset, max_references=max_references)


def _counts(
    dataset: Dataset, names: Sequence[str], folder: UploadFolder, *, is_memory_map: bool
) -> list[int]:
    """Return how many structures have each label; the values are not read where that can be."""
    if is_memory_map:
        columns, _ = open_columns(folder.path)
        return [int(columns.targets[name].mask.sum()) for name in names]
    counts = [0] * len(names)
    for first in range(0, len(dataset), BATCH_ROWS):
        rows = slice(first, first + BATCH_ROWS)
        for i, name in enumerate(names):
            counts[i] += int(dataset.target(name, rows)[1].sum())
    return counts


def _sources(section: StructureDataset, dataset: Dataset, *, max_references: int) -> None:
    """Fill the entries of NOMAD that the structures are from, and references to their systems."""
    if "entry" not in dataset.tags:
        return
    entries = dataset.tag("entry")
    uploads = dataset.tag("upload") if "upload" in dataset.tags else np.full(len(dataset), "")
    systems = dataset.tag("section") if "section" in dataset.tags else np.full(len(dataset), "")
    known = [
        (str(e), str(u), str(s)) for e, u, s in zip(entries, uploads, systems, strict=True) if e
    ]
    upload_of = {entry: upload for entry, upload, _ in known}
    section.n_source_entries = len(upload_of)
    section.source_entry_ids = list(upload_of)[:MAX_IDS]
    section.source_upload_ids = list(upload_of.values())[:MAX_IDS]
    references: list[Any] = [
        f"../uploads/{upload}/archive/{entry}#/{system or STRUCTURE}"
        for entry, upload, system in dict.fromkeys(known)
        if upload
    ]
    if references:
        section.references = references[:max_references]


def _description(section: StructureDataset) -> str:
    labels = ", ".join(section.quantities or ()) or "no labels"
    parts = [f"{section.n_structures} structures with {labels}"]
    if section.xc_functional:
        parts.append(section.xc_functional)
    if section.n_source_entries:
        parts.append(f"from {section.n_source_entries} entries of NOMAD")
    return "; ".join(parts) + "."
