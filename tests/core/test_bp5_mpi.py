"""Ranks of MPI that write one BP5 dataset together."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("adios2")
pytest.importorskip("mpi4py")
MPIEXEC = Path(sys.executable).with_name("mpiexec")

PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
path = sys.argv[2]
from mpi4py import MPI
from test_bp5 import bits, entries
from epitaxy.dataset import Dataset
from epitaxy.errors import StoreError
from epitaxy.stores.bp5 import open_share, write_share

comm = MPI.COMM_WORLD
rank, n = comm.rank, comm.size
whole = entries(30)
mine = whole[30 * rank // n : 30 * (rank + 1) // n]
write_share(mine, path, comm=comm)
stored = Dataset.open(path, verify=True)
assert [bits(entry) for entry in stored] == [bits(entry) for entry in whole]
assert stored.digest == Dataset.from_entries(whole).digest
assert [bits(entry) for entry in open_share(path, rank, n)] == [bits(entry) for entry in mine]

def failing():
    yield from mine
    if rank == n - 1:
        raise RuntimeError("the reader broke")

for entries_of_rank, overwrite, said in (
    (failing(), True, f"rank {n - 1}: the reader broke"),
    (mine, False, "rank 0: " + path + ": there is a dataset already"),
):
    try:
        write_share(entries_of_rank, path, comm=comm, overwrite=overwrite)
    except StoreError as error:
        assert said in str(error), error
    else:
        raise AssertionError("not refused")
    assert len(Dataset.open(path)) == 30
comm.Barrier()
assert not os.path.exists(path + ".parts")
print("done")
"""


@pytest.mark.mpi
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_ranks_write_one_dataset_and_fail_together(tmp_path, n_ranks):
    if not MPIEXEC.exists():
        pytest.skip("no mpiexec beside this Python")
    command = [MPIEXEC, "-n", str(n_ranks), sys.executable, "-m", "mpi4py", "-c", PROGRAM]
    done = subprocess.run(
        [*command, Path(__file__).parent, tmp_path / "set"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == n_ranks
