"""Any rank takes any batch: started by test_mpi_store.py with a folder for files."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from structures import check_same, ragged

from epitaxy.dataset import Dataset
from epitaxy.stores.bp5 import write_bp5
from epitaxy.stores.distributed import DistributedStore, world

comm = world()
rank, size = comm.Get_rank(), comm.Get_size()
folder = Path(sys.argv[1])
has_bp5 = find_spec("adios2") is not None
if rank == 0:
    ragged(57).save(folder / "set")
    if has_bp5:
        write_bp5(ragged(57), folder / "bp5", n_parts=3)
comm.Barrier()
mapped = Dataset.open(folder / "set")
n = len(mapped)
rng = np.random.default_rng(rank)  # each rank asks for other batches
SELECTIONS = [
    [0],
    [n - 1, 0, n - 1, n - 1],
    [],
    slice(3, 40),
    slice(None, None, -7),
    [-1, -n],
    np.arange(n) % 5 == rank % 5,
    *rng.integers(0, n, (20, 8)),
    rng.permutation(n),
]


def check_all(store: DistributedStore, dataset: Dataset) -> None:
    """Compare everything that a store shows with the dataset it was made of."""
    assert len(store) == len(dataset)
    assert store.digest == dataset.digest
    assert store.elements == dataset.elements
    assert store.targets == dataset.targets
    assert store.tags == dataset.tags
    assert store.methods == dataset.methods
    assert list(store.ids) == list(dataset.ids)
    assert np.array_equal(store.n_atoms, dataset.n_atoms)
    for name in dataset.tags:
        assert np.array_equal(store.tag(name), dataset.tag(name))
    for name in dataset.targets:
        for found, expected in zip(store.target(name), dataset.target(name), strict=True):
            assert found.tobytes() == expected.tobytes()
    for found, expected in zip(store.gather(), dataset.gather(), strict=True):
        assert found.tobytes() == expected.tobytes()
    check_same(store.batch(slice(None)), dataset)


for options in (
    {},
    {"chunk_bytes": 40},  # no record fits into one transfer
    {"group_size": 1},
    {"group_size": size // 2},
):
    bp5 = (folder / "bp5", Dataset.open(folder / "bp5")) if has_bp5 else ()
    for source in (folder / "set", mapped, mapped[:], *bp5):
        with DistributedStore(source, comm=comm, **options) as store:
            check_all(store, mapped)
            for rows in SELECTIONS:
                check_same(store.batch(rows), mapped[rows])
            for in_background in (False, True):
                batches = store.prefetch(SELECTIONS, in_background=in_background)
                for rows, batch in zip(SELECTIONS, batches, strict=True):
                    check_same(batch, mapped[rows])
                half_way = store.prefetch(SELECTIONS, in_background=in_background)
                check_same(next(half_way), mapped[SELECTIONS[0]])
                half_way.close()
            rows = rng.integers(0, n, 6)
            for name in mapped.targets:
                for found, expected in zip(
                    store.target(name, rows), mapped.target(name, rows), strict=True
                ):
                    assert found.tobytes() == expected.tobytes()
            assert store.n_groups * store.group_size == size

# A view, in its own order, and fewer structures than ranks, down to none.
for rows in ([5, 3, 3, 50, 8, 2], [4], []):
    with DistributedStore(mapped[rows], comm=comm) as store:
        check_all(store, mapped[rows])

# What lies in the own memory is not sent; neighbors in memory travel together.
with DistributedStore(mapped, comm=comm) as store:
    before = store.traffic[0]
    own = store.own_rows
    store.batch(list(own))
    store.batch([])
    assert store.traffic[0] == before
    store.batch(slice(None))
    assert store.traffic[0] == before + size - 1  # one transfer from each other rank
    store.batch([own.stop % n] * 9)
    assert store.traffic[0] == before + size  # nine times the same structure travels once
print(f"rank {rank} done")
