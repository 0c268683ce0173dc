"""What NOMAD can be asked to do, as plain calls: uploads, entries, files, metadata, datasets.

Follows the API of NOMAD 2.0.0 (`/uploads`, `/entries`, `/datasets`), which has been the same since
NOMAD 1.2 for what is used here. NOMAD answers 400 to almost everything that it does not do: what is
blocked by another process is tried again, everything else is not (`epitaxy_nomad.refusals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from epitaxy.errors import PublishError, SourceError
from epitaxy.web import SYSTEM_CLOCK, Client, Clock
from epitaxy_nomad.archive import section
from epitaxy_nomad.calls import Calls, quoted
from epitaxy_nomad.records import (
    Deployment,
    RemoteDataset,
    RemoteFile,
    Upload,
    UploadEntry,
    User,
    read_dataset,
    read_deployment,
    read_entry,
    read_upload,
    read_user,
)
from epitaxy_nomad.refusals import NomadRefusalError, is_blocked, is_cut, status_of
from epitaxy_nomad.remote_files import fetch, listing, size_of
from epitaxy_nomad.tokens import HELP

FIRST_POLL, LONGEST_POLL, POLL_GROWTH = 0.5, 15.0, 1.5
"""Seconds between two questions about a process, at first and at most, and how they grow."""

PATIENCE = 600.0
"""Seconds that a call waits for another process of the same upload."""

Tell = Callable[[Upload], None]


class Service:
    """One NOMAD: the public service or an Oasis, asked by one user.

    Every call sends what it says and returns records (`epitaxy_nomad.records`); nothing is cached.
    Failures that may pass are tried again; calls that must not happen twice look first whether
    the server did what was asked before the connection broke.

    Args:
        url: address of the API, ".../api/v1".
        token: of a user; "" for what is public.
        attempts: how often a request is tried.
        timeout: seconds that NOMAD may be silent.
        requests_per_second: at most.
        clock: what tells the time.
        seed: of the jitter of pauses.

    Every method raises:
        PublishError: NOMAD refuses; the message says why and what to do.
        SourceError: NOMAD cannot be reached, or answers nonsense.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        attempts: int = 6,
        timeout: float = 120.0,
        requests_per_second: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
        seed: int | None = None,
    ):
        self.url = url.rstrip("/")
        self.clock = clock
        self._attempts = attempts
        client = Client(
            self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            cache="none",
            requests_per_second=requests_per_second,
            max_attempts=attempts,
            timeout=timeout,
            key_help=HELP,
            clock=clock,
            seed=seed,
        )
        self._calls = Calls(self.url, client)

    @property
    def host(self) -> str:
        """Host and path of the API, which tells one NOMAD from another; no secret."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    def close(self) -> None:
        """Close the connections."""
        self._calls.client.close()

    def __enter__(self) -> Service:
        """Return the service itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    # --- who and what ---

    def whoami(self) -> User:
        """Return whose token this is; PublishError if NOMAD does not accept it."""
        return read_user(self._calls.ask("GET", "users/me"))

    def deployment(self) -> Deployment:
        """Return what this NOMAD says about itself."""
        return read_deployment(self._calls.ask("GET", "info"))

    # --- uploads ---

    def uploads(
        self, *, name: str = "", published: bool | None = None, newest_first: bool = True
    ) -> Iterator[Upload]:
        """Yield the user's own uploads.

        Args:
            name: only those with exactly this name.
            published: only published ones, or only unpublished ones.
            newest_first: or the oldest first.
        """
        params: dict[str, Any] = {
            "is_owned": "true",
            "order_by": "upload_create_time",
            "order": "desc" if newest_first else "asc",
        }
        if name:
            params["upload_name"] = name
        if published is not None:
            params["is_published"] = str(published).lower()
        for item in self._calls.pages("uploads", params):
            yield read_upload(item)

    def count_unpublished(self) -> int:
        """Return how many unpublished uploads the user has; NOMAD limits their number."""
        params = {"is_owned": "true", "is_published": "false", "page_size": 1}
        total = section(self._calls.ask("GET", "uploads", params).get("pagination")).get("total")
        return total if isinstance(total, int) else 0

    def get(self, upload_id: str) -> Upload:
        """Return the state of an upload."""
        return self._upload(self._calls.ask("GET", f"uploads/{quoted(upload_id)}", about=upload_id))

    def find(self, upload_id: str) -> Upload | None:
        """Return the state of an upload, None if there is none of this id."""
        try:
            return self.get(upload_id)
        except PublishError as error:
            if status_of(error) == 404:
                return None
            raise

    def create(self, name: str) -> str:
        """Make an upload without files; return its id.

        This is also how NOMAD is asked whether the user may have one more upload. If the
        connection breaks before the answer, the new upload is looked for by its name.
        """
        before = {upload.upload_id for upload in self.uploads(name=name)}
        attempts = 2
        while True:
            attempts -= 1
            try:
                answer = self._calls.ask("POST", "uploads", {"upload_name": name}, once=True)
                return self._upload(answer).upload_id
            except SourceError:
                for upload in self.uploads(name=name):
                    if upload.upload_id not in before:
                        return upload.upload_id
                if not attempts:
                    raise

    def send(
        self,
        upload_id: str,
        stream: Iterable[bytes],
        *,
        n_bytes: int | None = None,
        proof: str = "",
    ) -> Upload:
        """Send a zip file into an upload, where it is unpacked; return before it is processed.

        If the connection breaks, it is sent again from the start, unless it had arrived.

        Args:
            upload_id: an upload that is not published.
            stream: the pieces of a zip file; iterated over once per attempt.
            n_bytes: length of the stream; without it the stream is sent in chunks.
            proof: path of a file in the zip file; if the upload has it, the zip file has arrived.
        """
        headers = {"Content-Type": "application/zip"}
        if n_bytes is not None:
            headers["Content-Length"] = str(n_bytes)
        path, params = f"uploads/{quoted(upload_id)}/raw/", {"file_name": "upload.zip"}
        pause = FIRST_POLL
        for left in range(self._attempts - 1, -1, -1):
            try:
                answer = self._blocked(
                    upload_id,
                    lambda: self._calls.ask(
                        "PUT",
                        path,
                        params,
                        stream=stream,
                        headers=headers,
                        about=upload_id,
                        once=True,
                    ),
                )
                return self._upload(answer)
            except SourceError:
                if not left:
                    raise
            except NomadRefusalError as error:
                if not left or not is_cut(error):
                    raise
            self.clock.sleep(pause)
            pause = min(LONGEST_POLL, pause * POLL_GROWTH)
            upload = self.wait(upload_id)
            if proof and self.size_of(upload_id, proof) is not None:
                return upload
        raise AssertionError("unreachable")

    def upload(self, stream: Iterable[bytes], *, name: str, n_bytes: int | None = None) -> str:
        """Make an upload and send a zip file into it; return its id; processing goes on."""
        upload_id = self.create(name)
        self.send(upload_id, stream, n_bytes=n_bytes)
        return upload_id

    def process(self, upload_id: str) -> Upload:
        """Let NOMAD process the files of an upload again."""
        path = f"uploads/{quoted(upload_id)}/action/process"
        ask = lambda: self._calls.ask("POST", path, about=upload_id)  # noqa: E731
        return self._upload(self._blocked(upload_id, ask))

    def wait(self, upload_id: str, *, deadline: float = 3600.0, tell: Tell | None = None) -> Upload:
        """Return the upload when no process works on it; its status says how that went.

        Args:
            upload_id: which.
            deadline: seconds to wait at most.
            tell: called with each state.

        Raises:
            PublishError: NOMAD is not done in time.
        """
        end = self.clock.monotonic() + deadline
        pause = FIRST_POLL
        while True:
            upload = self.get(upload_id)
            if tell is not None:
                tell(upload)
            if not upload.is_running:
                return upload
            left = end - self.clock.monotonic()
            if left <= 0:
                raise PublishError(
                    f"upload {upload_id}: NOMAD still works on it after {deadline:g} s "
                    f"({upload.status}: {upload.message or upload.process or 'no message'}); it "
                    f"goes on without us: `epitaxy nomad wait {upload_id}` waits longer"
                )
            self.clock.sleep(min(pause, max(left, 0.01)))
            pause = min(LONGEST_POLL, pause * POLL_GROWTH)

    def entries(self, upload_id: str) -> Iterator[UploadEntry]:
        """Yield the entries of an upload with the errors of their processing."""
        params = {"order_by": "mainfile"}
        for item in self._calls.pages(
            f"uploads/{quoted(upload_id)}/entries", params, about=upload_id
        ):
            yield read_entry(item)

    def upload_of(self, entry_id: str) -> tuple[str, str]:
        """Return the id of the upload that an entry is in, and its main file."""
        answer = self._calls.ask("GET", f"entries/{quoted(entry_id)}", about=entry_id)
        found = section(section(answer).get("data"))
        if not found.get("upload_id") or not found.get("mainfile"):
            raise SourceError(f"entry {entry_id}: NOMAD does not say which upload it is in")
        return str(found["upload_id"]), str(found["mainfile"])

    def delete(self, upload_id: str, *, deadline: float = PATIENCE) -> None:
        """Delete an upload that is not published; return when it is gone.

        Raises:
            PublishError: it is published, there is none, or it is still there in the end.
        """
        path, params = f"uploads/{quoted(upload_id)}", {"wait_for_processing": "false"}
        ask = lambda: self._calls.ask("DELETE", path, params, about=upload_id)  # noqa: E731
        end, pause = self.clock.monotonic() + deadline, FIRST_POLL
        self.get(upload_id)  # raises if there is none
        try:
            self._blocked(upload_id, ask)
        except PublishError as error:
            if status_of(error) != 404:  # an answer was lost on the way, and the upload is gone
                raise
        while (left := self.find(upload_id)) is not None:
            if left.status == "FAILURE" and left.process.startswith("delete"):
                raise PublishError(f"upload {upload_id} was not deleted: {left.said}")
            if self.clock.monotonic() > end:
                raise PublishError(f"upload {upload_id} is still there after {deadline:g} s")
            self.clock.sleep(pause)
            pause = min(LONGEST_POLL, pause * POLL_GROWTH)

    # --- files ---

    def files(self, upload_id: str, folder: str = "") -> Iterator[RemoteFile]:
        """Yield the files of an upload, or of one folder of it, and of the folders in it."""
        for item in self.listing(upload_id, folder):
            if isinstance(item, RemoteFile):
                yield item
            else:
                yield from self.files(upload_id, item)

    def listing(self, upload_id: str, folder: str = "") -> Iterator[RemoteFile | str]:
        """Yield what one folder of an upload holds: files, and the paths of folders."""
        return listing(self._calls, upload_id, folder)

    def size_of(self, upload_id: str, path: str) -> int | None:
        """Return the size of a file of an upload, None if there is no such file."""
        return size_of(self._calls, upload_id, path)

    def fetch(self, upload_id: str, path: str, file: Path, *, n_bytes: int) -> None:
        """Get one file of an upload to disk, going on where an earlier attempt broke off.

        Args:
            upload_id: which upload.
            path: in the upload.
            file: where to; appears when it is complete.
            n_bytes: its size, as `files` gives it.

        Raises:
            SourceError: the connection breaks again and again without bringing anything.
        """
        fetch(self._calls, upload_id, path, file, n_bytes=n_bytes, sleep=self.clock.sleep)

    # --- metadata, datasets, publication ---

    def edit(
        self,
        upload_id: str,
        metadata: Mapping[str, Any],
        *,
        verify_only: bool = False,
        deadline: float = PATIENCE,
    ) -> Upload:
        """Set metadata of an upload and all its entries; return when it is done.

        Args:
            upload_id: an upload that is not published.
            metadata: any of upload_name, comment, references, coauthors, reviewers, datasets (ids
                or names), embargo_length, and what else NOMAD lets users edit.
            verify_only: only ask whether NOMAD would do it.
            deadline: seconds to wait at most.

        Raises:
            PublishError: NOMAD refuses a field; the message names it.
        """
        body = {"metadata": dict(metadata), "verify_only": verify_only}
        path, params = f"uploads/{quoted(upload_id)}/edit", {"wait_for_processing": "false"}
        ask = lambda: self._calls.ask("POST", path, params, body=body, about=upload_id)  # noqa: E731
        answer = self._upload(self._blocked(upload_id, ask))
        if verify_only:
            return answer
        done = self.wait(upload_id, deadline=deadline)
        if done.status == "FAILURE":
            raise PublishError(f"upload {upload_id}: its metadata were not set: {done.said}")
        return done

    def dataset(self, name: str, *, user_id: str = "") -> RemoteDataset | None:
        """Return the dataset of this name (of this user), None if there is none."""
        params = {"dataset_name": name, "user_id": user_id or None}
        for item in self._calls.pages("datasets", params):
            return read_dataset(item)
        return None

    def create_dataset(self, name: str) -> RemoteDataset:
        """Make an empty dataset.

        Raises:
            PublishError: the user has one of this name.
        """
        body = {"dataset_name": name, "dataset_type": "owned"}
        return read_dataset(section(self._calls.ask("POST", "datasets", body=body)).get("data"))

    def assign_doi(self, dataset_id: str) -> str:
        """Give a dataset a DOI and return it; a dataset that has one keeps it.

        Raises:
            PublishError: NOMAD has no DOI service, or the dataset is empty or has unpublished
                entries.
        """
        path = f"datasets/{quoted(dataset_id)}"
        found = read_dataset(section(self._calls.ask("GET", path)).get("data"))
        if not found.doi:
            with suppress(SourceError):  # the answer got lost: the dataset tells
                self._calls.ask("POST", f"{path}/action/doi", once=True)
            found = read_dataset(section(self._calls.ask("GET", path)).get("data"))
        if not found.doi:
            raise SourceError(
                f"dataset {found.name or dataset_id}: NOMAD gave it no DOI; try again"
            )
        return found.doi

    def publish(
        self, upload_id: str, *, embargo_months: int | None = None, deadline: float = 3600.0
    ) -> Upload:
        """Publish an upload, for good; return when it is done.

        Args:
            upload_id: its processing must have succeeded.
            embargo_months: 0 to 36: how long it stays hidden; None leaves what is set.
            deadline: seconds to wait at most.

        Raises:
            PublishError: NOMAD refuses, or the process fails.
        """
        params = {"embargo_length": embargo_months, "wait_for_processing": "false"}
        path = f"uploads/{quoted(upload_id)}/action/publish"
        ask = lambda: self._calls.ask("POST", path, params, about=upload_id)  # noqa: E731
        try:
            self._blocked(upload_id, ask)
        except PublishError:
            # An answer that was lost on the way: the second request finds the upload published.
            if not self.get(upload_id).is_published:
                raise
        done = self.wait(upload_id, deadline=deadline)
        if done.status == "FAILURE" or not done.is_published:
            raise PublishError(f"upload {upload_id} was not published: {done.said}")
        return done

    def send_on(
        self,
        upload_id: str,
        *,
        token: str = "",
        embargo_months: int | None = None,
        deadline: float = 3600.0,
    ) -> Upload:
        """Let an Oasis send a published upload to the central NOMAD; return when it is done.

        Args:
            upload_id: it must be published on the Oasis.
            token: of a user of the central NOMAD; "" for the Oasis' own account there, which only
                an administrator of the Oasis may use.
            embargo_months: 0 to 36: how long it stays hidden there; None as here.
            deadline: seconds to wait at most.

        Raises:
            PublishError: one of the two refuses, or the process fails.
        """
        action, body = "publish", None
        params: dict[str, Any] = {"embargo_length": embargo_months, "to_central_nomad": "true"}
        if token:
            self._calls.client.hide(token)
            action, params = "transfer", {}
            body = {"auth_token": token, "embargo_length": embargo_months}
        path = f"uploads/{quoted(upload_id)}/action/{action}"
        before = self.get(upload_id).published_to

        def ask() -> Any:
            return self._calls.ask("POST", path, params, body=body, about=upload_id, once=True)

        # NOMAD answers when all is sent, which may take longer than we listen: the upload tells.
        with suppress(SourceError):
            self._blocked(upload_id, ask)
        done = self.wait(upload_id, deadline=deadline)
        if done.status == "FAILURE" or done.published_to == before:
            raise PublishError(f"upload {upload_id} did not reach the central NOMAD: {done.said}")
        return done

    def _blocked(self, upload_id: str, ask: Callable[[], Any]) -> Any:
        """Ask until no other process of the upload is in the way."""
        end, pause = self.clock.monotonic() + PATIENCE, FIRST_POLL
        while True:
            try:
                return ask()
            except PublishError as error:
                left = end - self.clock.monotonic()
                if not is_blocked(error) or left <= 0:
                    raise
            self.clock.sleep(pause)
            pause = min(LONGEST_POLL, pause * POLL_GROWTH)
            self.wait(upload_id, deadline=left)

    def _upload(self, answer: Any) -> Upload:
        return read_upload(section(answer).get("data"))
