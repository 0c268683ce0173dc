"""Sends the uploads of a campaign, several at once, and goes on where an earlier run broke off.

What makes that safe: an upload gets its id before its first byte, under a name that no other has,
and the id is in the ledger before files are sent; files sent again into the same upload replace
themselves. So a run that was killed at any time is followed by one that looks what is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from epitaxy.errors import EpitaxyError, OptionError, PublishError
from epitaxy_nomad.campaign.check import count
from epitaxy_nomad.campaign.find import Rules
from epitaxy_nomad.campaign.ledger import Ledger, Part, SentFile
from epitaxy_nomad.campaign.pack import (
    ChangedError,
    PartStream,
    ZipOfPart,
    check_source,
    hashed,
    sha256_of,
    unchanged,
)
from epitaxy_nomad.records import Upload
from epitaxy_nomad.refusals import NomadRefusalError
from epitaxy_nomad.service import Service

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How to send.

    Attributes:
        workers: uploads at once.
        level: of compression, 0 to 9.
        dataset: name of the NOMAD dataset that the entries go into; made if there is none.
        publish: publish each upload once it is processed and counted; for good.
        embargo_months: how long what is published stays hidden; None leaves what is set.
        max_unpublished: no more than so many unpublished uploads of the user; None for as many
            as the server allows.
        wait_for_room: seconds to wait until there is room for one more.
        deadline: seconds to wait for NOMAD's processing of one upload.
        poll: seconds between two looks whether there is room.
    """

    workers: int = 2
    level: int = 1
    dataset: str = ""
    publish: bool = False
    embargo_months: int | None = None
    max_unpublished: int | None = None
    wait_for_room: float = 0.0
    deadline: float = 3600.0
    poll: float = 15.0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            OptionError: a number is out of range, or an embargo is wanted for what stays private.
        """
        if self.workers < 1 or (self.max_unpublished is not None and self.max_unpublished < 1):
            raise OptionError(
                f"workers = {self.workers} and max_unpublished = {self.max_unpublished} must be 1 "
                "or more"
            )
        if not 0 <= self.level <= 9:
            raise OptionError(f"compression = {self.level}: allowed are 0 (none) to 9 (smallest)")
        if not self.wait_for_room >= 0 or not self.deadline > 0:  # not a number is neither
            raise OptionError(
                f"wait = {self.wait_for_room} s and deadline = {self.deadline} s: allowed are 0 "
                "or more, and more than 0"
            )
        if not 0 <= (self.embargo_months or 0) <= 36:
            raise OptionError(f"embargo = {self.embargo_months} months; NOMAD allows 0 to 36")
        if self.embargo_months is not None and not self.publish:
            raise OptionError("an embargo is for what is published: add --publish, or leave it out")


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        done: numbers of the parts that are where they should be.
        failed: number -> why a part is not.
        no_room: numbers of the parts that the server has no room for now.
        left_out: calculation -> why it stayed behind this time.
        unpublished: how many unpublished uploads the user had before and after.
    """

    done: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    no_room: list[int] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    unpublished: tuple[int, int] = (0, 0)


class _NoRoomError(EpitaxyError):
    """The user may have no more unpublished uploads."""


class _StoppedError(EpitaxyError):
    """The run is to end."""


