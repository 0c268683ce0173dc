import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import DataError, SplitError
from epitaxy.split import (
    PARTS,
    Split,
    SplitOptions,
    all_folds,
    compositions,
    divide,
    divide_again,
    divide_together,
    leaks,
    split_by_element,
    split_by_folds,
    split_by_group,
    split_forward,
    split_kfold,
    split_random,
    split_stratified,
    split_together,
    tagged_test,
)

METALS = ["Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Pb", "Fe", "Co"]


def binaries(n=120, seed=0):
    """Rock-salt-like cells A_xB_y of ten metals with a made-up energy and gap."""
    rng = np.random.default_rng(seed)
    entries = []
    for i in range(n):
        a, b = rng.choice(METALS, size=2, replace=False)
        atoms = bulk("Cu", "fcc", a=3.8 + rng.random(), cubic=True)
        atoms.symbols[:] = [a, a, a, b] if rng.random() < 0.5 else [a, a, b, b]
        targets = {"energy": -3.0 * len(atoms) - rng.random()}
        if i % 7:
            targets["band_gap"] = float(rng.gamma(2.0))
        entries.append(
            Entry.from_atoms(atoms, targets=targets, id=f"b{i}", tags={"kind": "xyz"[i % 3]})
        )
    return Dataset.from_entries(entries)


def labelled(labels, prefix="s"):
    return Dataset.from_entries(
        Entry.from_atoms(
            Atoms("H", positions=[[0, 0, k]]), id=f"{prefix}{k}", tags={"group": label}
        )
        for k, label in enumerate(labels)
    )


def parts_of(split, labels):
    """Return label -> the parts in which it occurs."""
    found = {}
    for part, rows in split.rows.items():
        for row in rows:
            found.setdefault(str(labels[row]), set()).add(part)
    return found


def assert_sound(split, labels=None):
    rows = np.concatenate(list(split.rows.values()))
    assert sorted(rows) == list(range(len(split.dataset)))
    assert len(split.train)
    if labels is not None:
        assert all(len(parts) == 1 for parts in parts_of(split, labels).values())


DATASET = binaries()
OFFICIAL = Dataset.from_entries(
    [replace(entry, id=f"mb-jdft2d-{5 * i + 1:04}") for i, entry in enumerate(DATASET)]
)
EVERY_METHOD = [
    {"method": "random"},
    {"method": "group", "test": 0.2},
    {"method": "group", "assignment": "hash", "test": 0.25, "valid": 0.25},
    {"method": "group", "groups": "kind", "valid": 0.3, "test": 0.3},
    {"method": "stratified", "by": "band_gap", "n_bins": 4},
    {"method": "stratified", "by": "kind", "groups": "none"},
    {"method": "element", "elements": ["Fe"]},
    {"method": "element", "elements": "Fe,Co", "valid": 5},
    {"method": "forward", "target": "band_gap"},
    {"method": "forward", "target": "energy", "direction": "low", "test": 10},
    {"method": "kfold", "n_folds": 4, "fold": 3},
    {"method": "kfold", "n_folds": 3, "fold": 1, "n_inner": 3, "inner": 2},
    {"method": "folds", "folds": "matbench", "fold": 2},
]


@pytest.mark.parametrize(
    "given", EVERY_METHOD, ids=lambda given: " ".join(map(str, given.values()))
)
def test_every_method_is_sound_saved_and_repeatable(tmp_path, given):
    dataset = OFFICIAL if given.get("folds") == "matbench" else DATASET
    split = divide(dataset, SplitOptions(**given, seed=3))
    groups = {"random": None, "folds": None}.get(given["method"], given.get("groups"))
    labels = {None: None, "none": None}.get(groups)
    if given["method"] not in ("random", "folds") and groups != "none":
        labels = DATASET.tag("kind") if groups == "kind" else compositions(DATASET)
    assert_sound(split, labels)
    assert len(split.test)
    split.save(tmp_path / "split.json")
    loaded = Split.load(tmp_path / "split.json", dataset)
    assert loaded.digest == split.digest
    assert loaded.method == split.method
    assert divide_again(loaded).digest == split.digest
    assert divide_again(loaded).method == split.method
    again = SplitOptions(**SplitOptions(**given, seed=3).to_mapping())
    assert divide(dataset, again).digest == split.digest


