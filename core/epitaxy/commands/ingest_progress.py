"""How far reading is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_INTERVAL = 5.0  # seconds between plain lines


@contextmanager
def telling(title: str) -> Iterator[Callable[[int, int, float | None], None]]:
    """Give a function that shows ``(frames seen, frames kept, part read or None)``."""
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[frames]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task(title, total=None, frames="")

        def show(n_seen: int, n_kept: int, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            frames = f"{n_kept:,} of {n_seen:,} frames kept"
            progress.update(task, total=total, completed=fraction or 0.0, frames=frames)

        yield show


def _lines(title: str) -> Callable[[int, int, float | None], None]:
    last = time.monotonic()

    def show(n_seen: int, n_kept: int, fraction: float | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _INTERVAL:
            last = now
            part = "" if fraction is None else f" ({fraction:.0%} of the input)"
            sys.stderr.write(f"{title}: {n_kept:,} of {n_seen:,} frames kept so far{part}\n")
            sys.stderr.flush()

    return show
