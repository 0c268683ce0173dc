"""A file that is complete or not there: written to the side, then renamed."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epitaxy.errors import StoreError


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where a file may not be written.

    Raises:
        StoreError: something is there and `overwrite` is false, or it is a folder.
    """
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise StoreError(
            f"{path}: exists; use --overwrite (overwrite=True) to replace it, or choose another "
            "name"
        )


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a place beside `path` to write to; it becomes `path` when the block ends normally.

    An error, Ctrl-C or a full disk leave what was at `path`, and nothing else. What a killed
    process has left is removed by the next one.

    Raises:
        StoreError: the place is taken, or the disk refuses the file.
    """
    check_free(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path)
    except OSError as error:
        raise _refused(path, error) from error
    partial = path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")
    try:
        yield partial
        handle = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        check_free(path, overwrite=overwrite)
        os.replace(partial, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        for left in (partial, partial.with_name(f"{partial.name}-journal")):  # SQLite's
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: could not be written: {error.strerror or error}; nothing was kept of it and "
        "what was there before is untouched"
    )


def _remove_left(path: Path) -> None:
    host = re.escape(socket.gethostname())
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)@{host}\.tmp(-journal)?")
    for left in path.parent.glob(".*.tmp*"):
        found = pattern.fullmatch(left.name)
        if found is not None and not _is_alive(int(found[1])):
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
