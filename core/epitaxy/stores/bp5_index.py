"""The index of a BP5 dataset: which part holds which rows, and how to find it changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.errors import DataError, StoreError
from epitaxy.quantities import quantity
from epitaxy.replacing import recover
from epitaxy.stores.bp5_columns import PartRange
from epitaxy.stores.bp5_part import FORMAT, VERSION, Part, PartFacts

MANIFEST = "manifest.json"
_PART = re.compile(r"part-(\d{5,})\.(bp|json|writer)")


@dataclass(frozen=True)
class Index:
    """What manifest.json of a BP5 dataset says.

    Attributes:
        path: directory of the dataset.
        parts: in the order of their rows.
        history: one plain dict per operation since the source.
        digest: of the data; "" where it was not computed.
    """

    path: Path
    parts: Sequence[PartFacts]
    history: Sequence[Mapping[str, Any]] = ()
    digest: str = ""
    targets: tuple[str, ...] = field(init=False)
    tags: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("targets", "tags"):
            of_parts = {word for part in self.parts for word in getattr(part, name)}
            object.__setattr__(self, name, tuple(sorted(of_parts)))

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return sum(part.n_structures for part in self.parts)

    def ranges(self, start: int, stop: int) -> list[PartRange]:
        """Return the rows `start` to `stop`, part by part; their files are compared.

        Raises:
            StoreError: a part is missing or is not the one of the index.
        """
        found = []
        first = 0
        for facts in self.parts:
            low, high = max(start - first, 0), min(stop - first, facts.n_structures)
            if low < high:
                found.append(PartRange(_checked(self.path, facts), low, high))
            first += facts.n_structures
        return found or [PartRange(_checked(self.path, self.parts[0]), 0, 0)]

    def write(self, folder: Path) -> None:
        """Write manifest.json, flushed to the disk."""
        first = np.cumsum([0, *(part.n_structures for part in self.parts)])
        rules = [quantity(name) for name in self.targets]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "digest": self.digest,
            "n_structures": self.n_structures,
            "n_atoms": sum(part.n_atoms for part in self.parts),
            "quantities": {
                rule.name: {
                    "unit": rule.unit,
                    "shape": list(rule.shape),
                    "per": rule.per,
                    "sign": rule.sign,
                }
                for rule in rules
            },
            "history": list(self.history),
            "parts": [
                {"first": int(row), **asdict(part)}
                for row, part in zip(first[:-1], self.parts, strict=True)
            ],
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        with (folder / MANIFEST).open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def _checked(path: Path, facts: PartFacts) -> Part:
    part = Part(path, facts)
    part.check_files()
    _ = part.columns  # opens it: stamps, counts
    return part


def read_index(path: Path) -> Index:
    """Read manifest.json; no part is looked at.

    Raises:
        StoreError: there is none, it cannot be read, it contradicts itself, or its format is
            newer than ours.
    """
    if not path.exists():
        recover(path)
    file = path / MANIFEST
    if not file.is_file():
        explain_unmerged(path)
        raise StoreError(f"{path}: no such dataset, {MANIFEST} is missing")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StoreError(f"{file}: cannot be read: {error}; restore it from a copy") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{file}: not the manifest of a BP5 dataset (format is not {FORMAT!r})")
    version = manifest.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise StoreError(
            f"{path}: format version {version}, this epitaxy reads up to {VERSION}: upgrade epitaxy"
        )
    try:
        firsts = [part.pop("first") for part in manifest["parts"]]
        index = Index(
            path=path,
            parts=[facts_from_json(part) for part in manifest["parts"]],
            history=manifest["history"],
            digest=manifest["digest"],
        )
        counts = (manifest["n_structures"], manifest["n_atoms"])
        quantities = manifest["quantities"].items()
        units = {name: (fact["unit"], fact["shape"], fact["per"]) for name, fact in quantities}
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file}: incomplete or edited: {error!r}") from error
    rows = [0, *(int(row) for row in np.cumsum([part.n_structures for part in index.parts]))]
    atoms = sum(part.n_atoms for part in index.parts)
    files = {part.file for part in index.parts}
    if (
        not index.parts
        or firsts != rows[:-1]
        or counts != (rows[-1], atoms)
        or sorted(units) != sorted(index.targets)
        or len(files) != len(index.parts)
        or not all(_PART.fullmatch(name) for name in files)
    ):
        raise StoreError(
            f"{file}: the index contradicts itself: it was edited or damaged; restore it from a "
            "copy, or write the dataset again"
        )
    for name, unit in units.items():
        _check_quantity(path, name, unit)
    return index


def _check_quantity(path: Path, name: str, stored: tuple[str, list[int], str]) -> None:
    try:
        rule = quantity(name)
    except DataError as error:
        raise StoreError(f"{path}: made by another epitaxy: {error}") from error
    if (rule.unit, list(rule.shape), rule.per) != stored:
        raise StoreError(
            f"{path}: {name} is stored as {stored}; this epitaxy expects "
            f"{(rule.unit, list(rule.shape), rule.per)}"
        )


def facts_from_json(row: Mapping[str, Any]) -> PartFacts:
    """Return a row of the index from its JSON form."""
    files = {name: (int(n_bytes), sha256) for name, (n_bytes, sha256) in row["files"].items()}
    return PartFacts(**{**row, "files": files})


# --- parts that are not merged yet ---


def parts_folder(path: Path) -> Path:
    """Return the folder in which the ranks collect the parts of the dataset `path`."""
    path = path if path.name else path.resolve()  # "." has no name
    return path.with_name(f"{path.name}.parts")


def explain_unmerged(path: Path) -> None:
    """Raise a `StoreError` if there are parts of `path` that were never merged."""
    path = path if path.name else path.resolve()
    for folder, target in ((path, path.with_name(path.name.removesuffix(".parts"))),
                           (parts_folder(path), path)):  # fmt: skip
        if folder.is_dir() and any(_PART.fullmatch(p.name) for p in folder.iterdir()):
            raise StoreError(
                f"{folder}: parts of an unfinished dataset: {what_is_there(folder)}. Let the "
                f"writers that live finish, run those again that were killed, then call "
                f"merge_index({str(target)!r}); or start afresh with "
                f"discard_parts({str(target)!r})"
            )


def what_is_there(folder: Path) -> str:
    """Say which parts in a folder are finished and which are not."""
    finished: set[int] = set()
    begun: set[int] = set()
    for file in folder.iterdir():
        if found := _PART.fullmatch(file.name):
            (finished if found[2] == "json" else begun).add(int(found[1]))
    said = [f"{len(finished)} finished"]
    if waiting := sorted(begun - finished):
        ranks = ", ".join(map(str, waiting[:10])) + (", ..." if len(waiting) > 10 else "")
        said.append(f"begun but not finished by rank {ranks}")
    return "; ".join(said)
