"""The distributed store under MPI, with 2 and 4 processes of the MPI that is installed here."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "mpi_programs"
MPIEXEC = Path(sys.executable).with_name("mpiexec")
SECONDS = 180  # a program that waits for ever is ended
pytestmark = pytest.mark.skipif(
    find_spec("mpi4py") is None or not MPIEXEC.exists(),
    reason="needs mpi4py and an MPI library in this environment: pip install mpi4py mpich",
)


@cache
def launcher() -> tuple[str, ...]:
    """Return the command of this environment's own mpiexec; another belongs to another MPI."""
    version = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True, check=True)
    is_open_mpi = "open" in version.stdout.lower() and "HYDRA" not in version.stdout
    return (str(MPIEXEC), *(("--oversubscribe",) if is_open_mpi else ()))


Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Return a function that runs a program of mpi_programs/ in several processes."""

    def run(program: str, n_ranks: int) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_osc": "^ucx",
        }
        command = [sys.executable, "-m", "mpi4py", str(PROGRAMS / f"{program}.py"), str(tmp_path)]
        return subprocess.run(
            [*launcher(), "-n", str(n_ranks), *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


def check_done(finished: subprocess.CompletedProcess[str], n_ranks: int) -> None:
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-6000:]
    for rank in range(n_ranks):
        assert f"rank {rank} done" in finished.stdout


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_any_rank_takes_any_batch(launch: Launch, n_ranks: int) -> None:
    check_done(launch("batches", n_ranks), n_ranks)


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_random_ragged_datasets_come_back_bit_by_bit(launch: Launch, n_ranks: int) -> None:
    check_done(launch("random_batches", n_ranks), n_ranks)


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_all_ranks_refuse_together_and_say_which_one_failed(launch: Launch, n_ranks: int) -> None:
    check_done(launch("refusals", n_ranks), n_ranks)


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_batch_arrives_while_its_owner_is_busy(launch: Launch, n_ranks: int) -> None:
    check_done(launch("busy_owner", n_ranks), n_ranks)


def test_a_rank_that_dies_ends_all(launch: Launch) -> None:
    finished = launch("dying_rank", 2)
    assert finished.returncode != 0
    assert "row 20 is not in a dataset of 20 structures" in finished.stderr


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
def test_training_on_the_store_equals_training_on_the_memory_map(launch: Launch) -> None:
    check_done(launch("training", 2), 2)
