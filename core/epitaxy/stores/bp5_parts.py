"""Writing a BP5 dataset with several processes: each writes its part, one merges the index.

The parts collect in ``<name>.parts`` beside the final place, which holds the old dataset or
nothing until `merge_index` has seen that every part is complete. A rank claims its part with a
file that only one process can make, so two ranks can never write into one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from epitaxy.entry import Entry
from epitaxy.errors import StoreError
from epitaxy.replacing import put_in_place, recover
from epitaxy.stores.bp5_columns import PartRange, stored_columns
from epitaxy.stores.bp5_index import (
    Index,
    facts_from_json,
    parts_folder,
    what_is_there,
)
from epitaxy.stores.bp5_part import Part, PartFacts, PartFile
from epitaxy.stores.columns import (
    BLOCK_ATOMS,
    BLOCK_STRUCTURES,
    Columns,
    HashSink,
    Recorder,
    blocks,
    digest_of,
)

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

Tell = Callable[[int, int, float | None], None]


class PartWriter:
    """Writes the part of one rank, in bounded memory.

    Use it in a ``with`` block; an error removes what was written. When all ranks are done, one
    of them calls `merge_index`.

    Args:
        path: of the dataset to be.
        rank: number of this writer, from 0; the parts follow one another in this order.
        n_ranks: how many writers there are.
        overwrite: a dataset at `path` will be replaced by the merge.

    Raises:
        StoreError: another process writes, or has written, this part; something else is at
            `path`; or the disk refuses.
    """

    def __init__(
        self, path: str | Path, rank: int = 0, n_ranks: int = 1, *, overwrite: bool = False
    ):
        if not 0 <= rank < n_ranks:
            raise StoreError(f"rank {rank} of {n_ranks}: ranks are counted from 0")
        self.path = Path(path)
        self.rank = rank
        self.n_ranks = n_ranks
        check_place(self.path, overwrite=overwrite)
        self._folder = parts_folder(self.path)
        stem = f"part-{rank:05d}"
        self._claim = self._folder / f"{stem}.writer"
        self._done = self._folder / f"{stem}.json"
        self._part = self._folder / f"{stem}.bp"
        self._history: list[dict[str, Any]] = []
        self._waiting: list[Entry] = []
        self._waiting_atoms = 0

    def __enter__(self) -> PartWriter:
        with disk_errors(self.path):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                claim_part(self._claim, self._done)
            except OSError:
                with suppress(OSError):
                    self._folder.rmdir()
                raise
        try:
            with disk_errors(self.path):
                shutil.rmtree(self._part, ignore_errors=True)  # of a writer that was killed
                self._file = PartFile(self._part)
        except BaseException:
            self._give_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException:
            self._file.abandon()
            self._give_up()
            raise
        if kind is not None:
            self._file.abandon()
            self._give_up()

    def _finish(self) -> None:
        self._flush()
        with disk_errors(self.path):
            facts = self._file.finish(history=self._history)
            text = json.dumps(
                {
                    "part": asdict(facts),
                    "digest": self._file.digest(),
                    "n_ranks": self.n_ranks,
                    "history": self._history,
                }
            )
            aside = self._done.with_suffix(".json-partial")
            with aside.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            aside.rename(self._done)
            self._claim.unlink()

    def _give_up(self) -> None:
        shutil.rmtree(self._part, ignore_errors=True)
        with suppress(OSError):
            self._done.with_suffix(".json-partial").unlink(missing_ok=True)
            self._claim.unlink(missing_ok=True)
            self._folder.rmdir()  # if it was the only part

    def remove(self) -> None:
        """Remove the finished part again, because another rank failed."""
        self._done.unlink(missing_ok=True)
        self._give_up()

    def append(self, entry: Entry) -> None:
        """Take one entry.

        Raises:
            EntryError: arrays of an entry do not fit together; the message names it.
            StoreError: the disk refuses.
        """
        self._waiting.append(entry)
        self._waiting_atoms += len(entry)
        if self._waiting_atoms >= BLOCK_ATOMS // 8 or len(self._waiting) >= 1000:
            self._flush()

    def extend(self, entries: Dataset | Iterable[Entry]) -> None:
        """Take many entries; a dataset is copied block by block."""
        from epitaxy.dataset import Dataset

        if not isinstance(entries, Dataset):
            for entry in entries:
                self.append(entry)
            return
        self._flush()
        for block in blocks(entries._columns, entries._rows):
            self._file.add(block)

    def record(self, step: Mapping[str, Any]) -> None:
        """Add one operation to the history; the dataset gets the history of rank 0."""
        self._history.append(dict(step))

    def _flush(self) -> None:
        if self._waiting:
            self._file.add(Columns.from_entries(self._waiting))
        self._waiting, self._waiting_atoms = [], 0


def claim_part(claim: Path, done: Path) -> None:
    """Make the file that says that this process writes a part.

    Raises:
        StoreError: another process has it, or the part is finished.
    """
    mend = f"discard_parts({str(claim.parent.with_suffix(''))!r})"
    if done.exists():
        raise StoreError(
            f"{done.with_suffix('.bp')}: this part is written already; two ranks must not write "
            f"one part. If all parts are there, call merge_index; to write them again call {mend}"
        )
    said = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    for _ in range(2):
        try:
            handle = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            if owner := _living_owner(claim):
                raise StoreError(
                    f"{claim.with_suffix('.bp')}: {owner} writes this part; two ranks must not "
                    "write one part: give each its own rank. If that process no longer exists, "
                    f"call {mend}"
                ) from None
            with suppress(OSError):  # of a writer that was killed; only one takes it away
                dead = claim.with_name(f"{claim.name}-dead-{os.getpid()}")
                claim.rename(dead)
                dead.unlink()
            continue
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump(said, stream)
        except OSError:
            claim.unlink()
            raise
        return
    raise StoreError(f"{claim.with_suffix('.bp')}: another process has just begun this part")


def _living_owner(claim: Path) -> str:
    """Return who writes a part, "" if that process is dead."""
    try:
        said = json.loads(claim.read_text())
        host, pid = str(said["host"]), int(said["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if host != socket.gethostname():
        return f"process {pid} on {host}"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return f"process {pid}"


def discard_parts(path: str | Path) -> None:
    """Remove the parts of a dataset that were not merged; the dataset itself is not touched.

    Raises:
        StoreError: a process on this machine still writes one of them.
    """
    folder = parts_folder(Path(path))
    if not folder.is_dir():
        return
    for claim in sorted(folder.glob("part-*.writer")):
        owner = _living_owner(claim)
        if owner == f"process {os.getpid()}" or not owner:
            continue
        if " on " not in owner:
            raise StoreError(f"{folder}: {owner} still writes {claim.stem}; end it first")
    shutil.rmtree(folder, ignore_errors=True)


def merge_index(
    path: str | Path,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    overwrite: bool = False,
    digest: bool = True,
) -> None:
    """Make a dataset of the parts that `PartWriter`s have finished.

    Args:
        path: of the dataset.
        history: of the dataset; that of rank 0 by default.
        overwrite: replace a dataset that is there already.
        digest: read everything once more to compute the digest; without, the first use of
            `Dataset.digest` does that.

    Raises:
        StoreError: parts are missing, unfinished or of another number of ranks, or the disk
            refuses; a dataset at `path` stays as it was.
    """
    path = Path(path)
    check_place(path, overwrite=overwrite)
    folder = parts_folder(path)
    if not folder.is_dir():
        raise StoreError(f"{folder}: there are no parts to merge; write them with PartWriter")
    said = [json.loads(file.read_text()) for file in sorted(folder.glob("part-*.json"))]
    n_ranks = {part["n_ranks"] for part in said}
    if len(n_ranks) > 1:
        raise StoreError(
            f"{folder}: the parts were written by {' and by '.join(map(str, sorted(n_ranks)))} "
            f"ranks: they are of different runs; call discard_parts({str(path)!r}), write again"
        )
    n_parts = next(iter(n_ranks), 0)
    missing = sorted(set(range(n_parts)) - {int(p["part"]["file"][5:-3]) for p in said})
    if missing or not said or any(folder.glob("part-*.writer")):
        ranks = f"; missing of {n_parts}: {', '.join(map(str, missing[:20]))}" if missing else ""
        raise StoreError(
            f"{folder}: not complete: {what_is_there(folder)}{ranks}. Wait for the writers that "
            "live and run those again that were killed, then merge"
        )
    parts = [facts_from_json(part["part"]) for part in said]
    whole = ""
    if digest:
        whole = said[0]["digest"] if len(parts) == 1 else digest_of_parts(folder, parts)
    steps = said[0]["history"] if history is None else history
    with disk_errors(path):
        Index(path=folder, parts=parts, history=steps, digest=whole).write(folder)
        for file in folder.glob("part-*.json"):
            file.unlink()
        check_place(path, overwrite=overwrite)
        put_in_place(folder, path)


def digest_of_parts(folder: Path, parts: Sequence[PartFacts]) -> str:
    """Return the digest of the data in several parts, read block by block.

    Raises:
        StoreError: a part is missing or damaged.
    """
    sinks: dict[str, HashSink] = {}
    recorder = Recorder(lambda name, *of: sinks.setdefault(name, HashSink(name, *of)))
    for facts in parts:
        part = Part(folder, facts)
        part.check_files()
        for block in blocks_of(part):
            recorder.add(block)
        part.close()
    recorder.finish()
    return digest_of(recorder, {name: sink.sha256 for name, sink in sinks.items()})


def blocks_of(part: Part) -> Iterator[Columns]:
    """Yield the rows of a part in blocks of bounded size."""
    facts = part.facts
    start = 0
    while start < facts.n_structures:
        stop = min(start + BLOCK_STRUCTURES, facts.n_structures)
        ends = part.read("atom_ptr", start, stop + 1)
        fitting = int((ends[1:] - ends[0] <= BLOCK_ATOMS).sum())
        stop = start + max(1, fitting)
        rows = PartRange(part, start, stop)
        yield stored_columns([rows], targets=facts.targets, tags=facts.tags)
        start = stop


def check_place(path: Path, *, overwrite: bool) -> None:
    """Check that a dataset may be put at `path`.

    Raises:
        StoreError: something is there that must not be replaced.
    """
    from epitaxy.stores.formats import dataset_format

    if path.name in ("", ".."):
        raise StoreError(f"{path}: a dataset is a directory of its own: give it a name")
    recover(path)
    if not (path.exists() or path.is_symlink()):
        return
    if dataset_format(path) is None:
        raise StoreError(
            f"{path}: exists and is not a dataset; it will not be replaced, choose another name"
        )
    if not overwrite:
        raise StoreError(
            f"{path}: there is a dataset already; use --overwrite (overwrite=True) to replace "
            "it, or choose another name"
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the errors of a file system into ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: the dataset could not be written: {error.strerror or error}; what was "
            "there before is untouched"
        ) from error
