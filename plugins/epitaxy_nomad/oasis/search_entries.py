"""Finds entries of the same server by what they are: the digest of a model or data set."""

from __future__ import annotations

from typing import Any


def find_entry(archive: Any, lab_id: str, *, schema: str) -> str | None:
    """Return a reference to the entry with a digest that the author of an archive may see.

    Args:
        archive: being processed; searches with its author's rights.
        lab_id: digest, which our parser writes as the lab_id of an entry.
        schema: name of the section that the entry has.

    Returns:
        The reference; None if there is no such entry, or no server (on a client).
    """
    from nomad.datamodel.context import ServerContext

    author = archive.metadata and archive.metadata.main_author
    if not isinstance(archive.m_context, ServerContext) or author is None:
        return None
    from nomad.search import MetadataPagination, search

    found = search(
        owner="visible",
        user_id=author.user_id,
        query={"results.eln.lab_ids": lab_id, "section_defs.definition_qualified_name": schema},
        pagination=MetadataPagination(page_size=1),
    )
    if not found.data:
        return None
    entry = found.data[0]
    return f"../uploads/{entry['upload_id']}/archive/{entry['entry_id']}#/data"
