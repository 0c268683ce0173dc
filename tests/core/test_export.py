import errno
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
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, StoreError
from epitaxy.quantities import QUANTITIES
from epitaxy.registry import Registry
from epitaxy.stores.export import SUFFIXES, WRITERS, export
from epitaxy.stores.parquet import read_facts

ENDINGS = (".extxyz", ".db", ".parquet")
finite = st.floats(-1e60, 1e60)  # ASE databases square forces
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
words = st.one_of(texts, st.sampled_from(["17", "T", "1.5", "nan", 'a"b', "a=b", "x\ny", "True"]))
tag_names = st.sampled_from(["group", "a/b", "phase", "17", "energy_set", "Energy", "id", "cell"])
LABELS = ("energy", "forces", "stress", "energies", "magmoms", "charges", "dipole", "band_gap")
LABELS += ("polarizability", "formation_energy", "magmom")


@st.composite
def entry_lists(draw: st.DrawFn) -> list[Entry]:
    def arrays(shape: tuple[int, ...]) -> np.ndarray:
        return draw(npst.arrays(np.float64, shape, elements=finite))

    made = []
    for i in range(draw(st.integers(1, 5))):
        n_atoms = draw(st.integers(1, 4))
        targets = {}
        for name in draw(st.sets(st.sampled_from(LABELS), max_size=5)):
            rule = QUANTITIES[name]
            targets[name] = arrays((n_atoms, *rule.shape) if rule.per == "atom" else rule.shape)
        made.append(
            Entry(
                numbers=draw(npst.arrays(np.uint8, n_atoms, elements=st.integers(0, 118))),
                positions=arrays((n_atoms, 3)),
                cell=draw(st.one_of(st.just(np.zeros((3, 3))), st.builds(arrays, st.just((3, 3))))),
                pbc=draw(npst.arrays(np.bool_, 3)),
                targets=targets,
                id=draw(words) or str(i),
                method=Method(draw(texts), draw(st.sampled_from(["PBE", ""])), draw(texts)),
                origin=Origin(url=draw(texts) or "u", license=draw(texts)),
                tags=draw(st.dictionaries(tag_names, words, max_size=3)),
            )
        )
    return made


def bits(entry: Entry) -> tuple[object, ...]:
    arrays = [entry.numbers, entry.positions, entry.cell, entry.pbc]
    return (
        *(np.asarray(array).tobytes() for array in arrays),
        {name: np.asarray(value).tobytes() for name, value in entry.targets.items()},
        (entry.id, entry.method, entry.origin, dict(entry.tags)),
    )


def read_back(path: Path) -> list[Entry]:
    registry = Registry.from_entry_points()
    return list(registry.build("source", {"use": "files", "path": str(path)}))


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries=entry_lists())
def test_our_reader_gives_back_every_bit(tmp_path_factory, ending, entries):
    dataset = Dataset.from_entries(entries)
    path = tmp_path_factory.mktemp("export") / f"set{ending}"
    export(dataset, path)
    back = read_back(path)
    assert [bits(entry) for entry in back] == [bits(entry) for entry in entries]
    assert Dataset.from_entries(back).digest == dataset.digest


def silicon(n: int = 3) -> Dataset:
    made = []
    for i in range(n):
        made.append(
            Entry(
                numbers=np.array([14, 8], dtype=np.uint8),
                positions=np.array([[0.0, 0.0, 0.0], [1.0 / 3.0, 1.0, 1.0 + i]]),
                cell=np.eye(3) * 5.1,
                pbc=np.array([True, True, False]),
                targets={
                    "energy": np.asarray(-1.1 - i),
                    "forces": np.full((2, 3), 0.1 * i),
                    "stress": np.arange(6.0) * 1e-3,
                    "band_gap": np.asarray(1.0 + i),
                },
                id=f"si-{i}",
                method=Method(xc_functional="PBE"),
                tags={"group": "bulk"},
            )
        )
    return Dataset.from_entries(made, history=[{"operation": "ingest"}])


