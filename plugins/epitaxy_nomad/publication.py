"""One publication, step by step; every step first looks whether it is done already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from epitaxy.errors import PublishError, SourceError
from epitaxy.protocols import Receipt
from epitaxy.receipts import read_receipts
from epitaxy_nomad.packing import Plan
from epitaxy_nomad.records import Deployment, RemoteDataset, Upload, UploadEntry, User
from epitaxy_nomad.service import Service

PUBLISHER = "nomad"
_SHOWN = 5  # errors of one upload in a message


class Publication:
    """Brings a NOMAD to the state that a plan describes.

    Args:
        service: where.
        plan: what.
        deadline: seconds to wait for each of NOMAD's processes.
        tell: called with a line for people at each step.
        central_token: of the central NOMAD; "" for the Oasis' own account there.
    """

    def __init__(
        self,
        service: Service,
        plan: Plan,
        *,
        deadline: float,
        tell: Callable[[str], None],
        central_token: str = "",
    ):
        self._service = service
        self._plan = plan
        self._deadline = deadline
        self._tell = tell
        self._central_token = central_token
        self._started = self._now()
        self._known: Mapping[str, Any] = {}  # facts of the receipt by which the upload was found
        self._said = ""

    def run(self) -> Receipt:
        """Do what is missing and return the receipt.

        Raises:
            PublishError: NOMAD refuses or fails; `receipt` tells how far it got.
            SourceError: NOMAD cannot be reached.
        """
        plan, service = self._plan, self._service
        user = service.whoami()
        deployment = service.deployment()
        upload, found_by = self._earlier()
        if upload is None:
            upload = self._create()
        else:
            self._tell(f"upload {upload.upload_id} has it already ({found_by})")
        upload = self._wait(upload)
        dataset = self._dataset(user) if plan.dataset else None
        is_sent = service.size_of(upload.upload_id, plan.sums) is not None
        if not is_sent:
            upload = self._send(upload, deployment, dataset, is_new=not found_by)
        elif upload.status == "FAILURE" and not upload.is_published:
            self._tell(f"{upload.said}; NOMAD processes it again")
            service.process(upload.upload_id)
            upload = self._wait(upload)
        elif upload.status == "FAILURE":  # of a later process, such as being sent on
            self._tell(f"it is published, but its last process failed: {upload.said}")
        entries = tuple(service.entries(upload.upload_id))
        self._stop_on_failure(upload, entries, dataset, found_by)
        upload = self._edit(upload, dataset, has_news=bool(found_by))
        if plan.publish and not upload.is_published:
            self._stop_before_publishing(upload, entries, dataset, found_by)
            self._tell("publishing")
            upload = service.publish(
                upload.upload_id, embargo_months=plan.embargo_months, deadline=self._deadline
            )
        elif plan.publish:
            self._tell("it is published already")
        if plan.to_central and not upload.published_to:
            self._tell("sending it to the central NOMAD")
            upload = service.send_on(
                upload.upload_id,
                token=self._central_token,
                embargo_months=plan.embargo_months,
                deadline=self._deadline,
            )
        if plan.doi and dataset is not None and not dataset.doi:
            doi = service.assign_doi(dataset.dataset_id)
            dataset = RemoteDataset(dataset.dataset_id, dataset.name, dataset.user_id, doi)
        return self._receipt(upload, entries, dataset, found_by)

    # --- what is there ---

    def _earlier(self) -> tuple[Upload | None, str]:
        """Return the upload that has this content, and how it was found."""
        service, plan = self._service, self._plan
        for receipt in reversed(read_receipts(plan.content.directory)):
            facts = receipt.facts or {}
            if (
                receipt.publisher == PUBLISHER
                and facts.get("host") == service.host
                and facts.get("digest") == plan.content.digest
                and (upload := service.find(receipt.identifier)) is not None
            ):
                self._known = facts
                return upload, "says a receipt"
        for upload in service.uploads():
            if plan.folder in upload.name:
                return upload, "says its name"
        return None, ""

    def _create(self) -> Upload:
        try:
            upload_id = self._service.create(self._plan.name)
        except PublishError as error:
            if "limit" not in str(error).lower():
                raise
            n = self._service.count_unpublished()
            raise PublishError(f"you have {n:,} unpublished uploads: {error}") from error
        self._tell(f"made upload {upload_id}")
        return self._service.get(upload_id)

    def _dataset(self, user: User) -> RemoteDataset:
        name = self._plan.dataset
        found = self._service.dataset(name, user_id=user.user_id)
        if found is None:
            try:
                found = self._service.create_dataset(name)
            except PublishError:  # made by the first of two attempts, whose answer was lost
                found = self._service.dataset(name, user_id=user.user_id)
                if found is None:
                    raise
            self._tell(f"made dataset {name!r}")
        return found

    # --- what is done ---

    def _send(
        self,
        upload: Upload,
        deployment: Deployment,
        dataset: RemoteDataset | None,
        *,
        is_new: bool,
    ) -> Upload:
        plan, service = self._plan, self._service
        if upload.is_published:
            raise PublishError(
                f"upload {upload.upload_id} is published and called {upload.name!r}, but does not "
                f"hold {plan.folder}: give this publication another upload_name"
            )
        datasets = [dataset.dataset_id] if dataset else []
        with_entry = plan.entry == "always" or (
            plan.entry == "auto" and not deployment.knows_epitaxy
        )
        stream = plan.stream(with_entry=with_entry, datasets=datasets)
        try:
            service.edit(upload.upload_id, plan.metadata(datasets), verify_only=True)
        except PublishError:
            if is_new:  # nothing was sent: leave no empty upload behind
                service.delete(upload.upload_id)
            raise
        size = f"{stream.n_bytes:,} bytes" if stream.n_bytes else "compressed"
        self._tell(f"sending {len(stream.members) + 1} files, {size}")
        try:
            service.send(upload.upload_id, stream, n_bytes=stream.n_bytes, proof=plan.sums)
        except SourceError as error:
            raise SourceError(
                f"{error}; upload {upload.upload_id} waits for the files: the same command goes on"
            ) from error
        return self._wait(upload)

    def _edit(self, upload: Upload, dataset: RemoteDataset | None, *, has_news: bool) -> Upload:
        """Set the metadata; of what is published only the dataset can change."""
        metadata = self._plan.metadata()
        if upload.is_published:
            if dataset is None:
                return upload
            metadata = {}
        if dataset is not None:
            metadata["datasets"] = {"add": [dataset.dataset_id]}
        return self._service.edit(upload.upload_id, metadata, deadline=self._deadline)

    def _wait(self, upload: Upload) -> Upload:
        def tell(state: Upload) -> None:
            line = f"{state.status}: {state.message or state.process}".strip(": ")
            if state.is_running and line != self._said:
                self._said = line
                self._tell(line)

        return self._service.wait(upload.upload_id, deadline=self._deadline, tell=tell)

    # --- what went wrong ---

    def _stop_on_failure(
        self,
        upload: Upload,
        entries: tuple[UploadEntry, ...],
        dataset: RemoteDataset | None,
        found_by: str,
    ) -> None:
        if upload.status == "FAILURE" and not upload.is_published:
            raise PublishError(
                f"upload {upload.upload_id}: NOMAD could not process it: "
                f"{upload.said}{_entry_errors(entries)}. After mending the cause: `epitaxy nomad "
                f"delete {upload.upload_id}`, and publish again",
                receipt=self._receipt(upload, entries, dataset, found_by),
            )

    def _stop_before_publishing(
        self,
        upload: Upload,
        entries: tuple[UploadEntry, ...],
        dataset: RemoteDataset | None,
        found_by: str,
    ) -> None:
        failed = [entry for entry in entries if entry.status == "FAILURE"]
        if failed:
            raise PublishError(
                f"upload {upload.upload_id}: not published, because {len(failed)} of "
                f"{len(entries)} entries failed{_entry_errors(entries)}",
                receipt=self._receipt(upload, entries, dataset, found_by),
            )
        if not entries:
            raise PublishError(
                f"upload {upload.upload_id}: not published, because NOMAD recognised no entry in "
                "it; use `entry: always`, or ask its administrator for the plugin of epitaxy",
                receipt=self._receipt(upload, entries, dataset, found_by),
            )

    # --- what is written down ---

    def _receipt(
        self,
        upload: Upload,
        entries: tuple[UploadEntry, ...],
        dataset: RemoteDataset | None,
        found_by: str,
    ) -> Receipt:
        content = self._plan.content
        facts: dict[str, Any] = {
            "host": self._service.host,
            "api": self._service.url,
            "digest": content.digest,
            "kind": content.kind,
            "n_files": len(content.files),
            "upload_name": upload.name,
            "folder": self._plan.folder,
            "status": upload.status,
            "published": upload.is_published,
            "embargo_months": upload.embargo_months if upload.is_published else None,
            "published_to": list(upload.published_to),
            "entries": [
                {"entry_id": e.entry_id, "mainfile": e.mainfile, "status": e.status}
                for e in entries
            ],
            "errors": [*upload.errors, *(text for e in entries for text in e.errors)],
            "warnings": [*upload.warnings, *(text for e in entries for text in e.warnings)],
            "found_earlier": bool(found_by),
            "started": self._started,
            "finished": self._now(),
        }
        if dataset is not None:
            facts["dataset"] = {
                "dataset_id": dataset.dataset_id,
                "name": dataset.name,
                "doi": dataset.doi,
            }
        elif "dataset" in self._known:
            facts["dataset"] = self._known["dataset"]
        gui = self._service.url.removesuffix("/api/v1")
        url = f"{gui}/gui/user/uploads/upload/id/{upload.upload_id}"
        return Receipt(PUBLISHER, upload.upload_id, url, facts)

    def _now(self) -> str:
        now = datetime.fromtimestamp(self._service.clock.now(), UTC)
        return now.isoformat(timespec="seconds")


def _entry_errors(entries: tuple[UploadEntry, ...]) -> str:
    wrong = [e for e in entries if e.errors or e.status == "FAILURE"]
    lines = [f"{e.mainfile}: {'; '.join(e.errors[:_SHOWN]) or e.status}" for e in wrong[:_SHOWN]]
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f" ({' | '.join(lines)}{more})" if lines else ""
