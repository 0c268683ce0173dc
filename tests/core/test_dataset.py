import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, EntryError

PBE = Method(code="GPAW 25.7.0", xc_functional="PBE")
LDA = Method(code="GPAW 25.7.0", xc_functional="LDA")


def atoms_list() -> list[Atoms]:
    return [bulk("Si", cubic=True), molecule("H2O"), bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)]


def entries() -> list[Entry]:
    rng = np.random.default_rng(7)
    made = []
    for i, atoms in enumerate(atoms_list()):
        targets: dict[str, object] = {"energy": -1.5 * len(atoms) + i}
        if i != 1:
            targets["forces"] = rng.normal(size=(len(atoms), 3))
        if i == 3:
            targets["stress"] = rng.normal(size=6)
        tags: Mapping[str, str] = {"group": "solid"} if i != 1 else {}
        made.append(
            Entry.from_atoms(
                atoms,
                targets=targets,
                id=f"some-{i}",
                method=LDA if i == 2 else PBE,
                origin=Origin(url="here.xyz"),
                tags=tags,
            )
        )
    return made


@pytest.fixture
def dataset() -> Dataset:
    return Dataset.from_entries(entries(), history=[{"operation": "made"}])


def same(left: Entry, right: Entry) -> bool:
    arrays = all(
        getattr(left, name).tobytes() == getattr(right, name).tobytes()
        for name in ("numbers", "positions", "cell", "pbc")
    )
    targets = left.targets.keys() == right.targets.keys() and all(
        np.array_equal(left.targets[name], right.targets[name], equal_nan=True)
        for name in left.targets
    )
    rest = (left.id, left.method, left.origin, dict(left.tags))
    return arrays and targets and rest == (right.id, right.method, right.origin, dict(right.tags))


def test_entries_come_back_as_they_went_in(dataset):
    assert len(dataset) == 4
    assert all(same(a, b) for a, b in zip(dataset, entries(), strict=True))


def test_atom_ptr_counts_the_atoms_of_the_view(dataset):
    assert dataset.n_atoms.tolist() == [8, 3, 1, 2]
    assert dataset.atom_ptr.tolist() == [0, 8, 11, 12, 14]
    assert dataset[[3, 1]].atom_ptr.tolist() == [0, 2, 5]


def test_gather_stacks_structures_in_the_order_asked_for(dataset):
    rows = [3, 0, 3]
    structures = dataset.gather(rows)
    wanted = [atoms_list()[i] for i in rows]
    assert np.array_equal(structures.numbers, np.concatenate([a.numbers for a in wanted]))
    assert np.array_equal(structures.positions, np.concatenate([a.positions for a in wanted]))
    assert np.array_equal(structures.cells, [a.cell.array for a in wanted])
    assert np.array_equal(structures.pbc, [a.pbc for a in wanted])
    assert structures.n_atoms.tolist() == [2, 8, 2]


def test_gather_gives_copies_that_may_be_changed(dataset):
    before = dataset.digest
    structures = dataset.gather()
    structures.positions[:] = 0
    structures.cells[:] = 0
    values, _ = dataset.target("forces")
    values[:] = 1
    assert Dataset.from_entries(dataset).digest == before


def test_a_missing_label_is_zero_and_masked(dataset):
    values, mask = dataset.target("forces", [1, 2])
    assert mask.tolist() == [False, True]
    assert values.shape == (4, 3)
    assert not values[:3].any()
    assert np.array_equal(values[3:], dataset[2].targets["forces"])
    stress, has_stress = dataset.target("stress")
    assert stress.shape == (4, 6)
    assert has_stress.tolist() == [False, False, False, True]


