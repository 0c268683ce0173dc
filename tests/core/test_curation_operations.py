"""Operations of curation: what they drop or change, what they record, that they can be repeated."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from epitaxy.cli import main
from epitaxy.composition import composition_entry
from epitaxy.curation.cleaning import clean
from epitaxy.curation.frames import FrameChecker, FrameChecks
from epitaxy.curation.operations import OPERATIONS, apply
from epitaxy.curation.recipe import Step, read_recipe, recipe_of, recipe_text, run_recipe
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method
from epitaxy.errors import ConfigError, DataError, OptionError


def usable() -> Iterator[Atoms]:
    yield bulk("Cu")
    yield bulk("Cu", cubic=True)
    yield bulk("NaCl", "rocksalt", a=5.64)
    yield molecule("CH3CH2OH")
    yield Atoms("He")
    yield fcc111("Al", (1, 1, 3), vacuum=5.0)
    yield Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]], cell=[3, 0, 0], pbc=[True, False, False])
    yield bulk("Si") * (1, 1, 30)
    yield Atoms("Ne2", positions=[[0.1, 0.2, 0.3], [0.5, 0.5, 3.4]], cell=[4, 4, 6], pbc=True)


def spoiled() -> Iterator[Atoms]:
    near = bulk("Cu", cubic=True)
    near.positions[1] = near.positions[0] + near.cell.sum(axis=0) + [0, 0.03, 0]
    yield near
    flat = bulk("Cu", cubic=True)
    flat.set_cell([[4, 0, 0], [0, 4, 0], [4, 4, 0]])
    yield flat
    fractional = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    fractional.positions = fractional.get_scaled_positions()
    yield fractional
    for atoms in (bulk("Cu", cubic=True), molecule("H2O")):
        metres = atoms.copy()
        metres.set_cell(atoms.cell.array * 1e-10)
        metres.positions = atoms.positions * 1e-10
        yield metres
    nanometres = bulk("Cu", cubic=True)
    nanometres.set_cell(nanometres.cell.array / 10, scale_atoms=True)
    yield nanometres
    wire = Atoms(
        "H2", positions=[[0, 0, 0], [2.98, 0, 0]], cell=[3, 0, 0], pbc=[True, False, False]
    )
    yield wire


def mixed() -> Dataset:
    """Good and bad frames, in turns, and formulas without a structure."""
    entries = []
    for k, atoms in enumerate([*usable(), *spoiled()]):
        rng = np.random.default_rng(k)
        targets = {"energy": -3.0 * len(atoms), "forces": rng.normal(size=(len(atoms), 3))}
        if k == 2:
            targets["forces"] = np.full((len(atoms), 3), 90.0)
        if k == 3:
            targets = {"energy": -1e-18}
        if k == 4:
            targets = {"band_gap": -0.1}
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"e{k}"))
    for k, gap in enumerate((1.0, 1.0, 2.0, 31.0)):
        entries.append(composition_entry("GaN", targets={"band_gap": gap}, id=f"GaN-{k}"))
    return Dataset.from_entries(entries)


@pytest.mark.parametrize("distance", [0.0, 0.1, 1.0, 2.5])
def test_whole_columns_are_checked_as_single_frames_are(distance):
    dataset = mixed()
    checker = FrameChecker(FrameChecks(require=(), min_distance=distance))
    expected = [e.id for e in dataset if checker.unusable(e) is None]
    found = apply(dataset, "frames", {"min_distance": distance})
    assert list(found.ids) == expected
    assert 0 < len(expected) < len(dataset)


@pytest.mark.parametrize("seed", range(5))
def test_random_crystals_are_checked_as_single_frames_are(seed):
    rng = np.random.default_rng(seed)
    entries = []
    for k in range(150):
        n_atoms = int(rng.integers(1, 12))
        cell = rng.normal(size=(3, 3)) * 4
        atoms = Atoms(
            numbers=rng.integers(1, 90, n_atoms),
            positions=rng.normal(size=(n_atoms, 3)) * 6,
            cell=cell,
            pbc=[True] * 3 if k % 3 else rng.random(3) < 0.5,
        )
        entries.append(Entry.from_atoms(atoms, targets={"energy": -1.0}, id=str(k)))
    dataset = Dataset.from_entries(entries)
    checker = FrameChecker(FrameChecks(min_distance=0.8))
    expected = [e.id for e in dataset if checker.unusable(e) is None]
    assert list(apply(dataset, "frames", {"min_distance": 0.8}).ids) == expected
    assert 0 < len(expected) < len(dataset)


def test_reasons_and_counts_are_in_the_history():
    dataset = mixed()
    step = apply(dataset, "frames", {}).history[-1]
    assert step["operation"] == "frames"
    assert step["digest_before"] == dataset.digest
    assert step["counts"] == {"n_seen": 20, "n_dropped": 11}
    assert step["options"]["max_force"] == 100.0
    counts = {reason: fact["count"] for reason, fact in step["reasons"].items()}
    assert counts == {
        "|F| > 100 eV/Å": 1,
        "energy looks like joule, not eV": 1,
        "band_gap < 0 eV": 1,
        "atoms closer than 0.1 Å": 2,
        "periodic cell of zero volume": 1,
        "positions look fractional, not in Å": 1,
        "the cell looks like metres, not Å": 1,
        "positions look like metres, not Å": 1,
        "the cell looks like nm, not Å": 1,
        "band_gap > 30 eV": 1,
    }


def test_formulas_are_duplicates_only_if_their_labels_agree():
    kept = apply(mixed(), "duplicates", {})
    assert [name for name in kept.ids if "GaN" in name] == ["GaN-0", "GaN-2", "GaN-3"]


def test_a_structure_with_another_value_of_a_property_is_a_conflict():
    atoms = bulk("Cu")
    entries = [
        Entry.from_atoms(atoms, targets={"formation_energy": value}, id=name)
        for name, value in (("a", -1.0), ("b", -0.5))
    ]
    step = apply(Dataset.from_entries(entries), "duplicates", {}).history[-1]
    assert list(step["reasons"]) == ["structure seen before with another formation_energy"]


def test_every_operation_explains_wrong_options():
    dataset = mixed()
    with pytest.raises(ConfigError, match=r"no operation is called 'frame'.*did you mean 'frames'"):
        apply(dataset, "frame", {})
    with pytest.raises(OptionError, match="max_forces"):
        apply(dataset, "frames", {"max_forces": 3})
    for operation in OPERATIONS.values():
        with pytest.raises(OptionError, match="nonsense"):
            apply(dataset, operation.name, {"nonsense": 1})


def test_a_printed_recipe_gives_the_same_data_again(tmp_path, capsys):
    mixed().save(tmp_path / "raw")
    command = ["clean", str(tmp_path / "raw"), "-o", str(tmp_path / "clean")]
    assert main([*command, "--max-force", "50", "--limit", "band_gap=0:40"]) == 0
    said = capsys.readouterr().out
    assert "10 of 20 dropped" not in said
    assert "1 of 20 dropped: |F| > 50 eV/Å (e2)" in said
    assert main(["info", str(tmp_path / "clean"), "--recipe"]) == 0
    text = capsys.readouterr().out
    assert f"digest of {tmp_path / 'clean'}: {Dataset.open(tmp_path / 'clean').digest}" in text
    (tmp_path / "recipe.yaml").write_text(text)
    again = ["clean", str(tmp_path / "raw"), "-o", str(tmp_path / "again")]
    assert main([*again, "--recipe", str(tmp_path / "recipe.yaml")]) == 0
    first, second = Dataset.open(tmp_path / "clean"), Dataset.open(tmp_path / "again")
    assert first.digest == second.digest
    assert recipe_of(first.history) == recipe_of(second.history)
    assert main([*again, "--overwrite", "--recipe", "x.yaml", "--max-force", "3"]) == 2
    assert "write --max-force into x.yaml instead" in capsys.readouterr().err


def test_what_ingest_checked_can_be_repeated_on_unchecked_data(tmp_path, capsys):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    frames = []
    for k in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=k if k != 7 else 6)
        forces = np.full((4, 3), 90.0 if k == 3 else 0.1)
        atoms.calc = SinglePointCalculator(atoms, energy=-12.0, forces=forces)
        frames.append(atoms)
    write(tmp_path / "a.extxyz", frames)
    loose = ["--max-force", "1e9", "--min-distance", "0", "--require", "none", "--keep-duplicates"]
    ingest = ["ingest", str(tmp_path / "a.extxyz"), "--no-consistency-check", "-o"]
    assert main([*ingest, str(tmp_path / "strict")]) == 0
    assert main([*ingest, str(tmp_path / "loose"), *loose]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "strict"), "--recipe"]) == 0
    (tmp_path / "recipe.yaml").write_text(capsys.readouterr().out)
    command = ["clean", str(tmp_path / "loose"), "-o", str(tmp_path / "again")]
    assert main([*command, "--recipe", str(tmp_path / "recipe.yaml")]) == 0
    strict, again = Dataset.open(tmp_path / "strict"), Dataset.open(tmp_path / "again")
    assert len(strict) == 10
    assert strict.digest == again.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frames", "a recipe is a list"),
        ("[]", "a recipe is a list"),
        ("[{operation: frames, optons: {}}]", "item 1 .unknown: optons"),
        ("[frames, {operation: framse}]", "item 2: no operation is called 'framse'"),
        ("[{operation: frames, options: {max_force: many}}]", "item 1: .*max_force"),
        ("[frames", "not YAML"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises((ConfigError, OptionError), match=message):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_recipe(tmp_path / "none.yaml")


def test_recipes_survive_being_written_and_read(tmp_path):
    steps = (Step("frames", {"max_force": 50.0}), Step("duplicates", {"distance": 1e-5}))
    (tmp_path / "r.yaml").write_text(recipe_text(steps))
    assert read_recipe(tmp_path / "r.yaml") == steps


def test_named_entries_tags_and_methods_can_be_dropped():
    dataset = mixed().with_tag("part", ["train"] * 10 + ["test"] * 10)
    assert "e0" not in apply(dataset, "drop", {"ids": ["e0"]}).ids
    assert len(apply(dataset, "drop", {"tag": "part", "words": ["test"]})) == 10
    for options, message in (
        ({"ids": ["e99"]}, "no entry is called e99"),
        ({"tag": "part", "words": ["valid"]}, "no entry has part = 'valid'"),
        ({"methods": ["SCAN"]}, "no entry has the method 'SCAN'; there are: not recorded"),
    ):
        with pytest.raises(DataError, match=message):
            apply(dataset, "drop", options)
    with pytest.raises(OptionError, match="give both"):
        apply(dataset, "drop", {"tag": "part"})


def test_conversion_mends_fractional_coordinates_and_units():
    right = Entry.from_atoms(
        bulk("NaCl", "rocksalt", a=5.64, cubic=True), targets={"energy": -27.0}
    )
    fractions = np.linalg.solve(right.cell.T, right.positions.T).T
    wrong = replace(right, positions=fractions, targets={"energy": np.float64(-27.0 / 8)})
    options = {"positions_unit": "fractional", "energy_per_atom": True}
    mended = apply(Dataset.from_entries([wrong]), "convert", options)
    assert mended[0].positions == pytest.approx(right.positions)
    assert float(mended[0].targets["energy"]) == pytest.approx(-27.0)
    assert mended.history[-1]["options"] == options
    assert run_recipe(Dataset.from_entries([wrong]), recipe_of(mended.history)).digest == (
        mended.digest
    )


def test_nothing_is_written_if_nothing_is_left(tmp_path: Path):
    with pytest.raises(DataError, match=r"nothing is left .* 20 of 20 dropped: energies missing"):
        clean(mixed(), tmp_path / "out", recipe=[Step("frames", {"require": ["energies"]})])
    assert not (tmp_path / "out").exists()


def test_histories_name_levels_of_theory_that_were_dropped():
    entries = [
        Entry.from_atoms(bulk("Cu"), targets={"energy": -k}, method=Method(xc_functional=xc))
        for k, xc in enumerate(("PBE", "LDA"))
    ]
    step = apply(Dataset.from_entries(entries), "drop", {"methods": ["LDA"]}).history[-1]
    assert step["reasons"]["method is LDA"]["examples"] == ["row 1"]
