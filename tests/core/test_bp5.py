"""The BP5 store: what is written comes back, and what is damaged is named."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ragged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ragged import bits, entries, entry_lists

from epitaxy.dataset import Dataset
from epitaxy.errors import MissingDependencyError, StoreError

pytest.importorskip("adios2")

from epitaxy.stores.bp5 import (
    PartWriter,
    discard_parts,
    merge_index,
    open_share,
    pieces,
    write_bp5,
)

SUPPORT = Path(ragged.__file__).parent  # for other processes


def assert_same(found: Dataset, expected: Dataset) -> None:
    """Compare everything that a dataset shows, bit by bit."""
    assert len(found) == len(expected)
    assert [bits(entry) for entry in found] == [bits(entry) for entry in expected]
    for a, b in zip(found.gather(), expected.gather(), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    for name in expected.targets:
        for a, b in zip(found.target(name), expected.target(name), strict=True):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    for name in expected.tags:
        assert found.tag(name).tolist() == expected.tag(name).tolist()
    assert list(found.ids) == list(expected.ids)
    assert found.methods == expected.methods
    assert found.elements == expected.elements
    assert found.digest == expected.digest


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    entries=entry_lists(),
    n_parts=st.integers(1, 4),
    n_ranks=st.integers(1, 5),
    picked=st.lists(st.integers(0, 6), max_size=8),
)
def test_ragged_datasets_come_back_bit_by_bit(tmp_path_factory, entries, n_parts, n_ranks, picked):
    path = tmp_path_factory.mktemp("store") / "set"
    expected = Dataset.from_entries(entries, history=[{"operation": "made", "by": "Ångström"}])
    write_bp5(expected, path, n_parts=n_parts)
    stored = Dataset.open(path, verify=True)
    assert_same(stored, expected)
    assert (stored.targets, stored.tags) == (expected.targets, expected.tags)
    assert (stored.history, stored.path) == (expected.history, path)
    rows = [row for row in picked if row < len(entries)]
    assert_same(Dataset.open(path)[rows], expected[rows])  # unread columns, in another order
    assert_same(stored[::-1], expected[::-1])
    shares = [open_share(path, rank, n_ranks) for rank in range(n_ranks)]
    assert sum(len(share) for share in shares) == len(entries)
    start = 0
    for share in shares:
        assert_same(share, expected[start : start + len(share)])
        assert_same(pickle.loads(pickle.dumps(share)), expected[start : start + len(share)])
        start += len(share)


@pytest.fixture
def made() -> Dataset:
    return Dataset.from_entries(entries(), history=[{"operation": "made"}])


@pytest.fixture
def path(tmp_path: Path, made: Dataset) -> Path:
    write_bp5(made, tmp_path / "set", n_parts=3)
    return tmp_path / "set"


def left_beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p != path)


# --- what the store is ---


def test_the_digest_is_that_of_the_memory_mapped_store(tmp_path, path, made):
    made.save(tmp_path / "mapped")
    assert Dataset.open(path).digest == Dataset.open(tmp_path / "mapped").digest
    Dataset.open(path).save(tmp_path / "again")  # and back
    assert_same(Dataset.open(tmp_path / "again"), made)


def test_entries_that_come_one_by_one_are_written_too(tmp_path, made):
    write_bp5((entry for entry in made), tmp_path / "set")
    assert_same(Dataset.open(tmp_path / "set"), made)


def test_pieces_are_the_dataset_in_order(path, made):
    assert [bits(e) for piece in pieces(path, n_structures=7) for e in piece] == [
        bits(e) for e in made
    ]


def test_a_view_is_written_as_it_is_shown(tmp_path, made):
    write_bp5(made[[5, 3, 3, 29]], tmp_path / "set", n_parts=2)
    assert_same(Dataset.open(tmp_path / "set"), made[[5, 3, 3, 29]])


def test_units_and_provenance_are_attributes_that_other_tools_show(path):
    import adios2

    with adios2.FileReader(str(path / "part-00000.bp")) as file:
        attributes = {name: fact["Value"] for name, fact in file.available_attributes().items()}
        shape = file.available_variables()["positions"]["Shape"]
    assert attributes["target:forces/unit"] == '"eV/Å"'
    assert attributes["positions/unit"] == '"Å"'
    assert "PBE" in attributes["methods"]
    assert "CC-BY-4.0" in attributes["origins"]
    assert '"operation": "made"' in attributes["history"].replace('\\"', '"')
    assert shape.endswith(", 3")


def test_a_share_opens_only_the_parts_that_hold_it(path, made):
    shutil.rmtree(path / "part-00002.bp")
    assert_same(open_share(path, 0, 3), made[:10])
    assert_same(open_share(path, 1, 3), made[10:20])
    with pytest.raises(StoreError, match=r"part-00002\.bp: this part of the dataset is missing"):
        open_share(path, 2, 3)


def test_opening_reads_no_column(path):
    dataset = Dataset.open(path)
    assert len(dataset) == 30
    assert "positions" not in dataset._columns.__dict__


def test_a_forked_process_reads_the_same(path, made):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    script = (
        "import os, sys\n"
        "from epitaxy.dataset import Dataset\n"
        "dataset = Dataset.open(sys.argv[1])\n"
        "dataset.gather([3])\n"
        "children = []\n"
        "for _ in range(2):\n"
        "    if not (pid := os.fork()):\n"
        "        for name in ('forces', 'energy'):\n"
        "            dataset.target(name)\n"
        "        os.write(1, f\"{dataset.target('forces')[0].sum()}\\n\".encode())\n"
        "        os._exit(0)\n"
        "    children.append(pid)\n"
        "os.write(1, f\"{dataset.target('forces')[0].sum()}\\n\".encode())\n"
        "for pid in children: assert os.waitpid(pid, 0)[1] == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {str(made.target("forces")[0].sum())}


def test_without_adios2_the_message_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "adios2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'epitaxy\[adios2\]'"):
        Dataset.open(path)


# --- places ---


def test_an_existing_dataset_is_replaced_only_if_asked(path):
    with pytest.raises(StoreError, match="there is a dataset already; use --overwrite"):
        write_bp5(entries(3), path)
    write_bp5(entries(3), path, overwrite=True)
    assert len(Dataset.open(path)) == 3
    assert left_beside(path) == []


def test_what_is_not_a_dataset_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("one")
    with pytest.raises(StoreError, match="is not a dataset; it will not be replaced"):
        write_bp5(entries(3), tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "one"


def test_an_error_in_the_entries_leaves_the_old_dataset(path, made):
    def failing():
        yield from entries(2000)
        raise RuntimeError("the reader broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        write_bp5(failing(), path, overwrite=True)
    assert_same(Dataset.open(path), made)
    assert left_beside(path) == []


# --- damage ---


@pytest.mark.parametrize("name", ["data.0", "md.0", "md.idx", "mmd.0"])
def test_a_truncated_missing_or_grown_file_of_a_part_is_named(path, name):
    file = path / "part-00001.bp" / name
    whole = file.read_bytes()
    for damaged, said in ((whole[:-1], "truncated"), (whole + b"x", "edited"), (b"", "truncated")):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match=rf"part-00001\.bp/{name}: is {said}"):
            Dataset.open(path)
    file.unlink()
    with pytest.raises(StoreError, match=rf"part-00001\.bp/{name}: is missing"):
        Dataset.open(path)


def equal_parts(path: Path) -> None:
    """Write two parts whose files have the same sizes."""
    write_bp5([*entries(10), *entries(10, offset=0.5)], path, n_parts=2)


def test_exchanged_parts_are_noticed(tmp_path):
    path = tmp_path / "set"
    equal_parts(path)
    one, other = path / "part-00000.bp", path / "part-00001.bp"
    one.rename(path / "aside")
    other.rename(one)
    (path / "aside").rename(other)
    with pytest.raises(StoreError, match=r"part-00000\.bp/.*belongs to another part or dataset"):
        Dataset.open(path)


def test_exchanged_data_files_of_equal_size_are_noticed(tmp_path):
    path = tmp_path / "set"
    equal_parts(path)
    one, other = path / "part-00000.bp" / "data.0", path / "part-00001.bp" / "data.0"
    assert one.stat().st_size == other.stat().st_size
    one.rename(path / "aside")
    other.rename(one)
    (path / "aside").rename(other)
    with pytest.raises(StoreError, match=r"part-00000\.bp: its data belong to another part"):
        Dataset.open(path)


def test_an_edited_value_is_found_by_verify(path):
    file = path / "part-00002.bp" / "data.0"
    raw = bytearray(file.read_bytes())
    energy = np.float64(25).tobytes()
    at = raw.index(energy)
    raw[at] ^= 1
    file.write_bytes(raw)
    assert len(Dataset.open(path)) == 30
    with pytest.raises(StoreError, match=r"part-00002\.bp: column target:energy is edited"):
        Dataset.open(path, verify=True)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["parts"][1].update(n_structures=9), "the index contradicts itself"),
        (lambda m: m["parts"].pop(), "the index contradicts itself"),
        (lambda m: m["parts"].reverse(), "the index contradicts itself"),
        (lambda m: m["parts"][1].update(file="../../etc"), "the index contradicts itself"),
        (lambda m: m["parts"][0].update(id="0" * 32), "belong to another part"),
        (lambda m: m.update(n_structures=31), "the index contradicts itself"),
        (lambda m: m.update(version=99), "upgrade epitaxy"),
        (lambda m: m["quantities"]["energy"].update(unit="Hartree"), "this epitaxy expects"),
        (lambda m: m.pop("parts"), "incomplete or edited"),
        (
            lambda m: (
                m["parts"][0].update(n_structures=9),
                m["parts"][1].update(n_structures=11, first=9),
            ),
            "the index disagrees with this part: n_structures is 9 in the index and 10",
        ),
    ],
)
def test_an_index_that_disagrees_is_refused(path, edit: Callable, said):
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=said):
        Dataset.open(path)


def test_a_damaged_manifest_is_named(path):
    (path / "manifest.json").write_text('{"format": "epitaxy-dataset-bp5", "version"')
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read"):
        Dataset.open(path)


# --- full disks ---

FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ragged import entries
from epitaxy.errors import StoreError
from epitaxy.stores.bp5 import write_bp5, PartWriter
import epitaxy.stores.adios as adios
adios.load_adios2()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    if sys.argv[4] == "one":
        write_bp5((e for e in entries(4000)), sys.argv[2], overwrite=True)
    else:
        with PartWriter(sys.argv[2], 0, 2, overwrite=True) as part:
            part.extend(entries(4000))
except StoreError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("how", ["one", "part"])
@pytest.mark.parametrize("n_bytes", [1, 2000, 300_000])
def test_a_file_size_limit_leaves_the_old_dataset(path, made, n_bytes, how):
    command = [sys.executable, "-c", FULL, SUPPORT, path, str(n_bytes), how]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    if n_bytes > 100_000:  # else ADIOS2 cannot end well; that the process lives is what counts
        assert done.stderr == ""
    assert done.stdout.startswith("refused:")
    assert "File too large" in done.stdout
    assert_same(Dataset.open(path), made)
    assert left_beside(path) == []


@pytest.mark.parametrize("size", ["20k", "600k"])
def test_a_full_disk_leaves_the_old_dataset(tmp_path, size):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        few = Dataset.from_entries(entries(1))
        if size != "20k":
            write_bp5(few, folder / "set")
        command = [sys.executable, "-c", FULL, SUPPORT, folder / "set"]
        done = subprocess.run([*command, "1000000000", "one"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "No space left on device" in done.stdout
        if size != "20k":
            assert_same(Dataset.open(folder / "set"), few)
    finally:
        subprocess.run(["umount", folder], check=True)


# --- several writers ---


def test_parts_of_several_processes_become_one_dataset(tmp_path, made):
    path = tmp_path / "set"
    for rank in (2, 0, 1):
        with PartWriter(path, rank, 3) as part:
            part.extend(made[10 * rank : 10 * rank + 10])
            part.record({"operation": "made"})
        assert not path.exists()
    merge_index(path)
    assert_same(Dataset.open(path, verify=True), made)
    assert Dataset.open(path).history == made.history
    assert left_beside(path) == []


def test_a_digest_that_was_left_out_is_computed_when_asked_for(tmp_path, made):
    for rank in range(2):
        with PartWriter(tmp_path / "set", rank, 2) as part:
            part.extend(list(made[15 * rank : 15 * rank + 15]))
    merge_index(tmp_path / "set", digest=False, history=[])
    assert Dataset.open(tmp_path / "set").digest == made.digest


def test_two_writers_of_one_part_are_refused(tmp_path):
    path = tmp_path / "set"
    script = (
        "import sys\nfrom epitaxy.stores.bp5 import PartWriter\n"
        "with PartWriter(sys.argv[1], 0, 2):\n    print('writing', flush=True)\n    input()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "writing\n"
    with (
        pytest.raises(StoreError, match=f"process {first.pid} writes this part; two ranks must"),
        PartWriter(path, 0, 2),
    ):
        raise AssertionError("not refused")
    with pytest.raises(StoreError, match=f"process {first.pid} still writes part-00000"):
        discard_parts(path)
    first.communicate("\n", timeout=60)
    assert first.returncode == 0
    with (
        pytest.raises(StoreError, match="this part is written already; two ranks must not"),
        PartWriter(path, 0, 2),
    ):
        raise AssertionError("not refused")


def test_a_killed_writer_leaves_nothing_that_opens_as_a_dataset(tmp_path, made):
    path = tmp_path / "set"
    with PartWriter(path, 0, 2) as part:
        part.extend(made[:15])
    script = (
        "import os, signal, sys\nsys.path.insert(0, sys.argv[2])\n"
        "from ragged import entries\nfrom epitaxy.stores.bp5 import PartWriter\n"
        "with PartWriter(sys.argv[1], 1, 2) as part:\n"
        "    part.extend(entries(15))\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, path, SUPPORT])
    for opened in (path, tmp_path / "set.parts"):
        with pytest.raises(StoreError, match="begun but not finished by rank 1") as refused:
            Dataset.open(opened)
        assert "merge_index" in str(refused.value)
        assert "discard_parts" in str(refused.value)
    with pytest.raises(StoreError, match=r"not complete: 1 finished.*missing of 2: 1"):
        merge_index(path)
    with PartWriter(path, 1, 2) as part:  # the rank that was killed runs again
        part.extend(made[15:])
    merge_index(path, history=made.history)
    assert_same(Dataset.open(path), made)
    assert left_beside(path) == []


def test_a_writer_killed_while_it_replaces_leaves_the_old_dataset(path, made):
    script = (
        "import os, signal, sys\nsys.path.insert(0, sys.argv[2])\n"
        "from ragged import entries\nfrom epitaxy.stores.bp5 import write_bp5\n"
        "def some():\n    yield from entries(3000)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_bp5(some(), sys.argv[1], overwrite=True)\n"
    )
    subprocess.run([sys.executable, "-c", script, path, SUPPORT])
    assert len(left_beside(path)) == 1
    assert_same(Dataset.open(path), made)
    write_bp5(made[:5], path, overwrite=True)
    assert left_beside(path) == []


def test_parts_of_different_runs_are_not_mixed(tmp_path, made):
    path = tmp_path / "set"
    for rank, n_ranks in ((0, 2), (1, 3)):
        with PartWriter(path, rank, n_ranks) as part:
            part.extend(made)
    with pytest.raises(StoreError, match="by 2 and by 3 ranks: they are of different runs"):
        merge_index(path)
    discard_parts(path)
    with pytest.raises(StoreError, match="there are no parts to merge"):
        merge_index(path)


def test_an_error_removes_the_part_of_its_rank_only(tmp_path, made):
    path = tmp_path / "set"
    with PartWriter(path, 0, 2) as part:
        part.extend(made)

    def failing():
        yield from made
        raise RuntimeError("the reader broke")

    with pytest.raises(RuntimeError, match="broke"), PartWriter(path, 1, 2) as part:
        part.extend(failing())
    assert sorted(p.name for p in (tmp_path / "set.parts").iterdir()) == [
        "part-00000.bp",
        "part-00000.json",
    ]


@pytest.mark.parametrize(("rank", "n_ranks"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_that_does_not_exist_is_refused(path, rank, n_ranks):
    with pytest.raises(StoreError, match="ranks are counted from 0"):
        open_share(path, rank, n_ranks)
    with pytest.raises(StoreError, match="ranks are counted from 0"):
        PartWriter(path, rank, n_ranks)
