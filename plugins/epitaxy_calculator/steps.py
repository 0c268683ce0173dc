"""How far a verb is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

INTERVAL = 5.0
"""Seconds between two lines where there is no terminal."""


class Steps:
    """Counts steps on standard error.

    Used as ``with Steps("md", total=1000) as steps: steps.at(10, "T = 300 K")``.
    """

    def __init__(self, title: str, *, total: int | None = None) -> None:
        """Prepare a counter; `total` is the number of steps, None if it is not known."""
        self._title = title
        self._total = total
        self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Steps:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._title, total=self._total, text="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, step: int, text: str = "") -> None:
        """Say that `step` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
            return
        now = time.monotonic()
        if now - self._last >= INTERVAL:
            self._last = now
            of = f"/{self._total}" if self._total is not None else ""
            print(f"{self._title} {step}{of}  {text}".rstrip(), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Write one line, above the bar if there is one; nothing if `text` is empty."""
        if not text:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
