"""Asks databases for JSON and files: patiently, politely, and believing nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from epitaxy.errors import MissingDependencyError, OptionError, SourceError
from epitaxy.web.attempts import AGAIN, PATIENCE, Pace, TryAgainError, retry_after, wait_before
from epitaxy.web.cache import Cache, user_cache
from epitaxy.web.clock import SYSTEM_CLOCK, Clock
from epitaxy.web.download import download, n_partial
from epitaxy.web.secrets import (
    is_secret_header,
    is_secret_parameter,
    safe_url,
    secrets_in,
    without_secrets,
)

if TYPE_CHECKING:
    import httpx

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]

_LOG = logging.getLogger("epitaxy.web")
_MOVED = frozenset({301, 302, 303, 307, 308})
_MOST_MOVES = 5
_SHOWN = 300  # characters of an answer in a message

T = TypeVar("T")


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
            import httpx
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
        if max_attempts < 1 or not timeout > 0 or requests_per_second < 0:
            raise OptionError(
                f"max_attempts = {max_attempts} (1 or more), timeout = {timeout} (more than 0 s), "
                f"requests_per_second = {requests_per_second} (0 or more)"
            )
        self.base_url = base_url
        self.timeout = timeout
        self.max_attempts = max_attempts
        self.clock = clock
        self._headers = {str(name): str(value) for name, value in dict(headers).items()}
        self._secrets = secrets_in(self._headers)
        self._cache = None if str(cache) == "none" else Cache(Path(cache or user_cache()))
        self._refresh = refresh
        self._fresh: set[bytes] = set()
        self._scope = scope
        self._key_help = key_help
        self._max_bytes = max_bytes
        self._pace = Pace(requests_per_second, clock, {})
        self._rng = random.Random(seed)
        self._http = httpx.Client(
            headers={"User-Agent": f"epitaxy/{_version()}"},
            timeout=httpx.Timeout(timeout),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

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
        self, path: str, params: Params = (), *, check: Callable[[Any], None] | None = None
    ) -> Answer:
        """Get JSON from the cache or the service.

        Args:
            path: below `base_url`, or a whole address, such as a link to the next page.
            params: of the query; None values are left out, a list repeats its name.
            check: looks at the parsed answer and raises SourceError if it is not as documented;
                such an answer is not kept.

        Raises:
            SourceError: the service cannot be reached, refuses, or answers nonsense.
        """
        return self._ask("GET", path, params, None, check)

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
            return self._send("GET", url, None, extra, allowed=(200, 206, 416))

        while True:
            n_before = n_partial(file)
            try:
                self._repeat(url, lambda: download(file, send))
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
    ) -> Answer:
        url = self._url(path, params)
        content = None if body is None else json.dumps(body, sort_keys=True).encode()
        request = self._request(method, url, content)
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest()
        address = without_secrets(safe_url(url), self._secrets)
        cache = self._cache

        def forget() -> None:
            if cache is not None:
                cache.forget(request)

        if cache is not None and (not self._refresh or key in self._fresh):
            kept = cache.read(request)
            if kept is not None:
                parsed = json.loads(kept.body)
                if _passes(parsed, check):
                    return Answer(parsed, address, _date(kept.retrieved), True, forget)
                forget()  # kept by an older version that believed more; asked again below

        raw, parsed = self._repeat(url, lambda: self._read(method, url, content, address))
        if check is not None:
            try:
                check(parsed)
            except SourceError as error:
                raise SourceError(self._clean(f"{address}: {error}")) from error
        now = self.clock.now()
        if cache is not None:
            for secret in self._secrets:  # a service may echo the key
                if secret.encode() in raw:
                    raw = raw.replace(secret.encode(), b"***")
                    parsed = json.loads(raw)
            cache.keep(request, raw, retrieved=now)
            self._fresh.add(key)
        return Answer(parsed, address, _date(now), False, forget)

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
            "url": without_secrets(safe_url(url), self._secrets),
            "body": "" if content is None else self._clean(content.decode()),
            "scope": self._scope,
            **({"parameters": secret} if secret else {}),
        }

    def _repeat(self, url: str, attempt: Callable[[], T]) -> T:
        """Try until it works, or until it makes no sense to go on."""
        import tenacity

        address = without_secrets(safe_url(url), self._secrets)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, TryAgainError) else None
            return wait_before(state.attempt_number, asked, self._rng)

        def is_worth_it(error: BaseException) -> bool:
            return isinstance(error, TryAgainError) and (error.wait or 0.0) <= PATIENCE

        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            _LOG.warning(
                "%s",
                self._clean(
                    f"{address}: the service {error}; waiting {state.upcoming_sleep:.0f} s "
                    f"(attempt {state.attempt_number} of {self.max_attempts})"
                ),
            )

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_it),
            stop=tenacity.stop_after_attempt(self.max_attempts),
            wait=wait,
            sleep=self.clock.sleep,
            before_sleep=tell,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except TryAgainError as error:
            n = retrying.statistics.get("attempt_number", 1)
            tries = f"{n} attempts" if n > 1 else "1 attempt"
            said = f"{address}: the service {error} ({tries})"
            if (error.wait or 0.0) > PATIENCE:
                said += f"; it asks to wait {error.wait:,.0f} s"
            raise SourceError(
                self._clean(f"{said}. Start again later: what was read is in the cache")
                if self._cache is not None
                else self._clean(f"{said}. Start again later")
            ) from error

    @contextmanager
    def _send(
        self,
        method: str,
        url: str,
        content: bytes | None,
        extra: Mapping[str, str],
        *,
        allowed: tuple[int, ...] = (200,),
    ) -> Iterator[httpx.Response]:
        """Send one request, follow where it was moved to; give the answer with an open body.

        Raises:
            TryAgainError: no answer, or one that may not last.
            SourceError: the service refuses.
        """
        import httpx

        target = url
        for _ in range(_MOST_MOVES + 1):
            self._pace.wait(target)
            headers = {**self._headers_for(target), **extra}
            if content is not None:
                headers["Content-Type"] = "application/json"
            request = self._http.build_request(method, target, content=content, headers=headers)
            try:
                response = self._http.send(request, stream=True)
            except httpx.TimeoutException as error:
                raise TryAgainError(f"did not answer within {self.timeout:g} s") from error
            except httpx.HTTPError as error:
                raise TryAgainError(f"cannot be reached: {_brief(error)}") from error
            try:
                if response.status_code in _MOVED and "location" in response.headers:
                    target = self._moved(method, target, response)
                    continue
                if response.status_code not in allowed:
                    self._refused(response)
                try:
                    yield response
                except httpx.TimeoutException as error:
                    raise TryAgainError(
                        f"sent only a part of its answer within {self.timeout:g} s"
                    ) from error
                except httpx.DecodingError as error:
                    raise TryAgainError(f"sent a damaged answer: {_brief(error)}") from error
                except httpx.HTTPError as error:
                    raise TryAgainError(
                        f"broke off in the middle of its answer: {_brief(error)}"
                    ) from error
                return
            finally:
                response.close()
        raise SourceError(
            self._clean(f"{safe_url(url)}: moved more than {_MOST_MOVES} times, last to {target}")
        )

    def _headers_for(self, url: str) -> dict[str, str]:
        """Return the headers for an address: secrets go to the host of `base_url` only."""
        home, there = urlsplit(self.base_url), urlsplit(url)
        upgraded = (home.scheme, there.scheme) == ("http", "https") and not home.port
        if home.hostname == there.hostname and (
            (home.scheme, home.port) == (there.scheme, there.port) or (upgraded and not there.port)
        ):
            return self._headers
        return {name: v for name, v in self._headers.items() if not is_secret_header(name)}

    def _moved(self, method: str, url: str, response: httpx.Response) -> str:
        target = urljoin(url, response.headers["location"])
        if method != "GET" and response.status_code not in (307, 308):
            raise SourceError(
                self._clean(
                    f"{safe_url(url)}: the service has moved to {safe_url(target)}; give that "
                    "address with the option url"
                )
            )
        return target

    def _refused(self, response: httpx.Response) -> None:
        """Raise what an answer other than 200 means."""
        status = response.status_code
        text = self._said(response)
        wait = retry_after(response.headers.get("retry-after"), self.clock)
        if status in AGAIN:
            raise TryAgainError(f"answered {status}{text}", wait=wait, status=status)
        address = safe_url(str(response.request.url))
        advice = ""
        if status in (401, 403):
            advice = self._key_help or "it wants a key or token, or refuses the one given"
            advice = f". {advice[0].upper()}{advice[1:]}"
        elif status == 404:
            advice = ". Is the address right, and does the entry still exist?"
        elif status in (400, 422):
            advice = ". The service does not understand the query: check the options"
        raise SourceError(self._clean(f"{address}: the service answered {status}{text}{advice}"))

    def _said(self, response: httpx.Response) -> str:
        """Return the service's own words about a failure, as " (...)"."""
        import httpx

        try:
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > 65_536:
                    break
        except httpx.HTTPError:
            return ""
        text = body.decode("utf-8", "replace")
        try:
            text = _words(json.loads(text))
        except ValueError:
            if "<html" in text.lower():
                text = ""
        text = " ".join(text.split())
        return f" ({text[:_SHOWN]})" if text else ""

    def _read(
        self, method: str, url: str, content: bytes | None, address: str
    ) -> tuple[bytes, Any]:
        """Return the body of an answer and what it says.

        Raises:
            TryAgainError: the body is cut or takes too long.
        """
        start = self.clock.monotonic()
        with self._send(method, url, content, {"Accept": "application/json"}) as response:
            parts: list[bytes] = []
            size = 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > self._max_bytes:
                    raise SourceError(
                        f"{address}: the answer is larger than {self._max_bytes:,} bytes; ask for "
                        "fewer entries per page"
                    )
                if self.clock.monotonic() - start > self.timeout:
                    raise TryAgainError(f"sent only a part of its answer within {self.timeout:g} s")
            announced = response.headers.get("content-length", "")
            received = response.num_bytes_downloaded
            if announced.isdigit() and int(announced) != received:
                raise TryAgainError(f"sent {received:,} of {int(announced):,} bytes")
            kind = response.headers.get("content-type", "")
        body = b"".join(parts)
        return body, self._parsed(body, address, kind)

    def _parsed(self, body: bytes, address: str, kind: str = "") -> Any:
        """Return the parsed JSON of a body."""
        try:
            return json.loads(body)
        except ValueError as error:
            text = " ".join(body[:_SHOWN].decode("utf-8", "replace").split())
            what = f", of type {kind}," if kind and "json" not in kind else ""
            if not body:
                reason = "sent an empty answer"
            elif text[:1] in "[{":
                reason = (
                    f"sent JSON that is cut or damaged ({len(body):,} bytes{what} {_brief(error)})"
                )
            else:
                reason = f"sent no JSON{what} but {text[:120]!r}"
            raise TryAgainError(reason) from error

    def _clean(self, text: str) -> str:
        return without_secrets(text, self._secrets)


def _passes(parsed: Any, check: Callable[[Any], None] | None) -> bool:
    if check is None:
        return True
    try:
        check(parsed)
    except SourceError:
        return False
    return True


def _words(answer: Any) -> str:
    """Return the message in a JSON error of one of the usual forms."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list):
        return "; ".join(filter(None, map(_words, answer)))
    if isinstance(answer, dict):
        for name in ("detail", "message", "msg", "errors", "error", "title", "description"):
            if answer.get(name):
                return _words(answer[name])
    return ""


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _version() -> str:
    from importlib.metadata import version

    return version("epitaxy")
