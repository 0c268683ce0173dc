"""A dataset in the memory of many processes; any of them takes any batch at any time.

Each rank loads its own part once, then no file is touched any more. A batch is fetched with
one-sided MPI transfers: one per structure that lies elsewhere, all of a batch together, and the
owner does nothing for it. One process alone needs no MPI.

    from epitaxy.stores.distributed import DistributedStore, world

    with DistributedStore("set.epitaxy", comm=world()) as store:
        for batch in store.prefetch(my_batches):   # each a Dataset in memory
            ...
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, overload

import numpy as np

from epitaxy.dataset import Dataset, Rows, Structures, row_numbers
from epitaxy.entry import Entry
from epitaxy.errors import DataError, OptionError, StoreError
from epitaxy.quantities import quantity
from epitaxy.stores.collective import agree, all_gather, check_same, checked_group_size, world
from epitaxy.stores.columns import blocks
from epitaxy.stores.prefetch import in_thread, in_turn
from epitaxy.stores.records import Layout, Tables, id_lengths
from epitaxy.stores.shares import Share, open_share
from epitaxy.stores.windows import CHUNK_BYTES, Window

__all__ = ["DistributedStore", "world"]

BLOCK_ROWS = 4096
"""Structures that are fetched together when a whole column is asked for."""


class _Fetch(NamedTuple):
    """Records on their way: complete after the next flush."""

    records: np.ndarray
    starts: np.ndarray
    n_atoms: np.ndarray


class DistributedStore:
    """A dataset that the ranks of a communicator hold together, in their order of rows.

    It has what training asks of a `Dataset`: `n_atoms`, `gather`, `target`, `tag`, `ids`,
    `elements`, `targets`, `methods`, `digest`; ``store.batch(rows)`` is a `Dataset` in memory of
    exactly those rows, the same bit by bit as ``dataset[rows]``.

    Made and closed by all ranks together; everything else is done by each rank for itself, when
    it likes. If making it fails on one rank, all ranks raise. If a rank fails later, the others
    are not told: start programs with ``mpiexec -n N python -m mpi4py program.py``, which ends
    all ranks when one dies of an error.

    Args:
        source: a dataset, the same on all ranks, or the path of one. Of a dataset on disk,
            memory-mapped or BP5, each rank reads its part only.
        comm: an mpi4py communicator, such as `world()`; None for this process alone.
        group_size: ranks that share one copy of the dataset; all ranks by default. 1 gives each
            rank a whole copy. It must divide the number of ranks.
        chunk_bytes: longer transfers are cut.

    Raises:
        StoreError: the ranks opened different datasets, or one of them could not read its part.
        OptionError: `group_size` does not divide the number of ranks.
        MissingDependencyError: from `world()`, without mpi4py or an MPI library.
    """

    def __init__(
        self,
        source: Dataset | str | Path,
        *,
        comm: Any = None,
        group_size: int | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ):
        self._window: Window | None = None
        self._group: Any = None
        self._lock = threading.Lock()
        n_ranks = 1 if comm is None else int(comm.Get_size())
        rank = 0 if comm is None else int(comm.Get_rank())

        def prepare() -> tuple[Share, int]:
            size = checked_group_size(group_size, n_ranks)
            if chunk_bytes < 1:
                raise OptionError(f"chunk_bytes is {chunk_bytes}; it must be at least 1")
            return open_share(source, rank % size, size), size

        share, size = agree(comm, prepare)
        check_same(
            comm,
            f"{share.n_structures} structures, digest {share.fingerprint[:12]}, group_size {size}",
        )
        self._digest = share.digest
        self._history = share.dataset.history
        if comm is not None:
            self._group = comm.Split(rank // size, rank)
        self.group_size = size
        self.n_groups = n_ranks // size
        self._rank = rank % size
        own_tables = Tables.of(share.dataset._columns)
        self._tables = _common_tables(self._group, own_tables)
        self._layout = Layout(self._tables.targets, tuple(self._tables.tags))
        try:
            self._load(share.dataset, comm, chunk_bytes, is_recoded=self._tables is not own_tables)
        except Exception:
            self.close()  # all ranks come here, or none
            raise

    def _load(self, share: Dataset, comm: Any, chunk_bytes: int, *, is_recoded: bool) -> None:
        """Copy the own rows into the window and learn where everybody's are."""
        columns, rows = share._columns, share._base_rows(slice(None))
        assert rows is not None

        def measure() -> tuple[np.ndarray, np.ndarray]:
            n_atoms = columns.atom_ptr[rows + 1] - columns.atom_ptr[rows]
            return n_atoms, self._layout.sizes(n_atoms, id_lengths(columns.ids, rows))

        n_atoms, sizes = agree(comm, measure)
        lengths = [len(rows)] if self._group is None else self._group.allgather(len(rows))
        self._bounds = np.cumsum([0, *lengths])
        self._n = int(self._bounds[-1])
        self.n_atoms = all_gather(self._group, n_atoms, lengths)
        self.n_atoms.setflags(write=False)
        self._record_ptr = np.zeros(self._n + 1, dtype=np.int64)
        np.cumsum(all_gather(self._group, sizes, lengths), out=self._record_ptr[1:])
        self._window = Window(int(sizes.sum()), self._group, chunk_bytes=chunk_bytes)
        local = self._window.local
        counts = np.zeros(256, dtype=np.int64)
        codes: dict[int, None] = {}

        def fill() -> None:
            start = done = 0
            for block in blocks(columns, rows):
                coded = self._tables.recode(block) if is_recoded else block
                n_bytes = int(sizes[done : done + len(block)].sum())
                self._layout.pack(coded, local[start : start + n_bytes])
                counts[:] += np.bincount(block.numbers, minlength=256)
                codes.update(dict.fromkeys(coded.method_codes.tolist()))
                start, done = start + n_bytes, done + len(block)

        agree(comm, fill)
        self._window.publish()
        if self._group is not None:
            counts = np.sum(self._group.allgather(counts), axis=0)
            codes = {code: None for own in self._group.allgather(codes) for code in own}
        self.methods = tuple(self._tables.methods[code] for code in codes)
        self.elements = frozenset(int(z) for z in counts.nonzero()[0])

    # --- batches ---

    def batch(self, rows: Rows) -> Dataset:
        """Return some structures as a dataset in memory, in the order of `rows`.

        Args:
            rows: slice, whole numbers (a row may come twice) or mask.

        Raises:
            IndexError: a row is not in the store; nothing was fetched.
            StoreError: the store is closed.
        """
        with self._lock:
            fetch = self._ask(rows)
            self._open_window().flush()
            return self._unpacked(fetch)

    def prefetch(
        self, batches: Iterable[Rows], *, in_background: bool = False
    ) -> Iterator[Dataset]:
        """Yield one dataset per batch, and fetch the next while this one is worked on.

        The transfers of the next batch are begun before a batch is handed out and finished when
        the next one is asked for. Where the network moves bytes by itself they cost no time of
        the processor; on one machine they are copies in memory and are made at once.

        Args:
            batches: rows of each batch, as `batch` takes them.
            in_background: let a thread fetch and unpack instead: worth it where a core is free.

        Raises:
            OptionError: `in_background` and an MPI library that was started without threads.
        """
        if not in_background:
            yield from in_turn(batches, begin=self._begin, wait=self._wait, finish=self._finish)
            return
        if not self._open_window().allows_threads:
            raise OptionError(
                "in_background needs MPI.Query_thread() == MPI.THREAD_MULTIPLE, and this MPI was "
                "started with less; leave in_background out"
            )
        yield from in_thread(batches, fetch=self.batch)

    def _begin(self, rows: Rows) -> _Fetch:
        with self._lock:
            return self._ask(rows)

    def _wait(self) -> None:
        with self._lock:
            if self._window is not None:
                self._window.flush()

    def _finish(self, fetch: _Fetch) -> Dataset:
        with self._lock:
            return self._unpacked(fetch)

    def _ask(self, wanted: Rows) -> _Fetch:
        """Begin to fetch records: those that lie side by side in one transfer."""
        window = self._open_window()
        rows = row_numbers(wanted, self._n)
        ptr, n_atoms = self._record_ptr, self.n_atoms[rows]
        first_own, last_own = self._bounds[self._rank : self._rank + 2]
        if not len(rows) or (int(rows.min()) >= first_own and int(rows.max()) < last_own):
            return _Fetch(window.local, ptr[rows] - ptr[first_own], n_atoms)
        unique, which = np.unique(rows, return_inverse=True)
        owners = np.searchsorted(self._bounds, unique, side="right") - 1
        ends = (ptr[unique + 1] - ptr[unique]).cumsum()
        records = np.empty(int(ends[-1]), dtype=np.uint8)
        breaks = ((np.diff(unique) != 1) | (np.diff(owners) != 0)).nonzero()[0]
        first = np.concatenate([[0], breaks + 1])
        edges = np.concatenate([[0], ends[breaks], ends[-1:]]).tolist()
        sources = (ptr[unique[first]] - ptr[self._bounds[owners[first]]]).tolist()
        for owner, source, begin, end in zip(
            owners[first].tolist(), sources, edges[:-1], edges[1:], strict=True
        ):
            if owner == self._rank:
                records[begin:end] = window.local[source : source + end - begin]
            else:
                window.get(owner, source, records[begin:end])
        starts = ends - (ptr[unique + 1] - ptr[unique])
        return _Fetch(records, starts[which], n_atoms)

    def _unpacked(self, fetch: _Fetch) -> Dataset:
        self._open_window()  # own records are read where they lie
        columns = self._layout.unpack(fetch.records, fetch.starts, fetch.n_atoms, self._tables)
        return Dataset(columns, history=self._history)

    def _open_window(self) -> Window:
        if self._window is None:
            raise StoreError("the store is closed; nothing can be fetched any more")
        return self._window

    # --- what a Dataset has ---

    def __len__(self) -> int:
        """Number of structures, on all ranks together."""
        return self._n

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Entry: ...
    @overload
    def __getitem__(self, key: Rows) -> Dataset: ...
    def __getitem__(self, key: int | np.integer[Any] | Rows) -> Entry | Dataset:
        if isinstance(key, (int, np.integer)):
            return self.batch([range(self._n)[int(key)]])[0]
        return self.batch(key)

    def __iter__(self) -> Iterator[Entry]:
        for part in self._parts():
            yield from part

    def __repr__(self) -> str:
        where = f"rank {self._rank} of {self.group_size}, {self.n_groups} copies"
        return f"<DistributedStore: {self._n} structures; {where}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a distributed store cannot be pickled: it is memory of this process")

    @property
    def own_rows(self) -> range:
        """The rows that lie in the memory of this rank."""
        return range(*(int(row) for row in self._bounds[self._rank : self._rank + 2]))

    @property
    def traffic(self) -> tuple[int, int]:
        """Transfers from other ranks so far, and their bytes."""
        window = self._open_window()
        return window.n_gets, window.n_bytes_fetched

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the quantities that some structure carries."""
        return self._tables.targets

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the text labels that some structure carries."""
        return tuple(self._tables.tags)

    @property
    def history(self) -> tuple[dict[str, Any], ...]:
        """What was done since the source, one plain dict per operation."""
        return self._history

    @cached_property
    def digest(self) -> str:
        """The digest of the dataset that was loaded."""
        return self._digest()

    @property
    def ids(self) -> Sequence[str]:
        """Name of each structure, fetched when it is asked for."""
        return _Ids(self)

    def gather(self, rows: Rows | None = None) -> Structures:
        """Return some structures, stacked in the order of `rows`; see `Dataset.gather`.

        Args:
            rows: all by default: then every rank gets a whole copy.
        """
        if rows is not None:
            return self.batch(rows).gather()
        parts = [part.gather() for part in self._parts()]
        return Structures(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def target(self, name: str, rows: Rows | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of one target and which structures have it; see `Dataset.target`.

        Raises:
            DataError: no structure has this target; the message lists those there are.
        """
        if name not in self.targets:
            quantity(name)  # a misspelt name gets the nearest match
            raise DataError(
                f"no structure has the target {name!r}; there are: "
                f"{', '.join(self.targets) or 'none'}"
            )
        if rows is not None:
            return self.batch(rows).target(name)
        values, masks = zip(*(part.target(name) for part in self._parts()), strict=True)
        return np.concatenate(values), np.concatenate(masks)

    def tag(self, name: str) -> np.ndarray:
        """Return one text label of every structure, (n,) str; "" where it is missing.

        Raises:
            DataError: no structure has this tag; the message lists those there are.
        """
        return np.concatenate([part.tag(name) for part in self._parts()])

    def _parts(self) -> Iterator[Dataset]:
        """Yield all rows in pieces of bounded size; at least one."""
        for start in range(0, max(self._n, 1), BLOCK_ROWS):
            yield self.batch(slice(start, start + BLOCK_ROWS))

    # --- the end ---

    def close(self) -> None:
        """Give the memory back; all ranks must call it, and wait for each other."""
        with self._lock:  # a thread of `prefetch` may be at work
            window, self._window = self._window, None
        if window is not None:
            window.close()
        if self._group is not None:
            self._group.Free()
            self._group = None

    def __enter__(self) -> DistributedStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A rank that dies of an error must not wait here for others that know nothing of it.
        if kind is None:
            self.close()


class _Ids(Sequence[str]):
    """Names of the structures of a store."""

    def __init__(self, store: DistributedStore):
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return self._store.batch(index).ids
        return self._store[index].id

    def __iter__(self) -> Iterator[str]:
        for part in self._store._parts():
            yield from part.ids


def _common_tables(comm: Any, own: Tables) -> Tables:
    """Return tables that hold what the parts of all ranks need."""
    if comm is None or len(set(comm.allgather(own.sha256))) == 1:
        return own
    return Tables.merged(comm.allgather(own))
