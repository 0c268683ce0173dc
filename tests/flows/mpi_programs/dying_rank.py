"""One rank dies of an error while the others wait for it; `-m mpi4py` ends them all."""

from structures import ragged

from epitaxy.stores.distributed import DistributedStore, world

comm = world()
with DistributedStore(ragged(20), comm=comm) as store:
    if comm.Get_rank() == 1:
        store.batch([20])
    comm.Barrier()