def test_a_split_with_labels_of_its_own_cannot_be_repeated():
    labels = compositions(DATASET)
    with pytest.raises(SplitError, match="labels that are not in the dataset"):
        divide_again(split_by_group(DATASET, labels))
    with pytest.raises(SplitError, match="labels that are not in the dataset"):
        divide_again(split_by_folds(DATASET, np.arange(len(DATASET)) % 5))


# --- groups ---

SIZES = st.lists(st.integers(1, 12), min_size=4, max_size=40)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 3), valid=st.sampled_from([0.0, 0.1, 0.25]))
def test_sizes_are_as_near_as_whole_groups_allow(sizes, seed, valid):
    labels = np.repeat([f"g{k}" for k in range(len(sizes))], sizes)
    dataset = labelled(labels)
    split = split_by_group(dataset, labels, valid=valid, test=0.2, seed=seed)
    assert_sound(split, labels)
    for part, share in (("valid", valid), ("test", 0.2)):
        assert abs(len(split.rows[part]) - share * len(labels)) <= max(sizes)
    assert split_by_group(dataset, labels, valid=valid, test=0.2, seed=seed).digest == split.digest


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(sizes, seed, order):
    labels = np.repeat([f"g{k}" for k in range(len(sizes))], sizes)
    rows = list(range(len(labels)))
    order.shuffle(rows)
    dataset = labelled(labels)
    mixed = dataset[rows]
    for divided in (
        lambda d: split_by_group(d, "group", test=0.2, seed=seed),
        lambda d: split_kfold(d, n_folds=3, fold=1, groups="group", seed=seed),
        lambda d: split_stratified(d, "group", groups="group", test=0.2, seed=seed),
    ):
        first, second = divided(dataset), divided(mixed)
        for part in PARTS:
            assert sorted(getattr(first, part).ids) == sorted(getattr(second, part).ids)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from([f"g{k}" for k in range(30)]), min_size=30, max_size=120),
    cut=st.integers(20, 29),
    seed=st.integers(0, 3),
)
def test_by_hash_a_group_stays_where_it_is_when_data_are_added(labels, cut, seed):
    whole = labelled([*(f"g{k}" for k in range(30)), *labels])
    try:
        before = split_by_group(whole[:cut], "group", test=0.3, seed=seed, assignment="hash")
    except SplitError:
        return  # nothing for training among so few groups
    after = split_by_group(whole, "group", test=0.3, seed=seed, assignment="hash")
    assert_sound(after, whole.tag("group"))
    for part in PARTS:
        assert set(getattr(before, part).ids) <= set(getattr(after, part).ids)


def test_by_hash_sizes_are_met_on_average():
    dataset = labelled([f"g{k}" for k in range(4000)])
    split = split_by_group(dataset, "group", valid=0.1, test=0.2, assignment="hash")
    assert len(split.test) == pytest.approx(800, abs=4 * np.sqrt(4000 * 0.2 * 0.8))
    assert len(split.valid) == pytest.approx(400, abs=4 * np.sqrt(4000 * 0.1 * 0.9))
    larger = split_by_group(dataset, "group", valid=0.2, test=0.2, assignment="hash")
    assert set(larger.test.ids) == set(split.test.ids)
    with pytest.raises(SplitError, match="met on average"):
        split_by_group(dataset, "group", valid=10, assignment="hash")


def test_the_seed_decides_by_every_method_that_chooses():
    for options in (
        {"method": "group"},
        {"method": "group", "assignment": "hash"},
        {"method": "stratified", "by": "band_gap"},
        {"method": "kfold"},
        {"method": "element", "elements": ["Fe"]},
    ):
        digests = {divide(DATASET, SplitOptions(**options, seed=seed)).digest for seed in range(4)}
        assert len(digests) == 4, options


