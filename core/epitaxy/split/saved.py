"""Splits as files: JSON with the digests of the data and of the parts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.errors import SplitError
from epitaxy.split.parts import PARTS, Split
from epitaxy.split.plain import split_by_ids

FORMAT = "epitaxy-split"
VERSION = 1


def save_split(split: Split, path: Path) -> None:
    """Write a split; see `Split.save`."""
    ids = list(split.dataset.ids)
    by = "ids" if len(set(ids)) == len(ids) else "rows"
    document = {
        "format": FORMAT,
        "version": VERSION,
        "digest": split.digest,
        "dataset": {
            "digest": split.dataset.digest,
            "ids_digest": ids_digest(ids),
            "n_structures": len(ids),
        },
        "method": split.method,
        "by": by,
        "parts": {
            name: [ids[i] for i in rows] if by == "ids" else rows.tolist()
            for name, rows in split.rows.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=1, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise SplitError(f"{path}: the split could not be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_split(path: Path, dataset: Dataset) -> Split:
    """Read a split; see `Split.load`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SplitError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SplitError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise SplitError(f"{path}: not a split (make one with `epitaxy split`)")
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise SplitError(
            f"{path}: format version {version}, this epitaxy reads up to {VERSION}: upgrade"
        )
    try:
        facts, parts, by = document["dataset"], document["parts"], document["by"]
        found, wanted = dataset.digest, facts["digest"]
        ids = list(dataset.ids)
        if found != wanted or facts["ids_digest"] != ids_digest(ids):
            what = "data" if found != wanted else "ids"
            raise SplitError(
                f"{path}: made for another dataset: its {what} differ (there "
                f"{facts['n_structures']} structures, digest {wanted[:12]}…; here "
                f"{len(dataset)}, digest {found[:12]}…); split this dataset anew or open the "
                "one it was made for"
            )
        if by == "ids":
            split = split_by_ids(
                dataset, train=parts["train"], valid=parts["valid"], test=parts["test"]
            )
        else:
            rows = {name: np.array(parts[name], dtype=np.int64) for name in PARTS}
            split = Split(dataset, train=rows["train"], valid=rows["valid"], test=rows["test"])
    except (KeyError, TypeError, AttributeError) as error:
        raise SplitError(f"{path}: incomplete or edited: {error!r}") from error
    split.method = dict(document.get("method", {}))
    if split.digest != document.get("digest"):
        raise SplitError(f"{path}: edited: its parts do not match its digest")
    return split


def ids_digest(ids: Iterable[str]) -> str:
    """Return the sha256 over ids in order."""
    text = json.dumps(list(ids), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
