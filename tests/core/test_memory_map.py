import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ragged import bits, entry_lists

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import StoreError
from epitaxy.stores.memory_map import Writer


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries=entry_lists(), cut=st.integers(1, 3))
def test_ragged_datasets_come_back_bit_by_bit(tmp_path_factory, entries, cut):
    path = tmp_path_factory.mktemp("store") / "set"
    with Writer(path) as writer:  # in pieces: the result must not depend on the cuts
        for start in range(0, len(entries), cut):
            writer.extend(Dataset.from_entries(entries[start : start + cut]))
    stored = Dataset.open(path, verify=True)
    assert [bits(entry) for entry in stored] == [bits(entry) for entry in entries]
    assert stored.digest == Dataset.from_entries(entries).digest
    again = path.with_name("again")
    stored[::-1].save(again)
    assert [bits(entry) for entry in Dataset.open(again)] == [bits(e) for e in entries[::-1]]


def entries(n: int = 30, *, offset: float = 0.0) -> list[Entry]:
    rng = np.random.default_rng(1)
    made = []
    for i in range(n):
        k = int(rng.integers(1, 9))
        made.append(
            Entry(
                numbers=rng.integers(1, 90, k).astype(np.uint8),
                positions=rng.normal(size=(k, 3)),
                cell=np.eye(3) * 5,
                pbc=np.ones(3, dtype=bool),
                targets={"energy": np.float64(i + offset), "forces": rng.normal(size=(k, 3))},
                id=f"some-{i}",
                tags={"group": "ab"[i % 2]},
            )
        )
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Dataset.from_entries(entries(), history=[{"operation": "made"}]).save(tmp_path / "set")
    return tmp_path / "set"


def left_beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p != path)


def test_columns_are_files_that_numpy_reads(path):
    dataset = Dataset.open(path)
    assert np.array_equal(np.load(path / "positions.npy"), dataset.gather().positions)
    assert np.array_equal(np.load(path / "target-energy.npy"), dataset.target("energy")[0])
    assert dataset.history == ({"operation": "made"},)


def test_opening_reads_no_column(path):
    for column in ("positions.npy", "target-forces.npy"):
        size = (path / column).stat().st_size
        with (path / column).open("r+b") as stream:  # keep the header, make the rest a hole
            stream.truncate(128)
            stream.truncate(size)
    assert len(Dataset.open(path)) == 30
    with pytest.raises(StoreError, match=r"positions\.npy: column is edited: sha256"):
        Dataset.open(path, verify=True)


@pytest.mark.parametrize("n_bytes", [0, 100, 128, -1])
def test_a_truncated_column_is_named(path, n_bytes):
    file = path / "target-forces.npy"
    os.truncate(file, n_bytes if n_bytes >= 0 else file.stat().st_size - 1)
    with pytest.raises(StoreError, match=r"target-forces\.npy: column is truncated"):
        Dataset.open(path)


def test_every_truncated_or_missing_column_is_named(path, tmp_path):
    for file in path.glob("*.npy"):
        copy = tmp_path / "copy"
        shutil.copytree(path, copy)
        os.truncate(copy / file.name, file.stat().st_size - 1)
        with pytest.raises(StoreError, match=file.name):
            Dataset.open(copy)
        (copy / file.name).unlink()
        with pytest.raises(StoreError, match=f"{file.name}: column is missing"):
            Dataset.open(copy)
        shutil.rmtree(copy)


def test_an_edited_column_is_named(path):
    with (path / "target-energy.npy").open("r+b") as stream:
        stream.seek(140)
        stream.write(b"\x01")
    assert Dataset.open(path)
    with pytest.raises(StoreError, match=r"target-energy\.npy: column is edited"):
        Dataset.open(path, verify=True)


