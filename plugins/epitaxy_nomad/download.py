"""What was published comes back as it was: every file with its sha256, the whole with its digest.

Files gather in a hidden folder beside the goal, one for each place in NOMAD, so that a download
that was cut goes on where it was; the goal appears when everything is there and proven.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from epitaxy.errors import DataError, PublishError, SourceError
from epitaxy.receipts import read_content
from epitaxy_nomad.packing import folder_in, folder_of
from epitaxy_nomad.records import RemoteFile
from epitaxy_nomad.service import Service

_CHUNK = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What came back.

    Attributes:
        path: where it is.
        upload_id: where it came from.
        kind: "artifact", "dataset", or "files" that epitaxy knows nothing about.
        digest: sha256 of what it says, compared; "" for files.
        n_files: how many.
        n_bytes: of all of them.
    """

    path: Path
    upload_id: str
    kind: str
    digest: str
    n_files: int
    n_bytes: int


def download(service: Service, name: str, goal: Path, *, tell: Tell) -> Downloaded:
    """Get an artifact or a dataset, or the files of any upload.

    Args:
        service: from where.
        name: id of an upload or of an entry.
        goal: folder to make.
        tell: called with a line for people at each step.

    Raises:
        DataError: there is something at `goal` already, or it cannot be written.
        PublishError: there is no such upload or entry, or it may not be read.
        SourceError: NOMAD cannot be reached, or what it sends is not what was published.
    """
    if goal.exists():
        raise DataError(f"{goal} is there already: choose another folder or remove it")
    upload_id, folder = _place(service, name)
    try:
        return _gathered(service, upload_id, folder, goal, tell=tell)
    except OSError as error:
        raise DataError(
            f"{goal}: cannot be written: {error.strerror or error} ({error.filename or goal}); "
            "what has arrived is kept, the same command goes on"
        ) from error


def _gathered(
    service: Service, upload_id: str, folder: str, goal: Path, *, tell: Tell
) -> Downloaded:
    files = list(service.files(upload_id, folder))
    if not files:
        raise SourceError(f"upload {upload_id} holds no files{f' in {folder}' if folder else ''}")
    hidden = goal.with_name(f".{goal.name}.download")
    place = f"{service.host}/{upload_id}/{folder}"
    side = hidden / hashlib.sha256(place.encode()).hexdigest()[:12]
    sums = _sums(service, upload_id, folder, side) if folder_in(folder) else {}
    n_bytes = sum(file.n_bytes for file in files)
    tell(f"upload {upload_id}: {len(files)} files, {n_bytes:,} bytes")
    for file in files:
        _fetch(service, upload_id, file, folder, side, sums.get(file.path, ""))
    _drop_others(side / "files", {_path_of(file, folder) for file in files})
    missing = sorted(set(sums) - {file.path for file in files} - _beside(folder))
    if missing:
        raise SourceError(f"upload {upload_id} lacks {missing[0]}, which was published")
    kind, digest = _proven(side / "files", folder, upload_id) if sums else ("files", "")
    goal.parent.mkdir(parents=True, exist_ok=True)
    (side / "files").rename(goal)
    shutil.rmtree(hidden, ignore_errors=True)
    return Downloaded(goal, upload_id, kind, digest, len(files), n_bytes)


def _place(service: Service, name: str) -> tuple[str, str]:
    """Return the upload, and the folder in it, that an id stands for."""
    if service.find(name) is not None:
        folders = [item for item in service.listing(name) if isinstance(item, str)]
        ours = sorted(folder for folder in folders if folder_in(folder) == folder)
        if len(ours) > 1:
            raise PublishError(
                f"upload {name} holds {len(ours)} artifacts or datasets ({', '.join(ours[:5])}): "
                f"give the id of an entry (`epitaxy nomad status {name}` lists them)"
            )
        return name, ours[0] if ours else ""
    upload_id, mainfile = service.upload_of(name)
    top = mainfile.partition("/")[0]
    return upload_id, folder_in(top) or PurePosixPath(mainfile).parent.as_posix().strip(".")


def _sums(service: Service, upload_id: str, folder: str, side: Path) -> dict[str, str]:
    """Return path -> sha256 of what was sent."""
    size = service.size_of(upload_id, f"{folder}.sha256")
    if size is None:
        raise SourceError(
            f"upload {upload_id} has no {folder}.sha256: it was not sent whole; publish it again"
        )
    file = side / "sha256"
    service.fetch(upload_id, f"{folder}.sha256", file, n_bytes=size)
    found = (_LINE.fullmatch(line) for line in file.read_text("utf-8").splitlines())
    return {match[2]: match[1] for match in found if match}


def _beside(folder: str) -> set[str]:
    return {"nomad.json", f"{folder}.archive.json"}


def _fetch(
    service: Service, upload_id: str, file: RemoteFile, folder: str, side: Path, expected: str
) -> None:
    path = side / "files" / _path_of(file, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(2):
        if not path.exists() or path.stat().st_size != file.n_bytes:
            service.fetch(upload_id, file.path, path, n_bytes=file.n_bytes)
        if not expected or _sha256(path) == expected:
            return
        path.unlink()  # perhaps from an earlier attempt: once more from the start
        if attempt:
            raise SourceError(
                f"upload {upload_id}: {file.path} is not what was published: its sha256 is not the "
                f"one in {folder}.sha256"
            )


def _path_of(file: RemoteFile, folder: str) -> str:
    return file.path.removeprefix(f"{folder}/" if folder else "")


def _drop_others(folder: Path, wanted: set[str]) -> None:
    """Remove what an earlier attempt brought and NOMAD no longer has."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()


def _proven(path: Path, folder: str, upload_id: str) -> tuple[str, str]:
    content = read_content(path)
    if folder_of(content.digest) != folder:
        raise SourceError(
            f"upload {upload_id}: {folder} holds an {content.kind} of another digest, "
            f"{content.digest}: somebody has changed it since it was published"
        )
    return content.kind, content.digest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
