"""Fetching the next batch before it is asked for, in two ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Rows = TypeVar("Rows")
Order = TypeVar("Order")
Batch = TypeVar("Batch")


def in_turn(
    batches: Iterable[Rows],
    *,
    begin: Callable[[Rows], Order],
    wait: Callable[[], None],
    finish: Callable[[Order], Batch],
) -> Iterator[Batch]:
    """Yield each batch after the transfers of the next have begun; one thread.

    Args:
        batches: what to fetch, one after another.
        begin: starts the transfers of one batch.
        wait: returns when all transfers that were begun are complete.
        finish: makes a batch of what has arrived.
    """
    waiting: Order | None = None
    try:
        for rows in batches:
            here, waiting = waiting, None
            if here is not None:
                wait()  # before the next are begun: it waits for all of them
            waiting = begin(rows)
            if here is not None:
                yield finish(here)
        if waiting is not None:
            wait()
            here, waiting = waiting, None
            yield finish(here)
    finally:
        if waiting is not None:
            wait()  # memory that transfers write into must live until they are done


def in_thread(batches: Iterable[Rows], *, fetch: Callable[[Rows], Batch]) -> Iterator[Batch]:
    """Yield each batch while a thread fetches the next.

    Args:
        batches: what to fetch, one after another.
        fetch: returns a whole batch; called in the thread.
    """
    waiting: Future[Batch] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        for rows in batches:
            here, waiting = waiting, pool.submit(fetch, rows)
            if here is not None:
                yield here.result()
        if waiting is not None:
            yield waiting.result()
