"""The same work on many pieces, in this process or in several that leave nothing behind."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from typing import TypeVar

from epitaxy.errors import DataError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_WAITING_PER_WORKER = 3  # pieces handed out ahead, so that memory stays bounded
_LOOK_EVERY = 0.5  # seconds


def map_pieces(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], *, n_workers: int = 1
) -> Iterator[Result]:
    """Yield ``work(piece)`` in the order of the pieces.

    With several workers, a script that calls this needs the usual
    ``if __name__ == "__main__":``. Ctrl-C ends all of them at once; they also end when this
    process is killed.

    Args:
        work: a function of a module, so that other processes can import it.
        pieces: each small enough to be sent, and of no more than some seconds of work.
        n_workers: processes; with 1, all is done in this one.

    Raises:
        DataError: a worker was killed, for example because memory ran out.
    """
    if n_workers < 1:
        raise DataError(f"n_workers = {n_workers}: one process at least has to do the work")
    if n_workers == 1:
        yield from map(work, pieces)
        return
    context = get_context("spawn")  # threads of this process would not survive a fork
    stop = context.Event()
    executor = ProcessPoolExecutor(
        n_workers, mp_context=context, initializer=_start_worker, initargs=(stop,)
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for piece in pieces:
            with _interrupt_held_back():  # this may start a worker
                waiting.append(executor.submit(work, piece))
            if len(waiting) > _WAITING_PER_WORKER * n_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed before it was done; if memory ran out, use fewer workers"
        ) from error
    except BaseException:  # an interruption, or nobody asks for the rest
        stop.set()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Let Ctrl-C wait; processes that start meanwhile never see it, the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(stop: Event) -> None:
    """Leave Ctrl-C to the parent, and end when it says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_when_told, args=(stop,), daemon=True).start()


def _end_when_told(stop: Event) -> None:
    parent = parent_process()
    while not stop.wait(_LOOK_EVERY):
        if parent is not None and not parent.is_alive():
            break
    os._exit(1)
