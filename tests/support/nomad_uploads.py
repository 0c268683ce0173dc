"""The side of NOMAD that takes uploads: a service that behaves as nomad-lab 2.0.0 does.

Statuses and words are those of ``nomad/app/v1/routers/uploads`` of nomad-lab 2.0.0 (Apache-2.0);
`Checked` compares every request and reply with its OpenAPI description.
"""

from __future__ import annotations

import functools
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, quote

from loopback import Reply, Request
from nomad_openapi import EXTRACT

TOKEN = "eyJhbGciOi.secret-token.of-a-user"
CENTRAL_TOKEN = "central-secret-of-a-user"
PREFIX = "/nomad/api/v1"
USER = {"user_id": "68878af7-6845-46c0-b2c1-250d4d8eb470", "name": "Ada", "is_admin": False}
OTHER = "11111111-6845-46c0-b2c1-250d4d8eb470"
TIME = "2026-11-21T16:00:00+00:00"
EDITABLE = [
    "upload_name",
    "comment",
    "description",
    "references",
    "coauthors",
    "reviewers",
    "datasets",
    "embargo_length",
]


class RefusalError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, detail: Any):
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass
class Held:
    """An upload as the service holds it."""

    upload_id: str
    name: str | None
    main_author: str = USER["user_id"]
    files: dict[str, bytes] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    status: str = "READY"
    process: str | None = None
    message: str | None = None
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    polls_left: int = 0
    after: Callable[[], None] | None = None
    published: bool = False
    embargo: int = 0
    published_to: list[str] = field(default_factory=list)