# --- several datasets ---


@settings(max_examples=60, deadline=None)
@given(
    several=st.lists(
        st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=60),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 3),
    assignment=st.sampled_from(["sizes", "hash"]),
)
def test_a_group_is_in_the_same_part_of_all_datasets(several, seed, assignment):
    datasets = [labelled([*"qrstuvwxyz", *labels], f"d{k}-") for k, labels in enumerate(several)]
    options = {"groups": "group", "valid": 0.2, "test": 0.2, "seed": seed}
    splits = split_together(datasets, **options, assignment=assignment)
    where = {}
    for split, dataset in zip(splits, datasets, strict=True):
        rows = np.concatenate(list(split.rows.values()))
        assert sorted(rows) == list(range(len(dataset)))
        for label, parts in parts_of(split, dataset.tag("group")).items():
            where.setdefault(label, set()).update(parts)
    assert all(len(parts) == 1 for parts in where.values())
    assert not leaks(splits, structures=False).groups
    turned = split_together(datasets[::-1], **options, assignment="hash")[::-1]
    if assignment == "hash":
        assert [s.digest for s in turned] == [s.digest for s in splits]


def test_every_dataset_gets_its_share_of_every_part():
    rng = np.random.default_rng(0)
    shared, own = [f"s{k}" for k in range(200)], [f"o{k}" for k in range(300)]
    first = labelled(rng.choice(shared, 1000))
    second = labelled([*rng.choice(shared, 300), *rng.choice(own, 600)], "t")
    for split in split_together([first, second], groups="group", valid=0.1, test=0.2):
        n = len(split.dataset)
        assert len(split.test) == pytest.approx(0.2 * n, rel=0.05)
        assert len(split.valid) == pytest.approx(0.1 * n, rel=0.05)


def test_splits_made_together_are_repeated_together(tmp_path):
    first, second = labelled("aabbccddeeff"), labelled("bbccddeeffgg", "t")
    options = SplitOptions(method="group", groups="group", test=0.2, valid=0.2)
    splits = divide_together([first, second], options)
    splits[1].save(tmp_path / "b.json")
    loaded = Split.load(tmp_path / "b.json", second)
    assert divide_again(loaded, others=[first]).digest == splits[1].digest
    with pytest.raises(SplitError, match="made together with 1 other"):
        divide_again(loaded)
    with pytest.raises(SplitError, match="method random divides one dataset"):
        divide_together([first, second], SplitOptions(method="random"))
    with pytest.raises(SplitError, match="fraction below 1"):
        split_together([first, second], groups="group", test=5)


# --- targets ---


def test_stratified_parts_have_the_distribution_of_the_whole():
    dataset = binaries(2000)
    split = split_stratified(dataset, "band_gap", groups="none", valid=0.2, test=0.2)
    values, mask = dataset.target("band_gap")
    edges = np.quantile(values[mask], np.linspace(0, 1, 11)[1:-1])
    for part in (split.train, split.valid, split.test):
        here, known = part.target("band_gap")
        counts = np.bincount(np.searchsorted(edges, here[known]), minlength=10)
        assert counts / known.sum() == pytest.approx(np.full(10, 0.1), abs=0.01)
        assert known.mean() == pytest.approx(mask.mean(), abs=0.01)


def test_stratified_by_a_class_keeps_rare_classes_in_all_parts():
    tags = ["common"] * 900 + ["rare"] * 100
    dataset = labelled(tags)
    split = split_stratified(dataset, "group", groups="none", valid=0.1, test=0.1)
    for part in (split.valid, split.test):
        assert (part.tag("group") == "rare").sum() == 10


