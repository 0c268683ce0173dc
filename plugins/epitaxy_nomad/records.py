"""What NOMAD says about uploads, entries, files and people, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epitaxy.errors import SourceError

_SHOWN = 5  # errors of one upload in a message


@dataclass(frozen=True, slots=True)
class User:
    """Who a token belongs to.

    Attributes:
        user_id: NOMAD's id.
        name: for people.
        is_admin: of this NOMAD; there are no limits then.
    """

    user_id: str
    name: str
    is_admin: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload; NOMAD leaves out what is not set, then it is "" or 0 here.

    Attributes:
        upload_id: NOMAD's id.
        name: for people.
        status: READY (no files yet), PENDING, RUNNING, SUCCESS, FAILURE and others.
        is_running: whether a process works on it now.
        process: name of the current or last process.
        message: what the process says last.
        errors: of the last process.
        warnings: of the last process.
        is_published: whether it is final.
        embargo_months: how long it stays hidden after its publication.
        n_entries: what NOMAD recognised in it.
        created: date and time.
        published_to: other NOMADs that have it.
    """

    upload_id: str
    name: str
    status: str
    is_running: bool
    process: str
    message: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    is_published: bool
    embargo_months: int
    n_entries: int
    created: str
    published_to: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """What NOMAD says of its last process: the first errors, else its message or status."""
        return "; ".join(self.errors[:_SHOWN]) or self.message or self.status


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """One entry of an upload: a main file that a parser has recognised.

    Attributes:
        entry_id: NOMAD's id.
        mainfile: path in the upload.
        parser: which parser read it.
        status: SUCCESS, FAILURE, ...
        errors: of its processing.
        warnings: of its processing.
    """

    entry_id: str
    mainfile: str
    parser: str
    status: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of an upload.

    Attributes:
        path: in the upload, with slashes.
        n_bytes: its size.
    """

    path: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class RemoteDataset:
    """One dataset of NOMAD: a named set of entries that may have a DOI.

    Attributes:
        dataset_id: NOMAD's id.
        name: unique for its user.
        user_id: whose it is.
        doi: without "https://doi.org/"; "" where it has none.
    """

    dataset_id: str
    name: str
    user_id: str
    doi: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a NOMAD says about itself.

    Attributes:
        version: of NOMAD.
        is_oasis: whether it is an Oasis.
        knows_epitaxy: whether epitaxy's parser is installed there.
    """

    version: str
    is_oasis: bool
    knows_epitaxy: bool


def read_upload(answer: Any) -> Upload:
    """Return the record of an upload.

    Raises:
        SourceError: the answer has no upload_id or no process_running.
    """
    found = _mapping(answer, "an upload", "upload_id", "process_running")
    return Upload(
        upload_id=str(found["upload_id"]),
        name=_text(found, "upload_name"),
        status=_text(found, "process_status") or "READY",
        is_running=bool(found["process_running"]),
        process=_text(found, "current_process"),
        message=_text(found, "last_status_message"),
        errors=_texts(found, "errors"),
        warnings=_texts(found, "warnings"),
        is_published=bool(found.get("published")),
        embargo_months=whole(found, "embargo_length", "an upload"),
        n_entries=whole(found, "entries", "an upload"),
        created=_text(found, "upload_create_time"),
        published_to=_texts(found, "published_to"),
    )


def read_entry(answer: Any) -> UploadEntry:
    """Return the record of an entry.

    Raises:
        SourceError: the answer has no entry_id or no mainfile.
    """
    found = _mapping(answer, "an entry", "entry_id", "mainfile")
    return UploadEntry(
        entry_id=str(found["entry_id"]),
        mainfile=str(found["mainfile"]),
        parser=_text(found, "parser_name"),
        status=_text(found, "process_status"),
        errors=_texts(found, "errors"),
        warnings=_texts(found, "warnings"),
    )


def read_dataset(answer: Any) -> RemoteDataset:
    """Return the record of a dataset.

    Raises:
        SourceError: the answer has no dataset_id.
    """
    found = _mapping(answer, "a dataset", "dataset_id")
    return RemoteDataset(
        str(found["dataset_id"]),
        _text(found, "dataset_name"),
        _text(found, "user_id"),
        _text(found, "doi"),
    )


def read_user(answer: Any) -> User:
    """Return the record of a user.

    Raises:
        SourceError: the answer has no user_id.
    """
    found = _mapping(answer, "a user", "user_id")
    return User(
        str(found["user_id"]),
        _text(found, "name") or _text(found, "username"),
        bool(found.get("is_admin")),
    )


def read_deployment(answer: Any) -> Deployment:
    """Return what a NOMAD says about itself.

    Raises:
        SourceError: the answer has no version.
    """
    found = _mapping(answer, "the description of a NOMAD", "version")
    points = [p.get("id") for p in _list(found, "plugin_entry_points") if isinstance(p, Mapping)]
    named = [*_list(found, "parsers"), *points]
    return Deployment(
        str(found["version"]),
        bool(found.get("oasis")),
        any("epitaxy" in str(name) for name in named),
    )


def whole(found: Mapping[str, Any], name: str, what: str) -> int:
    """Return a number of things, 0 where NOMAD says nothing.

    Raises:
        SourceError: it is no such number.
    """
    value = found.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SourceError(
            f"NOMAD sent {what} with {name} {str(value)[:60]!r}, a whole number is needed"
        )
    return value


def _mapping(answer: Any, what: str, *needed: str) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping):
        raise SourceError(f"NOMAD sent {str(answer)[:120]!r} as {what}: is the address its API?")
    missing = [name for name in needed if answer.get(name) is None]
    if missing:
        there = ", ".join(answer) or "nothing"
        raise SourceError(f"NOMAD sent {what} without {', '.join(missing)}; it has {there}")
    return answer


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return "" if value is None else str(value)


def _texts(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(str(value) for value in _list(found, name))


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found.get(name) or []
    return value if isinstance(value, list) else [value]  # one message instead of several
