"""The layout of HydraGNN: what we export is what its writer writes, and comes back."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import DataError, StoreError
from epitaxy.registry import Registry
from epitaxy.stores.hydragnn import write_hydragnn

adios2 = pytest.importorskip("adios2")

PARTS = ("train", "valid", "train", "test", "train", "valid", "train")


def made() -> Dataset:
    rng = np.random.default_rng(0)
    entries = []
    for i, part in enumerate(PARTS):
        atoms = bulk("NaCl", "rocksalt", a=5.6) if i % 2 else molecule("CH3CH2OH")
        atoms.rattle(0.1, seed=i)
        targets = {
            "energy": rng.normal(),
            "forces": rng.normal(size=(len(atoms), 3)),
            "stress": rng.normal(size=6),
            "charges": rng.normal(size=len(atoms)),
            "band_gap": rng.random(),
        }
        entries.append(Entry.from_atoms(atoms, targets=targets, id=str(i), tags={"part": part}))
    return Dataset.from_entries(entries)


def read(path: Path, **options: object) -> Dataset:
    source = Registry.from_entry_points().build(
        "source", {"use": "files/hydragnn", "path": path, **options}
    )
    first, second = list(source), list(source)
    assert [entry.id for entry in first] == [entry.id for entry in second]
    assert source.fraction == 1.0
    return Dataset.from_entries(first)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_hydragnn(made(), tmp_path / "set.bp", dtype="float64")
    return tmp_path / "set.bp"


def test_what_is_exported_comes_back_bit_by_bit(path):
    expected = made()
    expected = expected[
        np.argsort([("train", "valid", "test").index(p) for p in PARTS], kind="stable")
    ]
    found = read(path)
    for a, b in zip(found.gather(), expected.gather(), strict=True):
        assert a.tobytes() == b.tobytes()
    for name in expected.targets:
        assert np.array_equal(found.target(name)[0], expected.target(name)[0]), name
    assert found.tag("part").tolist() == expected.tag("part").tolist()
    assert found.targets == expected.targets


def test_single_precision_is_what_the_examples_of_hydragnn_store(tmp_path):
    write_hydragnn(made(), tmp_path / "set.bp")
    with adios2.FileReader(str(tmp_path / "set.bp")) as file:
        types = {name: fact["Type"] for name, fact in file.available_variables().items()}
    assert types["trainset/x"] == types["trainset/energy"] == "float"
    found = read(tmp_path / "set.bp")
    assert found.target("energy")[0] == pytest.approx(read_energy(made()), abs=1e-6)


def read_energy(dataset: Dataset) -> np.ndarray:
    order = np.argsort([("train", "valid", "test").index(p) for p in PARTS], kind="stable")
    return dataset[order].target("energy")[0]


def test_the_layout_is_that_of_hydragnn(path):
    dataset = made()
    train = dataset[[i for i, part in enumerate(PARTS) if part == "train"]]
    with adios2.FileReader(str(path)) as file:
        assert int(np.asarray(file.read_attribute("trainset/ndata")).item()) == len(train)
        assert int(np.asarray(file.read_attribute("total_ndata")).item()) == len(dataset)
        keys = file.read_attribute_string("trainset/keys")
        assert {"x", "pos", "cell", "pbc", "energy", "forces", "y"} <= set(keys)
        for key in keys:
            assert int(np.asarray(file.read_attribute(f"trainset/{key}/variable_dim")).item()) == 0
        assert np.array_equal(file.read("trainset/x/variable_count"), train.n_atoms)
        assert np.array_equal(file.read("trainset/x/variable_offset"), train.atom_ptr[:-1])
        assert np.array_equal(file.read("trainset/cell/variable_count"), [3] * len(train))
        x = file.read("trainset/x")
        assert np.array_equal(x[:, 0], train.gather().numbers)
        assert np.array_equal(x[:, 1:4], train.gather().positions)
        assert np.array_equal(x[:, 4:], train.target("forces")[0])
        assert int(file.available_variables()["trainset/x/variable_count"]["Min"]) == 9


def test_columns_scales_and_energies_per_atom_can_be_chosen(path):
    expected = read(path)
    n_atoms = expected.n_atoms
    found = read(
        path,
        mapping={"energy": "energy_per_atom", "forces": "x[4:7]", "numbers": "x[0]"},
        energy_per_atom=True,
        energy_scale=2.0,
    )
    assert found.target("energy")[0] == pytest.approx(2 * expected.target("energy")[0])
    assert np.array_equal(found.target("forces")[0], expected.target("forces")[0])
    assert np.array_equal(found.n_atoms, n_atoms)
    only = read(path, parts=("test",), energy_unit="Hartree")
    assert only.tag("part").tolist() == ["test"]
    assert only.target("energy")[0] == pytest.approx(27.211386 * expected.target("energy")[0][-1:])


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"energy": "total"}, "trainset has no total; its keys are x, pos"),
        ({"energy": "x[4:"}, "is not a key or columns of one"),
        ({"numbers": "x[1]"}, "are not atomic numbers"),
        ({"forces": "x[4:6]"}, "forces has the shape"),
        ({"enegry": "y"}, "Did you mean 'energy'"),
    ],
)
def test_a_wrong_mapping_is_explained(path, mapping, said):
    with pytest.raises(DataError, match=said.replace("[", r"\[")):
        read(path, mapping=mapping)


def test_a_file_of_another_layout_or_cut_is_named(path, tmp_path):
    with adios2.Stream(str(tmp_path / "other.bp"), "w") as stream:
        stream.write("temperature", np.arange(3.0), [3], [0], [3])
    with pytest.raises(StoreError, match="not in the layout of HydraGNN"):
        read(tmp_path / "other.bp")
    with (path / "data.0").open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(StoreError, match=r"set\.bp: truncated: its arrays have"):
        read(path)


def test_missing_labels_and_unknown_parts_are_refused(tmp_path):
    dataset = made()
    mask = np.arange(len(dataset)) > 1
    lacking = dataset.with_target("energy", dataset.target("energy")[0], mask)
    with pytest.raises(DataError, match="2 of 7 structures have no energy"):
        write_hydragnn(lacking, tmp_path / "set.bp")
    words = ["holdout", *dataset.tag("part")[1:].tolist()]
    with pytest.raises(DataError, match="'holdout' for some structures"):
        write_hydragnn(dataset.with_tag("part", words), tmp_path / "set.bp")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_if_asked(path):
    with pytest.raises(StoreError, match="there is a file already; use --overwrite"):
        write_hydragnn(made(), path)
    write_hydragnn(made()[:2], path, overwrite=True)
    assert len(read(path)) == 2
    (path.parent / "folder").mkdir()
    with pytest.raises(StoreError, match="is no BP5 file; it will not be replaced"):
        write_hydragnn(made(), path.parent / "folder", overwrite=True)


def test_arrays_in_any_order_of_memory_are_stored_right(tmp_path):
    """The adios2 wheel itself stores other values for these."""
    from epitaxy.stores.adios import ColumnFileReader, ColumnFileWriter

    rng = np.random.default_rng(0)
    wide = rng.random((40, 6))
    cases = {
        "strided": wide[::2],
        "columns": wide[:, 1:4],
        "fortran": np.asfortranarray(wide),
        "transposed": wide.T,
        "reversed": wide[::-1],
        "big_endian": wide.astype(">f8"),
        "broadcast": np.broadcast_to(wide[0], (5, 6)),
        "bool": rng.random((7, 3)) > 0.5,
        "half": rng.random(9).astype(np.float16),
    }
    writer = ColumnFileWriter(tmp_path / "arrays.bp")
    for name, values in cases.items():
        values.setflags(write=False)  # the wheel ends the process for these
        writer.put(name, values)
        writer.put(name, values[:1])
        writer.put_block(f"whole {name}", values, shape=values.shape, start=[0] * values.ndim)
        writer.put(f"empty {name}", values[:0])
    with pytest.raises(StoreError, match="texts go in as bytes"):
        writer.put("texts", np.array(["a", "b"]))
    writer.close()
    reader = ColumnFileReader(tmp_path / "arrays.bp")
    for name, values in cases.items():
        stored = {"bool": np.uint8, "float16": np.uint16}.get(values.dtype.name)
        for array in (name, f"whole {name}"):
            out = np.empty(reader.shape(array), dtype=stored or values.dtype.newbyteorder("="))
            reader.read(array, out)
            found = out.view(values.dtype) if stored else out
            assert np.array_equal(found[: len(values)], values), array
        assert f"empty {name}" not in reader.arrays
    with pytest.raises(ValueError, match="not contiguous"):
        reader.read("strided", np.empty((6, 20)).T)


def test_the_plain_wheel_still_stores_other_values(tmp_path):
    """Why arrays are made contiguous: fails when the wheel is mended, then read its notes."""
    wide = np.arange(12.0).reshape(3, 4)
    with adios2.Stream(str(tmp_path / "wrong.bp"), "w") as stream:
        stream.write("strided", wide[:, ::2], [3, 2], [0, 0], [3, 2])
    with adios2.FileReader(str(tmp_path / "wrong.bp")) as file:
        assert not np.array_equal(file.read("strided"), wide[:, ::2])
