import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from epitaxy.cli import main
from epitaxy.composition import composition_entry
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, StoreError
from epitaxy.stores.merge import SOURCE_TAG, append, merge

finite = st.floats(width=64, allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)


@st.composite
def entry_lists(draw: st.DrawFn) -> list[Entry]:
    def arrays(shape: tuple[int, ...]) -> np.ndarray:
        return draw(npst.arrays(np.float64, shape, elements=finite))

    made = []
    for i in range(draw(st.integers(0, 5))):
        n_atoms = draw(st.integers(0, 4))
        shapes = {"energy": (), "forces": (n_atoms, 3), "stress": (6,), "charges": (n_atoms,)}
        made.append(
            Entry(
                numbers=draw(npst.arrays(np.uint8, n_atoms)),
                positions=arrays((n_atoms, 3)),
                cell=arrays((3, 3)),
                pbc=draw(npst.arrays(np.bool_, 3)),
                targets={
                    name: arrays(shape) for name, shape in shapes.items() if draw(st.booleans())
                },
                id=f"{i}-{draw(texts)}",
                method=Method(xc_functional=draw(st.sampled_from(["PBE", "LDA", ""]))),
                origin=Origin(url=draw(texts)),
                tags=draw(st.dictionaries(st.sampled_from(["group", "a/b", ""]), texts)),
            )
        )
    return made


def bits(entry: Entry, *, with_id: bool = True) -> tuple[object, ...]:
    arrays = [entry.numbers, entry.positions, entry.cell, entry.pbc]
    return (
        *(np.asarray(array).tobytes() for array in arrays),
        {name: np.asarray(value).tobytes() for name, value in entry.targets.items()},
        (entry.id if with_id else "", entry.method, entry.origin, dict(entry.tags)),
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=entry_lists(), second=entry_lists(), third=entry_lists())
def test_merged_and_appended_datasets_come_back_bit_by_bit(tmp_path_factory, first, second, third):
    folder = tmp_path_factory.mktemp("merge")
    sets = [Dataset.from_entries(entries) for entries in (first, second, third)]
    everything = [*first, *second, *third]
    report = merge(dict(zip("abc", sets, strict=True)), folder / "all", keep_identical=True)
    expected = [bits(entry, with_id=False) for entry in everything]
    stored = Dataset.open(folder / "all", verify=True)
    assert [bits(entry, with_id=False) for entry in stored] == expected
    assert stored.digest == report.dataset.digest == Dataset.from_entries(everything).digest

    sets[0].save(folder / "grown")
    for name, dataset in zip("bc", sets[1:], strict=True):
        append(folder / "grown", dataset, name=name, keep_identical=True)
    grown = Dataset.open(folder / "grown", verify=True)
    assert [bits(entry, with_id=False) for entry in grown] == expected
    assert list(grown.ids)[: len(first)] == [entry.id for entry in first]
    assert len(set(grown.ids)) == len(set(stored.ids)) == len(everything)


def entry(
    id: str, *, energy: float = -1.0, xc: str = "PBE", tags: dict[str, str] | None = None
) -> Entry:
    return Entry(
        numbers=np.array([14, 14], dtype=np.uint8),
        positions=np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
        cell=np.eye(3) * 5.0,
        pbc=np.array([True, True, False]),
        targets={"energy": np.asarray(energy)},
        id=id,
        method=Method(xc_functional=xc),
        tags=tags or {},
    )


def test_ids_that_two_datasets_use_get_the_name_of_their_dataset(tmp_path):
    first = Dataset.from_entries([entry("1"), entry("only-a")])
    second = Dataset.from_entries([entry("1", energy=-2.0), entry("only-b")])
    report = merge({"mp": first, "oqmd": second}, tmp_path / "m")
    assert list(report.dataset.ids) == ["mp:1", "only-a", "oqmd:1", "only-b"]
    assert report.n_renamed == {"mp": 1, "oqmd": 1}


def test_append_keeps_old_ids_and_never_makes_one_twice(tmp_path):
    Dataset.from_entries([entry("1"), entry("b:1")]).save(tmp_path / "d")
    append(tmp_path / "d", Dataset.from_entries([entry("1", energy=-3.0)]), name="b")
    assert list(Dataset.open(tmp_path / "d").ids) == ["1", "b:1", "b#2:1"]


def test_the_source_is_tagged_and_an_earlier_source_kept(tmp_path):
    first = Dataset.from_entries([entry("x", tags={SOURCE_TAG: "older"}), entry("y")])
    second = Dataset.from_entries([entry("z", energy=-2.0)])
    report = merge({"a": first, "b": second}, tmp_path / "m", tag_source=True)
    assert report.dataset.tag(SOURCE_TAG).tolist() == ["older", "a", "b"]


