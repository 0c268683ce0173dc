"""What an upload holds of an artifact or a dataset, and what it will be called.

nomad.json                    metadata that NOMAD reads when it first sees the files
epitaxy-<12 digits>/...       the files, unchanged; manifest.json is what our parser looks for
epitaxy-<12 digits>.sha256    their sha256, as `sha256sum --check` reads it
epitaxy-<12 digits>.archive.json    where asked for: an entry that any NOMAD understands
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from epitaxy.errors import PublishError
from epitaxy.receipts import Content
from epitaxy_nomad.bundle import Member, ZipStream

EntryChoice = Literal["auto", "always", "never"]

PREFIX = "epitaxy-"
_FOLDER = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")
_ELN = "nomad.datamodel.metainfo.eln.BasicEln"
"""A section that every NOMAD has had since 1.2."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a publication should become.

    Attributes:
        content: what is published.
        name: of the upload, with the folder's name in it.
        comment: of its entries, with the digest in it.
        references: web addresses.
        coauthors: user names, e-mail addresses or ids.
        dataset: name of NOMAD's dataset; "" for none.
        doi: whether that dataset gets a DOI.
        publish: whether it becomes final.
        embargo_months: how long it stays hidden.
        to_central: whether an Oasis sends it on.
        entry: whether an entry that any NOMAD understands is added.
        compressed: whether the zip file is compressed.
        max_upload_bytes: more is refused.
    """

    content: Content
    name: str
    comment: str
    references: tuple[str, ...] = ()
    coauthors: tuple[str, ...] = ()
    dataset: str = ""
    doi: bool = False
    publish: bool = False
    embargo_months: int = 0
    to_central: bool = False
    entry: EntryChoice = "auto"
    compressed: bool = False
    max_upload_bytes: int = 32 * 2**30

    @property
    def folder(self) -> str:
        """Name of the folder of the files; the upload is found by it."""
        return folder_of(self.content.digest)

    @property
    def sums(self) -> str:
        """Path of the file with the sha256 of all others: the last one that is sent."""
        return f"{self.folder}.sha256"

    def metadata(self, datasets: Sequence[str] = ()) -> dict[str, Any]:
        """Return NOMAD's metadata of the upload and its entries; `datasets` are ids."""
        given: dict[str, Any] = {
            "upload_name": self.name,
            "comment": self.comment,
            "references": list(self.references),
            "coauthors": list(self.coauthors),
            "datasets": list(datasets),
        }
        return {name: value for name, value in given.items() if value}

    def stream(self, *, with_entry: bool, datasets: Sequence[str] = ()) -> ZipStream:
        """Return the zip file.

        Raises:
            PublishError: it is larger than the server takes.
            DataError: a file cannot be read.
        """
        content = self.content
        members = [
            Member.of(f"{self.folder}/{name}", content.directory / name) for name in content.files
        ]
        members.append(Member.of("nomad.json", _json(self.metadata(datasets))))
        if with_entry:
            section = {"m_def": _ELN, "name": self.name, "description": self.comment}
            members.append(Member.of(f"{self.folder}.archive.json", _json({"data": {**section}})))
        n_bytes = sum(member.n_bytes for member in members)
        if n_bytes > self.max_upload_bytes:
            raise PublishError(
                f"{content.directory} has {n_bytes:,} bytes, but an upload may have "
                f"{self.max_upload_bytes:,} (option max_upload_bytes, {2**30:,} is 1 GiB): publish "
                "parts of it, or ask the administrator of the NOMAD for more"
            )
        return ZipStream(members, sums=self.sums, compressed=self.compressed)


def folder_of(digest: str) -> str:
    """Return the name of the folder that holds what has this digest."""
    return f"{PREFIX}{digest[:12]}"


def folder_in(text: str) -> str:
    """Return the name of such a folder that a name or path holds, "" if none."""
    found = _FOLDER.search(text)
    return found[0] if found else ""


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