def test_views_of_views_address_the_right_structures(dataset):
    view = dataset[1:][np.array([True, False, True])][[1, 0, -2]]
    assert list(view.ids) == ["some-3", "some-1", "some-1"]
    assert same(view[0], dataset[3])
    assert np.array_equal(view.gather([2]).positions, dataset[1].positions)
    assert view.target("energy")[0].tolist() == [dataset.target("energy")[0][i] for i in (3, 1, 1)]
    assert view.method(1) == PBE
    assert view.methods == (PBE,)
    assert dataset.methods == (PBE, LDA)


def test_views_copy_nothing(dataset):
    view = dataset[::2]
    assert np.shares_memory(view[0].positions, dataset[0].positions)
    assert np.shares_memory(dataset[0].targets["forces"], view[0].targets["forces"])


def test_elements_are_those_of_the_view(dataset):
    assert dataset.elements == {1, 8, 11, 14, 17, 29}
    assert dataset[[1]].elements == {1, 8}


def test_a_tag_is_empty_where_it_is_missing(dataset):
    assert dataset.tag("group").tolist() == ["solid", "", "solid", "solid"]
    assert dataset[1:3].tag("group").tolist() == ["", "solid"]
    with pytest.raises(DataError, match="'kind'; there are: group"):
        dataset.tag("kind")


def test_unknown_and_absent_targets_are_named(dataset):
    with pytest.raises(DataError, match="Did you mean 'forces'"):
        dataset.target("force")
    with pytest.raises(DataError, match="no structure has the target 'band_gap'"):
        dataset.target("band_gap")


@pytest.mark.parametrize("rows", [[4], [-5], np.array([True]), np.array([0.5])])
def test_rows_outside_the_dataset_are_refused(dataset, rows):
    with pytest.raises(IndexError):
        dataset[rows]
    with pytest.raises(IndexError):
        dataset.gather(rows)


def test_the_digest_is_that_of_the_meaning(dataset):
    renamed = [
        Entry.from_atoms(
            entry.to_atoms(),
            targets=entry.targets,
            id="other",
            method=entry.method,
            tags=entry.tags,
            origin=Origin(url="elsewhere"),
        )
        for entry in entries()
    ]
    assert Dataset.from_entries(renamed).digest == dataset.digest
    assert dataset[[1, 2]].digest == Dataset.from_entries(entries()[1:3]).digest
    assert dataset[[1, 0, 2, 3]].digest != dataset.digest
    assert dataset[:3].digest != dataset.digest


@pytest.mark.parametrize("change", ["position", "cell", "label", "missing label", "method", "tag"])
def test_the_digest_changes_with_every_part_of_the_meaning(dataset, change):
    entry = entries()[0]
    positions, cell, targets = entry.positions.copy(), entry.cell.copy(), dict(entry.targets)
    method, tags = entry.method, dict(entry.tags)
    match change:
        case "position":
            positions[0, 0] = np.nextafter(positions[0, 0], 1)
        case "cell":
            cell[0, 0] += 1e-9
        case "label":
            targets["energy"] = targets["energy"] + 1e-9
        case "missing label":
            del targets["forces"]
        case "method":
            method = LDA
        case "tag":
            tags["group"] = "liquid"
    changed = Entry(entry.numbers, positions, cell, entry.pbc, targets, "", method, tags=tags)
    assert Dataset.from_entries([changed, *entries()[1:]]).digest != dataset.digest


def test_wrong_shapes_are_refused_by_name():
    entry = entries()[0]
    broken = Entry(entry.numbers, entry.positions[:-1], entry.cell, entry.pbc, id="some-0")
    with pytest.raises(
        EntryError, match=r"some-0: positions has shape \(7, 3\), expected \(8, 3\)"
    ):
        Dataset.from_entries([broken])
    broken = Entry(
        entry.numbers, entry.positions, entry.cell, entry.pbc, {"forces": np.zeros((8, 2))}, "x"
    )
    with pytest.raises(EntryError, match=r"x: forces has shape \(8, 2\), expected \(8, 3\)"):
        Dataset.from_entries([broken])