def send(
    ledger: Ledger,
    connect: Callable[[], Service],
    rules: Rules,
    way: Way,
    *,
    tell: Tell = lambda text: None,
) -> Outcome:
    """Send what is not there yet, count it, publish it if wanted; return what came of it.

    A part that fails does not stop the others; its reason is in the outcome and the ledger.

    Args:
        ledger: of the campaign, open for writing.
        connect: makes a connection; each worker has its own.
        rules: which files of a folder go along.
        way: how to send.
        tell: called with one line at a time.

    Raises:
        OptionError: the calculations are not on this machine, nor zip files of them.
        PublishError: NOMAD does not accept the token, or the dataset cannot be made.
        SourceError: NOMAD cannot be reached.
    """
    sender = _Sender(ledger, rules, way, tell)
    goal = "published" if way.publish else "counted"
    outcome = Outcome()
    local = threading.local()
    opened: list[Service] = []

    def work(part: Part) -> None:
        if not hasattr(local, "service"):
            local.service = connect()
            opened.append(local.service)
        sender.bring(part, local.service)

    unread = [part for part in ledger.parts.values() if part.problems or not part.has("sent")]
    check_source(ledger, [part for part in unread if not part.zip_sha256])
    with connect() as first:
        before = first.count_unpublished()
        if way.dataset:
            user_id = first.whoami().user_id
            dataset = first.dataset(way.dataset, user_id=user_id)
            sender.dataset_id = (dataset or first.create_dataset(way.dataset)).dataset_id
        todo = [
            part
            for part in ledger.parts.values()
            if (part.calculations or part.has("created"))
            and (
                not part.has(goal)
                or part.problems
                or sender.dataset_id not in ("", part.dataset_id)
            )
        ]
        outcome.done = [
            number
            for number, part in ledger.parts.items()
            if part.calculations and part not in todo
        ]
        pool = ThreadPoolExecutor(way.workers)
        try:
            futures = {pool.submit(work, part): part.number for part in todo}
            for future in as_completed(futures):
                number = futures[future]
                try:
                    future.result()
                    if number in ledger.parts:
                        outcome.done.append(number)
                except _NoRoomError:
                    outcome.no_room.append(number)
                except EpitaxyError as error:
                    outcome.failed[number] = str(error)
                    ledger.record("failed", number, {"reason": str(error)})
                    tell(str(error))
        finally:
            sender.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            for service in opened:
                service.close()
        outcome.unpublished = (before, first.count_unpublished())
    outcome.done.sort()
    outcome.no_room.sort()
    outcome.left_out = dict(sender.left_out)
    return outcome


