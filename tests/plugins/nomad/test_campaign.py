"""Finding finished calculations, planning their uploads, and the ledger."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from calculations import ENDINGS, calculation, output, put
from hypothesis import given
from hypothesis import strategies as st

from epitaxy.cli import main
from epitaxy.errors import DataError, OptionError, StoreError
from epitaxy_nomad.campaign.begin import Recipe, plan
from epitaxy_nomad.campaign.find import Calculation, Rules, survey
from epitaxy_nomad.campaign.ledger import Ledger
from epitaxy_nomad.campaign.pack import ChangedError, PartStream
from epitaxy_nomad.campaign.plan import Limits, parts

# --- which calculations are finished ---


@pytest.mark.parametrize("name", ENDINGS)
def test_a_code_is_known_by_its_output_and_finished_by_its_end(tmp_path: Path, name: str) -> None:
    calculation(tmp_path / "good", name=name)
    calculation(tmp_path / "running", name=name, finished=False)
    found = survey(tmp_path)
    assert [(c.name, c.mainfile, c.n_files) for c in found.calculations] == [("good", name, 5)]
    assert list(found.left_out) == ["running"]
    assert f"{name}: not finished" in found.left_out["running"]


def test_a_run_that_says_it_failed_is_left_out_with_its_words(tmp_path: Path) -> None:
    content = output("pw.out").replace(b" step", b" convergence NOT achieved after 100 iterations")
    put(calculation(tmp_path / "a", name="pw.out") / "pw.out", content)
    assert survey(tmp_path).left_out == {
        "a": "pw.out: failed: 'convergence NOT achieved'",
    }


def test_a_relaxation_in_gpaw_that_stopped_in_a_later_step_is_not_finished(tmp_path: Path) -> None:
    """The timing that GPAW writes at the end of its text is there after a failure, too."""
    for name in ("one", "two", "stopped"):
        calculation(tmp_path / name, name="gs.txt")
    once = output("gs.txt")
    put(
        tmp_path / "two" / "gs.txt", once + once.partition(b"26.7.0\n")[2] + b"eigenvalues\n" * 9999
    )
    cut = once + b"|iter:   1| 16:20:29 |  -10.725895 |\n\ntiming:\n  Total: 1.292\n"
    put(tmp_path / "stopped" / "gs.txt", cut)
    found = survey(tmp_path)
    assert [c.name for c in found.calculations] == ["one", "two"]
    assert "no 'Converged' behind the last iteration at its end" in found.left_out["stopped"]


def test_every_output_below_a_calculation_must_be_finished(tmp_path: Path) -> None:
    """Relaxation and density of states of one structure lie in one folder below the other."""
    calculation(calculation(tmp_path / "si") / "dos", finished=False)
    found = survey(tmp_path)
    assert not found.calculations
    assert found.left_out["si"].startswith("dos/OUTCAR: not finished")


def test_the_topmost_folder_with_an_output_is_one_calculation(tmp_path: Path) -> None:
    calculation(calculation(tmp_path / "si") / "dos")
    (only,) = survey(tmp_path).calculations
    assert (only.name, only.n_files, only.mainfile) == ("si", 10, "OUTCAR")


def test_a_binary_file_of_gpaw_that_is_cut_is_not_finished(tmp_path: Path) -> None:
    """ASE's trajectories are of the same format as GPAW's files (ase.io.ulm)."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "gs.traj", bulk("Si"))
        (tmp_path / name / "gs.traj").rename(tmp_path / name / "gs.gpw")
    cut = tmp_path / "cut" / "gs.gpw"
    os.truncate(cut, cut.stat().st_size - 10)
    found = survey(tmp_path)
    assert [(c.name, c.code) for c in found.calculations] == [("whole", "GPAW")]
    assert "it is cut" in found.left_out["cut"]


def test_own_patterns_replace_the_known_codes(tmp_path: Path) -> None:
    calculation(tmp_path / "vasp")
    for name, text in (("good", "converged\nbye\n"), ("bad", "diverged\n")):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "my.log", text.encode())
    found = survey(tmp_path, rules=Recipe(mainfile=r"my\.log", finished="^converged").rules())
    assert [c.name for c in found.calculations] == ["good"]
    assert list(found.left_out) == ["bad"]
    assert found.without_output == {"vasp": 3, "vasp/charge": 2}


