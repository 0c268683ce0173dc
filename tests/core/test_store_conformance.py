"""The stores pass the conformance kit, and the kit notices a store that lies."""

from pathlib import Path

import pytest

from epitaxy.dataset import Dataset
from epitaxy.stores.distributed import DistributedStore
from epitaxy.testing.store_checks import store_checks


def write_bp5(dataset: Dataset, path: Path) -> None:
    pytest.importorskip("adios2")
    from epitaxy.stores.bp5 import write_bp5

    write_bp5(dataset, path, n_parts=3)


def save(dataset: Dataset, path: Path) -> None:
    dataset.save(path)


CHECKS = [
    *store_checks(save, Dataset.open, prefix="memory map: "),
    *store_checks(write_bp5, Dataset.open, prefix="BP5: "),
    *store_checks(save, DistributedStore, prefix="in memory: "),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_stores_pass_the_kit(check) -> None:
    check()


def test_the_kit_notices_a_store_that_loses_a_label() -> None:
    def lossy(dataset: Dataset, path: Path) -> None:
        values, mask = dataset.target("energy")
        dataset.with_target("energy", values + 1e-12, mask).save(path)

    with pytest.raises(AssertionError, match="energy differs"):
        store_checks(lossy, Dataset.open)[0]()