class NomadUploads:
    """Keeps uploads, entries and datasets in memory.

    Attributes that tests set:
        limit: unpublished uploads per user.
        knows_epitaxy: whether epitaxy's plugin is installed.
        n_polls: how often a process is seen running.
        fail_processing: error of the next processing; "" for none.
        fail_entries: error of each entry; "" for none.
        scopes: what the token may do; None for everything.
        never_done: a process that never ends.
        has_doi: whether there is a DOI service.
    """

    def __init__(self, *, limit: int = 10, knows_epitaxy: bool = True) -> None:
        self.limit, self.knows_epitaxy = limit, knows_epitaxy
        self.n_polls = 2
        self.fail_processing = self.fail_entries = ""
        self.n_made = 0
        self.scopes: set[str] | None = None
        self.never_done = False
        self.has_doi = self.is_oasis = self.is_admin = False
        self.uploads: dict[str, Held] = {}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.edits: list[dict[str, Any]] = []
        self.n_bodies = 0

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        path = request.path.removeprefix(PREFIX)
        if path != "/info" and token != TOKEN:
            detail = "The given token is invalid or has expired." if token else "Not authenticated."
            return Reply.of({"detail": detail}, status=401)
        try:
            for method, pattern, act in self._routes():
                found = re.fullmatch(pattern, path)
                if found and method == request.method:
                    answer = act(request, *found.groups())
                    return answer if isinstance(answer, Reply) else Reply.of(answer)
        except RefusalError as refusal:
            return Reply.of({"detail": refusal.detail}, status=refusal.status)
        return Reply.of({"detail": "Not Found"}, status=404)

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        upload = r"/uploads/([^/]+)"
        return [
            ("GET", "/users/me", lambda request: {**USER, "is_admin": self.is_admin}),
            ("GET", "/info", self._info),
            ("GET", "/uploads", self._list),
            ("POST", "/uploads", self._create),
            ("GET", upload, self._show),
            ("DELETE", upload, self._delete),
            ("GET", f"{upload}/entries", self._entries),
            ("POST", f"{upload}/edit", self._edit),
            ("GET", f"{upload}/rawdir/(.*)", self._rawdir),
            ("GET", f"{upload}/raw/(.*)", self._raw),
            ("PUT", f"{upload}/raw/(.*)", self._put),
            ("POST", f"{upload}/action/publish", self._publish),
            ("POST", f"{upload}/action/process", self._process),
            ("POST", f"{upload}/action/transfer", self._transfer),
            ("GET", "/entries/([^/]+)", self._entry),
            ("GET", "/datasets", self._datasets),
            ("POST", "/datasets", self._make_dataset),
            ("GET", "/datasets/([^/]+)", self._dataset),
            ("POST", "/datasets/([^/]+)/action/doi", self._doi),
        ]

    # --- what there is ---

    def _info(self, request: Request) -> dict[str, Any]:
        names = ["archive", "vasp", *(["epitaxy_nomad.oasis:parser"] * self.knows_epitaxy)]
        return {
            "parsers": names,
            "metainfo_packages": [],
            "codes": [],
            "normalizers": [],
            "version": "2.0.0",
            "deployment": "oasis" if self.is_oasis else "prod",
            "oasis": self.is_oasis,
        }

    def _list(self, request: Request) -> dict[str, Any]:
        given = {name: values[0] for name, values in parse_qs(request.query).items()}
        found = [u for u in self.uploads.values() if u.main_author == USER["user_id"]]
        if "upload_name" in given:
            found = [u for u in found if u.name == given["upload_name"]]
        if "is_published" in given:
            found = [u for u in found if u.published == (given["is_published"] == "true")]
        if given.get("order") == "desc":
            found.reverse()
        return {
            "query": {},
            **self._page(given, [self._data(u) for u in found]),
        }

    def _page(self, given: dict[str, str], found: list[Any]) -> dict[str, Any]:
        size = int(given.get("page_size", 10))
        start = int(given.get("page_after_value", -1)) + 1
        pagination: dict[str, Any] = {"page_size": size, "total": len(found)}
        if start + size < len(found):
            pagination["next_page_after_value"] = str(start + size - 1)
        return {"pagination": pagination, "data": found[start : start + size]}

    def _show(self, request: Request, upload_id: str) -> dict[str, Any]:
        upload = self._held(upload_id)
        answer = self._answer(upload)
        self._advance(upload)
        return answer

    def _answer(self, upload: Held) -> dict[str, Any]:
        return {"upload_id": upload.upload_id, "data": self._data(upload)}

    def _data(self, upload: Held) -> dict[str, Any]:
        """Return what NOMAD says of an upload; what is not set is left out."""
        said: dict[str, Any] = {
            "upload_id": upload.upload_id,
            "upload_name": upload.name,
            "upload_create_time": TIME,
            "main_author": upload.main_author,
            "process_running": upload.polls_left > 0,
            "process_status": "RUNNING" if upload.polls_left else upload.status,
            "current_process": upload.process,
            "last_status_message": upload.message,
            "errors": upload.errors,
            "warnings": upload.warnings,
            "published": upload.published,
            "published_to": upload.published_to or None,
            "with_embargo": upload.embargo > 0,
            "embargo_length": upload.embargo,
            "license": "CC BY 4.0",
            "entries": len(upload.entries),
        }
        return {name: value for name, value in said.items() if value is not None}

    def _held(self, upload_id: str, *, to_change: bool = False) -> Held:
        if upload_id not in self.uploads:
            raise RefusalError(404, "The specified upload_id was not found.")
        upload = self.uploads[upload_id]
        if upload.main_author != USER["user_id"]:
            raise RefusalError(403, "You do not have access to the specified upload.")
        if to_change and upload.published:
            raise RefusalError(400, "Upload is already published, operation not possible.")
        return upload

    # --- uploads ---

    def _create(self, request: Request) -> dict[str, Any]:
        self._may("uploads:write")
        n = sum(not u.published for u in self.uploads.values())
        if not self.is_admin and n >= self.limit:
            raise RefusalError(400, "Limit of unpublished uploads exceeded for user.")
        digest = sha256(str(self.n_made).encode()).hexdigest()[:12]
        upload_id = f"upload-{self.n_made}-{digest}"  # that of a deleted one never comes again
        self.n_made += 1
        upload = Held(upload_id, request.params.get("upload_name"))
        self.uploads[upload_id] = upload
        if request.body:
            raise NotImplementedError("the publisher makes uploads first, then sends files")
        return self._answer(upload)

    def _may(self, scope: str) -> None:
        if self.scopes is not None and scope not in self.scopes:
            raise RefusalError(403, f"Missing scopes: {scope}")

    def _put(self, request: Request, upload_id: str, folder: str) -> dict[str, Any]:
        self._may("uploads:write")
        upload = self._held(upload_id, to_change=True)
        if upload.polls_left:
            raise RefusalError(400, "The upload is currently blocked by another process.")
        if not request.body:
            raise RefusalError(
                400,
                "Either an upload file or the query parameters for moving/copying a file should be "
                "provided.",
            )
        try:
            with zipfile.ZipFile(io.BytesIO(request.body)) as packed:
                assert packed.testzip() is None
                files = {name: packed.read(name) for name in packed.namelist()}
        except zipfile.BadZipFile:
            raise RefusalError(
                400, "Cannot extract file. Bad file format or file extension?"
            ) from None
        self.n_bodies += 1
        self._start(upload, "process_upload", lambda: self._unpack(upload, files))
        return self._answer(upload)

    def _start(self, upload: Held, process: str, after: Callable[[], None]) -> None:
        upload.process, upload.message = process, "Matching"
        upload.errors, upload.warnings = [], []
        upload.polls_left, upload.after = self.n_polls, after
        if not self.n_polls:
            self._finish(upload)

    def _advance(self, upload: Held) -> None:
        if upload.polls_left and not self.never_done:
            upload.polls_left -= 1
            if not upload.polls_left:
                self._finish(upload)

    def _finish(self, upload: Held) -> None:
        upload.status, upload.message = "SUCCESS", f"Process {upload.process} completed"
        after, upload.after = upload.after, None
        if after is not None:
            after()

    def _unpack(self, upload: Held, files: dict[str, bytes]) -> None:
        upload.files |= files
        if self.fail_processing:
            upload.status, upload.errors = "FAILURE", [self.fail_processing]
            upload.message = "Process process_upload failed"
            self.fail_processing = ""
            return
        if "nomad.json" in upload.files and not upload.entries:
            metadata = json.loads(upload.files["nomad.json"])
            upload.name = metadata.get("upload_name", upload.name)
            upload.metadata |= metadata
        upload.entries = []
        for name in sorted(upload.files):
            parser = self._parser(name)
            if parser:
                entry_id = sha256(f"{upload.upload_id}/{name}".encode()).hexdigest()[:28]
                entry = {
                    "entry_id": entry_id,
                    "entry_create_time": TIME,
                    "mainfile": name,
                    "upload_id": upload.upload_id,
                    "parser_name": parser,
                    "process_running": False,
                    "process_status": "FAILURE" if self.fail_entries else "SUCCESS",
                    "errors": [self.fail_entries] if self.fail_entries else [],
                    "warnings": [],
                    "datasets": list(upload.metadata.get("datasets", ())),
                }
                upload.entries.append(entry)

    def _parser(self, name: str) -> str:
        if name.endswith(".archive.json"):
            return "parsers/archive"
        is_ours = name.count("/") == 1 and name.endswith("/manifest.json")
        return "parsers/epitaxy" if is_ours and self.knows_epitaxy else ""

    def _process(self, request: Request, upload_id: str) -> dict[str, Any]:
        upload = self._held(upload_id, to_change=True)
        self._unblocked(upload)
        self._start(upload, "process_upload", lambda: self._unpack(upload, {}))
        return self._answer(upload)

    def _unblocked(self, upload: Held) -> None:
        if upload.polls_left:
            raise RefusalError(
                400, "The upload is currently being processed, operation not allowed."
            )

    def _delete(self, request: Request, upload_id: str) -> dict[str, Any]:
        upload = self._held(upload_id)
        if upload.published and not self.is_admin:
            raise RefusalError(
                403, "Upload is already published, only admins can perform this operation."
            )
        if upload.polls_left:
            raise RefusalError(400, "The upload is still being processed.")
        self._start(upload, "delete_upload", lambda: self.uploads.pop(upload_id) and None)
        return self._answer(upload)

    def _entries(self, request: Request, upload_id: str) -> dict[str, Any]:
        upload = self._held(upload_id)
        shown = [{k: v for k, v in e.items() if k != "datasets"} for e in upload.entries]
        given = {name: values[0] for name, values in parse_qs(request.query).items()}
        return self._page(given, shown)

    def _entry(self, request: Request, entry_id: str) -> dict[str, Any]:
        for upload in self.uploads.values():
            for entry in upload.entries:
                if entry["entry_id"] == entry_id:
                    return {"entry_id": entry_id, "required": {}, "data": entry}
        raise RefusalError(
            404, "The entry with the given id does not exist or is not visible to you."
        )

    # --- files ---

    def _rawdir(self, request: Request, upload_id: str, path: str) -> dict[str, Any]:
        upload = self._held(upload_id)
        path = path.strip("/")
        head = {"path": path, "access": "public" if upload.published else "unpublished"}
        name = path.rpartition("/")[2]
        if path in upload.files:
            size = len(upload.files[path])
            return {**head, "file_metadata": {"name": name, "size": size}}
        below = [f[len(path) :].lstrip("/") for f in upload.files if f.startswith(f"{path}/")]
        below = list(upload.files) if not path else below
        if not below and path:
            raise RefusalError(404, "Not found. Invalid path?")
        parts: dict[str, Any] = {}
        for rest in sorted(below):
            first, slash, _ = rest.partition("/")
            whole = f"{path}/{first}".lstrip("/")
            size = len(upload.files[whole]) if not slash else 0
            parts[first] = {"name": first, "size": size, "is_file": not slash}
        given = {key: values[0] for key, values in parse_qs(request.query).items()}
        page = self._page(given, list(parts.values()))
        directory = {"name": name, "size": 0, "content": page.pop("data")}
        return {**head, "directory_metadata": directory, **page}

    def _raw(self, request: Request, upload_id: str, path: str) -> Reply:
        upload = self._held(upload_id)
        if path not in upload.files:
            raise RefusalError(404, "Not found. Invalid path?")
        body = upload.files[path][int(request.params.get("offset", 0)) :]
        return Reply(body, headers={"Content-Type": "application/octet-stream"})

    # --- metadata ---

    def _edit(self, request: Request, upload_id: str) -> dict[str, Any]:
        self._may("uploads:write")
        upload, body = self._held(upload_id), request.json
        metadata = body.get("metadata") or {}
        wrong = [
            {"loc": ["metadata", name], "msg": "Unknown quantity", "type": "value_error"}
            for name in metadata
            if name not in EDITABLE
        ]
        wrong += [
            {"loc": ["metadata", "coauthors"], "msg": f"User reference not found: `{who}`"}
            | {"type": "value_error"}
            for who in _listed(metadata.get("coauthors"))
            if who not in ("grace", OTHER)
        ]
        wrong += [
            {"loc": ["metadata", "references"], "msg": "Not a valid URL"} | {"type": "value_error"}
            for address in _listed(metadata.get("references"))
            if "://" not in address
        ]
        wrong += [
            {"loc": ["metadata", "datasets"], "msg": f"Dataset reference not found: `{name}`"}
            | {"type": "value_error"}
            for name in _listed(metadata.get("datasets"))
            if name not in self.datasets
        ]
        if upload.published and set(metadata) - {"datasets"}:
            detail = "Only embargo_length and datasets can be edited on published uploads"
            wrong.append({"loc": ["metadata"], "msg": detail, "type": "value_error"})
        if wrong:
            raise RefusalError(422, wrong)
        self.edits.append(body)
        if body.get("verify_only"):
            return self._answer(upload)
        if upload.polls_left:
            raise RefusalError(400, f"Upload {upload_id} is blocked by another process")

        def change() -> None:
            for name, value in metadata.items():
                if name == "upload_name":
                    upload.name = value
                if name == "datasets":
                    for entry in upload.entries:
                        entry["datasets"] = sorted({*entry["datasets"], *_listed(value)})
                else:
                    upload.metadata[name] = value

        self._start(upload, "edit_upload_metadata", change)
        return self._answer(upload)

    def _publish(self, request: Request, upload_id: str) -> dict[str, Any]:
        self._may("uploads:publish")
        upload = self._held(upload_id)
        to_central = request.params.get("to_central_nomad") == "true"
        embargo = int(request.params.get("embargo_length", upload.embargo))
        if upload.published and not self.is_admin and not to_central:
            raise RefusalError(400, "Upload already published.")
        self._unblocked(upload)
        if upload.status == "FAILURE":
            raise RefusalError(400, "Cannot publish an upload that failed processing.")
        if not upload.entries:
            raise RefusalError(400, "Cannot publish an upload without any resulting entries.")
        if not 0 <= embargo <= 36:
            raise RefusalError(400, "Invalid embargo_length. Must be between 0 and 36 months.")
        if to_central:
            if not self.is_oasis:
                raise RefusalError(
                    400, "Must be on an OASIS to publish to the central NOMAD repository."
                )
            if not upload.published:
                raise RefusalError(400, "The upload must be published on the OASIS first.")
            if not self.is_admin:
                raise RefusalError(403, "Only admin of OASIS can publish to the central NOMAD.")

        def done() -> None:
            if to_central:
                upload.published_to.append("https://nomad-lab.eu/prod/v1/api")
            upload.published, upload.embargo = True, embargo

        self._start(upload, "publish_externally" if to_central else "publish_upload", done)
        return self._answer(upload)

    def _transfer(self, request: Request, upload_id: str) -> dict[str, Any]:
        self._may("uploads:export")
        upload = self._held(upload_id)
        if not upload.published:
            raise RefusalError(400, "The upload should be published first.")
        self._unblocked(upload)

        def done() -> None:
            if request.json["auth_token"] == CENTRAL_TOKEN:
                upload.published_to.append("https://nomad-lab.eu/prod/v1/api")
            else:
                said = f"Error message from external deployment: {request.json['auth_token']} bad"
                upload.status, upload.errors = "FAILURE", [said]

        self._start(upload, "_publish_externally", done)
        return self._answer(upload)

    # --- datasets ---

    def _datasets(self, request: Request) -> dict[str, Any]:
        given = {key: values[0] for key, values in parse_qs(request.query).items()}
        found = [
            d
            for d in self.datasets.values()
            if d["dataset_name"] == given.get("dataset_name", d["dataset_name"])
            and d["user_id"] == given.get("user_id", d["user_id"])
        ]
        return self._page(given, found)

    def _make_dataset(self, request: Request) -> dict[str, Any]:
        name = request.json["dataset_name"]
        if any(d["dataset_name"] == name for d in self.datasets.values()):
            raise RefusalError(
                400,
                "The chosen dataset name is already taken. Datesets of the same user must have a "
                "unique name.",
            )
        dataset = {
            "dataset_id": f"dataset-{len(self.datasets)}",
            "dataset_name": name,
            "user_id": USER["user_id"],
            "dataset_type": "owned",
        }
        self.datasets[dataset["dataset_id"]] = dataset
        return {"dataset_id": dataset["dataset_id"], "data": dataset}

    def _dataset(self, request: Request, dataset_id: str) -> dict[str, Any]:
        if dataset_id not in self.datasets:
            raise RefusalError(404, "The dataset with the given id does not exist.")
        return {"dataset_id": dataset_id, "data": self.datasets[dataset_id]}

    def _doi(self, request: Request, dataset_id: str) -> dict[str, Any]:
        if not self.has_doi:
            raise RefusalError(403, "The DataCite DOI service is not enabled on this deployment.")
        holding = [
            u
            for u in self.uploads.values()
            if any(dataset_id in entry["datasets"] for entry in u.entries)
        ]
        if not holding or not all(u.published for u in holding):
            raise RefusalError(
                400, "The dataset has unpublished contents. No DOI can be assigned at the moment."
            )
        self.datasets[dataset_id]["doi"] = "10.17172/nomad/2026.11.21-1"
        return self._dataset(request, dataset_id)


