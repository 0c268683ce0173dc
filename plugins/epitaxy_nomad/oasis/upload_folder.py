"""The folder of an artifact or data set within an upload: its files, and references to entries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any


@dataclass(frozen=True, slots=True)
class UploadFolder:
    """Where a manifest lies.

    Attributes:
        path: of the folder on the disk.
        inside: the folder relative to the upload, "." at its top or where no upload is known.
        upload_id: of the upload, "" where none is known (on a client).
        hash_up_to: bytes of a file up to which its sha256 is compared.
    """

    path: Path
    inside: PurePosixPath
    upload_id: str
    hash_up_to: int

    @classmethod
    def of(cls, mainfile: Path, archive: Any, *, hash_up_to: int) -> UploadFolder:
        """Return the folder of a mainfile, by what the archive knows of the upload."""
        metadata = archive.metadata
        known = PurePosixPath(str(metadata.mainfile or mainfile.name)) if metadata else None
        inside = PurePosixPath(".") if known is None or known.is_absolute() else known.parent
        upload_id = str(metadata.upload_id or "") if metadata else ""
        return cls(mainfile.parent, inside, upload_id, hash_up_to)

    def here_and_above(self) -> list[UploadFolder]:
        """Return this folder and those above it, two at most, that are of the same upload."""
        found = [self]
        while found[-1].inside != PurePosixPath(".") and len(found) < 3:
            last = found[-1]
            found.append(replace(last, path=last.path.parent, inside=last.inside.parent))
        return found

    def name_of(self, file: str) -> str:
        """Return the name of a file relative to the upload."""
        return (self.inside / file).as_posix()

    def problem_of(self, file: str, *, size: int | None, sha256: str | None) -> str | None:
        """Return what is wrong with a file, None if it is what the manifest says."""
        try:
            return self._problem_of(file, size=size, sha256=sha256)
        except (
            OSError,
            ValueError,
        ) as error:  # a name that no file can have, a file without rights
            return f"{file[:60]!r} cannot be read: {getattr(error, 'strerror', None) or error}"

    def _problem_of(self, file: str, *, size: int | None, sha256: str | None) -> str | None:
        path = self.path / file
        if not self._is_inside(path):
            return f"{file} is outside of the folder"
        if not path.is_file():
            return f"{file} is missing: upload the folder with all its files"
        found = path.stat().st_size
        if size is not None and found != size:
            return f"{file} has {found:,} bytes instead of {size:,}: upload it again"
        if sha256 is not None and found <= self.hash_up_to:
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    return f"{file} was changed: its sha256 is not the one in the manifest"
        return None

    def reference_to(self, file: str, section: str = "data") -> str | None:
        """Return a reference to the entry of another mainfile of the upload.

        Returns:
            The reference; None where the file or the upload is not there.
        """
        if not self.upload_id or self.problem_of(file, size=None, sha256=None):
            return None
        from nomad.utils import generate_entry_id

        return (
            f"../upload/archive/{generate_entry_id(self.upload_id, self.name_of(file))}#/{section}"
        )

    def without_path(self, text: str) -> str:
        """Return a text without the path that the folder has on this machine."""
        return text.replace(f"{self.path}/", "").replace(str(self.path), self.path.name)

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.path.resolve())