def test_ase_reads_the_extended_xyz_with_labels_in_its_own_units(tmp_path):
    from ase.io import read

    export(silicon(), tmp_path / "set.extxyz")
    atoms = read(tmp_path / "set.extxyz", index=1)
    entry = silicon()[1]
    np.testing.assert_array_equal(atoms.get_positions(), entry.positions)
    np.testing.assert_array_equal(atoms.get_forces(), entry.targets["forces"])
    np.testing.assert_array_equal(atoms.get_stress(), entry.targets["stress"])
    assert atoms.get_potential_energy() == entry.targets["energy"]
    assert atoms.info["band_gap"] == 2.0
    assert atoms.info["group"] == "bulk"
    assert atoms.pbc.tolist() == [True, True, False]


def test_the_first_frame_of_the_extended_xyz_states_the_units(tmp_path):
    from ase.io import read

    dataset = silicon()
    export(dataset, tmp_path / "set.extxyz")
    first, second = read(tmp_path / "set.extxyz", index=":2")
    assert first.info["epitaxy"]["units"]["stress"] == "eV/Å^3"
    assert first.info["epitaxy"]["digest"] == dataset.digest
    assert first.info["epitaxy"]["history"] == [{"operation": "ingest"}]
    assert "units" not in second.info["epitaxy"]


def test_the_ase_database_can_be_searched_by_labels_and_tags(tmp_path):
    from ase.db import connect

    export(silicon(), tmp_path / "set.db")
    database = connect(tmp_path / "set.db")
    assert [row.band_gap for row in database.select("band_gap>1.5,group=bulk")] == [2.0, 3.0]
    assert database.metadata["epitaxy"]["units"]["forces"] == "eV/Å"