def _listed(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = value.get("add") or value.get("set")
    return [value] if isinstance(value, str) else list(value or ())


@functools.cache
def _description() -> Any:
    from openapi_core import OpenAPI

    description = json.loads(EXTRACT.read_text())
    for methods in description["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)  # OAuth2 is not openapi-core's; we check tokens
            for parameter in operation.get("parameters", ()):
                kinds = parameter["schema"].get("anyOf", ())  # "or null" hides lists from it
                for kind in kinds:
                    if kind.get("type") != "null" and len(kinds) == 2:
                        parameter["schema"] = kind
    return OpenAPI.from_dict(description)


class Checked:
    """Compares each request and reply with NOMAD's description; keeps what does not fit.

    Use as a context manager; leaving it raises AssertionError if anything did not fit.
    """

    def __init__(self, respond: Callable[[Request], Reply]):
        self.respond = respond
        self.problems: list[str] = []
        self.n_checked = 0
        self._api = _description()

    def __enter__(self) -> Checked:
        """Return the checker, to be given to `Loopback`."""
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Say what did not fit."""
        if kind is None:
            assert not self.problems, "\n".join(self.problems)
            assert self.n_checked

    def __call__(self, request: Request) -> Reply:
        """Answer, and compare."""
        reply = self.respond(request)
        try:
            self._compare(request, reply)
        except Exception as error:
            self.problems.append(
                f"{request.method} {request.path}?{request.query} -> {reply.status}: "
                f"{type(error).__name__}: {error} / {error.__cause__}"
            )
        self.n_checked += 1
        return reply

    def _compare(self, request: Request, reply: Reply) -> None:
        from openapi_core.testing import MockRequest, MockResponse
        from werkzeug.datastructures import ImmutableMultiDict

        assert request.path.startswith(PREFIX), request.path
        path = request.path.removeprefix(PREFIX)
        # The description has no way to say that the last parameter may hold slashes, or nothing.
        if found := re.fullmatch(r"(/uploads/[^/]+/raw(?:dir)?)/(.*)", path):
            path = f"{found[1]}/{quote(found[2] or '-', safe='')}"
        kind = request.headers.get("content-type", "application/json")
        pairs = [
            (name, value) for name, values in parse_qs(request.query).items() for value in values
        ]
        is_streamed = kind == "application/zip"  # described in words only: "streaming data"
        asked = MockRequest(
            "http://nomad",
            request.method.lower(),
            path,
            args=ImmutableMultiDict(pairs),
            headers=dict(request.headers),
            data=None if is_streamed or not request.body else request.body,
            content_type="multipart/form-data" if is_streamed else kind,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "to_central_nomad parameter is deprecated")
            self._api.validate_request(asked)
        known = self._operation(request.method, path)
        unknown = {name for name, _ in pairs} - known
        assert not unknown, f"NOMAD has no parameters {unknown}"
        answered = MockResponse(
            reply.body,
            reply.status,
            content_type=reply.headers.get("Content-Type", "application/json"),
        )
        described = reply.status == 200 or str(reply.status) in self._statuses
        if described and reply.headers.get("Content-Type") == "application/json":
            self._api.validate_response(asked, answered)

    def _operation(self, method: str, path: str) -> set[str]:
        for pattern, methods in self._api.spec.read_value()["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
                operation = methods[method.lower()]
                self._statuses = set(operation["responses"])
                return {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"}
        raise AssertionError(f"NOMAD has no {method} {path}")
