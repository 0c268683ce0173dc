"""What tells the time and waits: handed in, so that tests need not wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Three functions of time.

    Attributes:
        now: seconds since 1970, for dates.
        monotonic: seconds that never go back, for durations.
        sleep: wait so many seconds.
    """

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def today(self) -> str:
        """Return the date in UTC, YYYY-MM-DD."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.now()))


SYSTEM_CLOCK = Clock()