def test_the_parquet_file_has_lists_nulls_and_units(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    entry = silicon()[0]
    bare = Entry(entry.numbers, entry.positions, entry.cell, entry.pbc, id="bare")
    dataset = Dataset.from_entries([entry, bare])
    export(dataset, tmp_path / "set.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "set.parquet")
    assert table["numbers"].to_pylist() == [[14, 8], [14, 8]]
    assert table["forces"].to_pylist() == [[[0.0] * 3] * 2, None]
    assert table["stress"].to_pylist()[1] is None
    assert table["tag:group"].to_pylist() == ["bulk", None]
    assert table["method.xc_functional"].to_pylist() == ["PBE", ""]
    facts = read_facts(tmp_path / "set.parquet")
    assert facts["units"]["forces"] == "eV/Å"
    assert facts["digest"] == dataset.digest


def test_structures_without_atoms_go_to_parquet_and_are_refused_by_xyz(tmp_path):
    pytest.importorskip("pyarrow")
    empty = Entry(np.zeros(0, np.uint8), np.zeros((0, 3)), np.eye(3), np.ones(3, bool), id="none")
    dataset = Dataset.from_entries([empty])
    export(dataset, tmp_path / "set.parquet")
    assert [bits(entry) for entry in read_back(tmp_path / "set.parquet")] == [bits(empty)]
    with pytest.raises(DataError, match="none: extended xyz has no structures without atoms"):
        export(dataset, tmp_path / "set.xyz")
    assert os.listdir(tmp_path) == ["set.parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_dataset_makes_a_valid_file_or_none(tmp_path, ending):
    export(silicon()[:0], tmp_path / f"set{ending}")
    assert read_back(tmp_path / f"set{ending}") == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_existing_file_stays_unless_it_may_be_replaced(tmp_path, ending):
    path = tmp_path / f"set{ending}"
    path.write_text("precious")
    with pytest.raises(StoreError, match="exists"):
        export(silicon(), path)
    assert path.read_text() == "precious"
    export(silicon(), path, overwrite=True)
    assert len(read_back(path)) == 3
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_ctrl_c_leaves_what_was_there(tmp_path, ending):
    path = tmp_path / f"set{ending}"
    path.write_text("precious")

    def interrupt(*counts: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(silicon(), path, overwrite=True, tell=interrupt)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_what_was_there(tmp_path, ending):
    # A limit on the size of files stands for the full disk: the system refuses to write.
    silicon(400).save(tmp_path / "d")
    path = tmp_path / f"set{ending}"
    path.write_text("precious")
    program = (
        "import resource, signal, sys\n"
        "from epitaxy.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "sys.exit(main(['export', *sys.argv[1:], '--overwrite']))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "d"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr
    assert path.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["d", path.name]


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path):
    silicon().save(tmp_path / "d")
    program = (
        "import os, signal, sys\n"
        "from epitaxy.dataset import Dataset\n"
        "from epitaxy.stores.export import export\n"
        "die = lambda *counts: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export(Dataset.open(sys.argv[1]), sys.argv[2], tell=die)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "d"), str(tmp_path / "set.extxyz")]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(os.listdir(tmp_path)) == 2
    assert not (tmp_path / "set.extxyz").exists()
    export(silicon(), tmp_path / "set.extxyz")
    assert sorted(os.listdir(tmp_path)) == ["d", "set.extxyz"]


def test_exporting_takes_memory_of_blocks_not_of_datasets(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("epitaxy.stores.columns.BLOCK_STRUCTURES", 200)

    def peak_of(n: int) -> int:
        silicon(1)[np.zeros(n, dtype=np.int64)].save(tmp_path / f"{n}")
        dataset = Dataset.open(tmp_path / f"{n}")
        tracemalloc.start()
        try:
            export(dataset, tmp_path / f"{n}.parquet")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(400)  # imports
    assert peak_of(8000) - peak_of(2000) < 6000 * 40  # a structure of this set has 400 bytes


def test_a_damaged_parquet_file_and_a_stranger_are_named(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "set.parquet"
    export(silicon(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"set\.parquet: cannot be read as parquet"):
        read_back(path)
    import pyarrow

    parquet.write_table(pyarrow.table({"formula": ["TiO2"]}), path)
    with pytest.raises(DataError, match="columns: formula"):
        read_back(path)


def test_a_parquet_file_in_other_units_is_refused(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "set.parquet"
    export(silicon(), path)
    table = parquet.read_table(path)
    changed = table.schema.metadata[b"epitaxy"].replace(b'"energy": "eV"', b'"energy": "Ry"')
    parquet.write_table(table.replace_schema_metadata({b"epitaxy": changed}), path)
    with pytest.raises(DataError, match="energy is in 'Ry', this epitaxy expects 'eV'"):
        read_back(path)


def test_an_unknown_ending_names_the_formats(tmp_path):
    with pytest.raises(DataError, match="extxyz, db, parquet"):
        export(silicon(), tmp_path / "set.doc")
    with pytest.raises(StoreError, match="is a folder"):
        export(silicon(), tmp_path, format="db")
    assert set(SUFFIXES.values()) <= set(WRITERS)


def test_a_read_only_folder_is_a_clear_error(tmp_path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match="could not be written: Permission denied"):
        export(silicon(), tmp_path / "set.extxyz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_export_and_ingest_on_the_command_line_keep_the_digest(tmp_path, capsys, ending):
    dataset = silicon(12)
    dataset.save(tmp_path / "d")
    path = tmp_path / f"set{ending}"
    assert main(["export", str(tmp_path / "d"), str(path)]) == 0
    assert f"{path}: 12 structures as {SUFFIXES[ending]}" in capsys.readouterr().out
    assert main(["ingest", str(path), "-o", str(tmp_path / "back"), "--no-consistency-check"]) == 0
    assert Dataset.open(tmp_path / "back").digest == dataset.digest
    assert main(["export", str(tmp_path / "d"), str(path)]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_dataset_with_missing_energies_comes_back_from_the_command_line(tmp_path, ending):
    """Merged databases: energies in one, gaps only in the other."""
    dataset = Dataset.from_entries(
        [
            replace(e, targets={"energy": e.targets["energy"]} if i % 3 else {"band_gap": 1.0})
            for i, e in enumerate(silicon(9))
        ]
    )
    dataset.save(tmp_path / "d")
    path = tmp_path / f"set{ending}"
    export(dataset, path)
    assert main(["ingest", str(path), "-o", str(tmp_path / "back")]) == 0
    assert Dataset.open(tmp_path / "back").digest == dataset.digest


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_sign_of_a_zero_comes_back(tmp_path, ending):
    (entry,) = silicon(1)
    zeros = {"energy": np.asarray(-0.0), "magmom": np.asarray(-0.0)}
    entry = replace(entry, targets=zeros, origin=Origin(url="u"))
    export(Dataset.from_entries([entry]), tmp_path / f"set{ending}")
    (back,) = read_back(tmp_path / f"set{ending}")
    assert bits(back) == bits(entry)
