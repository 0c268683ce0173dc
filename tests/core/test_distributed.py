"""The distributed store in one process, where it needs no MPI; with several: tests/flows."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, MissingDependencyError, OptionError, StoreError
from epitaxy.graphs.builder import build_batch
from epitaxy.stores.columns import Columns
from epitaxy.stores.distributed import DistributedStore, world
from epitaxy.stores.records import Layout, Tables


def some(n: int, *, seed: int = 0) -> Dataset:
    """Structures with 0 to 5 atoms; some labels, tags and ids are missing."""
    rng = np.random.default_rng(seed)
    entries = []
    for i in range(n):
        n_atoms = int(rng.integers(0, 6))
        targets = {"energy": rng.normal()} if i % 3 else {}
        if i % 4 == 1:
            targets["forces"] = rng.normal(size=(n_atoms, 3))
        entries.append(
            Entry(
                numbers=rng.integers(1, 95, n_atoms).astype(np.uint8),
                positions=rng.normal(size=(n_atoms, 3)),
                cell=rng.normal(size=(3, 3)),
                pbc=rng.random(3) < 0.5,
                targets=targets,
                id=f"ä{i}" * (i % 3),
                method=Method(xc_functional="PBE" if i % 2 else "LDA"),
                origin=Origin(url=f"place {i}"),
                tags={"group": f"g{i % 5}"} if i % 2 else {},
            )
        )
    return Dataset.from_entries(entries, history=[{"operation": "made"}])


def bits(dataset: Dataset) -> list[object]:
    """Everything that a dataset holds, floating point numbers as bytes."""
    found: list[object] = [dataset.targets, dataset.tags, dataset.history, dataset.digest]
    for entry in dataset:
        arrays = (entry.numbers, entry.positions, entry.cell, entry.pbc)
        found += [np.asarray(array).tobytes() for array in arrays]
        found += [{name: np.asarray(a).tobytes() for name, a in entry.targets.items()}]
        found += [entry.id, entry.method, entry.origin, dict(entry.tags)]
    return found


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("stores") / "set"
    some(23).save(path)
    return Dataset.open(path)


@pytest.mark.parametrize(
    "rows",
    [
        [4],
        [3, 3, 22, 0],
        [],
        [-1, -23],
        slice(2, 19),
        slice(None, None, -4),
        np.arange(23) % 2 == 0,
    ],
    ids=str,
)
def test_a_batch_is_the_selection_bit_by_bit(mapped: Dataset, rows: object) -> None:
    with DistributedStore(mapped) as store:
        assert bits(store.batch(rows)) == bits(mapped[rows])
        assert bits(store[rows]) == bits(mapped[rows])


def test_a_store_shows_what_its_dataset_shows(mapped: Dataset) -> None:
    for dataset in (mapped, mapped[[5, 2, 2, 17]], mapped[[]], some(3)):
        with DistributedStore(dataset) as store:
            assert len(store) == len(dataset)
            for name in ("digest", "elements", "targets", "tags", "methods", "history"):
                assert getattr(store, name) == getattr(dataset, name), name
            assert list(store.ids) == list(dataset.ids)
            assert list(store.ids[:2]) == list(dataset.ids[:2])
            assert np.array_equal(store.n_atoms, dataset.n_atoms)
            assert [entry.id for entry in store] == list(dataset.ids)
            assert np.array_equal(store.tag("group"), dataset.tag("group"))
            for found, expected in zip(store.gather(), dataset.gather(), strict=True):
                assert found.dtype == expected.dtype
                assert found.tobytes() == expected.tobytes()
            for name in dataset.targets:
                for found, expected in zip(store.target(name), dataset.target(name), strict=True):
                    assert found.tobytes() == expected.tobytes()


def test_a_path_is_opened(mapped: Dataset) -> None:
    assert mapped.path is not None
    with DistributedStore(mapped.path) as store:
        assert store.digest == mapped.digest
        assert store.own_rows == range(23)


@pytest.mark.parametrize("in_background", [False, True])
def test_prefetched_batches_come_in_order(mapped: Dataset, in_background: bool) -> None:
    batches = np.random.default_rng(0).integers(0, 23, (7, 5))
    with DistributedStore(mapped) as store:
        found = list(store.prefetch(batches, in_background=in_background))
        assert [bits(batch) for batch in found] == [bits(mapped[rows]) for rows in batches]
        assert list(store.prefetch([], in_background=in_background)) == []


def test_graphs_are_built_from_a_store_as_from_a_dataset(make_metals: object) -> None:
    metals = make_metals(6)
    rows = [5, 1, 1]
    expected = build_batch(metals, rows, cutoff=4.0)
    with DistributedStore(metals) as store:
        for graph in (
            build_batch(store, rows, cutoff=4.0),
            build_batch(store.batch(rows), cutoff=4.0),
        ):
            for found, wanted in zip(graph[:-1], expected[:-1], strict=True):
                assert np.array_equal(found.numpy(), wanted.numpy())


def test_wrong_rows_and_names_are_refused(mapped: Dataset) -> None:
    with DistributedStore(mapped) as store:
        with pytest.raises(IndexError, match="row 23 is not in a dataset of 23 structures"):
            store.batch([0, 23])
        with pytest.raises(IndexError, match="row -24"):
            store.gather([-24])
        with pytest.raises(IndexError, match="mask has shape"):
            store.batch([True])
        with pytest.raises(IndexError, match="dtype float64"):
            store.batch([0.5])
        with pytest.raises(IndexError):
            store[23]
        with pytest.raises(DataError, match="there are: energy, forces"):
            store.target("stress")
        with pytest.raises(DataError, match="energy"):
            store.target("enerhy")
        with pytest.raises(DataError, match="group"):
            store.tag("colour")


def test_a_closed_store_says_so(mapped: Dataset) -> None:
    store = DistributedStore(mapped)
    started, nearly_done = store.prefetch([[0], [1], [2]]), store.prefetch([[0], [1]])
    next(started)
    next(nearly_done)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.batch([0])
    for batches in (started, nearly_done):
        with pytest.raises(StoreError, match="closed"):
            next(batches)


def test_a_store_is_not_pickled(mapped: Dataset) -> None:
    with DistributedStore(mapped) as store, pytest.raises(TypeError, match="memory of this"):
        pickle.dumps(store)


def test_options_out_of_range_are_refused(mapped: Dataset) -> None:
    with pytest.raises(OptionError, match="group_size is 2; with 1 ranks it can be 1"):
        DistributedStore(mapped, group_size=2)
    with pytest.raises(OptionError, match="chunk_bytes is 0"):
        DistributedStore(mapped, chunk_bytes=0)
    with pytest.raises(StoreError, match="no such dataset"):
        DistributedStore(Path("absent"))


def test_parts_with_other_codes_and_labels_become_one(mapped: Dataset) -> None:
    parts = [
        Columns.from_entries(list(mapped[rows]))
        for rows in (range(5), [], range(5, 7), range(7, 23))
    ]
    tables = Tables.merged([Tables.of(part) for part in parts])
    layout = Layout(tables.targets, tuple(tables.tags))
    found = []
    for part in map(tables.recode, parts):
        sizes = layout.sizes(part.n_atoms, np.diff(part.ids.ptr))
        out = np.zeros(int(sizes.sum()), dtype=np.uint8)
        layout.pack(part, out)
        entries = Dataset(layout.unpack(out, sizes.cumsum() - sizes, part.n_atoms, tables))
        assert entries.targets == mapped.targets
        found += list(entries)
    expected = list(mapped)
    assert bits(Dataset.from_entries(found)) == bits(Dataset.from_entries(expected))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=12, max_size=12), st.data())
def test_all_bits_of_a_number_survive(words: list[int], draw: st.DataObject) -> None:
    """Also those of NaN with a message, negative zero and the smallest numbers."""
    numbers = np.array(words, dtype=np.uint64).view(np.float64)
    base = some(2)._columns
    dataset = Dataset(
        Columns(
            **{
                **{name: getattr(base, name) for name in base.__dataclass_fields__},
                "atom_ptr": np.array([0, 1, 1]),
                "numbers": np.array([3], dtype=np.uint8),
                "positions": numbers[None, :3],
                "cells": np.array([numbers[3:].reshape(3, 3)] * 2),
                "targets": {},
            }
        )
    )
    with DistributedStore(dataset) as store:
        rows = draw.draw(st.lists(st.integers(0, 1)))
        for found, expected in zip(store.gather(rows), dataset.gather(rows), strict=True):
            assert found.tobytes() == expected.tobytes()


# --- MPI that is not there ---


def test_one_process_imports_no_mpi4py(mapped: Dataset) -> None:
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "from epitaxy.stores.distributed import DistributedStore\n"
        f"with DistributedStore({str(mapped.path)!r}) as store: print(len(store.batch([1, 2])))\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n"


def test_without_mpi4py_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'epitaxy\[mpi\]' mpich"):
        world()


def test_without_an_mpi_library_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "MPI.py").write_text("raise RuntimeError('cannot load MPI library')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mpi4py"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"finds no MPI library.*pip install mpich"):
        world()
