"""How long to wait before asking again, and when to give up."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from epitaxy.errors import SourceError
from epitaxy.web.clock import Clock

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
"""Statuses that may be gone the next time: busy, down, too fast."""

FIRST_WAIT = 1.0  # seconds before the second attempt; doubled each time
LONGEST_WAIT = 60.0  # seconds, of our own choice
PATIENCE = 600.0  # seconds that a service may ask us to wait before we give up instead


class TryAgainError(Exception):
    """An attempt failed in a way that may not last.

    Args:
        reason: what happened, as the end of "the service ...".
        wait: seconds that the service asks for; None where it does not.
        status: of the answer, 0 where there was none.
    """

    def __init__(self, reason: str, *, wait: float | None = None, status: int = 0):
        super().__init__(reason)
        self.wait = wait
        self.status = status


class RefusedError(SourceError):
    """A service understood a request and refuses it; to ask again would not help.

    Attributes:
        status: of the answer.
        said: the service's own words, without secrets; "" where it gave none.
    """

    def __init__(self, message: str, *, status: int, said: str = ""):
        super().__init__(message)
        self.status = status
        self.said = said


def wait_before(attempt: int, asked: float | None, rng: random.Random) -> float:
    """Return the seconds to wait after failed attempt number `attempt`, the first being 1.

    Exponential back-off with jitter, so that many clients do not come back at the same moment
    (Brooker, "Exponential Backoff And Jitter", 2015); never less than the service asks for.
    """
    ours = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1)) * rng.uniform(0.5, 1.0)
    return ours if asked is None else asked + 0.1 * ours


def retry_after(value: str | None, clock: Clock) -> float | None:
    """Return the seconds of a Retry-After header: a number or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    text = value.strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(clock.now(), UTC)).total_seconds())


@dataclass(slots=True)
class Pace:
    """Keeps a distance between the requests to each host.

    Attributes:
        per_second: requests per second and host; 0 for no limit.
        clock: what tells the time.
    """

    per_second: float
    clock: Clock
    _next: dict[str, float]

    def wait(self, url: str) -> None:
        """Wait until the host of `url` may be asked again."""
        if self.per_second <= 0:
            return
        host = urlsplit(url).netloc
        now = self.clock.monotonic()
        start = max(now, self._next.get(host, now))
        self._next[host] = start + 1.0 / self.per_second
        if start > now:
            self.clock.sleep(start - now)