def test_the_forward_test_is_the_best_tenth_and_what_belongs_to_it():
    values, mask = DATASET.target("band_gap")
    alone = split_forward(DATASET, "band_gap", groups="none")
    assert len(alone.test) == round(0.1 * mask.sum())
    worst, _ = alone.test.target("band_gap")
    for part in (alone.train, alone.valid):
        rest, known = part.target("band_gap")
        assert rest[known].max() <= worst.min()
    low = split_forward(DATASET, "band_gap", groups="none", direction="low", test=8)
    assert set(low.test.target("band_gap")[0]) == set(np.sort(values[mask])[:8])
    whole = split_forward(DATASET, "band_gap")
    assert_sound(whole, compositions(DATASET))
    assert values.max() in whole.test.target("band_gap")[0]


def test_a_forward_split_can_keep_a_low_test_of_the_same_size(tmp_path):
    plain = split_forward(DATASET, "band_gap", groups="none")
    split = split_forward(DATASET, "band_gap", groups="none", low_test=True)
    assert tagged_test(plain) is plain.test
    tested = tagged_test(split)
    words = tested.tag("test_part")
    high, low = tested[words == "high-test"], tested[words == "low-test"]
    assert sorted(high.ids) == sorted(plain.test.ids)
    assert len(low) == len(high)
    assert low.target("band_gap")[1].all()  # only structures that can be tested
    assert low.target("band_gap")[0].max() <= high.target("band_gap")[0].min()
    assert not set(low.ids) & set(split.train.ids)
    assert_sound(split_forward(DATASET, "band_gap", low_test=True), compositions(DATASET))
    split.save(tmp_path / "split.json")
    again = tagged_test(Split.load(tmp_path / "split.json", DATASET))
    assert again.tag("test_part").tolist() == words.tolist()
    assert divide_again(split).digest == split.digest


def test_extensive_targets_count_per_atom():
    frames = [bulk("Si") * (1, 1, k) for k in (1, 2, 3, 4)]
    energies = [-5.0 * len(a) + shift for a, shift in zip(frames, (0, 0, 9.0, 0), strict=True)]
    dataset = Dataset.from_entries(
        Entry.from_atoms(a, targets={"energy": e}, id=f"si{k}")
        for k, (a, e) in enumerate(zip(frames, energies, strict=True))
    )
    split = split_forward(dataset, "energy", groups="none", test=1, valid=0)
    assert list(split.test.ids) == ["si2"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: split_forward(DATASET, "gap"),
            "'gap' is not a target; there are band_gap, energy",
        ),
        (lambda: split_forward(DATASET, "band_gap", test=0), "test = 0"),
        (lambda: split_forward(DATASET, "band_gap", direction="up"), "use high or low"),
        (lambda: split_stratified(DATASET, "hue"), "'hue' is not a target"),
        (lambda: split_stratified(DATASET, "band_gap", n_bins=0), "n_bins = 0"),
        (lambda: split_by_element(DATASET, ["U"]), "U: are not in the dataset; it has Al Fe"),
        (lambda: split_by_element(DATASET, ["Xx"]), "Xx: unknown"),
        (lambda: split_by_element(DATASET, []), "give at least one"),
        (lambda: split_by_element(DATASET, METALS), "nothing to train on"),
        (lambda: split_kfold(DATASET, fold=5), "fold = 5: there are folds 0 to 4"),
        (lambda: split_kfold(DATASET, n_folds=1), "give at least 2"),
        (lambda: split_kfold(DATASET, groups="kind"), "3 groups by kind cannot fill 5 folds"),
        (lambda: split_by_folds(DATASET, [0, 1]), "120 structures"),
        (lambda: split_by_folds(DATASET, [0] * 60 + [1] * 60, fold=2), "there are the folds 0, 1"),
        (lambda: split_by_group(DATASET, assignment="luck"), "use sizes or hash"),
        (lambda: SplitOptions(method="random", target="energy"), "target is for forward"),
        (lambda: SplitOptions(method="forward"), "needs the option target"),
        (lambda: SplitOptions(method="group", test="ids.txt"), "needs a fraction or a number"),
        (lambda: SplitOptions(method="kfold", inner=1), "it needs n_inner"),
    ],
)
def test_what_cannot_be_divided_is_explained(make, message):
    with pytest.raises(SplitError, match=message):
        make()


