"""A dataset as BP5 files of ADIOS2: one per writer, and an index that says what is where.

The directory holds ``manifest.json`` and ``part-00000.bp``, ``part-00001.bp`` ...: a handful of
files, whatever the number of structures, which is what parallel file systems like. It is a store
to exchange, to archive and to load from; `Dataset.open` reads a column when it is first used,
`open_share` only the rows of one rank. To train from random batches on one machine, the
memory-mapped store is faster (docs/stores.md).

    write_bp5(dataset, "big", n_parts=8)           # one process
    Dataset.open("big")
    open_share("big", rank, n_ranks)               # reads a manifest and the share, not more

    with PartWriter("big", rank, n_ranks) as part: # every process of many
        part.extend(entries)
    merge_index("big")                             # then one of them
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.entry import Entry
from epitaxy.errors import StoreError
from epitaxy.replacing import beside, put_in_place
from epitaxy.stores.adios import load_adios2
from epitaxy.stores.bp5_columns import StoredColumns, stored_columns
from epitaxy.stores.bp5_index import Index, read_index
from epitaxy.stores.bp5_part import Part, PartFile
from epitaxy.stores.bp5_parts import (
    PartWriter,
    Tell,
    check_place,
    digest_of_parts,
    discard_parts,
    disk_errors,
    merge_index,
)
from epitaxy.stores.columns import BLOCK_ATOMS, Columns, blocks

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

__all__ = [
    "PartWriter",
    "discard_parts",
    "merge_index",
    "open_columns",
    "open_share",
    "pieces",
    "write_bp5",
    "write_share",
]


# --- reading ---


def open_columns(path: Path, *, verify: bool = False) -> tuple[StoredColumns, dict[str, Any]]:
    """Open a dataset; its files are compared with the index, columns are read when used.

    Args:
        path: directory of the dataset.
        verify: read every column and compare its sha256.

    Raises:
        StoreError: see `Dataset.open`.
        MissingDependencyError: adios2 is not installed.
    """
    load_adios2()
    index = read_index(path)
    ranges = index.ranges(0, index.n_structures)
    if verify:
        for facts in index.parts:
            Part(path, facts).verify()
    columns = stored_columns(ranges, targets=index.targets, tags=index.tags)
    return columns, {"history": index.history, "digest": index.digest or None}


def open_share(path: str | Path, rank: int, n_ranks: int) -> Dataset:
    """Open the share of one process: rows rank/n to (rank + 1)/n of the dataset.

    Reads the manifest and the parts that hold the share; other parts are not looked at.

    Args:
        path: directory of the dataset.
        rank: from 0.
        n_ranks: number of shares.

    Raises:
        StoreError: the dataset is incomplete, or a part of the share is damaged.
        MissingDependencyError: adios2 is not installed.
    """
    if not 0 <= rank < n_ranks:
        raise StoreError(f"rank {rank} of {n_ranks}: ranks are counted from 0")
    load_adios2()
    index = read_index(Path(path))
    n = index.n_structures
    return _rows(index, n * rank // n_ranks, n * (rank + 1) // n_ranks)


def pieces(path: str | Path, *, n_structures: int = 10_000) -> Iterator[Dataset]:
    """Yield a dataset in consecutive pieces: what is larger than the memory can be copied so.

    Raises:
        StoreError: the dataset is incomplete or damaged.
    """
    index = read_index(Path(path))
    for start in range(0, index.n_structures, n_structures):
        yield _rows(index, start, min(start + n_structures, index.n_structures))


def _rows(index: Index, start: int, stop: int) -> Dataset:
    from epitaxy.dataset import Dataset

    columns = stored_columns(index.ranges(start, stop), targets=index.targets, tags=index.tags)
    return Dataset(columns, history=index.history)


# --- writing ---


def write_bp5(
    dataset: Dataset | Iterable[Entry],
    path: str | Path,
    *,
    n_parts: int = 1,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> None:
    """Write a dataset as BP5 files, to the side and then renamed.

    Args:
        dataset: a dataset (its history goes along), or entries as they come.
        path: directory to make.
        n_parts: number of BP5 files; more than one needs a `Dataset`.
        overwrite: replace a dataset that is there already.
        tell: called now and then with (structures seen, structures written, fraction).

    Raises:
        StoreError: something is at `path` already, or the disk refuses; what was there stays.
        EntryError: arrays of an entry do not fit together.
        MissingDependencyError: adios2 is not installed.
    """
    from epitaxy.dataset import Dataset

    path = Path(path)
    load_adios2()
    if not isinstance(dataset, Dataset) and (n_parts != 1 or isinstance(dataset, Sequence)):
        if not isinstance(dataset, Sequence):
            raise StoreError(
                f"{n_parts} parts of entries that come one by one: their number is not known; "
                "give a Dataset, or write one part"
            )
        dataset = Dataset.from_entries(dataset)
    if n_parts < 1:
        raise StoreError(f"n_parts = {n_parts}: a dataset has at least one part")
    check_place(path, overwrite=overwrite)
    folder = beside(path, "tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        with disk_errors(path):
            _write_parts(dataset, folder, n_parts, tell)
            check_place(path, overwrite=overwrite)
            put_in_place(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_parts(
    dataset: Dataset | Iterable[Entry], folder: Path, n_parts: int, tell: Tell | None
) -> None:
    from epitaxy.dataset import Dataset

    history = dataset.history if isinstance(dataset, Dataset) else ()
    total = len(dataset) if isinstance(dataset, Dataset) else None
    facts = []
    n_written, digest = 0, ""
    for i in range(n_parts):
        if isinstance(dataset, Dataset):
            assert total is not None
            rows = slice(total * i // n_parts, total * (i + 1) // n_parts)
            view = dataset[rows] if n_parts > 1 else dataset
            stream = blocks(view._columns, view._rows)
        else:
            stream = _blocks_of_entries(dataset)
        part = PartFile(folder / f"part-{i:05d}.bp")
        try:
            for block in stream:
                part.add(block)
                n_written += len(block)
                if tell:
                    tell(n_written, n_written, n_written / total if total else None)
            facts.append(part.finish(history=history))
            digest = part.digest()
        finally:
            part.abandon()  # nothing happens to a part that is finished
    if n_parts > 1:
        digest = digest_of_parts(folder, facts)
    Index(path=folder, parts=facts, history=history, digest=digest).write(folder)


def _blocks_of_entries(entries: Iterable[Entry]) -> Iterator[Columns]:
    waiting: list[Entry] = []
    n_atoms = 0
    for entry in entries:
        waiting.append(entry)
        n_atoms += len(entry)
        if n_atoms >= BLOCK_ATOMS // 8 or len(waiting) >= 1000:
            yield Columns.from_entries(waiting)
            waiting, n_atoms = [], 0
    if waiting:
        yield Columns.from_entries(waiting)


def write_share(
    entries: Dataset | Iterable[Entry], path: str | Path, *, comm: Any, overwrite: bool = False
) -> None:
    """Write a dataset together: every rank of an MPI communicator calls this with its entries.

    Args:
        entries: of this rank; the dataset is those of rank 0, then of rank 1 ...
        path: directory to make.
        comm: a communicator of mpi4py.
        overwrite: replace a dataset that is there already.

    Raises:
        StoreError: on every rank, if one of them failed; a dataset at `path` stays as it was.
    """
    path = Path(path)
    rank, n_ranks = comm.Get_rank(), comm.Get_size()
    writer = PartWriter(path, rank, n_ranks, overwrite=True)
    error = ""
    try:
        if rank == 0:
            check_place(path, overwrite=overwrite)
        with writer:
            writer.extend(entries)
            for step in getattr(entries, "history", ()):
                writer.record(step)
    except Exception as raised:  # told to all ranks, which would wait for this one for ever
        error = f"rank {rank}: {raised}"
    errors = [said for said in comm.allgather(error) if said]
    if errors and not error:
        writer.remove()
    if not errors and rank == 0:
        try:
            merge_index(path, overwrite=overwrite)
        except Exception as raised:
            errors = [str(raised)]
    errors = errors or comm.bcast(errors, root=0)
    if errors:
        raise StoreError("; ".join(errors))
