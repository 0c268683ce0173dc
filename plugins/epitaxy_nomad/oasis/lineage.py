"""Where a model and its data come from: parents by reference, data sets by their ids in NOMAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epitaxy_nomad.oasis.facts import Facts
from epitaxy_nomad.oasis.model import Lineage
from epitaxy_nomad.oasis.upload_folder import UploadFolder

LOW = "low/manifest.json"
"""The artifact that a delta model stands on, within its own."""

MAX_IDS = 10_000
"""Ids that an entry lists; text search indexes them."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What of NOMAD data were read from.

    Attributes:
        dataset_ids: data sets.
        upload_ids: uploads.
        entry_ids: single entries.
    """

    dataset_ids: list[str]
    upload_ids: list[str]
    entry_ids: list[str]


def read_lineage(facts: Facts, folder: UploadFolder) -> Lineage | None:
    """Return the lineage of a model, None if it was trained from nothing."""
    if "lineage" not in facts:
        return None
    lineage = facts.section("lineage")
    strategy = facts.section("strategy").text("use") or lineage.text("strategy") or ""
    is_delta = facts.text("kind") == "delta"
    return Lineage(
        strategy=strategy.rpartition("/")[2] or None,
        parent_digest=lineage.text("parent_sha256"),
        parent_path=lineage.text("parent"),
        parent=folder.reference_to(LOW) if is_delta else None,
        mode=lineage.text("mode"),
        level=lineage.text("level"),
        branch=lineage.text("branch"),
        control=lineage.mapping("control"),
        facts=dict(lineage.content),
    )


def sources_of(data: Facts) -> Sources:
    """Return the data sets, uploads and entries of NOMAD that a history names."""
    found: dict[str, list[str]] = {"dataset_id": [], "upload_id": [], "entry_ids": []}
    for step in data.mappings("history"):
        for source in _nomad_sources(step):
            for key, ids in found.items():
                given = source.get(key) or []
                ids += [given] if isinstance(given, str) else [str(i) for i in given]
    dataset_ids, upload_ids, entry_ids = (
        list(dict.fromkeys(ids))[:MAX_IDS] for ids in found.values()
    )
    return Sources(dataset_ids, upload_ids, entry_ids)


def _nomad_sources(step: Any) -> list[dict[str, Any]]:
    sources = step.get("sources") if isinstance(step, dict) else None
    return [
        source
        for source in (sources if isinstance(sources, list) else [])
        if isinstance(source, dict) and str(source.get("use")).rpartition("/")[2] == "nomad"
    ]
