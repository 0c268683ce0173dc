"""Members of an ensemble in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from epitaxy import errors
from epitaxy.errors import EpitaxyError, TrainingError
from epitaxy.run import Run
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One member to train.

    Attributes:
        model: its recipe.
        strategy: how it is trained.
        part: what it sees (`epitaxy_strategies.ensemble.Part`).
        run: where and with which seed.
    """

    model: Spec
    strategy: Spec
    part: Any
    run: Run


class Reports:
    """Sends what a member's training has to say to the process that started it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def _send(self, *message: Any) -> None:
        with suppress(OSError):  # the other side has ended; training goes on and is saved
            self._pipe.send(message)

    def started(self, name: str, n_epochs: int) -> None:
        """Send it."""
        self._send("started", name, n_epochs)

    def epoch(self, name: str, metrics: Mapping[str, float]) -> None:
        """Send it."""
        self._send("epoch", name, dict(metrics))

    def finished(self, name: str, message: str) -> None:
        """Send it."""
        self._send("finished", name, message)

    def note(self, message: str) -> None:
        """Send it."""
        self._send("note", message)

    def close(self) -> None:
        """The receiver closes its own."""

    def run_started(self, run: Run, facts: Mapping[str, Any]) -> None:
        """Send it to the observers over there."""
        self._send("run_started", dict(facts))

    def epoch_finished(self, run: Run, epoch: int, metrics: Mapping[str, float]) -> None:
        """Send it to the observers over there."""
        self._send("epoch_finished", epoch, dict(metrics))

    def run_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Send it to the observers over there."""
        self._send("run_finished", dict(metrics))


@dataclass(frozen=True)
class _Order:
    """A job as it travels: plain values and datasets."""

    model: Spec
    strategy: Spec
    part: Any
    run: Mapping[str, Any]
    n_threads: int
    work: Callable[[Job], None]


def run_jobs(jobs: Sequence[Job], work: Callable[[Job], None], *, n_parallel: int) -> None:
    """Do all jobs, `n_parallel` at a time; progress and observers are told here.

    The processes are started afresh (spawn), so a script that calls this needs the usual
    ``if __name__ == "__main__":``.

    Raises:
        EpitaxyError: a job failed; the others are stopped with a checkpoint.
        KeyboardInterrupt: asked to stop; all jobs have written checkpoints.
    """
    n_threads = max(1, (jobs[0].run.training.n_threads or torch.get_num_threads()) // n_parallel)
    waiting = list(jobs)
    active: list[_Worker] = []
    try:
        while waiting or active:
            while waiting and len(active) < n_parallel:
                active.append(_Worker(waiting.pop(0), work, n_threads=n_threads))
            for worker in tuple(active):
                worker.listen()
                if not worker.is_alive():
                    worker.listen()
                    active.remove(worker)
                    worker.check()
            time.sleep(_POLL_SECONDS)
    except BaseException:
        # Ctrl-C reaches the workers by itself; a failed job must stop the others.
        for worker in active:
            worker.stop()
        for worker in active:
            worker.wait()
        raise


class _Worker:
    def __init__(self, job: Job, work: Callable[[Job], None], *, n_threads: int) -> None:
        run = job.run
        self._job = job
        self._failure: tuple[str, str] | None = None
        self._interrupted = False
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        order = _Order(
            job.model,
            job.strategy,
            job.part,
            {
                "directory": run.directory,
                "seed": run.seed,
                "device": run.device,
                "dtype": run.dtype,
                "training": run.training,
                "resume": run.resume,
                "name": run.name,
            },
            n_threads,
            work,
        )
        self._process: SpawnProcess = context.Process(target=_work, args=(order, theirs))
        self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def listen(self) -> None:
        run = self._job.run
        try:
            while self._pipe.poll():
                kind, *content = self._pipe.recv()
                if kind == "failed":
                    self._failure = (content[0], content[1])
                elif kind == "interrupted":
                    self._interrupted = True
                elif kind == "run_started":
                    run.started(*content)
                elif kind == "epoch_finished":
                    run.epoch_finished(*content)
                elif kind == "run_finished":
                    run.finished(*content)
                else:
                    getattr(run.progress, kind)(*content)
        except EOFError:
            pass

    def check(self) -> None:
        self._process.join()
        name = self._job.run.name
        if self._interrupted:
            raise KeyboardInterrupt(f"{name} was stopped; checkpoint written")
        if self._failure is not None:
            kind, message = self._failure
            known = getattr(errors, kind, None)
            is_ours = isinstance(known, type) and issubclass(known, EpitaxyError)
            error = known if is_ours and known is not None else TrainingError
            prefix = "" if is_ours else f"{kind}: "
            raise error(f"{name}: {prefix}{message}")
        if self._process.exitcode:
            code = self._process.exitcode
            died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise TrainingError(
                f"the process of {name} ended with {died}; if memory ran out, use fewer "
                f"n_parallel. Continue with --resume"
            )

    def stop(self) -> None:
        if self._process.is_alive() and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def wait(self) -> None:
        while self._process.is_alive():
            self.listen()
            self._process.join(_POLL_SECONDS)


def _work(order: _Order, pipe: Connection) -> None:
    logging.basicConfig(level=logging.WARNING)
    reports = Reports(pipe)
    facts = dict(order.run)
    torch.set_num_threads(order.n_threads)
    training = replace(facts.pop("training"), n_threads=order.n_threads)
    directory = Path(facts.pop("directory"))
    run = Run(directory, training=training, progress=reports, observers=[reports], **facts)
    try:
        order.work(Job(order.model, order.strategy, order.part, run))
    except KeyboardInterrupt:
        pipe.send(("interrupted",))
    except EpitaxyError as error:
        pipe.send(("failed", type(error).__name__, str(error)))
    except Exception as error:
        logging.getLogger("epitaxy").exception("a member failed")
        pipe.send(("failed", type(error).__name__, str(error)))
    finally:
        pipe.close()