class _Sender:
    """What the workers share."""

    def __init__(self, ledger: Ledger, rules: Rules, way: Way, tell: Tell):
        self.ledger = ledger
        self.rules = rules
        self.way = way
        self.tell = tell
        self.stop = threading.Event()
        self.dataset_id = ""
        self.left_out: dict[str, str] = {}
        self._room = threading.Lock()
        self._n_under_way = 0  # uploads that will make room when they are published
        self._is_full = False

    def bring(self, part: Part, service: Service) -> None:
        """Bring one part as far as it shall go."""
        is_new = not part.has("created")
        if is_new:
            self._create(part, service)
        elif part.service != service.host:
            raise PublishError(
                f"upload {part.number} is {part.upload_id} at {part.service}; this is "
                f"{service.host}: a campaign goes to one service"
            )
        else:
            self._under_way(+1)
        try:
            if part.calculations and (part.problems or not part.has("sent")):
                self._send(part, service, is_new=is_new)
            if not part.has("sent"):
                self._take_back(part, service)
                return
            self._process(part, service)
            self._count(part, service)
            if self.dataset_id not in ("", part.dataset_id):
                service.edit(part.upload_id, {"datasets": [self.dataset_id]})
                self.ledger.record("in dataset", part.number, {"dataset_id": self.dataset_id})
            if self.way.publish and not part.has("published"):
                self._publish(part, service)
        finally:
            self._under_way(-1)

    def _under_way(self, change: int) -> None:
        with self._room:
            self._n_under_way += change

    def _create(self, part: Part, service: Service) -> None:
        """Make the upload of a part, as soon as there is room; leave it counted as under way."""
        name = upload_name(self.ledger, part)
        end = time.monotonic() + self.way.wait_for_room
        while True:
            with self._room:
                others = self._n_under_way if self.way.publish else 0
                left = end - time.monotonic()
                if self._is_full and not others and left <= 0:
                    raise _NoRoomError
                if upload_id := self._created(name, service):
                    self._n_under_way += 1
                    break
            if others or left > 0:  # uploads of ours make room once they are published
                self.stop.wait(self.way.poll if others else min(self.way.poll, left))
            if self.stop.is_set():
                raise _StoppedError("stopped")
        self.ledger.record(
            "created", part.number, {"upload_id": upload_id, "service": service.host}
        )

    def _created(self, name: str, service: Service) -> str:
        """Return the id of a new upload, or of the one that an earlier run made; "" if full."""
        for upload in service.uploads(name=name):
            return upload.upload_id
        limit = self.way.max_unpublished
        if limit is None or service.count_unpublished() < limit:
            try:
                upload_id = service.create(name)
                self._is_full = False
                return upload_id
            except NomadRefusalError as error:
                if "limit of unpublished" not in error.said.lower():
                    raise
        if not self._is_full:
            self.tell("no room: the number of unpublished uploads is at its limit")
        self._is_full = True
        return ""

    def _take_back(self, part: Part, service: Service) -> None:
        """Delete an upload that none of its calculations went into; they can be planned anew."""
        if service.find(part.upload_id) is not None:
            if any(True for _ in service.files(part.upload_id)):
                raise PublishError(
                    f"upload {part.number}: none of its calculations is as it was planned, but "
                    f"{part.upload_id} has files of an earlier run: look at them, and delete it"
                )
            service.delete(part.upload_id)
            with self._room:
                self._is_full = False
        self.ledger.record("dropped", part.number, {})
        self.tell(
            f"upload {part.number}: none of its calculations is as it was planned; "
            f"{part.upload_id}, which was empty, is deleted"
        )

    def _send(self, part: Part, service: Service, *, is_new: bool) -> None:
        files: list[SentFile] | None
        if part.zip_sha256:
            files = self._send_zip(part, service, is_new=is_new)
        else:
            files = None if is_new else self._sent_before(part, service)
            while files is None and part.calculations:
                stream = PartStream(part.calculations.values(), self.rules, level=self.way.level)
                try:
                    service.send(part.upload_id, _Stoppable(stream, self.stop))
                    files = list(stream.files)
                except ChangedError as error:
                    self._leave_out(part, error)
        if files is None:
            return
        n_bytes = sum(file.n_bytes for file in files)
        self.ledger.record(
            "sent",
            part.number,
            {
                "n_files": len(files),
                "n_bytes": n_bytes,
                "manifest_sha256": self.ledger.write_manifest(part.number, files),
            },
        )
        self.tell(
            f"upload {part.number}: {len(part.calculations):,} calculations, {len(files):,} files, "
            f"{n_bytes:,} bytes as {part.upload_id}"
        )

    def _send_zip(self, part: Part, service: Service, *, is_new: bool) -> list[SentFile]:
        files = self.ledger.read_manifest(part)
        if is_new or not self._is_there(part, service, files):
            path = self.ledger.zip_path(part.number)
            if not path.is_file() or sha256_of(path) != part.zip_sha256:
                raise PublishError(
                    f"{path} is missing or was edited; pack the part again with "
                    f"epitaxy campaign pack {self.ledger.folder}"
                )
            stream = _Stoppable(ZipOfPart(path), self.stop)
            service.send(part.upload_id, stream, n_bytes=path.stat().st_size)
        return files

    def _sent_before(self, part: Part, service: Service) -> list[SentFile] | None:
        """Return what an earlier run has sent whole before it was killed, None if it has not."""
        files: list[SentFile] = []
        for calculation in list(part.calculations.values()):
            try:
                found = unchanged(calculation, self.rules)
            except ChangedError as error:
                self._leave_out(part, error)
                continue
            files += [
                SentFile(calculation.name, file.name, file.n_bytes, file.changed_ns, "")
                for file in found
            ]
        if not self._is_there(part, service, files):
            return None
        return hashed(part.calculations.values(), self.rules)  # only now: it reads everything

    def _is_there(self, part: Part, service: Service, files: list[SentFile]) -> bool:
        upload = self._waited(part, service)
        if upload.is_published:
            return True
        there = count(files, service.files(part.upload_id))
        return bool(files) and not there.problems

    def _leave_out(self, part: Part, error: ChangedError) -> None:
        self.left_out[error.calculation] = error.reason
        self.ledger.leave_out(part, error.calculation, error.reason)
        self.tell(f"left out: {error}")

    def _publish(self, part: Part, service: Service) -> None:
        service.publish(
            part.upload_id,
            embargo_months=self.way.embargo_months,
            deadline=self.way.deadline,
        )
        self.ledger.record("published", part.number, {"embargo_months": self.way.embargo_months})
        with self._room:
            self._is_full = False
        self.tell(f"upload {part.number}: published")

    def _waited(self, part: Part, service: Service) -> Upload:
        upload = service.find(part.upload_id)
        if upload is None:
            raise PublishError(
                f"upload {part.number}: {part.upload_id} is gone from {part.service}: "
                "somebody deleted it"
            )
        if upload.is_running:
            upload = service.wait(part.upload_id, deadline=self.way.deadline, tell=self._look)
        return upload

    def _look(self, upload: Upload) -> None:
        """Leave an upload to NOMAD when the run is to end."""
        if self.stop.is_set():
            raise _StoppedError(f"stopped while NOMAD works on {upload.upload_id}")

    def _process(self, part: Part, service: Service) -> None:
        upload = self._waited(part, service)
        if upload.status == "FAILURE" and part.status == "FAILURE":
            service.process(part.upload_id)  # it failed in an earlier run too: once more
            upload = self._waited(part, service)
        if part.has("processed") and part.status == upload.status:
            return
        errors = list(upload.errors)
        n_entries = 0
        for entry in service.entries(part.upload_id):
            n_entries += 1
            if entry.status == "FAILURE":
                errors.append(f"{entry.mainfile}: {'; '.join(entry.errors) or 'failed'}")
        self.ledger.record(
            "processed",
            part.number,
            {"status": upload.status, "n_entries": n_entries, "errors": errors},
        )
        for error in errors:
            self.tell(f"upload {part.number}: NOMAD: {error}")
        if upload.status == "FAILURE":
            raise PublishError(
                f"upload {part.number}: NOMAD could not process {part.upload_id}: "
                f"{'; '.join(upload.errors) or upload.message}"
            )

    def _count(self, part: Part, service: Service) -> None:
        if part.has("counted") and not part.problems:
            return
        counted = count(self.ledger.read_manifest(part), service.files(part.upload_id))
        self.ledger.record(
            "counted",
            part.number,
            {
                "n_files_listed": counted.n_files_listed,
                "n_bytes_listed": counted.n_bytes_listed,
                "n_others": counted.n_others,
                "problems": list(counted.problems),
            },
        )
        if counted.problems:
            shown = "; ".join(counted.problems[:5])
            raise PublishError(
                f"upload {part.number}: {part.upload_id} has {counted.n_files_listed:,} of "
                f"{counted.n_files:,} files, {counted.n_bytes_listed:,} of {counted.n_bytes:,} "
                f"bytes: {shown}{' ...' if len(counted.problems) > 5 else ''}"
            )


class _Stoppable:
    """A stream that ends with an error when the run is to end; may be iterated over again."""

    def __init__(self, stream: Iterable[bytes], stop: threading.Event):
        self._stream = stream
        self._stop = stop

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if self._stop.is_set():
                raise _StoppedError("stopped")
            yield piece


def upload_name(ledger: Ledger, part: Part) -> str:
    """Return the name of a part's upload, which no other upload has."""
    facts = ledger.facts
    return f"{facts['name']} {part.number:04d} ({facts['id']})"
