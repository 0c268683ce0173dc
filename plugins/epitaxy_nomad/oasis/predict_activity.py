"""The activity of the action: it reads structures, predicts, and writes an entry.

It runs in the action worker, the only process of an Oasis that needs torch; torch is imported
when the activity runs, not before.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from temporalio import activity
from temporalio.exceptions import ApplicationError

from epitaxy_nomad.oasis.predict_models import PredictJob, PredictOutput
from epitaxy_nomad.oasis.upload_access import Upload, open_upload

PREDICT = "epitaxy_nomad.predict_on_entries"
REFUSED = "PredictionRefused"
"""Type of errors that another attempt does not mend."""

_BEAT = 10.0
"""Seconds between heartbeats."""


class Predicting:
    """The activity, with the way in which it reaches uploads.

    Args:
        open_upload: called with upload id and user id.
    """

    def __init__(self, open_upload: Callable[[str, str], Upload] = open_upload) -> None:
        self._open_upload = open_upload

    @activity.defn(name=PREDICT)  # type: ignore[untyped-decorator]
    def predict(self, job: PredictJob) -> PredictOutput:
        """Predict and write the entry.

        Raises:
            ApplicationError: the request cannot be met; the message says why.
        """
        from epitaxy.errors import EpitaxyError

        with _beating():
            try:
                return self._predict(job)
            except (EpitaxyError, PermissionError, FileNotFoundError) as error:
                raise ApplicationError(str(error), type=REFUSED, non_retryable=True) from error

    def _predict(self, job: PredictJob) -> PredictOutput:
        from epitaxy_nomad.oasis.predict import collect, find_model, predict, write

        request = job.request
        target = self._open_upload(request.upload_id, request.user_id)
        target.check_writable()
        other = request.model_upload_id
        source = (
            target
            if other in ("", request.upload_id)
            else self._open_upload(other, request.user_id)
        )
        with tempfile.TemporaryDirectory(prefix="epitaxy-") as place:
            known = find_model(source, request.model, Path(place) / "artifact")
            collected = collect(
                target,
                request.entry_ids,
                elements=known.model.capabilities.elements,
                max_structures=job.limits.max_structures,
            )
            found = predict(known, collected, request.targets)
            return write(
                target,
                known,
                collected,
                found,
                name=request.name,
                limits=job.limits,
                folder=Path(place),
            )


@contextmanager
def _beating() -> Iterator[None]:
    """Tell the server from a second thread that the activity is alive."""
    from contextvars import copy_context

    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(_BEAT):
            activity.heartbeat()

    thread = threading.Thread(target=copy_context().run, args=(beat,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