def test_a_column_replaced_by_another_array_is_named(path):
    shape = np.load(path / "positions.npy").shape
    np.save(path / "positions.npy", np.zeros(shape, dtype=">f8"))
    with pytest.raises(StoreError, match=r"positions\.npy: column is edited: its header"):
        Dataset.open(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "format version 2, this epitaxy reads up to 1: upgrade"),
        ({"format": "zarr"}, "not the manifest of a dataset"),
        ({"columns": {}}, "incomplete or edited"),
        ({"n_structures": 7}, "the manifest says 7"),
        (
            {"quantities": {"energy": {"unit": "Ry", "shape": [], "per": "structure"}}},
            "energy is stored in Ry",
        ),
        (
            {"quantities": {"colour": {"unit": "", "shape": [], "per": "structure"}}},
            "no quantity named 'colour'",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(path, change, message):
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(StoreError, match=message):
        Dataset.open(path)


def test_what_is_not_a_dataset_is_named(tmp_path):
    with pytest.raises(StoreError, match="nothing: no such dataset"):
        Dataset.open(tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"not a dataset, manifest\.json is missing"):
        Dataset.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "epi')
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read"):
        Dataset.open(tmp_path)


def test_an_existing_dataset_is_replaced_only_on_request(path):
    new = Dataset.from_entries(entries(5))
    with pytest.raises(StoreError, match="--overwrite"):
        new.save(path)
    assert len(Dataset.open(path)) == 30
    old = Dataset.open(path)
    new.save(path, overwrite=True)
    assert Dataset.open(path, verify=True).digest == new.digest
    assert len(list(old)) == 30  # a reader that has the old one open goes on undisturbed
    assert left_beside(path) == []


def test_a_folder_that_is_no_dataset_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    with pytest.raises(StoreError, match="exists and is not a dataset"):
        Dataset.from_entries(entries(5)).save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_old_dataset(path, interruption):
    before = Dataset.open(path).digest

    def interrupted():
        yield from entries(2500)
        raise interruption

    with pytest.raises(interruption), Writer(path, overwrite=True) as writer:
        writer.extend(interrupted())
    assert Dataset.open(path, verify=True).digest == before
    assert left_beside(path) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_the_old_dataset(path, monkeypatch, call):
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = Dataset.open(path).digest
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse) if call == "fsync" else patch.setattr(
            Path, "rename", refuse
        )
        with pytest.raises(StoreError, match="No space left on device; nothing was kept"):
            Dataset.from_entries(entries(5)).save(path, overwrite=True)
    assert Dataset.open(path, verify=True).digest == before
    assert left_beside(path) == []


def test_a_real_write_error_leaves_the_old_dataset(path):
    # The operating system refuses files over 200 kB, as a full disk or a quota would.
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from epitaxy.dataset import Dataset\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "old = Dataset.open(sys.argv[1])\n"
        "old[np.arange(30_000) % 30].save(sys.argv[1], overwrite=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "StoreError" in done.stderr
    assert "File too large; nothing was kept" in done.stderr
    assert len(Dataset.open(path, verify=True)) == 30
    assert left_beside(path) == []


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_writer_left_is_removed_by_the_next(path):
    stale = path.with_name(f"set.partial-{dead_pid()}")
    alive = path.with_name(f"set.partial-{os.getppid()}")
    other = path.with_name(f"settings.partial-{dead_pid()}")
    for folder in (stale, alive, other):
        folder.mkdir()
    with Writer(path, overwrite=True) as writer:
        writer.extend(entries(4))
    assert writer.removed_partials == (stale,)
    assert left_beside(path) == sorted([alive.name, other.name])


def test_a_writer_killed_between_its_two_renames_loses_nothing(path):
    path.rename(path.with_name(f"set.replaced-{dead_pid()}"))
    assert len(Dataset.open(path, verify=True)) == 30
    assert left_beside(path) == []


def test_streaming_keeps_memory_bounded(tmp_path):
    import tracemalloc

    def stream(n: int):
        pattern = entries(50)
        for i in range(n):
            yield pattern[i % 50]

    peaks = []
    for n in (4_000, 40_000):
        tracemalloc.start()
        with Writer(tmp_path / str(n)) as writer:
            writer.extend(stream(n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(Dataset.open(tmp_path / "40000")) == 40_000
    assert peaks[1] < 1.5 * peaks[0]


def test_the_current_folder_is_named_when_it_holds_no_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"not a dataset, manifest\.json is missing"):
        Dataset.open(".")
