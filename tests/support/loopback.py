"""A real web server on 127.0.0.1 that speaks a database's protocol, with faults on demand."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from epitaxy.web import Clock


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def params(self) -> dict[str, str]:
        """First value of each query parameter."""
        return {k: v[0] for k, v in parse_qs(self.query, keep_blank_values=True).items()}

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the server answers."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = ""

    @classmethod
    def of(cls, value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
        """Make a reply of JSON."""
        head = {"Content-Type": "application/json", **(headers or {})}
        return cls(json.dumps(value).encode(), status, head)


# A proxy of the machine that runs the tests has nothing to do with a server on it.
os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))

Fault = str | Callable[[Reply], Reply]
NAMED = (
    "429",  # busy, Retry-After in seconds (0)
    "429 late",  # busy, Retry-After: 7
    "429 date",  # busy, Retry-After as a date 30 s from the server's clock
    "500",
    "503",
    "401",
    "dropped",  # the connection ends in mid-body
    "refused",  # the connection ends before any answer, after the service did what was asked
    "cut",  # the connection ends in the middle of the request's body; the service hears nothing
    "truncated",  # JSON cut in the middle, status and length right
    "short",  # status right, body shorter than Content-Length, without an error below HTTP
    "html",  # a page of a login wall, status 200
    "empty",
    "schema",  # keys renamed
    "slow",  # stops in mid-body until the client goes away
    "duplicate",  # the reply before, once more
    "forever",  # the reply before, to this and every later request
)


class Loopback:
    """Serves `respond` on a free port; counts requests; breaks when told to.

    Use as a context manager. `fail("500", at=2, times=3)` breaks requests 2, 3 and 4, counted
    from 1 over the life of the server; `times=None` breaks all from there on.
    """

    def __init__(self, respond: Callable[[Request], Reply], *, compress: bool = False):
        self.respond = respond
        self.compress = compress
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.now = time.time
        self.hold_at: int | None = None
        self.holding = threading.Event()
        self._faults: list[tuple[Fault, int, int | None]] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # a reply is two writes; the second must not wait

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                loopback._answer(self)

            do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is not an error."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.daemon = True

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def n_requests(self) -> int:
        """Number of requests so far, the failed ones included."""
        return len(self.requests)

    def __enter__(self) -> Loopback:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; let go of clients that are held."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, fault: Fault, *, at: int | None = None, times: int | None = 1) -> None:
        """Break requests; by default the next one."""
        if isinstance(fault, str) and fault not in NAMED:
            raise ValueError(f"no fault {fault!r}; there are {NAMED}")
        self._faults.append((fault, at or self.n_requests + 1, times))

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()
        self.hold_at = None

    def hold(self, at: int) -> None:
        """Leave request number `at` and later ones unanswered; `holding` is set when one comes."""
        self.hold_at = at

    def _fault(self, number: int) -> Fault | None:
        for fault, at, times in self._faults:
            if number >= at and (times is None or number < at + times):
                return fault
            if fault == "forever" and number >= at:
                return fault
        return None

    def _answer(self, http: BaseHTTPRequestHandler) -> None:
        if self._fault(len(self.requests) + 1) == "cut":
            self._cut(http)
            return
        body = _body(http)
        parts = urlsplit(http.path)
        request = Request(
            http.command,
            unquote(parts.path),
            parts.query,
            {name.lower(): value for name, value in http.headers.items()},
            body,
        )
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            fault = self._fault(number)
            if fault in ("duplicate", "forever") and self.replies:
                reply = self.replies[-1]
            else:
                reply = self.respond(request)
                self.replies.append(reply)
        if self.hold_at is not None and number >= self.hold_at:
            self.holding.set()
            self._released.wait(120)
            http.close_connection = True
            return
        if callable(fault):
            reply, fault = fault(reply), None
        reply = self._broken(reply, fault)
        if fault == "refused":
            http.close_connection = True
            return
        self._write(http, request, reply, fault)

    def _cut(self, http: BaseHTTPRequestHandler) -> None:
        """Read half of a body and go away."""
        parts = urlsplit(http.path)
        half = http.rfile.read(int(http.headers.get("Content-Length") or 2) // 2)
        with self._lock:
            headers = {name.lower(): value for name, value in http.headers.items()}
            self.requests.append(
                Request(http.command, unquote(parts.path), parts.query, headers, half)
            )
        http.close_connection = True

    def _broken(self, reply: Reply, fault: Fault | None) -> Reply:
        head = dict(reply.headers)
        if fault == "429":
            return Reply.of({"detail": "too fast"}, status=429, headers={"Retry-After": "0"})
        if fault == "429 late":
            return Reply.of({"detail": "too fast"}, status=429, headers={"Retry-After": "7"})
        if fault == "429 date":
            date = formatdate(self.now() + 30, usegmt=True)
            return Reply.of({"detail": "too fast"}, status=429, headers={"Retry-After": date})
        if fault in ("500", "503"):
            return Reply(b"<html>oops</html>", int(fault), {"Content-Type": "text/html"})
        if fault == "401":
            return Reply.of({"message": "no such key"}, status=401)
        if fault == "truncated":
            return replace(reply, body=reply.body[: len(reply.body) // 2])
        if fault == "html":
            return Reply(b"<html>log in</html>", 200, {"Content-Type": "text/html"})
        if fault == "empty":
            return Reply(b"", 200, head)
        if fault == "schema":
            return replace(reply, body=json.dumps(renamed(json.loads(reply.body))).encode())
        return reply

    def _write(
        self, http: BaseHTTPRequestHandler, request: Request, reply: Reply, fault: Fault | None
    ) -> None:
        body, status, headers = reply.body, reply.status, dict(reply.headers)
        if reply.etag:
            headers["ETag"] = reply.etag
            wanted = request.headers.get("range", "")
            if wanted and request.headers.get("if-range", reply.etag) == reply.etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    status, body = 416, b""
                    headers["Content-Range"] = f"bytes */{len(reply.body)}"
                else:
                    status = 206
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                    body = body[start:]
        if self.compress and "gzip" in request.headers.get("accept-encoding", "") and body:
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        http.send_response(status)
        for name, value in headers.items():
            http.send_header(name, value)
        if "Content-Length" not in headers:
            http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        half = len(body) // 2
        if fault in ("dropped", "short"):
            http.wfile.write(body[:half])
            http.wfile.flush()
            http.close_connection = True
        elif fault == "slow":
            http.wfile.write(body[:half])
            http.wfile.flush()
            self._released.wait(120)
            http.close_connection = True
        elif request.method != "HEAD":
            http.wfile.write(body)


def _body(http: BaseHTTPRequestHandler) -> bytes:
    """Return the body of a request, of a known length or in chunks (RFC 9112, 7.1)."""
    if http.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return http.rfile.read(int(http.headers.get("Content-Length") or 0))
    parts = []
    while size := int(http.rfile.readline().split(b";")[0], 16):
        parts.append(http.rfile.read(size))
        http.rfile.readline()
    http.rfile.readline()
    return b"".join(parts)


def renamed(value: Any) -> Any:
    """Return JSON with all keys of its outermost objects renamed, as in a new major version."""
    if isinstance(value, dict):
        return {f"{key}_v2": item for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item) for item in value]
    return value


class FakeClock:
    """Time that passes only when somebody waits."""

    def __init__(self, start: float = 1_800_000_000.0):
        self.time = start
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.time += seconds

    def clock(self) -> Clock:
        """Return it as the client wants it."""
        return Clock(now=lambda: self.time, monotonic=lambda: self.time, sleep=self.sleep)
