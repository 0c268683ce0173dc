"""What is published of an artifact or a dataset, and the receipts that say where it is.

Receipts are lines of receipts.jsonl beside manifest.json. The file is no part of the artifact or
the dataset: no digest counts it, no copy needs it, it is not published.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from epitaxy.errors import DataError, PublishError
from epitaxy.protocols import Receipt

RECEIPTS = "receipts.jsonl"


@dataclass(frozen=True, slots=True)
class Content:
    """What is published of a directory.

    Attributes:
        kind: "artifact" (a trained model) or "dataset".
        digest: sha256 of what it says: the same content has the same digest on any machine.
        title: one line for people.
        files: paths below the directory, sorted; what else lies there is not published.
        directory: where they are.
    """

    kind: Literal["artifact", "dataset"]
    digest: str
    title: str
    files: tuple[str, ...]
    directory: Path


def read_content(path: Path | str, *, verify: bool = True) -> Content:
    """Return what would be published of an artifact or a dataset.

    Args:
        path: directory of it.
        verify: compare every file with its sha256 in the manifest.

    Raises:
        DataError: it is neither.
        ArtifactError: a file of the artifact is missing or damaged.
        StoreError: a file of the dataset is missing or damaged.
    """
    from epitaxy.artifact import FORMAT
    from epitaxy.stores.formats import MANIFEST, dataset_format

    path = Path(path)
    if dataset_format(path) is not None:
        return _dataset(path, verify=verify)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        is_artifact = manifest.get("format") == FORMAT
    except (OSError, ValueError, AttributeError, RecursionError):
        is_artifact = False
    if not is_artifact:
        there = "" if path.exists() else "; there is nothing at this path"
        raise DataError(
            f"{path} is neither an artifact nor a dataset{there}: give the folder that `epitaxy "
            f"train` or `epitaxy ingest` made, the one with {MANIFEST}"
        )
    return _artifact(path, verify=verify)


def content_digest(path: Path | str) -> str:
    """Return the sha256 of what an artifact or a dataset says; files are not read.

    Raises:
        DataError: as `read_content`.
    """
    return read_content(path, verify=False).digest


def _artifact(path: Path, *, verify: bool) -> Content:
    from epitaxy.artifact import CARD, MANIFEST, check_artifact, read_manifest

    manifest = check_artifact(path) if verify else read_manifest(path)
    folders = {"", *(f"{Path(name).parent.as_posix()}/" for name in manifest["files"])}
    cards = {
        name
        for folder in folders
        if (path / (name := f"{folder}{CARD}".removeprefix("./"))).is_file()
    }
    spec, targets = manifest["spec"]["use"], ", ".join(manifest["capabilities"]["targets"])
    return Content(
        "artifact",
        manifest["manifest_sha256"],
        f"model {spec} for {targets}",
        tuple(sorted({MANIFEST, *manifest["files"], *cards})),
        path,
    )


def _dataset(path: Path, *, verify: bool) -> Content:
    from ase.data import chemical_symbols

    from epitaxy.dataset import Dataset
    from epitaxy.stores.formats import dataset_files

    dataset = Dataset.open(path, verify=verify)
    elements = [chemical_symbols[z] for z in sorted(dataset.elements)]
    of = f" of {' '.join(elements)}" if len(elements) <= 8 else f" of {len(elements)} elements"
    return Content(
        "dataset",
        dataset.digest,
        f"dataset of {len(dataset):,} structures{of}",
        dataset_files(path),
        path,
    )


def read_receipts(path: Path | str) -> tuple[Receipt, ...]:
    """Return the receipts of an artifact or a dataset, the oldest first.

    Raises:
        PublishError: a line is no receipt; the message names it.
    """
    file = Path(path) / RECEIPTS
    if not file.exists():
        return ()
    receipts = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"{file}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            receipts.append(
                Receipt(
                    str(found["publisher"]),
                    str(found["identifier"]),
                    str(found.get("url", "")),
                    dict(found.get("facts") or {}),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PublishError(
                f"{file}, line {number} is no receipt ({type(error).__name__}: {error}); a program "
                "that was killed may have cut it: remove the line"
            ) from error
    return tuple(receipts)


def append_receipt(path: Path | str, receipt: Receipt) -> None:
    """Write a receipt below those that are there.

    Raises:
        PublishError: the file cannot be written.
    """
    file = Path(path) / RECEIPTS
    line = json.dumps(receipt_to_json(receipt), ensure_ascii=False, sort_keys=True) + "\n"
    try:
        with file.open("ab+") as stream:
            if stream.tell():  # a cut line must not swallow this one
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = "\n" + line
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise PublishError(
            f"published, but the receipt cannot be written to {file}: {error.strerror or error}; "
            f"keep it: {line.strip()}"
        ) from error


def receipt_to_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as plain values."""
    facts: Mapping[str, Any] = receipt.facts or {}
    return {
        "publisher": receipt.publisher,
        "identifier": receipt.identifier,
        "url": receipt.url,
        "facts": dict(facts),
    }
