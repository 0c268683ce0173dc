"""A batch arrives although the rank that holds it does not call MPI."""

import sys
from pathlib import Path

import numpy as np
from structures import check_same, ragged

from epitaxy.stores.distributed import DistributedStore, world

comm = world()
rank = comm.Get_rank()
signal = Path(sys.argv[1]) / "fetched"
dataset = ragged(40)
with DistributedStore(dataset, comm=comm) as store:
    if rank == 0:
        for _ in range(50):
            check_same(store.batch(np.arange(40)), dataset)
        signal.touch()
    else:
        while not signal.exists():  # busy in Python until rank 0 has everything
            sum(range(1000))
print(f"rank {rank} done")
