"""The files of an upload as one zip stream, read once, hashed on the way, never in memory."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from epitaxy.errors import OptionError
from epitaxy.stores.new_file import new_file
from epitaxy_nomad.bundle import Sink
from epitaxy_nomad.campaign.find import Calculation, File, Rules, UnfitError, files_of, listing
from epitaxy_nomad.campaign.ledger import Ledger, Part, SentFile

CHUNK = 2**20
"""Bytes that are read at once."""

PACKED_ALREADY = frozenset(
    {".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".npz", ".jpg", ".png", ".h5", ".hdf5"}
)
"""Endings of files that get no smaller: they are stored as they are."""

EARLIEST, LATEST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
"""Dates that a zip file can hold."""


class ChangedError(UnfitError):
    """A calculation is not what it was when it was planned.

    Attributes:
        calculation: its name.
        reason: what is different.
    """

    def __init__(self, calculation: str, reason: str):
        super().__init__(f"{calculation}: {reason}")
        self.calculation = calculation
        self.reason = reason


class PartStream:
    """The calculations of one upload as the pieces of a zip file.

    Each iteration reads the files anew, so that a broken connection can be tried again. After a
    whole one, `files` says what was read.

    Args:
        calculations: what to pack.
        rules: which files of a folder go along.
        level: of compression, 0 (stored) to 9 (smallest).

    Raises:
        OptionError: there is no such level.
    """

    def __init__(self, calculations: Iterable[Calculation], rules: Rules, *, level: int = 1):
        if not 0 <= level <= 9:
            raise OptionError(f"compression = {level}: allowed are 0 (none) to 9 (smallest)")
        self.calculations = tuple(calculations)
        self.rules = rules
        self.level = level
        self.files: tuple[SentFile, ...] = ()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces.

        Raises:
            ChangedError: a calculation differs from what was planned, or changes while it is
                read; what was yielded before is no zip file without its end.
        """
        self.files = ()
        files: list[SentFile] = []
        sink = Sink()
        with zipfile.ZipFile(cast("IO[bytes]", sink), "w", allowZip64=True) as archive:
            for calculation in self.calculations:
                for file in unchanged(calculation, self.rules):
                    yield from self._pieces(archive, sink, calculation, file, files)
        yield from sink.taken()
        self.files = tuple(files)

    def _pieces(
        self,
        archive: zipfile.ZipFile,
        sink: Sink,
        calculation: Calculation,
        file: File,
        files: list[SentFile],
    ) -> Iterator[bytes]:
        name, digest = file.name, hashlib.sha256()
        try:
            with (calculation.folder / name).open("rb", buffering=0) as stream:
                info = _zip_info(f"{calculation.name}/{name}", file, self.level)
                n_bytes = 0
                with archive.open(info, "w", force_zip64=file.n_bytes >= 2**31 - 1) as member:
                    while piece := stream.read(CHUNK):
                        digest.update(piece)
                        member.write(piece)
                        n_bytes += len(piece)
                        if n_bytes > file.n_bytes:
                            break
                        yield from sink.taken()
                after = os.fstat(stream.fileno())
        except OSError as error:
            raise ChangedError(
                calculation.name, f"{name} cannot be read: {error.strerror}"
            ) from error
        if n_bytes != file.n_bytes or after.st_mtime_ns != file.changed_ns:
            raise ChangedError(calculation.name, f"{name} changed while it was read")
        files.append(SentFile(calculation.name, name, n_bytes, file.changed_ns, digest.hexdigest()))
        yield from sink.taken()


@dataclass(frozen=True, slots=True)
class ZipOfPart:
    """A part that was packed before, read from its zip file; may be iterated over again."""

    path: Path

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""
        with self.path.open("rb") as stream:
            while piece := stream.read(CHUNK):
                yield piece


def check_source(ledger: Ledger, parts: Iterable[Part]) -> None:
    """Refuse to read the files of these parts where their source is not on this machine.

    Without it every calculation would look as if somebody had removed it.

    Raises:
        OptionError: the source is not there.
    """
    source = Path(ledger.facts["source"])
    if any(part.calculations for part in parts) and not source.exists():
        raise OptionError(
            f"{source}, which the campaign in {ledger.folder} reads, is not here: mount it or put "
            "it back, or write zip files where it is with epitaxy campaign pack"
        )


def unchanged(calculation: Calculation, rules: Rules) -> list[File]:
    """Return the files of a calculation.

    Raises:
        ChangedError: they are not those that were planned.
    """
    try:
        files = files_of(calculation.folder, rules)
    except UnfitError as error:
        raise ChangedError(calculation.name, str(error)) from error
    if listing(files) != calculation.listing:
        n_bytes = sum(file.n_bytes for file in files)
        raise ChangedError(
            calculation.name,
            f"has changed since it was planned ({calculation.n_files:,} files with "
            f"{calculation.n_bytes:,} bytes then, {len(files):,} with {n_bytes:,} now)",
        )
    return files


def write_zip(ledger: Ledger, part: Part, rules: Rules, *, level: int = 1) -> None:
    """Pack a part into a zip file beside the ledger, whole or not at all.

    Raises:
        ChangedError: a calculation is not what it was when it was planned.
        StoreError: the disk refuses.
    """
    stream = PartStream(part.calculations.values(), rules, level=level)
    digest = hashlib.sha256()
    with (
        new_file(ledger.zip_path(part.number), overwrite=True) as partial,
        partial.open("wb") as goal,
    ):
        for piece in stream:
            goal.write(piece)
            digest.update(piece)
    ledger.record(
        "packed",
        part.number,
        {
            "zip_sha256": digest.hexdigest(),
            "manifest_sha256": ledger.write_manifest(part.number, stream.files),
            "n_files": len(stream.files),
            "n_bytes": sum(file.n_bytes for file in stream.files),
        },
    )


def hashed(calculations: Iterable[Calculation], rules: Rules) -> list[SentFile]:
    """Return what a zip stream of these calculations would say of its files, without packing.

    Raises:
        ChangedError: a calculation is not what it was when it was planned.
    """
    found: list[SentFile] = []
    for calculation in calculations:
        for file in unchanged(calculation, rules):
            try:
                digest = sha256_of(calculation.folder / file.name)
            except OSError as error:
                raise ChangedError(
                    calculation.name, f"{file.name} cannot be read: {error.strerror}"
                ) from error
            found.append(
                SentFile(calculation.name, file.name, file.n_bytes, file.changed_ns, digest)
            )
    return found


def sha256_of(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _zip_info(path: str, file: File, level: int) -> zipfile.ZipInfo:
    when = time.localtime(file.changed_ns // 10**9)[:6]
    info = zipfile.ZipInfo(path, date_time=min(max(when, EARLIEST), LATEST))
    info.external_attr = 0o100644 << 16  # a plain file that everybody may read
    info.file_size = file.n_bytes
    if level and Path(path).suffix.lower() not in PACKED_ALREADY:
        info.compress_type = zipfile.ZIP_DEFLATED
        info._compresslevel = level  # type: ignore[attr-defined]
    return info
