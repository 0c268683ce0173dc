"""Memory of one process that the others of a communicator read, without its help (MPI)."""

from __future__ import annotations

from typing import Any

import numpy as np

CHUNK_BYTES = 1 << 30
"""Longest single transfer: Open MPI 5.0 fails at 2 GB."""


class Window:
    """Bytes of this process, readable by every rank of a communicator.

    The memory comes from `MPI.Win.Allocate`: then transfers need nothing of the process they
    read from (with `Win.Create` Open MPI waits until that process calls MPI itself). One
    `lock_all` lasts as long as the window.

    Args:
        n_bytes: size of the own part.
        comm: mpi4py communicator; None for this process alone. Collective.
        chunk_bytes: longer transfers are cut.

    Attributes:
        local: (n_bytes,) uint8, the own part; fill it, then `publish`.
        n_gets: transfers issued so far.
        n_bytes_fetched: bytes of them.
        allows_threads: whether several threads may call MPI.
    """

    def __init__(self, n_bytes: int, comm: Any = None, *, chunk_bytes: int = CHUNK_BYTES):
        self._comm = comm
        self._chunk = chunk_bytes
        self._window: Any = None
        self._pending: set[int] = set()
        self.n_gets = 0
        self.n_bytes_fetched = 0
        self.allows_threads = True
        if comm is None:
            self.local = np.zeros(n_bytes, dtype=np.uint8)
            return
        from mpi4py import MPI

        self._byte = MPI.BYTE
        self.allows_threads = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self._window = MPI.Win.Allocate(n_bytes, 1, MPI.INFO_NULL, comm)
        self.local = np.zeros(0, dtype=np.uint8)
        if n_bytes:
            self.local = np.frombuffer(self._window.tomemory(), dtype=np.uint8)
            self.local[:] = 0
        self._window.Lock_all(MPI.MODE_NOCHECK)

    def publish(self) -> None:
        """Let the others see what is in `local`; collective."""
        if self._window is None:
            return
        self._window.Sync()
        self._comm.Barrier()
        self._window.Sync()

    def get(self, rank: int, start: int, out: np.ndarray) -> None:
        """Begin to read bytes of a rank; they are there after `flush`.

        Args:
            rank: of the communicator.
            start: first byte.
            out: (n_bytes,) uint8, contiguous; it must live until the flush.
        """
        for first in range(0, len(out), self._chunk):
            piece = out[first : first + self._chunk]
            self._window.Get(
                [piece, self._byte], rank, target=[start + first, len(piece), self._byte]
            )
            self.n_gets += 1
        self.n_bytes_fetched += len(out)
        self._pending.add(rank)

    def flush(self) -> None:
        """Wait for all transfers that this process began."""
        while self._pending:
            self._window.Flush(self._pending.pop())

    def close(self) -> None:
        """Give the memory back; collective."""
        self.local = np.zeros(0, dtype=np.uint8)
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None
