"""How far a training is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

_COLUMNS = (
    ("train_loss", "loss", 1.0, ".3g"),
    ("valid_energy_mae", "E meV/atom", 1000.0, ".2f"),
    ("valid_forces_mae", "F eV/Å", 1.0, ".4f"),
    ("valid_stress_mae", "S meV/Å^3", 1000.0, ".3f"),
    ("lr", "lr", 1.0, ".1e"),
    ("structures_per_second", "structures/s", 1.0, ".1f"),
)


class Progress(Protocol):
    """Who tells the user how far it is."""

    def started(self, name: str, n_epochs: int) -> None:
        """A training called `name` begins."""
        ...

    def epoch(self, name: str, metrics: Mapping[str, float]) -> None:
        """An epoch has ended; `metrics` is a line of metrics.jsonl."""
        ...

    def finished(self, name: str, message: str) -> None:
        """The training has ended."""
        ...

    def note(self, message: str) -> None:
        """Say one thing."""
        ...

    def close(self) -> None:
        """Give the terminal back."""
        ...


class Silent:
    """Says nothing: the default in Python."""

    def started(self, name: str, n_epochs: int) -> None:
        """Say nothing."""

    def epoch(self, name: str, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def finished(self, name: str, message: str) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Nothing to give back."""


class Lines:
    """Plain lines for files and batch jobs, at most one per `interval` seconds and training."""

    def __init__(self, stream: TextIO | None = None, *, interval: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._interval = interval
        self._last: dict[str, float] = {}
        self._n_epochs: dict[str, int] = {}
        self._unsaid: dict[str, str] = {}

    def started(self, name: str, n_epochs: int) -> None:
        """Remember the number of epochs."""
        self._n_epochs[name] = n_epochs
        self._last[name] = float("-inf")

    def epoch(self, name: str, metrics: Mapping[str, float]) -> None:
        """Write a line unless one was written a moment ago."""
        of = f"/{self._n_epochs[name]}" if name in self._n_epochs else ""
        line = f"{_label(name)}epoch {int(metrics['epoch'])}{of}  {describe(metrics)}"
        now = time.monotonic()
        if now - self._last.get(name, float("-inf")) < self._interval:
            self._unsaid[name] = line
            return
        self._last[name] = now
        self._unsaid.pop(name, None)
        self.note(line)

    def finished(self, name: str, message: str) -> None:
        """Write the last epoch, if it was held back, and the message."""
        if (line := self._unsaid.pop(name, None)) is not None:
            self.note(line)
        self.note(f"{_label(name)}{message}")

    def note(self, message: str) -> None:
        """Write one line."""
        self._stream.write(message + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to give back."""


class Live:
    """One bar per training on a terminal."""

    def __init__(self) -> None:
        self._bar: RichBar | None = None
        self._tasks: dict[str, TaskID] = {}

    def _open(self) -> RichBar:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichBar

            self._bar = RichBar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self._bar

    def started(self, name: str, n_epochs: int) -> None:
        """Add a bar."""
        bar = self._open()
        self._tasks[name] = bar.add_task(name or "training", total=n_epochs, numbers="")

    def epoch(self, name: str, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        if name in self._tasks:
            self._open().update(
                self._tasks[name], completed=metrics["epoch"], numbers=describe(metrics)
            )

    def finished(self, name: str, message: str) -> None:
        """Write the message above the bars."""
        self.note(f"{_label(name)}{message}")

    def note(self, message: str) -> None:
        """Write one line above the bars."""
        self._open().console.print(message, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()


def progress_for(stream: TextIO | None = None, *, interval: float = 5.0) -> Progress:
    """Return live bars if `stream` (standard error by default) is a terminal, else lines."""
    stream = stream or sys.stderr
    if stream is sys.stderr and stream.isatty():
        return Live()
    return Lines(stream, interval=interval)


def describe(metrics: Mapping[str, float]) -> str:
    """Return the numbers of an epoch in one line, in the units in which they are usually read."""
    return "  ".join(
        f"{heading} {metrics[key] * factor:{form}}"
        for key, heading, factor, form in _COLUMNS
        if metrics.get(key) is not None
    )


def _label(name: str) -> str:
    return f"[{name}] " if name else ""