def test_a_missing_tag_is_named():
    with pytest.raises(DataError, match="no structure has the tag 'colour'"):
        split_by_group(DATASET, "colour")


# --- elements and folds ---


def test_held_out_elements_are_in_the_test_only():
    split = split_by_element(DATASET, ["Fe", "Co"])
    assert not {26, 27} & (split.train.elements | split.valid.elements)
    assert all({26, 27} & set(entry.numbers.tolist()) for entry in split.test)
    assert_sound(split, compositions(DATASET))


def test_over_the_folds_every_structure_is_tested_once():
    options = SplitOptions(method="kfold", n_folds=5, n_inner=3)
    turns = all_folds(options)
    assert len(turns) == 15
    assert list(turns)[:2] == ["fold-0-0", "fold-0-1"]
    splits = {name: divide(DATASET, turn) for name, turn in turns.items()}
    tested = np.concatenate([splits[f"fold-{k}-0"].rows["test"] for k in range(5)])
    assert sorted(tested) == list(range(len(DATASET)))
    sizes = [len(splits[f"fold-{k}-0"].test) for k in range(5)]
    assert max(sizes) - min(sizes) <= 4
    for k in range(5):
        inner = [splits[f"fold-{k}-{j}"].rows["valid"] for j in range(3)]
        rest = np.setdiff1d(np.arange(len(DATASET)), splits[f"fold-{k}-0"].rows["test"])
        assert sorted(np.concatenate(inner)) == rest.tolist()
        for j in range(3):
            assert_sound(splits[f"fold-{k}-{j}"], compositions(DATASET))


def test_folds_of_a_file_are_followed(tmp_path):
    folds = [k * 7 % 4 for k in range(len(DATASET))]
    ids = list(DATASET.ids)
    texts = {
        "list.json": json.dumps(folds),
        "mapping.json": json.dumps(dict(zip(ids, folds, strict=True))),
        "lists.json": json.dumps(
            {"folds": [[i for i, f in zip(ids, folds, strict=True) if f == k] for k in range(4)]}
        ),
        "table.csv": "id,fold\n" + "".join(f"{i},{f}\n" for i, f in zip(ids, folds, strict=True)),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        split = split_by_folds(DATASET, tmp_path / name, fold=2)
        assert split.rows["test"].tolist() == [k for k, fold in enumerate(folds) if fold == 2]
        assert not set(compositions(split.train)) & set(compositions(split.valid))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[0, 1", "neither JSON nor CSV"),
        ("[0.5]", "as whole numbers"),
        ('{"b0": 1}', "no fold for 119 of 120 structures, for example 'b1'"),
        ('[["b0"], ["b0"]]', "in two folds"),
        ("[0, 1]", "120 structures"),
    ],
)
def test_a_file_of_folds_that_does_not_fit_is_named(tmp_path, text, message):
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(SplitError, match=message):
        split_by_folds(DATASET, tmp_path / "folds.json")


def test_the_official_folds_of_matbench_go_by_the_ids_of_its_entries():
    from epitaxy.folds import MATBENCH_ROWS, matbench_folds

    _, official = matbench_folds(MATBENCH_ROWS["jdft2d"])[4]
    expected = [f"mb-jdft2d-{row + 1:04}" for row in official if row % 5 == 0 and row < 600]
    split = split_by_folds(OFFICIAL, "matbench", fold=4, valid=0)
    assert list(split.test.ids) == expected
    backwards = split_by_folds(OFFICIAL[::-1], "matbench", fold=4, valid=0)
    assert sorted(backwards.test.ids) == expected
    with pytest.raises(SplitError, match="not an id of MatBench"):
        split_by_folds(DATASET, "matbench")


def test_a_random_split_records_what_it_needs_to_be_repeated():
    split = split_random(DATASET, valid=7, test=0.3, seed=5)
    assert divide_again(split).digest == split.digest
