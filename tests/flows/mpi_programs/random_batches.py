"""Random datasets and batches come back bit by bit; all ranks draw the same examples."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structures import check_same, datasets

from epitaxy.dataset import Dataset
from epitaxy.stores.distributed import DistributedStore, world

comm = world()


# `derandomize`: the ranks must make the same stores; no deadline, no shrinking on one rank alone.
@settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=["explicit", "generate"],
)
@given(dataset=datasets(), chunk=st.integers(1, 400), draw=st.data())
def every_batch_comes_back(dataset: Dataset, chunk: int, draw: st.DataObject) -> None:
    """Compare random batches, which differ from rank to rank, with the dataset."""
    with DistributedStore(dataset, comm=comm, chunk_bytes=chunk) as store:
        assert store.digest == dataset.digest
        n = len(dataset)
        batches = draw.draw(
            st.lists(st.lists(st.integers(-n, n - 1), max_size=12) if n else st.just([]))
        )
        mine = [np.roll(rows, comm.Get_rank()).astype(int) for rows in batches]
        for rows, batch in zip(mine, store.prefetch(mine), strict=True):
            check_same(batch, dataset[rows])
            check_same(store.batch(rows), dataset[rows])


every_batch_comes_back()
print(f"rank {comm.Get_rank()} done")
