"""Whether a service lists what was sent, and whether the disk still holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from epitaxy_nomad.campaign.ledger import Ledger, Part, SentFile
from epitaxy_nomad.campaign.pack import sha256_of


class ListedFile(Protocol):
    """A file as a service lists it."""

    @property
    def path(self) -> str:
        """Path in the upload."""
        ...

    @property
    def n_bytes(self) -> int:
        """Its size."""
        ...


@dataclass(frozen=True, slots=True)
class Count:
    """Files of an upload on both sides.

    Attributes:
        n_files: that were sent.
        n_bytes: that were sent.
        n_files_listed: of those, how many the service lists.
        n_bytes_listed: their size there.
        n_others: files that the service lists besides, as processing may leave some.
        problems: each file that is missing or has another size.
    """

    n_files: int
    n_bytes: int
    n_files_listed: int
    n_bytes_listed: int
    n_others: int
    problems: tuple[str, ...]


def count(sent: Sequence[SentFile], listed: Iterable[ListedFile]) -> Count:
    """Compare what was sent with what a service lists, file by file."""
    there = {file.path: file.n_bytes for file in listed}
    problems: list[str] = []
    n_files = n_bytes = 0
    for file in sent:
        size = there.pop(file.path, None)
        if size is None:
            problems.append(f"{file.path}: missing in the upload")
            continue
        n_files += 1
        n_bytes += size
        if size != file.n_bytes:
            problems.append(f"{file.path}: {size:,} bytes in the upload, {file.n_bytes:,} sent")
    return Count(
        len(sent), sum(f.n_bytes for f in sent), n_files, n_bytes, len(there), tuple(problems)
    )


def changed_since(ledger: Ledger, part: Part, *, read_all: bool = False) -> dict[str, str]:
    """Return the calculations of a part that were sent and are different on the disk now.

    A file whose size and time of change are what they were is believed to be the same; one with
    another time is read.

    Args:
        ledger: of the campaign.
        part: that was sent.
        read_all: read every file.

    Returns:
        calculation -> what has changed. A calculation whose folder is gone is not among them.
    """
    changed: dict[str, str] = {}
    files: dict[str, list[SentFile]] = {}
    for file in ledger.read_manifest(part):
        files.setdefault(file.calculation, []).append(file)
    for name, calculation in part.calculations.items():
        if not calculation.folder.is_dir():
            continue
        for file in files.get(name, ()):
            if what := _difference(calculation.folder / file.name, file, read_all):
                changed[name] = f"{file.name} {what} since it was sent"
                break
    return changed


def _difference(path: Path, file: SentFile, read_all: bool) -> str:
    try:
        state = path.stat()
        if state.st_size != file.n_bytes:
            return f"has changed from {file.n_bytes:,} to {state.st_size:,} bytes"
        if state.st_mtime_ns == file.changed_ns and not read_all:
            return ""
        return "" if sha256_of(path) == file.sha256 else "was edited"
    except OSError:
        return "was removed"
