"""One request after another over HTTP: patient, polite, and careful with keys."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from epitaxy.errors import SourceError
from epitaxy.web.attempts import (
    AGAIN,
    PATIENCE,
    Pace,
    RefusedError,
    TryAgainError,
    retry_after,
    wait_before,
)
from epitaxy.web.clock import Clock
from epitaxy.web.secrets import is_secret_header, safe_url, secrets_in, shown, without_secrets

if TYPE_CHECKING:
    import httpx
    import tenacity

T = TypeVar("T")

_LOG = logging.getLogger("epitaxy.web")
_MOVED = frozenset({301, 302, 303, 307, 308})
_MOST_MOVES = 5
_SHOWN = 300  # characters of an answer in a message
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Transport:
    """Sends requests to one database and the places it points to.

    Args:
        home: address of the database; headers with secrets go to this host only.
        headers: sent with each request.
        requests_per_second: to one host; 0 for no limit.
        max_attempts: how often a request is tried in all.
        timeout: seconds that one attempt may take.
        key_help: what to do if the service refuses the key, or asks for one.
        max_bytes: largest answer that is read into memory.
        clock: what tells the time.
        rng: of the jitter of the pauses.
    """

    def __init__(
        self,
        home: str,
        *,
        headers: Mapping[str, str],
        requests_per_second: float,
        max_attempts: int,
        timeout: float,
        key_help: str,
        max_bytes: int,
        clock: Clock,
        rng: random.Random,
    ):
        import httpx

        self.home = home
        self.max_attempts = max_attempts
        self.timeout = timeout
        self.clock = clock
        self.secrets = secrets_in(headers)
        self.consolation = ""
        """What a message about a failure ends with."""
        self._headers = dict(headers)
        self._key_help = key_help
        self._max_bytes = max_bytes
        self._rng = rng
        self._sent_at = 0.0  # when the last request went out, on the monotonic clock
        self._pace = Pace(requests_per_second, clock, {})
        self._http = httpx.Client(
            headers={"User-Agent": f"epitaxy/{version('epitaxy')}"},
            timeout=httpx.Timeout(timeout),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def clean(self, text: str) -> str:
        """Return the text without secrets."""
        return without_secrets(text, self.secrets)

    def address(self, url: str) -> str:
        """Return an address without secrets, as it may be kept."""
        return self.clean(safe_url(url))

    def shown(self, url: str) -> str:
        """Return an address without secrets, short enough for a message."""
        return shown(self.address(url))

    def repeat(self, url: str, attempt: Callable[[], T], *, max_attempts: int | None = None) -> T:
        """Try until it works, or until it makes no sense to go on."""
        import tenacity

        address = self.shown(url)
        n_most = max_attempts or self.max_attempts

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
                self.clean(
                    f"{address}: the service {error}; waiting {state.upcoming_sleep:.0f} s "
                    f"(attempt {state.attempt_number} of {n_most})"
                ),
            )

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_it),
            stop=tenacity.stop_after_attempt(n_most),
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
            raise SourceError(self.clean(f"{said}. Start again later{self.consolation}")) from error

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        content: bytes | Iterable[bytes] | None,
        extra: Mapping[str, str],
        *,
        allowed: tuple[int, ...] = (200,),
    ) -> Iterator[httpx.Response]:
        """Send one request, follow where it was moved to; give the answer with an open body.

        Args:
            method: of HTTP.
            url: where to.
            content: the body; one that is iterated over is never whole in memory, and is begun
                anew with each attempt.
            extra: more headers.
            allowed: statuses that are no failure.

        Raises:
            TryAgainError: no answer, or one that may not last.
            RefusedError: the service refuses.
            SourceError: it moves without end.
        """
        import httpx

        target = url
        for _ in range(_MOST_MOVES + 1):
            self._pace.wait(target)
            self._sent_at = self.clock.monotonic()
            headers = {**self._headers_for(target), **extra}
            if isinstance(content, bytes):
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
            self.clean(f"{safe_url(url)}: moved more than {_MOST_MOVES} times, last to {target}")
        )

    def _headers_for(self, url: str) -> dict[str, str]:
        """Return the headers for an address: secrets go to the host of `home` only."""
        home, there = urlsplit(self.home), urlsplit(url)
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
                self.clean(
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
        address = self.shown(str(response.request.url))
        advice = ""
        if status in (401, 403):
            advice = self._key_help or "it wants a key or token, or refuses the one given"
            advice = f". {advice[0].upper()}{advice[1:]}"
        elif status == 404:
            advice = ". Is the address right, and does the entry still exist?"
        elif status in (400, 422):
            advice = ". The service does not understand the query: check the options"
        raise RefusedError(
            self.clean(f"{address}: the service answered {status}{text}{advice}"),
            status=status,
            said=self.clean(text[2:-1]),
        )

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

    def read(
        self,
        method: str,
        url: str,
        content: bytes | Iterable[bytes] | None,
        address: str,
        extra: Mapping[str, str] = NO_HEADERS,
    ) -> tuple[bytes, Any]:
        """Return the body of an answer and what it says.

        Raises:
            TryAgainError: the body is cut or takes too long.
            RefusedError: the service refuses.
        """
        with self.send(method, url, content, {"Accept": "application/json", **extra}) as response:
            if content is not None and not isinstance(content, bytes):
                self._sent_at = self.clock.monotonic()  # a large body takes its time
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
                if self.clock.monotonic() - self._sent_at > self.timeout:
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
        except (ValueError, RecursionError) as error:
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


def _words(answer: Any) -> str:
    """Return the message in a JSON error of one of the usual forms."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list):
        return "; ".join(filter(None, map(_words, answer)))
    if isinstance(answer, dict):
        if isinstance(answer.get("loc"), list) and answer.get("msg"):  # a wrong field, by pydantic
            return f"{'.'.join(map(str, answer['loc']))}: {_words(answer['msg'])}"
        for name in ("detail", "message", "msg", "errors", "error", "title", "description"):
            if answer.get(name):
                return _words(answer[name])
    return ""


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
