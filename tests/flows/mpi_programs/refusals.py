"""What is refused is refused on all ranks, by name, and nobody waits for ever."""

import sys
from collections.abc import Callable
from pathlib import Path

from structures import ragged

from epitaxy.errors import OptionError, StoreError
from epitaxy.stores.distributed import DistributedStore, world

comm = world()
rank, size = comm.Get_rank(), comm.Get_size()
folder = Path(sys.argv[1])


def check_says(message: str, *parts: str) -> None:
    """A message contains all parts."""
    for part in parts:
        assert part in message, message


def refused(make: Callable[[], object], kind: type[Exception]) -> str:
    """Return the message of an error that must come."""
    try:
        make()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was refused")


# One rank opened another dataset.
message = refused(lambda: DistributedStore(ragged(9, seed=rank == 1), comm=comm), StoreError)
check_says(message, "rank 1: ", "the ranks do not hold the same dataset", "Open the same path")
check_says(message, ragged(9).digest[:12], ragged(9, seed=1).digest[:12])

# One rank asks for other groups.
message = refused(
    lambda: DistributedStore(ragged(9), comm=comm, group_size=1 if rank else None), StoreError
)
check_says(message, f"group_size {size}", "group_size 1")

# On one rank the path is wrong: it says so, the others say which rank failed.
if rank == 0:
    ragged(9).save(folder / "set")
comm.Barrier()
path = folder / ("absent" if rank == 1 else "set")
message = refused(lambda: DistributedStore(path, comm=comm), StoreError)
assert "absent: no such dataset" in message, message
if rank != 1:
    check_says(message, "rank 1: StoreError", f"1 of {size} ranks failed")

# A column is truncated: all ranks name the file.
column = folder / "set" / "positions.npy"
comm.Barrier()
if rank == 0:
    column.write_bytes(column.read_bytes()[:-8])
comm.Barrier()
assert "truncated" in refused(lambda: DistributedStore(folder / "set", comm=comm), StoreError)

message = refused(lambda: DistributedStore(ragged(9), comm=comm, group_size=3), OptionError)
assert "it can be 1, 2" in message, message
refused(lambda: DistributedStore(ragged(9), comm=comm, group_size=0), OptionError)
refused(lambda: DistributedStore(ragged(9), comm=comm, chunk_bytes=0), OptionError)

# A batch that cannot be is refused on the rank that asks; the store goes on.
store = DistributedStore(ragged(9), comm=comm)
if rank == 1:
    message = refused(lambda: store.batch([3, 9]), IndexError)
    assert message == "row 9 is not in a dataset of 9 structures", message
    refused(lambda: list(store.prefetch([[1], [2], [0.5]])), IndexError)
assert len(store.batch([8, 0])) == 2
store.close()
store.close()
assert "closed" in refused(lambda: store.batch([1]), StoreError)
assert "closed" in refused(lambda: list(store.prefetch([[1]])), StoreError)

# After all this a store can be made.
with DistributedStore(ragged(9), comm=comm) as store:
    assert list(store.batch([8, 0]).ids) == [store.ids[8], store.ids[0]]
print(f"rank {rank} done")
