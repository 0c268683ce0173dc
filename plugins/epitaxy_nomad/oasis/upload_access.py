"""What the action needs of an upload, and how NOMAD's own uploads give it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from epitaxy.errors import PublishError


class Upload(Protocol):
    """An upload that the user may read."""

    upload_id: str

    def check_writable(self) -> None:
        """Refuse an upload that takes no files.

        Raises:
            PublishError: it is published, or another process works on it.
        """
        ...

    def entry_ids(self) -> list[str]:
        """Return the ids of all entries that were processed."""
        ...

    def mainfile(self, entry_id: str) -> str | None:
        """Return the mainfile of an entry; None if the upload has no such entry."""
        ...

    def archive(self, entry_id: str) -> Mapping[str, Any] | None:
        """Return the archive of an entry as plain mappings and lists; None if there is none."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a raw file.

        Raises:
            KeyError: there is no such file.
        """
        ...

    def has(self, path: str) -> bool:
        """Return whether there is a raw file."""
        ...

    def add(self, files: list[Path], folder: str) -> None:
        """Add files; the last one is a mainfile, and is processed."""
        ...


class NomadUpload:
    """An upload of the server that this process belongs to.

    Args:
        upload_id: which.
        files: NOMAD's files of the upload.
        document: NOMAD's record of the upload.
    """

    def __init__(self, upload_id: str, files: Any, document: Any) -> None:
        self.upload_id, self._files, self._document = upload_id, files, document

    def check_writable(self) -> None:
        """Refuse an upload that is published or busy."""
        if self._document.published:
            raise PublishError(
                f"upload {self.upload_id} is published and takes no files: copy the structures "
                f"into a new upload"
            )
        if self._document.process_running:
            raise RuntimeError(f"upload {self.upload_id} is being processed")  # tried again

    def entry_ids(self) -> list[str]:
        """Return the ids of all entries, in the order of their mainfiles."""
        from nomad.processing import Entry

        entries = Entry.objects(upload_id=self.upload_id).only("entry_id", "mainfile")
        return [entry.entry_id for entry in sorted(entries, key=lambda entry: entry.mainfile)]

    def mainfile(self, entry_id: str) -> str | None:
        """Return the mainfile of an entry."""
        from nomad.processing import Entry

        entry = Entry.objects(upload_id=self.upload_id, entry_id=entry_id).first()
        return None if entry is None else str(entry.mainfile)

    def archive(self, entry_id: str) -> Mapping[str, Any] | None:
        """Return the archive of an entry."""
        from nomad.archive import to_json

        try:
            with self._files.read_archive(entry_id) as reader:
                found: Mapping[str, Any] = to_json(reader[entry_id])
                return found
        except KeyError:
            return None

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a raw file."""
        stream: AbstractContextManager[BinaryIO] = self._files.raw_file(path, "rb")
        return stream

    def has(self, path: str) -> bool:
        """Return whether there is a raw file."""
        return bool(self._files.raw_isfile(path))

    def add(self, files: list[Path], folder: str) -> None:
        """Add files and process the last one, within this process."""
        from nomad.config.models.config import Reprocess

        for file in files[:-1]:
            self._files.add_rawfiles(str(file), folder)
        settings = Reprocess(index_individual_entries=True, reprocess_existing_entries=True)
        self._document.put_file_and_process_local(
            str(files[-1]), folder, reprocess_settings=settings
        )


def open_upload(upload_id: str, user_id: str) -> NomadUpload:
    """Return an upload of this server.

    Raises:
        PermissionError: the user may not read it.
        FileNotFoundError: there is no such upload.
    """
    from nomad.files import PublicUploadFiles
    from nomad.processing import Upload as Document
    from nomad.uploads import get_upload_files

    document = Document.objects(upload_id=upload_id).first()
    if document is None:
        raise FileNotFoundError(f"there is no upload {upload_id!r} on this server")
    try:
        files = get_upload_files(upload_id, user_id)
    except PermissionError:
        if not document.published or document.with_embargo:
            raise
        files = PublicUploadFiles(upload_id)  # everybody may read it
    return NomadUpload(upload_id, files, document)
