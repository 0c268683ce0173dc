import json

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import SplitError
from epitaxy.split import Split, compositions, split_by_group, split_by_ids, split_random

GROUPS = ["surface", "bulk", "liquid", "vacancy", "strained"]


def make(n: int = 50) -> Dataset:
    return Dataset.from_entries(
        Entry.from_atoms(
            bulk("Si", a=5.4 + i / 1000),
            targets={"energy": -5.0 - i},
            id=f"si-{i}",
            tags={"group": GROUPS[i * i % 5]} if i != 7 else {},
        )
        for i in range(n)
    )


def everything(split: Split) -> list[str]:
    return sorted([*split.train.ids, *split.valid.ids, *split.test.ids])


def test_random_parts_are_disjoint_and_complete():
    dataset = make()
    split = split_random(dataset, valid=0.1, test=7, seed=3)
    assert (len(split.train), len(split.valid), len(split.test)) == (38, 5, 7)
    assert everything(split) == sorted(dataset.ids)


def test_the_seed_decides_a_random_split():
    dataset = make()
    assert split_random(dataset, seed=1).digest == split_random(dataset, seed=1).digest
    assert split_random(dataset, seed=1).digest != split_random(dataset, seed=2).digest


@given(
    labels=st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=60),
    seed=st.integers(0, 5),
    valid=st.sampled_from([0.0, 0.1, 0.3, 2]),
)
def test_groups_never_straddle_parts(labels, seed, valid):
    dataset = make(len(labels))
    if len(set(labels)) < 3:
        return
    split = split_by_group(dataset, labels, valid=valid, test=0.2, seed=seed)
    label_of = dict(zip(dataset.ids, labels, strict=True))
    parts = [{label_of[i] for i in part.ids} for part in (split.train, split.valid, split.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert everything(split) == sorted(dataset.ids)
    assert len(split.train)
    assert len(split.test)
    assert bool(len(split.valid)) == bool(valid)


def test_a_tag_names_the_groups():
    split = split_by_group(make(), "group", valid=0.2, test=0.2)
    assert not set(split.train.tag("group")) & set(split.test.tag("group")) - {""}
    assert split.method["groups"] == "group"


def test_compositions_are_reduced_formulas():
    frames = [
        bulk("Si", cubic=True),
        bulk("Si"),
        bulk("GaAs", "zincblende", a=5.6),
        bulk("MgO", "rocksalt", a=4.2) * 2,
    ]
    dataset = Dataset.from_entries(Entry.from_atoms(atoms) for atoms in frames)
    assert compositions(dataset).tolist() == ["Si", "Si", "GaAs", "OMg"]
    split = split_by_group(dataset, "composition", valid=1, test=1)
    assert not set(compositions(split.train)) & set(compositions(split.test))


def test_too_few_groups_are_refused():
    with pytest.raises(SplitError, match="2 groups by given labels cannot fill 3 parts"):
        split_by_group(make(10), ["a", "b"] * 5)


def test_given_ids_are_followed_and_the_rest_is_for_training():
    split = split_by_ids(make(6), valid=["si-4"], test=["si-0", "si-5"])
    assert list(split.train.ids) == ["si-1", "si-2", "si-3"]
    assert list(split.test.ids) == ["si-0", "si-5"]


def test_unknown_ids_are_named():
    with pytest.raises(SplitError, match=r"test: 1 ids are not in the dataset: 'ge-1'"):
        split_by_ids(make(6), test=["si-1", "ge-1"])


def test_overlaps_are_named():
    with pytest.raises(SplitError, match="both in valid and in test: 'si-3'"):
        split_by_ids(make(6), valid=["si-2", "si-3"], test=["si-3"])
    with pytest.raises(SplitError, match="test: 'si-3' given more than once"):
        split_by_ids(make(6), test=["si-3", "si-3"])


def test_ambiguous_ids_are_named():
    dataset = make(4)[[0, 1, 1, 2]]
    with pytest.raises(SplitError, match="several structures called 'si-1'"):
        split_by_ids(dataset, test=["si-1"])


def test_parts_that_leave_nothing_are_refused():
    with pytest.raises(SplitError, match="leave nothing"):
        split_random(make(4), valid=2, test=2)
    with pytest.raises(SplitError, match="valid = -1"):
        split_random(make(4), valid=-1)


@pytest.mark.parametrize("unique", [True, False])
def test_a_split_comes_back_from_its_file(tmp_path, unique):
    dataset = make(20) if unique else make(10)[np.arange(20) // 2]
    split = split_random(dataset, valid=3, test=4)
    split.save(tmp_path / "split.json")
    again = Split.load(tmp_path / "split.json", dataset)
    assert again.digest == split.digest
    assert again.method == split.method
    for part in ("train", "valid", "test"):
        assert np.array_equal(again.rows[part], split.rows[part])


def test_a_split_of_another_dataset_is_refused(tmp_path):
    split_random(make(20)).save(tmp_path / "split.json")
    with pytest.raises(SplitError, match="another dataset: its data differ"):
        Split.load(tmp_path / "split.json", make(21))
    renamed = Dataset.from_entries(
        Entry.from_atoms(e.to_atoms(), targets=e.targets, tags=e.tags, id=f"new-{e.id}")
        for e in make(20)
    )
    with pytest.raises(SplitError, match="another dataset: its ids differ"):
        Split.load(tmp_path / "split.json", renamed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "format version 99"),
        ({"format": "shopping list"}, "not a split"),
        ({"parts": {"train": ["si-0"]}}, "incomplete or edited"),
        ({"digest": "0"}, "edited: its parts do not match"),
    ],
)
def test_a_damaged_split_is_named(tmp_path, change, message):
    file = tmp_path / "split.json"
    dataset = make(20)
    split_random(dataset).save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(SplitError, match=message):
        Split.load(file, dataset)
    file.write_text(file.read_text()[:-20])
    with pytest.raises(SplitError, match="not JSON"):
        Split.load(file, dataset)
    with pytest.raises(SplitError, match=r"nothing\.json: cannot be read"):
        Split.load(tmp_path / "nothing.json", dataset)


@pytest.mark.parametrize("size", [float("nan"), float("inf"), -0.1])
def test_a_size_that_is_no_number_is_refused(size):
    with pytest.raises(SplitError, match="give a fraction below 1"):
        split_random(make(), valid=size)