@pytest.mark.parametrize(
    "options", [{"mainfile": "("}, {"finished": "x"}, {"max_files": 0}, {"max_bytes": -1}]
)
def test_a_recipe_that_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Recipe(**options)  # type: ignore[arg-type]


def test_files_that_belong_to_no_calculation_are_counted(tmp_path: Path) -> None:
    calculation(tmp_path / "a")
    put(tmp_path / "README", b"x")
    (tmp_path / "input only").mkdir()
    put(tmp_path / "input only" / "INCAR", b"x")
    found = survey(tmp_path)
    assert found.without_output == {".": 1, "input only": 1}


def test_a_source_that_is_one_calculation_has_the_name_of_its_folder(tmp_path: Path) -> None:
    calculation(tmp_path / "silicon")
    assert [c.name for c in survey(tmp_path / "silicon").calculations] == ["silicon"]


# --- what cannot be packed ---


def test_links_are_left_out_and_named_unless_wanted(tmp_path: Path) -> None:
    folder = calculation(tmp_path / "tree" / "a")
    put(tmp_path / "POTCAR", b"far away")
    (folder / "POTCAR").symlink_to(tmp_path / "POTCAR")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    found = survey(tmp_path / "tree")
    assert found.calculations[0].n_files == 5
    assert sorted(Path(link).name for link in found.links) == ["POTCAR", "dangling", "loop"]
    found = survey(tmp_path / "tree", rules=Rules(follow_links=True))
    assert found.calculations[0].n_files == 6
    assert sorted(Path(link).name for link in found.links) == ["dangling", "loop"]


def test_files_and_folders_can_stay_at_home(tmp_path: Path) -> None:
    folder = calculation(tmp_path / "a")
    put(folder / "WAVECAR", b"0" * 10_000)
    put(folder / "charge" / "x.tmp", b"0")
    full = survey(tmp_path).calculations[0]
    less = survey(tmp_path, rules=Rules(leave_out=("WAVECAR", "*.tmp"))).calculations[0]
    assert (full.n_files - less.n_files, full.n_bytes - less.n_bytes) == (2, 10_001)
    calculation(tmp_path / "old" / "b")
    assert [c.name for c in survey(tmp_path, rules=Rules(leave_out=("old",))).calculations] == ["a"]


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    folder = calculation(tmp_path / "a")
    try:
        open(os.fsencode(folder) + b"/caf\xe9.dat", "wb").close()
    except OSError:
        pytest.skip("this file system refuses such names")
    assert survey(tmp_path).left_out["a"].startswith(r"'caf\udce9.dat': the name is not UTF-8")


def test_a_folder_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    calculation(tmp_path / "good")
    folder = calculation(tmp_path / "a")
    try:
        os.rename(folder, os.fsencode(folder) + b"\xe9")
    except OSError:
        pytest.skip("this file system refuses such names")
    found = survey(tmp_path)
    assert [one.name for one in found.calculations] == ["good"]
    assert found.left_out["a\udce9"].startswith(r"'a\udce9': the name is not UTF-8")


@pytest.mark.parametrize("name", ["back\\slash", "good/back\\slash.dat"])
def test_a_name_with_a_backslash_is_named(tmp_path: Path, name: str) -> None:
    calculation(tmp_path / "good")
    if "/" in name:
        (tmp_path / name).touch()
    else:
        calculation(tmp_path / name)
    (reason,) = survey(tmp_path).left_out.values()
    assert "the name has a backslash" in reason


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_link_to_itself_is_left_out_alone(tmp_path: Path, follow_links: bool) -> None:
    folder = calculation(tmp_path / "a")
    for place in (tmp_path, folder):
        (place / "loop").symlink_to("loop")
    found = survey(tmp_path, rules=Rules(follow_links=follow_links))
    assert [(one.name, one.n_files) for one in found.calculations] == [("a", 5)]
    assert sorted(found.links) == [str(folder / "loop"), str(tmp_path / "loop")]


