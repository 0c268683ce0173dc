"""Asks databases for JSON and files: patiently, politely, and believing nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from epitaxy.errors import MissingDependencyError, OptionError, SourceError
from epitaxy.web.attempts import TryAgainError
from epitaxy.web.cache import Cache, user_cache
from epitaxy.web.clock import SYSTEM_CLOCK, Clock
from epitaxy.web.download import download, n_partial
from epitaxy.web.secrets import is_secret_parameter, safe_url, shown
from epitaxy.web.transport import NO_HEADERS, Transport

if TYPE_CHECKING:
    import httpx

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]

_LOG = logging.getLogger("epitaxy.web")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered.

    Attributes:
        json: the parsed body.
        address: of the request, without secrets.
        retrieved: date when the service sent it, YYYY-MM-DD.
        from_cache: whether the service was not asked this time.
        forget: drops the answer from the cache.
    """

    json: Any
    address: str
    retrieved: str
    from_cache: bool
    forget: Callable[[], None]


class Client:
    """One database on the network.

    Every answer is kept on disk and asked for once; failures that may not last are tried again
    with growing pauses; whatever else goes wrong is a SourceError without secrets in it.

    Args:
        base_url: address that paths are joined to.
        headers: sent with each request; those that hold secrets only to the host of `base_url`.
        cache: folder of kept answers; None for the user's cache folder, "none" for no cache.
        refresh: ask anew for what is in the cache, once per client.
        requests_per_second: to one host; 0 for no limit.
        max_attempts: how often a request is tried in all.
        timeout: seconds that one attempt may take.
        scope: tells apart answers that differ though the request is the same (an account, a
            version of the database); must hold no secret.
        key_help: what to do if the service refuses the key, or asks for one.
        max_bytes: largest answer that is read into memory.
        clock: what tells the time.
        seed: of the jitter of the pauses; None for a different one each time.

    Raises:
        MissingDependencyError: httpx or tenacity is not installed.
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        cache: str | Path | None = None,
        refresh: bool = False,
        requests_per_second: float = 5.0,
        max_attempts: int = 6,
        timeout: float = 60.0,
        scope: str = "",
        key_help: str = "",
        max_bytes: int = 512 * 2**20,
        clock: Clock = SYSTEM_CLOCK,
        seed: int | None = None,
    ):
        try:
            import httpx  # noqa: F401
            import tenacity  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                f"databases on the network need {error.name}; install with: "
                "pip install 'epitaxy[sources]'"
            ) from error
        if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).netloc:
            raise OptionError(
                f"{safe_url(base_url)!r} is not an address; write it as https://host/path"
            )
        for name, value in dict(headers).items():
            if not value.isascii() or not value.isprintable():  # httpx would repeat it in an error
                raise OptionError(
                    f"what the header {name} shall hold (a key or token?) has a line break or "
                    f"letters outside of ASCII in it. {key_help or 'Check the key'}"
                )
        if max_attempts < 1 or not timeout > 0 or requests_per_second < 0:
            raise OptionError(
                f"max_attempts = {max_attempts} (1 or more), timeout = {timeout} (more than 0 s), "
                f"requests_per_second = {requests_per_second} (0 or more)"
            )
        self.base_url = base_url
        self.clock = clock
        self._cache = None if str(cache) == "none" else Cache(Path(cache or user_cache()))
        self._refresh = refresh
        self._fresh: set[bytes] = set()
        self.scope = scope
        self._transport = Transport(
            base_url,
            headers=dict(headers),
            requests_per_second=requests_per_second,
            max_attempts=max_attempts,
            timeout=timeout,
            key_help=key_help,
            max_bytes=max_bytes,
            clock=clock,
            rng=random.Random(seed),
        )
        if self._cache is not None:
            self._transport.consolation = ": what was read is in the cache"

    def hide(self, secret: str) -> None:
        """Keep a secret of a body out of messages, logs and answers, as those of headers are."""
        self._transport.secrets = (secret, *self._transport.secrets)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def get_json(
        self, path: str, params: Params = (), *, check: Callable[[Any], None] | None = None
    ) -> Any:
        """Return the parsed JSON at `path`; see `get`."""
        return self.get(path, params, check=check).json

    def post_json(self, path: str, body: Any, *, check: Callable[[Any], None] | None = None) -> Any:
        """Return the parsed JSON that the service answers to `body`; see `post`."""
        return self.post(path, body, check=check).json

    def get(
        self,
        path: str,
        params: Params = (),
        *,
        check: Callable[[Any], None] | None = None,
        newest: bool = False,
    ) -> Answer:
        """Get JSON from the cache or the service.

        Args:
            path: below `base_url`, or a whole address, such as a link to the next page.
            params: of the query; None values are left out, a list repeats its name.
            check: looks at the parsed answer and raises SourceError if it is not as documented;
                such an answer is not kept.
            newest: ask the service though there is an answer in the cache, and take that one
                only if the service does not answer.

        Raises:
            SourceError: the service cannot be reached, refuses, or answers nonsense.
        """
        return self._ask("GET", path, params, None, check, newest=newest)

    def post(
        self,
        path: str,
        body: Any,
        *,
        params: Params = (),
        check: Callable[[Any], None] | None = None,
    ) -> Answer:
        """Get the JSON that the service answers to the JSON `body`; as `get`."""
        return self._ask("POST", path, params, body, check)

    def ask(
        self,
        method: str,
        path: str,
        params: Params = (),
        *,
        body: Any = None,
        stream: Iterable[bytes] | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        once: bool = False,
    ) -> Any:
        """Ask for something to be done; return the JSON of the answer, which is never kept.

        Args:
            method: "POST", "PUT", "DELETE" or "GET".
            path: as for `get`.
            params: as for `get`.
            body: sent as JSON.
            stream: sent as it is, piece by piece, instead of `body`; each attempt iterates over
                it anew, so it must not be an iterator.
            headers: more headers, for example Content-Length of a stream (without it the stream
                is sent in chunks).
            once: do not try again; for what must not happen twice.

        Raises:
            RefusedError: the service refuses; with its status and words.
            SourceError: it cannot be reached, or answers nonsense.
        """
        url = self._url(path, params)
        content = stream
        if stream is None and body is not None:
            content = json.dumps(body, sort_keys=True).encode()  # type: ignore[assignment]
        address = self._transport.address(url)
        raw, parsed = self._transport.repeat(
            url,
            lambda: self._transport.read(method, url, content, address, headers),
            max_attempts=1 if once else None,
        )
        return self._clean(raw, parsed)[1]

    def append(self, path: str, file: str | Path, *, params: Params = ()) -> int:
        """Write what the service sends at the end of a file; return the number of bytes.

        Nothing is tried again: what came before the connection broke is in the file, and the
        caller asks for the rest.

        Raises:
            SourceError: as for `get`, or the file cannot be written.
        """
        url = self._url(path, params)
        n_bytes = 0

        def receive() -> None:
            nonlocal n_bytes
            try:
                with (
                    self._transport.send("GET", url, None, NO_HEADERS) as response,
                    Path(file).open("ab") as goal,
                ):
                    for piece in response.iter_bytes():
                        goal.write(piece)
                        n_bytes += len(piece)
            except OSError as error:
                raise SourceError(
                    f"{file}: cannot be written: {error.strerror or error}"
                ) from error

        self._transport.repeat(url, receive, max_attempts=1)
        return n_bytes

    def download(self, path: str, file: str | Path, *, params: Params = ()) -> Path:
        """Get a file to disk, going on where an earlier download broke off; return its path.

        A file that is there already is kept, unless the client was made with `refresh`.

        Raises:
            SourceError: as for `get`, or the file cannot be written.
        """
        file = Path(file)
        key = str(file.resolve()).encode()
        if file.exists() and not (self._refresh and key not in self._fresh):
            return file
        url = self._url(path, params)

        def send(extra: Mapping[str, str]) -> AbstractContextManager[httpx.Response]:
            return self._transport.send("GET", url, None, extra, allowed=(200, 206, 416))

        while True:
            n_before = n_partial(file)
            try:
                self._transport.repeat(url, lambda: download(file, send))
                break
            except SourceError as error:
                # Attempts count only while nothing comes: a large file may break off often.
                is_lasting = not isinstance(error.__cause__, TryAgainError)
                if is_lasting or n_partial(file) <= n_before:
                    raise
        self._fresh.add(key)
        return file

    def _ask(
        self,
        method: str,
        path: str,
        params: Params,
        body: Any,
        check: Callable[[Any], None] | None,
        *,
        newest: bool = False,
    ) -> Answer:
        url = self._url(path, params)
        content = None if body is None else json.dumps(body, sort_keys=True).encode()
        request = self._request(method, url, content)
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest()
        address = self._transport.address(url)
        cache = self._cache

        def forget() -> None:
            if cache is not None:
                cache.forget(request)

        kept = None
        if cache is not None and (not self._refresh or key in self._fresh or newest):
            kept = cache.read(request)
        known = None
        if kept is not None:
            known = Answer(json.loads(kept.body), address, _date(kept.retrieved), True, forget)
            if not _passes(known.json, check):  # kept by a version that believed more
                forget()
                known = None
        if known is not None and (not newest or key in self._fresh):
            return known
        try:
            raw, parsed = self._transport.repeat(
                url, lambda: self._transport.read(method, url, content, address)
            )
        except SourceError as error:
            if known is None:
                raise
            _LOG.warning("%s; taking the answer of %s from the cache", error, known.retrieved)
            return known
        if check is not None:
            try:
                check(parsed)
            except SourceError as error:
                raise SourceError(self._transport.clean(f"{shown(address)}: {error}")) from error
        now = self.clock.now()
        if cache is not None:
            raw, parsed = self._clean(raw, parsed)
            cache.keep(request, raw, retrieved=now)
            self._fresh.add(key)
        return Answer(parsed, address, _date(now), False, forget)

    def _clean(self, raw: bytes, parsed: Any) -> tuple[bytes, Any]:
        """Return an answer without secrets: a service may echo the key."""
        for secret in self._transport.secrets:
            if secret.encode() in raw:
                raw = raw.replace(secret.encode(), b"***")
                parsed = json.loads(raw)
        return raw, parsed

    def _url(self, path: str, params: Params) -> str:
        import httpx

        base = self.base_url if self.base_url.endswith("/") else self.base_url + "/"
        url = urljoin(base, path) if "://" in path else base + path.lstrip("/")
        if not path:
            url = self.base_url
        pairs = params.items() if isinstance(params, Mapping) else params
        flat = [
            (name, item)
            for name, value in pairs
            for item in (value if isinstance(value, list | tuple) else [value])
            if item is not None
        ]
        return str(httpx.URL(url).copy_merge_params(flat)) if flat else url

    def _request(self, method: str, url: str, content: bytes | None) -> dict[str, Any]:
        """Return what an answer depends on; secrets in the address are told apart by digests."""
        import httpx

        secret = [
            hashlib.blake2b(value.encode(), digest_size=8).hexdigest()
            for name, value in httpx.URL(url).params.multi_items()
            if is_secret_parameter(name)
        ]
        return {
            "host": urlsplit(url).hostname or "",
            "method": method,
            "url": self._transport.address(url),
            "body": "" if content is None else self._transport.clean(content.decode()),
            "scope": self.scope,
            **({"parameters": secret} if secret else {}),
        }


def _passes(parsed: Any, check: Callable[[Any], None] | None) -> bool:
    if check is None:
        return True
    try:
        check(parsed)
    except SourceError:
        return False
    return True


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
