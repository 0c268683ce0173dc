"""Every way in which one material can get into two parts, tried."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal

from epitaxy.cli import main
from epitaxy.composition import composition_entry
from epitaxy.config import read_config
from epitaxy.curation.groups import add_groups
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import ConfigError, SplitError
from epitaxy.registry import Registry
from epitaxy.split import Split, leaks, split_by_group, split_by_ids, split_random, split_together
from epitaxy.training_data import open_split

CELL = {"spacegroup": 136, "cellpar": [4.594, 4.594, 2.959, 90, 90, 90]}
SYMBOLS = ["Ti", "Sn", "Ge", "Mn", "Ru", "Ir", "V", "Cr", "Pb", "Mo", "W", "Os"]


def rutile(metal, u=0.305):
    return crystal([metal, "O"], [(0, 0, 0), (u, u, 0)], **CELL)


def copies_of(atoms, rng):
    """Return the ways in which a database holds the same material again."""
    supercell = atoms * (1, 2, 1)
    setting = atoms.copy()
    setting.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ atoms.cell.array)
    reordered = atoms[rng.permutation(len(atoms))]
    shifted = atoms.copy()
    shifted.translate(rng.random(3))
    turned = atoms.copy()
    turned.rotate(40, (1, 1, 0), rotate_cell=True)
    return [atoms, supercell, setting, reordered, shifted, turned]


def database(prefix, *, seed=0, metals=SYMBOLS, noise=0.0):
    rng = np.random.default_rng(seed)
    frames = [copy for metal in metals for copy in copies_of(rutile(metal), rng)]
    for k, atoms in enumerate(frames):
        if noise:
            atoms.set_cell(atoms.cell.array * (1 + 0.005 * rng.normal()), scale_atoms=True)
            atoms.rattle(noise, seed=k)
    order = rng.permutation(len(frames))
    return Dataset.from_entries(
        Entry.from_atoms(frames[k], id=f"{prefix}{k}", targets={"energy": -1.0 * len(frames[k])})
        for k in order
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("assignment", ["sizes", "hash"])
def test_no_copy_of_a_material_gets_into_another_part(seed, assignment):
    dataset = add_groups(database("a", seed=seed))
    for groups in ("spacegroup", "composition"):
        split = split_by_group(
            dataset, groups, valid=0.25, test=0.25, seed=seed, assignment=assignment
        )
        found = leaks(split, "spacegroup")
        assert found.compared
        assert not found, found.lines()


def test_at_random_the_same_copies_leak_and_the_check_names_them():
    dataset = add_groups(database("a"))
    found = leaks(split_random(dataset, valid=0.2, test=0.2), "spacegroup")
    assert len(found.groups) > len(SYMBOLS) / 2
    assert found.equal["valid"]
    assert found.equal["test"]
    said = "\n".join(found.lines())
    assert "O2Ti_136" in "\n".join(found.groups)
    assert "groups by spacegroup@moyopy-0.1 are in several parts" in said
    assert "structures of test are the same as one of train or valid: a" in said


def test_no_material_is_in_the_test_of_one_database_and_the_training_of_another():
    first = add_groups(database("a", metals=SYMBOLS[:8]))
    second = add_groups(database("b", metals=SYMBOLS[4:], seed=1, noise=0.005))
    apart = [split_by_group(d, "spacegroup", valid=0.2, test=0.2) for d in (first, second)]
    assert leaks(apart, "spacegroup").groups
    together = split_together([first, second], groups="spacegroup", valid=0.2, test=0.2)
    assert not leaks(together, "spacegroup")
    by_hash = [
        split_by_group(d, "spacegroup", valid=0.3, test=0.3, assignment="hash", seed=2)
        for d in (first, second)
    ]
    assert not leaks(by_hash, "spacegroup")


def test_validation_is_apart_from_training_too(tmp_path):
    """The code of the big-data paper groups the test only: its validation set leaks."""
    dataset = add_groups(database("a"))
    folds = tmp_path / "folds.json"
    folds.write_text(json.dumps([row % 5 for row in range(len(dataset))]))
    for method in ("group", "stratified", "element", "forward", "kfold", "folds"):
        options = {
            "stratified": {"by": "energy", "n_bins": 2},
            "element": {"elements": ["Ti"]},
            "forward": {"target": "energy"},
            "folds": {"folds": str(folds)},
        }.get(method, {})
        config = read_config(
            {
                "dataset": "a",
                "model": "painn",
                "split": {"method": method, "groups": "spacegroup", "valid": 0.3, **options},
            }
        )
        from epitaxy.split import divide

        split = divide(dataset, config.split)
        assert len(split.valid)
        labels = [set(part.tag("spacegroup@moyopy-0.1")) for part in (split.train, split.valid)]
        assert not labels[0] & labels[1], method


def test_polymorphs_of_one_formula_stay_together_by_composition():
    other = crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0, 0, 0.208)],
        spacegroup=141,
        cellpar=[3.784, 3.784, 9.515, 90, 90, 90],
    )
    frames = [rutile("Ti"), other, *(rutile(metal) for metal in SYMBOLS[1:])]
    dataset = add_groups(
        Dataset.from_entries(Entry.from_atoms(a, id=f"p{k}") for k, a in enumerate(frames))
    )
    split = split_by_ids(dataset, test=["p0"])
    assert leaks(split, "composition").groups == {"O2Ti": {"train": 1, "test": 1}}
    assert not leaks(split, "spacegroup").groups
    for seed in range(5):
        by_formula = split_by_group(dataset, "composition", valid=2, test=2, seed=seed)
        assert not leaks(by_formula, "composition").groups


def test_a_formula_and_its_structure_are_one_group():
    entries = [composition_entry(text, targets={}) for text in ("TiO2", "Ti2O4", "O2Ti", "SnO2")]
    entries += [Entry.from_atoms(rutile("Ti"), id="ti"), Entry.from_atoms(rutile("Ge"), id="ge")]
    dataset = Dataset.from_entries(entries)
    for seed in range(5):
        split = split_by_group(dataset, valid=1, test=1, seed=seed)
        assert not leaks(split)
        found = [n for n, rows in split.rows.items() if {0, 1, 2, 4} & set(rows.tolist())]
        assert len(found) == 1


def test_tiny_groups_fill_the_parts_that_were_asked_for():
    dataset = Dataset.from_entries(
        Entry.from_atoms(rutile(metal), id=metal) for metal in SYMBOLS[:3]
    )
    for seed in range(6):
        split = split_by_group(dataset, valid=0.1, test=0.1, seed=seed)
        assert [len(rows) for rows in split.rows.values()] == [1, 1, 1]
        (together,) = split_together([dataset], valid=0.1, test=0.1, seed=seed)
        assert [len(rows) for rows in together.rows.values()] == [1, 1, 1]
    with pytest.raises(SplitError, match="2 groups by composition cannot fill 3 parts"):
        split_by_group(database("a", metals=SYMBOLS[:2]))


def test_structures_added_after_grouping_are_not_split_unseen():
    grouped = add_groups(database("a", metals=SYMBOLS[:4]))
    joined = Dataset.from_entries([*grouped, *database("b", metals=SYMBOLS[4:6])])
    with pytest.raises(SplitError, match=r"12 of 36 structures have no spacegroup@moyopy-0\.1"):
        split_by_group(joined, "spacegroup")


def test_equal_structures_are_compared_across_labels_of_any_kind():
    dataset = database("a", metals=SYMBOLS[:4])
    wrong = np.array([f"g{k % 3}" for k in range(len(dataset))])
    found = leaks(split_by_group(dataset, wrong, valid=0.3, test=0.3), [wrong])
    assert not found.groups
    assert found.n_equal
    assert leaks(split_random(dataset), max_work=10).compared is False


def test_a_training_warns_of_equal_structures_in_two_parts(tmp_path, caplog):
    database("a").save(tmp_path / "set")
    document = {"dataset": str(tmp_path / "set"), "model": "painn", "split": {"method": "random"}}
    open_split(read_config(document), Registry.from_entry_points())
    assert "structures of test are the same as one of train" in caplog.text
    assert "groups by" not in caplog.text
    caplog.clear()
    document["split"] = {"method": "group", "groups": "composition"}
    open_split(read_config(document), Registry.from_entry_points())
    assert not caplog.text


def test_a_test_set_of_its_own_needs_no_groups(tmp_path, caplog):
    add_groups(database("a", metals=SYMBOLS[:6])).save(tmp_path / "set")
    database("b", metals=SYMBOLS[6:]).save(tmp_path / "own")
    document = {"dataset": str(tmp_path / "set"), "model": "painn", "test": str(tmp_path / "own")}
    document["split"] = {"method": "group", "groups": "spacegroup", "valid": 0.2}
    split = open_split(read_config(document), Registry.from_entry_points())
    assert len(split.test) == 36
    assert not caplog.text
    document["split"] = {"method": "element", "elements": ["Ti"]}
    with pytest.raises(ConfigError, match=r"split\.method element chooses that part itself"):
        read_config(document)


# --- the command ---


def test_the_commands_group_split_and_check(tmp_path, capsys):
    first, second = tmp_path / "a", tmp_path / "b"
    database("a").save(first)
    database("b", seed=1, noise=0.005).save(second)
    for path in (first, second):
        assert main(["groups", str(path), "-o", f"{path}-grouped", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "72 structures in 12 groups, 0 of them of one structure" in said
    assert "tag spacegroup@moyopy-0.1" in said
    grouped = [f"{first}-grouped", f"{second}-grouped"]
    job = ["split", *grouped, "--method", "group", "--groups", "spacegroup", "--test", "0.2"]
    assert main([*job, "-o", str(tmp_path / "splits")]) == 0
    assert "each of 12 groups by spacegroup@moyopy-0.1 is in one part" in capsys.readouterr().out
    files = [tmp_path / "splits" / name for name in ("a-grouped.json", "b-grouped.json")]
    check = ["split", grouped[0], "--check", str(files[0]), "--other", grouped[1], str(files[1])]
    assert main(check) == 0
    assert main([*job, "-o", str(tmp_path / "splits")]) == 2  # they are there
    assert "exists; use --overwrite" in capsys.readouterr().err
    random = tmp_path / "random.json"
    assert main(["split", grouped[0], "-o", str(random), "--method", "random"]) == 0
    said = capsys.readouterr().out
    assert "note: " in said
    assert "`--method group` keeps groups together" in said
    assert main(["split", grouped[0], "--check", str(random), "--groups", "spacegroup"]) == 1
    assert " of 12 groups by spacegroup@moyopy-0.1 are in several" in capsys.readouterr().out
    assert main(["split", grouped[0], "--check", str(random), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["equal_structures"]["test"]


def test_a_cross_validation_is_written_as_one_file_per_turn(tmp_path, capsys):
    dataset = database("a")
    dataset.save(tmp_path / "a")
    job = ["split", str(tmp_path / "a"), "--method", "kfold", "--n-folds", "3"]
    assert main([*job, "-o", str(tmp_path / "folds")]) == 0
    files = sorted((tmp_path / "folds").iterdir())
    assert [file.name for file in files] == ["fold-0.json", "fold-1.json", "fold-2.json"]
    tested = [Split.load(file, dataset).rows["test"] for file in files]
    assert sorted(np.concatenate(tested)) == list(range(len(dataset)))
    assert main([*job, "--n-inner", "2", "-o", str(tmp_path / "nested")]) == 0
    assert len(list((tmp_path / "nested").iterdir())) == 6
    assert main([*job, "--fold", "1", "-o", str(tmp_path / "one.json")]) == 0
    assert Split.load(tmp_path / "one.json", dataset).digest == Split.load(files[1], dataset).digest
    assert "12 groups" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-o OUTPUT is missing"),
        (["-o", "x", "--method", "forward"], "method forward needs the option target"),
        (["-o", "x", "--target", "energy"], "target is for forward"),
        (["-o", "x", "--valid", "some"], "give a fraction below 1 or a number"),
        (["-o", "x", "--method", "ids", "--test", "ids.txt"], "ids.txt: cannot be read"),
        (["-o", "x", "--json"], "--other and --json are for --check"),
        (["--check", "none.json"], "none.json: cannot be read"),
    ],
)
def test_wrong_use_of_the_command_is_explained(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Dataset.from_entries([Entry.from_atoms(bulk("Si"), id=f"s{k}") for k in range(20)]).save("set")
    assert main(["split", "set", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_default_keeps_formulas_together(tmp_path, capsys):
    database("a").save(tmp_path / "a")
    assert main(["split", str(tmp_path / "a"), "-o", str(tmp_path / "s.json")]) == 0
    assert "groups by composition is in one part" in capsys.readouterr().out
    split = Split.load(tmp_path / "s.json", Dataset.open(tmp_path / "a"))
    assert split.method["method"] == "group"
    assert not leaks(split, "composition")


def test_data_of_one_formula_are_not_divided_without_saying_how(tmp_path, capsys):
    one = [
        Entry.from_atoms(bulk("Si"), id=f"s{k}", tags={"run": str(k % 5), "kind": "md"})
        for k in range(20)
    ]
    Dataset.from_entries(one).save(tmp_path / "set")
    job = ["split", str(tmp_path / "set"), "-o", str(tmp_path / "s.json")]
    assert main(job) == 2
    said = capsys.readouterr().err
    assert "1 group by composition cannot fill 3 parts" in said
    assert "--groups TAG" in said
    assert "(there are kind, run)" in said or "(there are run, kind)" in said
    assert "--method random" in said
    assert main([*job, "--groups", "run"]) == 0
    assert main([*job, "--method", "random", "--overwrite"]) == 0


def test_parts_far_from_the_sizes_asked_for_are_named(tmp_path, capsys):
    some = [
        Entry.from_atoms(bulk(symbol, "fcc", a=4.0 + 0.01 * k), id=f"{symbol}{k}")
        for symbol, n in (("Cu", 50), ("Al", 40), ("Ni", 1))
        for k in range(n)
    ]
    Dataset.from_entries(some).save(tmp_path / "set")
    job = ["split", str(tmp_path / "set"), "-o", str(tmp_path / "s.json")]
    assert main(job) == 0
    assert "structures, 9 were asked for: groups by composition are few or large" in (
        capsys.readouterr().out
    )
    assert main([*job, "--overwrite", "--method", "random"]) == 0
    assert "asked for" not in capsys.readouterr().out