def test_histories_of_all_inputs_are_kept_nested(tmp_path):
    first = Dataset.from_entries([entry("x")], history=[{"operation": "ingest", "from": "a"}])
    second = Dataset.from_entries([entry("z", energy=-2.0)], history=[{"operation": "clean"}])
    (step,) = merge({"a": first, "b": second}, tmp_path / "m").dataset.history
    assert step["operation"] == "merge"
    assert [fact["name"] for fact in step["inputs"]] == ["a", "b"]
    assert step["inputs"][0]["history"] == [{"operation": "ingest", "from": "a"}]
    assert step["inputs"][1]["digest"] == second.digest


def test_datasets_with_the_same_data_are_noticed(tmp_path):
    one = Dataset.from_entries([entry("x")])
    same = Dataset.from_entries([entry("other-name")])
    with pytest.raises(DataError, match="a and b hold the same data"):
        merge({"a": one, "b": same}, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    one.save(tmp_path / "d")
    append(tmp_path / "d", Dataset.from_entries([entry("y", energy=-2.0)]), name="y")
    with pytest.raises(DataError, match=r"is in .* already"):
        append(tmp_path / "d", Dataset.from_entries([entry("y", energy=-2.0)]), name="again")


def test_mixed_levels_of_theory_are_named_with_their_counts(tmp_path):
    first = Dataset.from_entries([entry("x"), entry("y", energy=-4.0)])
    second = Dataset.from_entries([entry("z", xc="LDA")])
    (warning,) = merge({"a": first, "b": second}, tmp_path / "m").warnings
    assert "PBE (a 2)" in warning
    assert "LDA (b 1)" in warning


def test_many_levels_of_theory_are_named_in_few_words(tmp_path):
    first = Dataset.from_entries([entry(f"x{k}", xc=f"F{k}") for k in range(200)])
    second = Dataset.from_entries([entry("y0", xc="F7"), entry("y1", xc="LDA", energy=-2.0)])
    warning = merge({"a": first, "b": second}, tmp_path / "m").warnings[0]
    assert "energy comes from 201 levels of theory: F7 (a 1, b 1); " in warning
    assert "and 196 more (196 entries)" in warning
    assert len(warning) < 300


def test_structures_that_are_in_several_datasets_are_counted(tmp_path):
    def moved(k: int, **more: object) -> Entry:
        one = entry(f"{k}", **more)
        return replace(one, positions=one.positions + 0.1 * k)

    first = [moved(k) for k in range(6)]
    tagged = [moved(k, tags={"set": "new"}, energy=-5.0) for k in range(4)]
    other = [moved(k, xc="LDA") for k in range(4, 6)]  # another level is another entry
    rounded = [replace(moved(5), positions=moved(5).positions + 1e-9), moved(5)]
    formula = [composition_entry("TiO2", targets={"band_gap": 3.0})]
    second = Dataset.from_entries([*tagged, *other, *rounded, *formula])
    inputs = {"a": Dataset.from_entries([*first, *formula]), "b": second}
    warnings = merge(inputs, tmp_path / "m").warnings
    assert any(w.startswith("5 structures are in more than one") for w in warnings)
    assert merge({"a": inputs["a"]}, tmp_path / "n").warnings == (
        "formulas without a structure are among the structures: a 1",
    )
    inputs["a"].save(tmp_path / "d")
    appended = append(tmp_path / "d", second, name="b").warnings
    assert any(w.startswith("5 structures are in more than one") for w in appended)


def test_formulas_among_structures_are_named(tmp_path):
    first = Dataset.from_entries([entry("x")])
    second = Dataset.from_entries([composition_entry("TiO2", targets={"band_gap": 3.0})])
    warnings = merge({"a": first, "b": second}, tmp_path / "m").warnings
    assert "formulas without a structure are among the structures: b 1" in warnings


def test_labels_that_an_input_lacks_are_masked(tmp_path):
    first = Dataset.from_entries([entry("x")])
    second = Dataset.from_entries([composition_entry("TiO2", targets={"band_gap": 3.0})])
    merged = merge({"a": first, "b": second}, tmp_path / "m").dataset
    assert merged.target("energy")[1].tolist() == [True, False]
    assert merged.target("band_gap")[1].tolist() == [False, True]
    assert merged.target("band_gap")[0].tolist() == [0.0, 3.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_dataset(tmp_path, monkeypatch):
    Dataset.from_entries([entry("x")]).save(tmp_path / "d")
    before = Dataset.open(tmp_path / "d").digest
    opened = Path.open

    def full(self, mode="r", *args, **kwargs):
        if "partial" in str(self) and "positions" in self.name and "w" in mode:
            return opened(Path("/dev/full"), mode, *args, **kwargs)
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match="No space left"):
        append(tmp_path / "d", Dataset.from_entries([entry("y", energy=-2.0)]), name="y")
    monkeypatch.undo()
    assert Dataset.open(tmp_path / "d", verify=True).digest == before
    assert os.listdir(tmp_path) == ["d"]


def test_a_killed_append_leaves_the_old_dataset(tmp_path):
    Dataset.from_entries([entry("x")]).save(tmp_path / "d")
    before = Dataset.open(tmp_path / "d").digest
    Dataset.from_entries([entry("y", energy=-2.0)]).save(tmp_path / "new")
    program = (
        "import os, signal, sys\n"
        "from epitaxy.dataset import Dataset\n"
        "from epitaxy.stores.merge import append\n"
        "die = lambda *counts: os.kill(os.getpid(), signal.SIGKILL)\n"
        "append(sys.argv[1], Dataset.open(sys.argv[2]), tell=die)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "d"), str(tmp_path / "new")]
    assert subprocess.run(command, check=False).returncode == -9
    assert Dataset.open(tmp_path / "d", verify=True).digest == before
    append(tmp_path / "d", Dataset.open(tmp_path / "new"))
    assert len(Dataset.open(tmp_path / "d")) == 2
    assert sorted(os.listdir(tmp_path)) == ["d", "new"]


def test_an_append_that_another_process_overtook_is_refused(tmp_path):
    path = tmp_path / "d"
    Dataset.from_entries([entry("x")]).save(path)
    Dataset.from_entries([entry("faster", energy=-5.0)]).save(tmp_path / "other")
    command = [sys.executable, "-m", "epitaxy", "merge", "--append", str(path)]

    def overtake(*counts: object) -> None:
        if len(Dataset.open(path)) == 1:
            subprocess.run([*command, str(tmp_path / "other")], check=True, capture_output=True)

    with pytest.raises(StoreError, match="another process changed it"):
        append(path, Dataset.from_entries([entry("y", energy=-2.0)]), name="y", tell=overtake)
    assert list(Dataset.open(path, verify=True).ids) == ["x", "faster"]


def test_merging_takes_memory_of_blocks_not_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr("epitaxy.stores.columns.BLOCK_STRUCTURES", 200)

    def peak_of(n: int) -> int:
        inputs = {}
        for name, energy in (("a", -1.0), ("b", -2.0)):
            one = Dataset.from_entries([entry(name, energy=energy, tags={"group": "g"})])
            one[np.zeros(n, dtype=np.int64)].save(tmp_path / f"{name}-{n}")
            inputs[name] = Dataset.open(tmp_path / f"{name}-{n}")
        tracemalloc.start()
        try:
            merge(inputs, tmp_path / f"merged-{n}")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(400)  # imports
    grown = peak_of(6000) - peak_of(2000)
    assert grown < 2 * 4000 * 60  # a structure of this set has 250 bytes, a hash of its id 8


def test_the_command_merges_appends_and_refuses(tmp_path, capsys):
    for folder, name in (("r1", "d"), ("r2", "d")):
        Dataset.from_entries([entry("1", energy=-len(folder) - int(folder[1]))]).save(
            tmp_path / folder / name
        )
    first, second = str(tmp_path / "r1" / "d"), str(tmp_path / "r2" / "d")
    assert main(["merge", first, second, "-o", str(tmp_path / "m"), "--tag-source"]) == 0
    said = capsys.readouterr().out
    assert "r1/d: 1 structures, 1 with ids that others use too" in said
    merged = Dataset.open(tmp_path / "m")
    assert list(merged.ids) == ["r1/d:1", "r2/d:1"]
    assert merged.tag("source").tolist() == ["r1/d", "r2/d"]
    assert main(["merge", first, second, "--append"]) == 0
    assert len(Dataset.open(first)) == 2
    assert main(["merge", first, second, "--append"]) == 2
    assert "already" in capsys.readouterr().err
    assert main(["merge", first, first, "-o", str(tmp_path / "n")]) == 2
    assert main(["merge", first, second, "-o", str(tmp_path / "m")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert json.loads((tmp_path / "m" / "manifest.json").read_text())["n_structures"] == 2


def test_info_shows_coverage_mean_inputs_and_format(tmp_path, capsys):
    first = Dataset.from_entries([entry("x"), entry("y", energy=-4.0)])
    second = Dataset.from_entries([composition_entry("TiO2", targets={"band_gap": 3.0})])
    merge({"a": first, "b": second}, tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    said = capsys.readouterr().out
    assert "energy: 2 structures (66.7%), -4 to -1 eV, mean -2.5" in said
    assert "history: merge; a 2; b 1" in said
    assert "stored as: epitaxy-dataset\n" in said
    assert main(["info", str(tmp_path / "m"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["targets"]["energy"]["mean"] == -2.5
    assert facts["format"] == "epitaxy-dataset"
