"""A file from the network to disk, going on where it broke off."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.errors import SourceError
from epitaxy.web.attempts import TryAgainError

if TYPE_CHECKING:
    import httpx

Send = Callable[[Mapping[str, str]], "AbstractContextManager[httpx.Response]"]
"""Sends the request with more headers and gives the answer with an open body."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def partial(file: Path) -> Path:
    """Return where the first bytes of an unfinished download wait."""
    return file.with_name(f".{file.name}.part")


def n_partial(file: Path) -> int:
    """Return how many bytes of an unfinished download are on disk."""
    path = partial(file)
    return path.stat().st_size if path.exists() else 0


def download(file: Path, send: Send) -> None:
    """Try once to get a file, or the rest of it; it appears under its name when it is complete.

    The first bytes are used again only if the service says that the file is still the same
    (ETag or Last-Modified; RFC 9110, 13.1.5).

    Raises:
        TryAgainError: the connection broke off, or the file has changed meanwhile.
        SourceError: the file cannot be written, or another process downloads it now.
    """
    part, mark = partial(file), file.with_name(f".{file.name}.mark")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part), part.open("r+b") as stream:
            known = _mark(mark)
            start = stream.seek(0, os.SEEK_END)
            if start and not known:
                start = 0
            headers = {"Accept-Encoding": "identity"}
            if start:
                headers |= {"Range": f"bytes={start}-", "If-Range": known}
            with send(headers) as response:
                total = _total(response, start)
                if response.status_code == 416 or (total is None and response.status_code == 206):
                    stream.truncate(0)
                    raise TryAgainError("does not continue the file where it broke off")
                if response.status_code == 200:
                    start = 0
                    mark.write_text(
                        json.dumps(
                            {
                                "is": response.headers.get("etag")
                                or response.headers.get("last-modified")
                                or ""
                            }
                        )
                    )
                stream.seek(start)
                stream.truncate(start)
                for chunk in response.iter_bytes():
                    stream.write(chunk)
                size = stream.tell()
                if total is not None and size != total:
                    raise TryAgainError(f"sent {size:,} of {total:,} bytes")
            stream.flush()
            os.fsync(stream.fileno())
            part.replace(file)
            mark.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(f"{file}: cannot be written: {error.strerror or error}") from error


def _total(response: httpx.Response, start: int) -> int | None:
    """Return the size of the whole file, None if the service does not tell or skips bytes."""
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != start or found[3] == "*":
            return None
        return int(found[3])
    length: str = response.headers.get("content-length", "")
    return int(length) if length.isdigit() else None


def _mark(path: Path) -> str:
    """Return the mark of the version whose first bytes are on disk; weak marks do not count."""
    try:
        mark = str(json.loads(path.read_text())["is"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "" if mark.startswith("W/") else mark


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold the unfinished file for this process."""
    with part.open("ab") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows has none; two downloads of one file are then not noticed
            pass
        except BlockingIOError as error:
            raise SourceError(
                f"{part}: another process downloads this file now; wait for it, or give this one "
                "another name"
            ) from error
        yield