def test_an_empty_dataset_works():
    empty = Dataset.from_entries([])
    assert len(empty) == 0
    assert empty.elements == frozenset()
    assert empty.gather().positions.shape == (0, 3)
    assert list(empty) == []
    assert empty.digest == Dataset.from_entries(entries())[:0].digest


def test_history_grows_without_touching_the_original(dataset):
    longer = dataset.with_history({"operation": "checked"})
    assert [step["operation"] for step in longer.history] == ["made", "checked"]
    assert [step["operation"] for step in dataset.history] == ["made"]
    assert longer.digest == dataset.digest


def test_a_dataset_travels_to_another_process(dataset, tmp_path):
    dataset.save(tmp_path / "set")
    mapped = Dataset.open(tmp_path / "set")
    for original in (dataset[1:], mapped[1:]):
        copy = pickle.loads(pickle.dumps(original))
        assert copy.digest == dataset[1:].digest
        assert list(copy.ids) == list(original.ids)
    assert len(pickle.dumps(mapped[1:])) < 2000


def test_a_dataset_in_memory_cannot_be_changed_through_its_entries():
    entry = Entry(
        numbers=np.array([14]),
        positions=np.zeros((1, 3)),
        cell=np.eye(3),
        pbc=np.ones(3, dtype=bool),
        targets={"energy": np.array(1.0), "forces": np.zeros((1, 3))},
    )
    dataset = Dataset.from_entries([entry, entry])
    for data in (dataset, dataset[1:], pickle.loads(pickle.dumps(dataset))):
        one = data[0]
        for array in (one.positions, one.cell, one.numbers, one.pbc, one.targets["forces"]):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 1
    entry.positions[:] = 7  # the caller's own arrays stay the caller's
    assert not dataset[0].positions.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_refused(value):
    entry = Entry(
        numbers=np.array([14]),
        positions=np.full((1, 3), value),
        cell=np.eye(3),
        pbc=np.ones(3, dtype=bool),
        targets={},
        id="si#4",
    )
    with pytest.raises(EntryError, match="entry si#4: positions are not finite"):
        Dataset.from_entries([entry])


@pytest.mark.parametrize("most_atoms", [3, 40], ids=["short", "long"])
def test_rows_are_gathered_alike_however_they_are_asked_for(most_atoms):
    """Short structures are copied atom by atom, long ones in pieces."""
    rng = np.random.default_rng(0)
    entries = []
    for n_atoms in rng.integers(0, most_atoms + 1, 30):
        targets = {"forces": rng.normal(size=(n_atoms, 3)), "energy": rng.normal()}
        numbers = rng.integers(1, 9, n_atoms)
        entries.append(
            Entry(numbers, rng.normal(size=(n_atoms, 3)), np.eye(3), np.zeros(3, bool), targets)
        )
    dataset = Dataset.from_entries(entries)
    for rows in ([3, 3, 29, 0], [], np.arange(30)[::-2], [-1]):
        wanted = [entries[row] for row in rows]
        for found, (values, mask) in (
            (dataset.gather(rows), dataset.target("forces", rows)),
            (dataset[rows].gather(), dataset[rows].target("forces")),
            (dataset[::-1][[29 - r % 30 for r in rows]].gather(), dataset[rows].target("forces")),
        ):
            assert found.n_atoms.tolist() == [len(entry) for entry in wanted]
            assert found.positions.tolist() == [p for e in wanted for p in e.positions.tolist()]
            assert found.numbers.tolist() == [z for e in wanted for z in e.numbers.tolist()]
            assert values.tolist() == [f for e in wanted for f in e.targets["forces"].tolist()]
            assert mask.all()
            found.positions[:] = 0.0  # a copy
            found.n_atoms[:] = 0
    assert dataset[[1]].gather().n_atoms.tolist() == [len(entries[1])]
    view = dataset[[4, 5]]
    view.gather().n_atoms[:] = 0
    assert view.gather().n_atoms.tolist() == [len(entries[4]), len(entries[5])]
