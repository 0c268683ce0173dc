"""From files to a checked dataset, a split and back, through the command line."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from epitaxy.cli import main
from epitaxy.dataset import Dataset
from epitaxy.split import Split


def frames(n: int = 24) -> list[Atoms]:
    rng = np.random.default_rng(5)
    made = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        if i % 2:
            atoms.set_cell(
                atoms.cell.array @ (np.eye(3) + 0.015 * rng.normal(size=(3, 3))), scale_atoms=True
            )
        else:
            atoms.positions += rng.normal(scale=0.06, size=atoms.positions.shape)
        atoms.calc = EMT()
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=atoms.get_potential_energy() - 3.5 * len(atoms),
            forces=atoms.get_forces(),
            stress=atoms.get_stress(),
        )
        atoms.info["group"] = "strained" if i % 2 else "rattled"
        made.append(atoms)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "train.extxyz", frames())
    return tmp_path / "train.extxyz"


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_becomes_a_dataset_a_split_and_facts(file, tmp_path, capsys):
    dataset, split = tmp_path / "set", tmp_path / "split.json"
    assert main(["ingest", str(file), "-o", str(dataset), "--tag", "made_by=us"]) == 0
    said = capsys.readouterr()
    assert "forces: consistent" in said.out
    assert "stress: consistent" in said.out
    assert "24 structures, 192 atoms" in said.out

    assert main(["info", str(dataset), "--verify"]) == 0
    said = capsys.readouterr().out
    for words in ("elements: Cu", "forces: 24 structures", "eV/Å^3", "rattled 12", "verified"):
        assert words in said
    assert main(["info", str(dataset), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tags"]["made_by"] == {"us": 24}
    assert facts["history"][0]["sources"][0]["use"] == "files"
    assert facts["history"][1]["operation"] == "consistency check"

    sizes = ["--valid", "4", "--test", "0.25", "--method", "random"]
    command = ["split", str(dataset), "-o", str(split), *sizes]
    assert main(command) == 0
    assert len(Split.load(split, Dataset.open(dataset)).test) == 6
    assert main(command) == 2
    assert "use --overwrite" in capsys.readouterr().err


def test_ids_for_a_split_may_come_from_files(file, tmp_path):
    main(["ingest", str(file), "-o", str(tmp_path / "set")])
    (tmp_path / "test.txt").write_text("train.extxyz#3\ntrain.extxyz#4\n")
    command = ["split", str(tmp_path / "set"), "-o", str(tmp_path / "s.json"), "--method", "ids"]
    assert main([*command, "--test", str(tmp_path / "test.txt")]) == 0
    split = Split.load(tmp_path / "s.json", Dataset.open(tmp_path / "set"))
    assert list(split.test.ids) == ["train.extxyz#3", "train.extxyz#4"]
    assert (len(split.train), len(split.valid)) == (22, 0)


def spoiled() -> list[Atoms]:
    made = frames()
    results = [dict(atoms.calc.results) for atoms in made]
    results[7]["forces"] = results[7]["forces"] * np.nan
    results[19]["forces"] = results[19]["forces"] * np.nan
    results[9]["energy"] = float("nan")
    del results[11]["energy"]
    results[12]["forces"] = results[12]["forces"] + 200
    made[13].set_cell(np.array([[4, 0, 0], [0, 4, 0], [4, 4, 0]]))
    made[14].positions[1] = made[14].positions[0]
    made[16].positions = made[4].positions.copy()
    for atoms, values in zip(made, results, strict=True):
        atoms.calc = SinglePointCalculator(atoms, **values)
    return made


def test_every_dropped_frame_is_counted_with_its_reason(tmp_path, capsys):
    write(tmp_path / "bad.traj", spoiled())
    assert main(["ingest", str(tmp_path / "bad.traj"), "-o", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    for line in (
        "2 of 24 dropped: forces not finite (bad.traj#7, bad.traj#19)",
        "1 of 24 dropped: energy not finite (bad.traj#9)",
        "1 of 24 dropped: energy missing (bad.traj#11)",
        "1 of 24 dropped: |F| > 100 eV/Å (bad.traj#12)",
        "1 of 24 dropped: periodic cell of zero volume (bad.traj#13)",
        "1 of 24 dropped: atoms closer than 0.1 Å (bad.traj#14)",
        "1 of 24 dropped: structure seen before with another energy",
    ):
        assert line in said
    dataset = Dataset.open(tmp_path / "set")
    assert len(dataset) == 16
    step = dataset.history[0]
    assert step["n_dropped"] == 8
    assert step["reasons"]["forces not finite"]["count"] == 2


def test_strict_stops_at_the_first_unusable_frame(tmp_path, capsys):
    write(tmp_path / "bad.traj", spoiled())
    assert (
        main(["ingest", str(tmp_path / "bad.traj"), "-o", str(tmp_path / "set"), "--strict"]) == 2
    )
    assert "bad.traj#7: forces not finite (strict: nothing was written)" in capsys.readouterr().err
    assert left(tmp_path) == {"bad.traj"}


def test_clean_does_the_same_to_a_dataset(tmp_path, capsys):
    write(tmp_path / "bad.traj", spoiled())
    lax = ["--require", "none", "--max-force", "1e9", "--min-distance", "0", "--keep-duplicates"]
    main(["ingest", str(tmp_path / "bad.traj"), "-o", str(tmp_path / "set"), *lax])
    capsys.readouterr()
    assert len(Dataset.open(tmp_path / "set")) == 20  # not finite and no volume stay out
    assert main(["clean", str(tmp_path / "set"), "-o", str(tmp_path / "clean")]) == 0
    said = capsys.readouterr().out
    assert "1 of 20 dropped: |F| > 100 eV/Å (bad.traj#12)" in said
    cleaned = Dataset.open(tmp_path / "clean")
    assert len(cleaned) == 16
    assert [step["operation"] for step in cleaned.history] == [
        "ingest",
        "consistency check",
        "frames",
        "duplicates",
        "outliers",
        "consistency",
    ]


def flipped(path: Path) -> None:
    made = frames()
    for atoms in made:
        results = dict(atoms.calc.results)
        results["forces"] = -results["forces"]
        results["stress"] = results["stress"][[0, 1, 2, 5, 3, 4]] * 1602.1766208
        atoms.calc = SinglePointCalculator(atoms, **results)
    write(path, made)


def test_contradicting_labels_are_refused_with_culprit_and_remedy(file, tmp_path, capsys):
    bad = tmp_path / "bad.traj"
    flipped(bad)
    command = ["ingest", str(bad), "-o", str(tmp_path / "set")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "forces have the wrong sign" in said
    assert "it looks like kbar" in said
    flags = "--forces-are-gradients --stress-unit kbar --stress-order vasp"
    assert flags in said
    assert left(tmp_path) == {"bad.traj", "train.extxyz"}

    assert main([*command, "--on-inconsistent", "warn"]) == 0
    assert "warning: labels contradict each other" in capsys.readouterr().err
    assert main([*command, "--overwrite", *flags.split()]) == 0
    assert main(["ingest", str(file), "-o", str(tmp_path / "right")]) == 0
    mended, right = Dataset.open(tmp_path / "set"), Dataset.open(tmp_path / "right")
    for name in ("forces", "stress"):
        assert mended.target(name)[0] == pytest.approx(right.target(name)[0], abs=1e-6)
    assert mended.history[0]["conventions"] == {
        "forces_are_gradients": True,
        "stress_unit": "kbar",
        "stress_order": "vasp",
    }


def test_an_existing_dataset_is_replaced_only_on_request(file, tmp_path, capsys):
    command = ["ingest", str(file), "-o", str(tmp_path / "set")]
    assert main(command) == 0
    assert main(command) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_a_cut_file_leaves_nothing_unless_asked(file, tmp_path, capsys):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(0.9 * len(whole))])
    command = ["ingest", str(file), "-o", str(tmp_path / "set")]
    assert main(command) == 2
    assert f"{file}: frame 21: the file ends after" in capsys.readouterr().err
    assert left(tmp_path) == {"train.extxyz"}
    assert main([*command, "--keep-going"]) == 0
    assert "frame 21" in capsys.readouterr().err
    dataset = Dataset.open(tmp_path / "set")
    assert len(dataset) == 21
    assert "frame 21" in dataset.history[0]["warnings"][0]


def test_a_full_disk_leaves_the_old_dataset(file, tmp_path, capsys, monkeypatch):
    command = ["ingest", str(file), "-o", str(tmp_path / "set"), "--overwrite"]
    assert main(command) == 0
    before = Dataset.open(tmp_path / "set").digest

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main([*command, "--tag", "new=yes"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert Dataset.open(tmp_path / "set", verify=True).digest == before
    assert left(tmp_path) == {"train.extxyz", "set"}


def test_control_c_leaves_the_old_dataset(file, tmp_path):
    assert main(["ingest", str(file), "-o", str(tmp_path / "set")]) == 0
    before = Dataset.open(tmp_path / "set").digest
    pipe = tmp_path / "endless.extxyz"
    os.mkfifo(pipe)  # a source that never ends: the program is surely at work
    script = (
        "import sys; from epitaxy.cli import main; from epitaxy.commands import ingest_progress;"
        "ingest_progress._INTERVAL = 0.0; sys.exit(main(sys.argv[1:]))"
    )
    command = ["ingest", "files", "--option", f"path={pipe}", "-o", str(tmp_path / "set")]
    text = file.read_text()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command, "--overwrite"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with os.fdopen(os.open(pipe, os.O_RDWR), "w") as stream:
        stream.write(text)
        stream.flush()
        line = process.stderr.readline()
        assert "frames kept" in line
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        process.stderr.close()
    assert process.wait() == 130
    assert "interrupted" in rest
    assert Dataset.open(tmp_path / "set", verify=True).digest == before
    assert left(tmp_path) == {"train.extxyz", "set", "endless.extxyz"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.extxyz"], "nothing.extxyz: no such file"),
        (["silicn"], "silicon"),
        (["files", "--option", "path"], "write it as KEY=VALUE"),
        (["files", "--option", "pth=a.xyz"], "path"),
        (["silicon", "--option", "xc=B3LYP"], "PBE"),
        (["silicon", "--stress-unit", "psi"], "'psi' is not one of eV/Å^3"),
        (["silicon", "--require", "bandgap"], "Did you mean 'band_gap'"),
    ],
)
def test_wrong_use_is_explained(tmp_path, capsys, arguments, message):
    assert main(["ingest", *arguments, "-o", str(tmp_path / "set")]) == 2
    assert message in capsys.readouterr().err
    assert left(tmp_path) == set()


def test_a_source_is_named_where_no_file_is(tmp_path, capsys):
    command = ["ingest", "silicon", "--option", "kind=[eos, strained]", "-o", str(tmp_path / "si")]
    assert main(command) == 0
    dataset = Dataset.open(tmp_path / "si")
    assert set(dataset.tag("kind")) == {"eos", "strained"}
    recipe = dataset.history[0]["sources"][0]
    assert recipe["use"] == "silicon"
    assert recipe["kind"] == ["eos", "strained"]
    assert recipe["card"]["license"] == "CC-BY-4.0"


def test_files_of_one_name_keep_distinct_ids(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = frames()
    for k in range(2):
        (tmp_path / f"r{k}").mkdir()
        write(tmp_path / f"r{k}" / "d.extxyz", made[12 * k : 12 * k + 12])
    ids = {f"r{k}/d.extxyz#{i}" for k in range(2) for i in range(12)}
    assert main(["ingest", "r*/d.extxyz", "-o", "pattern"]) == 0
    assert set(Dataset.open("pattern").ids) == ids
    assert main(["ingest", "r0/d.extxyz", str(tmp_path / "r1/d.extxyz"), "-o", "two"]) == 0
    assert set(Dataset.open("two").ids) == ids
    assert "more than once" not in capsys.readouterr().err


def test_a_dataset_needs_a_name_of_its_own(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (".", "/", ".."):
        assert main(["ingest", str(file), "-o", place, "--overwrite"]) == 2
        assert "give it a name" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(file, tmp_path, capsys):
    (tmp_path / "tf").write_text("a file, no folder")
    assert main(["ingest", str(file), "-o", str(tmp_path / "tf" / "si")]) == 2
    assert f"{tmp_path / 'tf' / 'si'}: the dataset could not be written" in capsys.readouterr().err


def test_a_missing_energy_is_explained(tmp_path, capsys):
    frame = '1\nProperties=species:S:1:pos:R:3 e0=-3.0 {}pbc="F F F"\nSi 0 0 0\n'
    (tmp_path / "a.extxyz").write_text(frame.format(""))
    (tmp_path / "b.extxyz").write_text(frame.format("energy=unknown "))
    assert main(["ingest", str(tmp_path / "a.extxyz"), "-o", str(tmp_path / "set")]) == 2
    said = capsys.readouterr().err
    assert "a.extxyz#0: no energy under a usual name; the frame has the numbers e0" in said
    assert '--option "mapping={energy: NAME}"' in said
    assert main(["ingest", str(tmp_path / "b.extxyz"), "-o", str(tmp_path / "set")]) == 2
    assert "energy = 'unknown' is not a number" in capsys.readouterr().err


def test_many_large_forces_point_to_the_unit(tmp_path, capsys):
    made = frames()
    for atoms in made[:3]:
        results = {**atoms.calc.results, "forces": atoms.calc.results["forces"] + 500}
        atoms.calc = SinglePointCalculator(atoms, **results)
    write(tmp_path / "large.traj", made)
    assert main(["ingest", str(tmp_path / "large.traj"), "-o", str(tmp_path / "set")]) == 0
    said = capsys.readouterr()
    assert "12% of the frames were dropped for a large force" in said.err
    assert "--forces-unit" in said.err
    assert "21 of 24 frames kept" in said.out


def test_a_short_run_prints_no_progress(file, tmp_path, capsys):
    assert main(["ingest", str(file), "-o", str(tmp_path / "set")]) == 0
    said = capsys.readouterr()
    assert "so far" not in said.err
    assert "24 of 24 frames kept" in said.out


@pytest.mark.parametrize("option", ["--max-force", "--max-energy", "--min-distance"])
@pytest.mark.parametrize("value", ["-1", "nan", "many"])
def test_limits_are_not_negative(file, tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as left_with:
        main(["ingest", str(file), "-o", str(tmp_path / "set"), f"{option}={value}"])
    assert left_with.value.code == 2
    assert option in capsys.readouterr().err


def test_a_dataset_is_not_ingested_again_but_cleaned_merged_or_exported(file, tmp_path, capsys):
    dataset = tmp_path / "set"
    assert main(["ingest", str(file), "-o", str(dataset)]) == 0
    assert main(["ingest", f"{dataset}/", "-o", str(tmp_path / "again")]) == 2
    said = capsys.readouterr().err
    assert "is a dataset already" in said
    for words in (f"clean {dataset} -o", f"merge {dataset} MORE -o", f"export {dataset} FILE"):
        assert words in said


def test_structures_without_any_label_are_told(tmp_path, capsys):
    write(tmp_path / "bare.extxyz", [bulk("Si"), bulk("Ge")])
    job = ["ingest", str(tmp_path / "bare.extxyz"), "-o", str(tmp_path / "bare")]
    assert main([*job, "--require", "none"]) == 0
    said = capsys.readouterr().err
    assert "none of the 2 entries has a label" in said
    facts = Dataset.open(tmp_path / "bare").history[0]["warnings"]
    assert any("has a label" in warning for warning in facts)


@pytest.mark.parametrize("verb", ["clean", "merge"])
def test_what_a_killed_run_left_is_removed_and_named_by_the_next(file, tmp_path, capsys, verb):
    dataset = tmp_path / "set"
    assert main(["ingest", str(file), "-o", str(dataset)]) == 0
    job = [verb, str(dataset), "-o", str(tmp_path / "new")]
    killed = (
        "import os, signal, sys\n"
        "from epitaxy.cli import main\n"
        "from epitaxy.stores.memory_map import Writer\n"
        "Writer.extend = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, *job], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("new.partial-*")
    capsys.readouterr()
    assert main(job) == 0
    assert f"removed {left.name}, left by a run that was killed" in capsys.readouterr().err
    assert not left.exists()
    assert len(Dataset.open(tmp_path / "new")) == 24
