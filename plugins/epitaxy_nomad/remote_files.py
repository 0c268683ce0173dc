"""The files of an upload: which there are, and one of them to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from epitaxy.errors import PublishError, SourceError
from epitaxy.web import RefusedError
from epitaxy_nomad.archive import section
from epitaxy_nomad.calls import PAGE, Calls, next_page, quoted
from epitaxy_nomad.records import RemoteFile, whole
from epitaxy_nomad.refusals import explained, status_of

_FIRST_PAUSE = 0.5  # seconds before the next attempt; doubled each time
_MAX_FAILURES = 3  # attempts in a row that bring nothing


def listing(calls: Calls, upload_id: str, folder: str) -> Iterator[RemoteFile | str]:
    """Yield what one folder of an upload holds: files, and the paths of folders.

    Raises:
        SourceError: NOMAD sends no list, goes round in circles, or names files outside.
    """
    after: str | None = None
    seen: set[str] = set()
    while True:
        answer = calls.ask(
            "GET",
            f"uploads/{quoted(upload_id)}/rawdir/{quote(folder)}",
            {"page_size": PAGE, "page_after_value": after},
            about=upload_id,
        )
        if alone := section(answer).get("file_metadata"):
            yield RemoteFile(folder, whole(section(alone), "size", f"the file {folder}"))
            return
        content = section(section(answer).get("directory_metadata")).get("content") or []
        if not isinstance(content, list):
            raise SourceError(f"upload {upload_id}: NOMAD sent no list of files in {folder or '/'}")
        for found in content:
            item = section(found)
            name = str(item.get("name") or "")
            if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
                raise SourceError(
                    f"upload {upload_id}: the file name {name!r} leads out of the folder"
                )
            path = f"{folder}/{name}".lstrip("/")
            size = whole(item, "size", f"the file {path}")
            yield RemoteFile(path, size) if item.get("is_file") else path
        after = next_page(answer, seen, f"upload {upload_id}: files in {folder or '/'}")
        if not content or after is None:
            return


def size_of(calls: Calls, upload_id: str, path: str) -> int | None:
    """Return the size of a file of an upload, None if there is no such file.

    Raises:
        PublishError: NOMAD refuses.
        SourceError: it cannot be reached, or answers nonsense.
    """
    try:
        for item in listing(calls, upload_id, path):
            return item.n_bytes if isinstance(item, RemoteFile) and item.path == path else None
    except PublishError as error:
        if status_of(error) != 404:
            raise
    return None


def fetch(
    calls: Calls,
    upload_id: str,
    path: str,
    file: Path,
    *,
    n_bytes: int,
    sleep: Callable[[float], None],
) -> None:
    """Get one file of an upload to disk, going on where an earlier attempt broke off.

    Args:
        calls: to which NOMAD.
        upload_id: which upload.
        path: in the upload.
        file: where to; appears when it is complete.
        n_bytes: its size, as `listing` gives it.
        sleep: waits between attempts.

    Raises:
        SourceError: the connection breaks again and again without bringing anything.
    """
    part = file.with_name(f".{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if not part.exists() or part.stat().st_size > n_bytes:
        part.write_bytes(b"")
    source = f"uploads/{quoted(upload_id)}/raw/{quote(path)}"
    failures = 0
    while (start := part.stat().st_size) < n_bytes:
        try:
            params = {"offset": start, "ignore_mime_type": "true"}
            calls.client.append(source, part, params=params)
        except RefusedError as error:
            raise explained(error, upload_id) from error
        except SourceError:
            failures = failures + 1 if part.stat().st_size == start else 0
            if failures >= _MAX_FAILURES:
                raise
            sleep(_FIRST_PAUSE * 2**failures)
            continue
        if part.stat().st_size == start:
            raise SourceError(f"{path}: NOMAD sent {start:,} of {n_bytes:,} bytes and no more")
    if part.stat().st_size != n_bytes:
        part.unlink()
        raise SourceError(
            f"{path}: NOMAD sent more than the {n_bytes:,} bytes that it announced; try again"
        )
    part.replace(file)
