"""Recognises artifacts and data sets of epitaxy in an upload, by their manifest.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from ase.data import chemical_symbols
from nomad.datamodel import EntryArchive
from nomad.datamodel.results import Material, Results
from nomad.parsing.parser import MatchingParser

from epitaxy_nomad.oasis.facts import Facts, Note, storable
from epitaxy_nomad.oasis.read_dataset import read_dataset
from epitaxy_nomad.oasis.read_model import read_model
from epitaxy_nomad.oasis.upload_folder import UploadFolder

ARTIFACT = "epitaxy-artifact"
DATASETS = ("epitaxy-dataset", "epitaxy-dataset-bp5")


class ManifestParser(MatchingParser):
    """Turns a manifest.json into an entry: a trained model or a data set.

    Members of an ensemble and the difference of a delta model are parts of an artifact, not
    entries; the lower level that a delta model stands on is a whole artifact and becomes one.

    Args:
        hash_up_to: bytes of a file up to which its sha256 is compared; of larger files the size.
        max_references: structures of other entries that a data set refers to, at most.
        **options: of the entry point, for NOMAD.
    """

    def __init__(self, *, hash_up_to: int, max_references: int, **options: Any) -> None:
        super().__init__(**options)
        self._hash_up_to, self._max_references = hash_up_to, max_references

    def is_mainfile(
        self,
        filename: str,
        mime: str,
        buffer: bytes,
        decoded_buffer: str,
        compression: str | None = None,
    ) -> bool | Iterable[str]:
        """Return whether a file is a manifest of ours, and of a whole."""
        found: bool | Iterable[str] = super().is_mainfile(
            filename, mime, buffer, decoded_buffer, compression
        )
        return found and not _is_part(Path(filename))

    def parse(
        self,
        mainfile: str,
        archive: EntryArchive,
        logger: Any = None,
        child_archives: dict[str, EntryArchive] | None = None,
    ) -> None:
        """Fill ``data`` and the elements of ``results``; problems are logged and kept."""
        problems: list[str] = []
        name = PurePosixPath(mainfile).name

        def note(problem: str) -> None:
            problem = problem.encode("utf-8", "replace").decode()
            problems.append(f"{name}: {problem}")
            if logger is not None:
                logger.error(f"epitaxy: {name}: {problem}", mainfile=mainfile)

        facts = Facts(_content(Path(mainfile), note), "", note)
        folder = UploadFolder.of(Path(mainfile), archive, hash_up_to=self._hash_up_to)
        kind = facts.text("format")
        if kind in DATASETS:
            section = read_dataset(facts, folder, note, max_references=self._max_references)
        else:
            section = read_model(facts, folder, note)
        known = dict.fromkeys(e for e in section.elements or () if e in chemical_symbols[1:])
        if unknown := sorted(set(section.elements or ()) - set(known)):
            note(f"elements has {unknown[0]!r}, a chemical symbol is needed")
        section.problems = problems
        section.is_complete = not problems
        archive.data = section
        if known:
            archive.results = Results(material=Material(elements=list(known)))


def _content(mainfile: Path, note: Note) -> Any:
    """Return what the manifest says; of a damaged one its format, as far as it can be read."""
    text = ""
    try:
        text = mainfile.read_text(encoding="utf-8")
        return storable(json.loads(text), note)
    except (OSError, ValueError, RecursionError) as error:
        note(f"damaged, it cannot be read ({error}); upload the folder again")
    is_dataset = any(f'"{kind}"' in text[:200] for kind in DATASETS)
    return {"format": DATASETS[0] if is_dataset else ARTIFACT, "damaged": True}


def _is_part(mainfile: Path) -> bool:
    """Return whether the artifact in a folder is a member or the difference of another."""
    folder = mainfile.parent
    if folder.name == "difference":
        whole, kind = folder.parent, "delta"
    elif folder.name.isdigit() and folder.parent.name == "members":
        whole, kind = folder.parent.parent, "ensemble"
    else:
        return False
    try:
        manifest = json.loads((whole / mainfile.name).read_text(encoding="utf-8"))
        return bool(manifest["format"] == ARTIFACT and manifest["kind"] == kind)
    except (OSError, ValueError, KeyError, TypeError):
        return False
