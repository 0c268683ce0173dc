"""What a model learnt from: sizes and digests of its manifest, the division of split.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from epitaxy_nomad.oasis.facts import Facts
from epitaxy_nomad.oasis.lineage import sources_of
from epitaxy_nomad.oasis.model import DataSplit
from epitaxy_nomad.oasis.upload_folder import UploadFolder

SPLIT = "split.json"
"""Lies in the folder of a run, above that of the artifact; or beside the manifest."""


def read_split(facts: Facts, folder: UploadFolder) -> DataSplit | None:
    """Return data and split of a model, None if the manifest does not say what it learnt from.

    Args:
        facts: the manifest of an artifact.
        folder: where it lies.
    """
    if "data" not in facts:
        return None
    data = facts.section("data")
    labels = data.section("labels")
    origins = data.sections("origins")
    sources = sources_of(data)
    split = DataSplit(
        n_train=data.whole("n_train", needed=True),
        n_valid=data.whole("n_valid", needed=True),
        n_test=facts.section("metrics").section("test").whole("n_structures"),
        train_digest=data.text("train_digest", needed=True),
        valid_digest=data.text("valid_digest", needed=True),
        split_digest=data.text("split_digest", needed=True),
        label_names=list(labels),
        label_counts=[labels.whole(name) or 0 for name in labels],
        history=data.mappings("history"),
        databases=sorted({text for o in origins if (text := o.text("database"))}),
        licenses=sorted({text for o in origins if (text := o.text("license"))}),
        nomad_dataset_ids=sources.dataset_ids,
        nomad_upload_ids=sources.upload_ids,
        nomad_entry_ids=sources.entry_ids,
    )
    _division(split, folder)
    return split


def _division(split: DataSplit, folder: UploadFolder) -> None:
    """Fill how the data were divided, and the data set, if they are in the upload."""
    for place in folder.here_and_above():
        saved = _read(place, SPLIT)
        if saved.get("digest") != split.split_digest:
            continue  # of another training
        facts = Facts(saved, "", lambda _: None)
        method, dataset = facts.section("method"), facts.section("dataset")
        split.method = method.text("method")
        split.groups = method.text("groups")
        split.options = dict(method.content)
        split.dataset_digest = dataset.text("digest")
        if split.dataset_digest:
            split.dataset = _data_set(split.dataset_digest, folder)
        return


def _data_set(digest: str, folder: UploadFolder) -> str | None:
    """Return a reference to the data set of this digest in the folders around, if it is there."""
    for place in folder.here_and_above():
        for manifest in sorted(place.path.glob("*/manifest.json")):
            found = _read(place, f"{manifest.parent.name}/{manifest.name}")
            if found.get("digest") == digest:
                return place.reference_to(f"{manifest.parent.name}/{manifest.name}")
    return None


def _read(place: UploadFolder, name: str) -> Mapping[str, Any]:
    file = place.path / PurePosixPath(name)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
