"""Answers of databases on disk: written whole or not at all, checked when they are read."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import sys
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epitaxy.errors import SourceError

_FORMAT = "epitaxy answer 1"
_LOG = logging.getLogger("epitaxy.web")


def user_cache() -> Path:
    """Return the folder for caches of the user, as the platform says.

    The variables are the platforms' own standards (XDG base directories, Windows known folders),
    not options of ours.
    """
    if sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "epitaxy"


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer from the cache.

    Attributes:
        body: what the service sent.
        retrieved: when, seconds since 1970.
    """

    body: bytes
    retrieved: float


class Cache:
    """A folder of answers, one file each: a line of JSON, then the compressed body.

    Args:
        folder: made when the first answer is kept.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).expanduser()

    def path_of(self, request: Mapping[str, Any]) -> Path:
        """Return the file of a request; the request must hold no secret."""
        text = json.dumps(request, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        host = "".join(c if c.isalnum() or c in ".-" else "_" for c in str(request.get("host", "")))
        return self.folder / (host or "unknown") / digest[:2] / f"{digest[2:40]}.answer"

    def read(self, request: Mapping[str, Any]) -> Kept | None:
        """Return the kept answer, None if there is none; a damaged one is removed."""
        path = self.path_of(request)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            line, _, packed = content.partition(b"\n")
            head = json.loads(line)
            body = gzip.decompress(packed)
            if head["format"] != _FORMAT or hashlib.sha256(body).hexdigest() != head["sha256"]:
                raise ValueError("its checksum does not agree")
            return Kept(body, float(head["retrieved"]))
        except (ValueError, KeyError, TypeError, EOFError, OSError, zlib.error) as error:
            _LOG.warning("the cached answer %s is damaged (%s): asking again", path, error)
            self.forget(request)
            return None

    def keep(self, request: Mapping[str, Any], body: bytes, *, retrieved: float) -> None:
        """Write an answer; after an interruption the old one, or none, is there.

        Raises:
            SourceError: the folder cannot be written.
        """
        path = self.path_of(request)
        head = {
            "format": _FORMAT,
            "request": dict(request),
            "retrieved": retrieved,
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        content = json.dumps(head).encode() + b"\n" + gzip.compress(body, 5, mtime=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._unusable(error) from error

    def forget(self, request: Mapping[str, Any]) -> None:
        """Remove an answer, if there is one."""
        with suppress(OSError):
            self.path_of(request).unlink(missing_ok=True)

    def _unusable(self, error: OSError) -> SourceError:
        return SourceError(
            f"the cache folder {self.folder} cannot be used: {error.strerror or error}. Choose "
            "another folder with the option cache=FOLDER, or cache=none to keep nothing"
        )
