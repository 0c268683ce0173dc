"""Put a finished directory in the place of another, so that a crash never loses both.

Beside ``name``, a writer works in ``.name.PID@HOST.tmp``; what it replaces is
``.name.PID@HOST.old`` between two renames. If the process dies there, `recover` puts it back.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path


def beside(directory: Path, kind: str) -> Path:
    """Return the hidden path next to `directory` that this process uses; `kind` is tmp or old."""
    return directory.with_name(f".{directory.name}.{os.getpid()}@{socket.gethostname()}.{kind}")


def put_in_place(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`, after everything in it has reached the disk.

    Files become as readable as their folder: safetensors makes files that only their owner reads.

    Raises:
        OSError: the disk refuses; as after any other interruption, `directory` is as it was.
    """
    for path in sorted(new.rglob("*")):
        if path.is_file():
            path.chmod(path.stat().st_mode | path.parent.stat().st_mode & 0o666)
        _sync(path)
    _sync(new)
    old = beside(directory, "old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
    except BaseException:
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise
    _sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path) -> None:
    """Put back what a writer that died had moved aside; remove what else it has left.

    A folder that cannot be changed is left as it is.
    """
    pattern = re.compile(rf"\.{re.escape(directory.name)}\.(\d+)(?:@(.+))?\.(tmp|old)")
    with suppress(OSError):
        for left in sorted(directory.parent.glob(".*")):
            found = pattern.fullmatch(left.name)
            if found is None:
                continue
            pid, host, kind = int(found[1]), found[2] or socket.gethostname(), found[3]
            is_here = host == socket.gethostname()
            if is_here and (pid == os.getpid() or _is_alive(pid)):
                continue
            if kind == "old" and not directory.exists():
                left.rename(directory)
            elif is_here:  # of processes elsewhere it is not known whether they live
                shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