def test_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(calculation(tmp_path / "a") / "pipe")
    assert "pipe is a pipe" in survey(tmp_path).left_out["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (calculation(tmp_path / "a") / "file-02.dat").chmod(0)
    assert "file-02.dat cannot be read" in survey(tmp_path).left_out["a"]


def test_empty_folders_are_counted(tmp_path: Path) -> None:
    (calculation(tmp_path / "a") / "nothing").mkdir()
    assert [Path(place).name for place in survey(tmp_path).empty_folders] == ["nothing"]


# --- databases ---


def test_rows_of_a_database_name_folders_or_hold_results(tmp_path: Path) -> None:
    calculation(tmp_path / "runs" / "si")
    calculation(tmp_path.with_name(tmp_path.name + "-far"))
    si = bulk("Si")
    with connect(tmp_path / "all.db") as database:
        database.write(si, folder="runs/si")
        database.write(si, folder=f"../{tmp_path.name}-far")
        database.write(si, folder="runs/si", note="twice")
        database.write(si, folder="gone")
        database.write(si)
        si.calc = SinglePointCalculator(si, energy=-10.8, forces=np.zeros((2, 3)))
        database.write(si, data={"comment": "kept"})
    found = survey(tmp_path / "all.db", rows_folder=tmp_path / "rows")
    assert [(c.name, c.code) for c in found.calculations] == [
        ("row-000002", "VASP"),
        ("row-000006", "ASE"),
        ("runs/si", "VASP"),
    ]
    assert found.left_out == {
        "row-000003": f"has the same folder as row 1: {tmp_path / 'runs' / 'si'}",
        "row-000004": "folder = 'gone' is no folder",
        "row-000005": "has no key 'folder' and no results",
    }
    assert json.loads((tmp_path / "rows/row-000006/row.json").read_text())["data"] == {
        "comment": "kept"
    }
    again = survey(tmp_path / "all.db", rows_folder=tmp_path / "rows")
    assert again.calculations == found.calculations


def test_rows_that_name_a_folder_and_one_in_it_pack_it_once(tmp_path: Path) -> None:
    calculation(calculation(tmp_path / "si") / "dos")
    with connect(tmp_path / "all.db") as database:
        for folder in ("si/dos", "si"):
            database.write(bulk("Si"), folder=folder)
    found = survey(tmp_path / "all.db")
    assert [(c.name, c.n_files) for c in found.calculations] == [("si", 10)]
    assert found.left_out == {"si/dos": "is part of the calculation si"}


def test_a_row_that_names_the_folder_of_its_database_holds_all_others(tmp_path: Path) -> None:
    calculation(tmp_path / "si")
    calculation(tmp_path.parent / f"{tmp_path.name}-beside")
    with connect(tmp_path / "all.db") as database:
        for folder in ("si", ".", f"../{tmp_path.name}-beside"):
            database.write(bulk("Si"), folder=folder)
    found = survey(tmp_path / "all.db")
    assert [c.name for c in found.calculations] == ["row-000002", "row-000003"]
    assert found.left_out == {"si": "is part of the calculation row-000002"}


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    put(tmp_path / "notes.db", b"these are notes, not a database at all\n" * 50)
    with pytest.raises(DataError, match=r"notes\.db is no database"):
        survey(tmp_path / "notes.db")


# --- which calculation goes into which upload ---


def made_up(name: str, n_bytes: int, n_files: int) -> Calculation:
    return Calculation(name, Path(name), "VASP", "OUTCAR", n_files, n_bytes, "")


@given(
    st.lists(st.tuples(st.integers(1, 120), st.integers(1, 12)), max_size=60),
    st.integers(60, 200),
    st.integers(6, 30),
)
def test_every_calculation_is_whole_in_one_upload_under_the_limits(
    sizes: list[tuple[int, int]], max_bytes: int, max_files: int
) -> None:
    calculations = [made_up(f"c{i}", *size) for i, size in enumerate(sizes)]
    filled, too_large = parts(calculations, Limits(max_bytes, max_files))
    names = [c.name for part in filled for c in part]
    assert sorted([*names, *too_large]) == sorted(c.name for c in calculations)
    for part in filled:
        assert 0 < sum(c.n_bytes for c in part) <= max_bytes
        assert 0 < sum(c.n_files for c in part) <= max_files
    for name in too_large:
        n_bytes, n_files = sizes[int(name[1:])]
        assert n_bytes > max_bytes or n_files > max_files


def test_the_campaign_of_the_paper_needs_next_to_no_upload_too_many() -> None:
    """30,000 structures with 41 files and 30 MB each: figure 6, one of its nine settings."""
    n, size = 30_000, 30_000_000
    filled, too_large = parts((made_up(str(i), size, 41) for i in range(n)), Limits())
    assert not too_large
    assert len(filled) == -(-n // (32 * 2**30 // size))


# --- ledger ---


def campaign(tmp_path: Path, n: int = 3, **options: object) -> Path:
    for i in range(n):
        calculation(tmp_path / "tree" / f"c{i}", seed=i)
    plan(tmp_path / "camp", tmp_path / "tree", recipe=Recipe(**options))  # type: ignore[arg-type]
    return tmp_path / "camp"


def test_a_ledger_that_was_cut_anywhere_says_what_was_said_before(tmp_path: Path) -> None:
    folder = campaign(tmp_path, max_files=5)
    with Ledger.open(folder, to_write=True) as ledger:
        for number in (1, 2, 3):
            ledger.record("created", number, {"upload_id": f"u{number}", "service": "s"})
        content = ledger.path.read_bytes()
    first = content.index(b"\n") + 1
    for end in [*range(first, len(content), 37), len(content)]:
        ledger.path.write_bytes(content[:end])
        n_whole = content[:end].count(b"\n")
        with Ledger.open(folder, to_write=True) as cut:
            assert sum(part.has("created") for part in cut.parts.values()) == max(0, n_whole - 4)
            cut.record("left out", 0, {"calculation": "x", "reason": "y"})
        assert Ledger.open(folder).left_out == {"x": "y"}


@pytest.mark.parametrize("n_bytes", [0, 40])
def test_a_campaign_that_was_cut_in_its_first_line_is_begun_again(
    tmp_path: Path, n_bytes: int
) -> None:
    folder = campaign(tmp_path)
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(StoreError, match="has no first line; begin the campaign with"):
        Ledger.open(folder)
    assert plan(folder, tmp_path / "tree").new_parts
    assert Ledger.open(folder).parts


def test_a_place_where_no_ledger_can_be_is_named(tmp_path: Path) -> None:
    calculation(tmp_path / "tree" / "a")
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "ledger.jsonl").mkdir(parents=True)
    for name, words in (("file", "cannot be made"), ("taken", "cannot be written")):
        with pytest.raises(StoreError, match=words):
            plan(tmp_path / name, tmp_path / "tree")


def test_a_full_disk_leaves_no_half_of_a_zip_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    folder = campaign(tmp_path, n=1)
    put(tmp_path / "tree" / "c0" / "large.gz", os.urandom(2**20))
    plan(folder)
    before = sorted(folder.iterdir())
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, old[1]))
    try:
        assert main(["campaign", "pack", str(folder)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "part-0002.zip: could not be written: File too large" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
    assert main(["campaign", "pack", str(folder)]) == 0


def test_a_source_that_is_not_mounted_is_no_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = campaign(tmp_path)
    ledger = (folder / "ledger.jsonl").read_bytes()
    (tmp_path / "tree").rename(tmp_path / "elsewhere")
    assert main(["campaign", "pack", str(folder)]) == 2
    assert "is not here: mount it" in capsys.readouterr().err
    assert (folder / "ledger.jsonl").read_bytes() == ledger


def test_a_ledger_that_was_edited_is_refused(tmp_path: Path) -> None:
    folder = campaign(tmp_path)
    path = folder / "ledger.jsonl"
    path.write_text(path.read_text().replace("c1", "c9", 1))
    with pytest.raises(StoreError, match="line 2: damaged or edited"):
        Ledger.open(folder)


def test_two_processes_cannot_write_one_ledger(tmp_path: Path) -> None:
    folder = campaign(tmp_path)
    with (
        Ledger.open(folder, to_write=True),
        pytest.raises(StoreError, match="another process works on the campaign"),
    ):
        Ledger.open(folder, to_write=True)
    Ledger.open(folder)  # reading is always possible


def test_what_has_been_finished_since_is_added(tmp_path: Path) -> None:
    folder = campaign(tmp_path, n=2)
    with Ledger.open(folder, to_write=True) as ledger:
        ledger.record("created", 1, {"upload_id": "u", "service": "s"})
    calculation(tmp_path / "tree" / "c2")
    put(tmp_path / "tree" / "c0" / "OUTCAR", output("OUTCAR", filler=3))
    news = plan(folder)
    assert (news.n_sent, news.changed, news.new_parts) == (2, ["c0"], [2])
    assert list(Ledger.open(folder).parts[2].calculations) == ["c2"]


def test_what_was_only_planned_is_planned_anew(tmp_path: Path) -> None:
    folder = campaign(tmp_path, n=2)
    content = (folder / "ledger.jsonl").read_bytes()
    assert plan(folder).new_parts == [1]
    assert (folder / "ledger.jsonl").read_bytes() == content  # nothing is new
    shutil.rmtree(tmp_path / "tree" / "c1")
    calculation(tmp_path / "tree" / "c2")
    assert plan(folder).new_parts == [2]
    ledger = Ledger.open(folder)
    assert {n: list(part.calculations) for n, part in ledger.parts.items()} == {2: ["c0", "c2"]}


def test_a_campaign_keeps_its_recipe_and_source(tmp_path: Path) -> None:
    folder = campaign(tmp_path)
    with pytest.raises(OptionError, match="has the options"):
        plan(folder, recipe=Recipe(max_files=7))
    with pytest.raises(OptionError, match="has the source"):
        plan(folder, tmp_path)


def test_a_campaign_cannot_lie_in_its_own_source(tmp_path: Path) -> None:
    calculation(tmp_path / "a")
    with pytest.raises(OptionError, match="would be packed with it"):
        plan(tmp_path / "camp", tmp_path)


# --- packing ---


def test_a_zip_stream_holds_the_files_byte_for_byte(tmp_path: Path) -> None:
    for i, name in enumerate(("a", "deep/er/b")):
        put(calculation(tmp_path / name, seed=i) / "packed.gz", os.urandom(3_000_000))
    found = survey(tmp_path).calculations
    for level in (0, 1, 9):
        stream = PartStream(found, Rules(), level=level)
        for _ in range(2):  # a broken connection is tried again
            content = b"".join(stream)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            assert [info.filename for info in archive.infolist()] == [f.path for f in stream.files]
            for file in stream.files:
                there = (tmp_path / file.path).read_bytes()
                assert archive.read(file.path) == there
                assert file.sha256 == hashlib.sha256(there).hexdigest()
        assert len(stream.files) == 12


def test_a_zip_stream_never_holds_a_large_file(tmp_path: Path) -> None:
    put(calculation(tmp_path / "a") / "large.gz", b"\0" * 40_000_000)
    assert max(map(len, PartStream(survey(tmp_path).calculations, Rules()))) < 3_000_000


def test_a_file_that_changed_since_it_was_planned_is_named(tmp_path: Path) -> None:
    folder = calculation(tmp_path / "a")
    stream = PartStream(survey(tmp_path).calculations, Rules())
    put(folder / "OUTCAR", output("OUTCAR", filler=1))
    with pytest.raises(ChangedError, match="a: has changed since it was planned"):
        list(stream)


@pytest.mark.parametrize("at_piece", [1, 2, 5])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path, at_piece: int) -> None:
    folder = calculation(tmp_path / "a", n_files=1)
    put(folder / "large.gz", b"\0" * 5_000_000)
    stream = PartStream(survey(tmp_path).calculations, Rules())
    pieces = iter(stream)
    for _ in range(at_piece):
        next(pieces)
    with (folder / "large.gz").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ChangedError, match=r"large\.gz changed while it was read"):
        list(pieces)
    assert not stream.files


def test_pack_writes_zip_files_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = campaign(tmp_path, n=4, max_files=10)
    put(tmp_path / "tree" / "c3" / "OUTCAR", output("OUTCAR", filler=1))
    assert main(["campaign", "pack", str(folder)]) == 1
    assert "left out: c3: has changed since it was planned" in capsys.readouterr().out
    names = {path.name: zipfile.ZipFile(path).namelist() for path in folder.glob("*.zip")}
    assert {name: len(files) for name, files in names.items()} == {
        "part-0001.zip": 10,
        "part-0002.zip": 5,
    }
    assert main(["campaign", "pack", str(folder)]) == 0
    assert capsys.readouterr().out == ""
    assert main(["campaign", "plan", "-o", str(folder)]) == 0  # the changed one is planned anew
    assert list(Ledger.open(folder).parts[3].calculations) == ["c3"]
