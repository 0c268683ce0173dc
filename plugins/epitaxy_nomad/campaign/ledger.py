"""What was planned, sent and counted: a file that only grows, and survives a crash at any time.

One JSON object per line with a checksum; a line is on the disk before what it announces is done,
and before what follows from it begins. A line that a crash has cut can only be the last; it is
taken off when the ledger is opened for writing. What a ledger says is its lines, in order.

    campaign    name, source, rules, limits: the first line
    part        number and calculations of one upload
    dropped     a part of which nothing was sent: planned anew, or all of it had changed
    left out    a calculation that stays behind, and why: it changed, or cannot be read
    packed      the part is a zip file beside the ledger
    created     the upload exists on a service and has an id, but no files yet
    in dataset  its entries are in a dataset of NOMAD
    sent        the service has all files; digests of each are in the part's manifest
    processed   NOMAD is done: status, number of entries, errors
    counted     what the service lists against what was sent
    published   for good
    failed      what went wrong last, until a later line of the same part
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from epitaxy.errors import StoreError
from epitaxy.stores.new_file import new_file
from epitaxy_nomad.campaign.find import Calculation

FORMAT = 1
NAME = "ledger.jsonl"

STATES = ("planned", "packed", "created", "sent", "processed", "counted", "published")
"""How far a part has come."""


@dataclass(slots=True)
class Part:
    """One upload: what goes into it and how far it is.

    Attributes:
        number: of the part, from 1.
        calculations: by name; those left out are taken off.
        state: one of STATES.
        upload_id: of the service; "" before there is one.
        service: its address.
        zip_sha256: digest of the zip file beside the ledger; "" if there is none.
        n_files: sent.
        n_bytes: sent, before they were packed.
        manifest_sha256: digest of the manifest.
        status: of NOMAD's processing.
        n_entries: that NOMAD made of it.
        errors: of NOMAD's processing.
        dataset_id: of the NOMAD dataset that its entries are in.
        problems: where the service's list differs from what was sent.
        failure: what went wrong last.
    """

    number: int
    calculations: dict[str, Calculation]
    state: str = "planned"
    upload_id: str = ""
    service: str = ""
    zip_sha256: str = ""
    n_files: int = 0
    n_bytes: int = 0
    manifest_sha256: str = ""
    status: str = ""
    n_entries: int = 0
    errors: tuple[str, ...] = ()
    dataset_id: str = ""
    problems: tuple[str, ...] = ()
    failure: str = ""

    def has(self, state: str) -> bool:
        """Whether the part has come as far as `state`."""
        return STATES.index(self.state) >= STATES.index(state)


@dataclass(frozen=True, slots=True)
class SentFile:
    """One line of a manifest: a file as it was sent.

    Attributes:
        calculation: name of the folder in the upload.
        name: below it.
        n_bytes: of the file.
        changed_ns: when it had last been changed, nanoseconds since 1970.
        sha256: of its content.
    """

    calculation: str
    name: str
    n_bytes: int
    changed_ns: int
    sha256: str

    @property
    def path(self) -> str:
        """Path in the upload."""
        return f"{self.calculation}/{self.name}"


class Ledger:
    """The ledger of one campaign, in its folder.

    Use `Ledger.create` for a new one, `Ledger.open` for one that exists; as a context manager it
    gives its lock back at the end.

    Attributes:
        folder: of the campaign: the ledger, manifests, zip files, rows of a database.
        facts: the first line.
        parts: number -> part, without the dropped ones.
        left_out: calculation -> why it stays behind.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self.parts: dict[int, Part] = {}
        self.left_out: dict[str, str] = {}
        self._handle: int | None = None
        self._lock = threading.Lock()
        self._n_parts = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    @classmethod
    def create(cls, folder: Path, *, name: str, source: Path, rules: Mapping[str, Any]) -> Ledger:
        """Begin a campaign.

        Args:
            folder: to make, or an empty one.
            name: that the uploads begin with.
            source: where the calculations lie.
            rules: what was looked for, as plain values.

        Raises:
            StoreError: there is a campaign already, or the disk refuses.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
        ledger = cls(folder)
        ledger._open_for_writing()
        assert ledger._handle is not None
        if b"\n" in ledger.path.read_bytes():
            ledger.close()
            raise StoreError(f"{folder} holds a campaign already")
        os.ftruncate(ledger._handle, 0)  # a first line that a crash has cut
        ledger.record(
            "campaign",
            0,
            {
                "format": FORMAT,
                "id": uuid.uuid4().hex[:12],  # no other campaign has it
                "name": name,
                "source": str(source),
                "rules": dict(rules),
            },
        )
        return ledger

    @staticmethod
    def is_begun(folder: Path) -> bool:
        """Whether a folder holds a campaign: a ledger with a whole first line."""
        path = folder / NAME
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.readline().endswith(b"\n")

    @classmethod
    def open(cls, folder: Path, *, to_write: bool = False) -> Ledger:
        """Read a campaign.

        Args:
            folder: of the campaign.
            to_write: whether lines will be added: nobody else may do so meanwhile.

        Raises:
            StoreError: there is none, it is damaged, or somebody else is writing to it.
        """
        ledger = cls(folder)
        if not ledger.path.is_file():
            raise StoreError(
                f"{folder} holds no campaign ({NAME} is missing); begin one with "
                f"epitaxy campaign plan SOURCE -o {folder}"
            )
        if to_write:
            ledger._open_for_writing()
        try:
            ledger._read(mend=to_write)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def __enter__(self) -> Ledger:
        """Return the ledger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def record(self, event: str, part: int, facts: Mapping[str, Any]) -> None:
        """Write one line, to the disk, and follow it.

        Args:
            event: what happened; see the head of this module.
            part: its number; 0 for the campaign as a whole.
            facts: plain values.

        Raises:
            StoreError: the disk refuses.
        """
        line = {
            "event": event,
            "part": part,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **facts,
        }
        with self._lock:
            assert self._handle is not None, "opened for reading"
            size = os.fstat(self._handle).st_size
            try:
                _write_all(self._handle, _with_checksum(line))
                os.fsync(self._handle)
            except OSError as error:
                os.ftruncate(self._handle, size)
                raise StoreError(f"{self.path} cannot be written: {error}") from error
            self._follow(line)

    def add_part(self, calculations: Iterable[Calculation]) -> Part:
        """Plan one more upload and return it."""
        number = self._n_parts + 1
        rows = [{**asdict(c), "folder": str(c.folder)} for c in calculations]
        self.record("part", number, {"calculations": rows})
        return self.parts[number]

    def leave_out(self, part: Part, calculation: str, reason: str) -> None:
        """Take a calculation off a part, and keep why."""
        self.record("left out", part.number, {"calculation": calculation, "reason": reason})

    def write_manifest(self, part: int, files: Iterable[SentFile]) -> str:
        """Write what a part was sent with, whole or not at all; return its digest.

        Raises:
            StoreError: the disk refuses.
        """
        lines = "".join(json.dumps(asdict(file)) + "\n" for file in files).encode()
        with new_file(self.manifest_path(part), overwrite=True) as partial:
            partial.write_bytes(lines)
        return hashlib.sha256(lines).hexdigest()

    def read_manifest(self, part: Part) -> list[SentFile]:
        """Return what a part was sent with.

        Raises:
            StoreError: the manifest is missing or was edited.
        """
        path = self.manifest_path(part.number)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != part.manifest_sha256:
            raise StoreError(f"{path} is not what the ledger says it is: was it edited?")
        return [SentFile(**json.loads(line)) for line in content.splitlines()]

    def manifest_path(self, part: int) -> Path:
        """Where the manifest of a part lies."""
        return self.folder / f"part-{part:04d}.jsonl"

    def zip_path(self, part: int) -> Path:
        """Where the zip file of a part lies, if it was packed."""
        return self.folder / f"part-{part:04d}.zip"

    def _open_for_writing(self) -> None:
        try:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            _lock(self._handle)
        except OSError as error:
            self.close()
            raise StoreError(
                f"another process works on the campaign in {self.folder}; wait until it has ended"
            ) from error

    def _read(self, *, mend: bool) -> None:
        content = self.path.read_bytes()
        whole, _, torn = content.rpartition(b"\n")
        for number, text in enumerate(whole.split(b"\n") if whole else [], start=1):
            line = _checked(text)
            if line is None:
                raise StoreError(
                    f"{self.path}, line {number}: damaged or edited; put back a copy of the file"
                )
            self._follow(line)
        if not self.facts:
            raise StoreError(
                f"{self.path} has no first line; begin the campaign with "
                f"epitaxy campaign plan SOURCE -o {self.folder}"
            )
        if torn and mend:
            assert self._handle is not None
            os.ftruncate(self._handle, len(content) - len(torn))
            os.fsync(self._handle)

    def _follow(self, line: Mapping[str, Any]) -> None:
        """Do to the state in memory what a line says."""
        event, number = line["event"], int(line["part"])
        if event == "campaign":
            if line["format"] != FORMAT:
                raise StoreError(f"{self.path} has format {line['format']}; known is {FORMAT}")
            self.facts = dict(line)
            return
        if event == "part":
            rows = [Calculation(**{**r, "folder": Path(r["folder"])}) for r in line["calculations"]]
            self.parts[number] = Part(number, {row.name: row for row in rows})
            self._n_parts = max(self._n_parts, number)
            for row in rows:
                self.left_out.pop(row.name, None)
            return
        if event == "dropped":
            del self.parts[number]
            return
        if event == "left out":
            self.left_out[line["calculation"]] = line["reason"]
            if number:
                self.parts[number].calculations.pop(line["calculation"], None)
            return
        part = self.parts[number]
        part.failure = line["reason"] if event == "failed" else ""
        if event == "failed":
            return
        if event == "in dataset":
            part.dataset_id = line["dataset_id"]
            return
        part.state = event
        if event == "sent":
            part.problems = part.errors = ()
            part.status = ""
        for name in ("upload_id", "service", "zip_sha256", "n_files", "n_bytes", "status"):
            if name in line:
                setattr(part, name, line[name])
        for name in ("manifest_sha256", "n_entries"):
            if name in line:
                setattr(part, name, line[name])
        for name in ("errors", "problems"):
            if name in line:
                setattr(part, name, tuple(line[name]))


def _with_checksum(line: Mapping[str, Any]) -> bytes:
    text = json.dumps(line, ensure_ascii=True)
    return f'{text[:-1]}, "crc": "{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def _checked(text: bytes) -> dict[str, Any] | None:
    """Return what a line says, None if it is not what was written."""
    body, separator, check = text.rpartition(b', "crc": "')
    if not separator or check != f'{zlib.crc32(body + b"}"):08x}"}}'.encode():
        return None
    line: dict[str, Any] = json.loads(body + b"}")
    return line


def _write_all(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
