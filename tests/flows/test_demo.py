"""The demo runs the whole way, refuses to overwrite, and reproduces the physics."""

import json
from pathlib import Path

import pytest

from epitaxy.cli import main

SHORT = ("--epochs", "2", "--members", "2", "--steps", "10")


def test_the_demo_does_not_write_over_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["demo", "-o", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["demo", "-o", str(tmp_path), "--overwrite"]) == 2
    assert "holds no earlier demo" in capsys.readouterr().err
    (tmp_path / "silicon.yaml").write_text("a config of mine")
    assert main(["demo", "-o", str(tmp_path), "--overwrite"]) == 2
    (tmp_path / ".epitaxy-demo").write_text("")
    assert main(["demo", "-o", str(tmp_path), "--overwrite"]) == 2
    assert "holds mine.txt, which no demo wrote" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.mark.slow
def test_a_short_demo_goes_the_whole_way_and_says_that_the_physics_is_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    status = main(["demo", "-o", str(folder), *SHORT])
    printed = capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    off = [
        abs(row["relative_error"]) > row["allowed"]
        for row in summary.values()
        if isinstance(row, dict)
    ]
    assert status == (1 if any(off) else 0)
    for verb in ("ingest", "train", "evaluate", "eos", "md"):
        assert f"$ epitaxy {verb}" in printed
    for name in ("demo.png", "evaluation/parity.png", "eos/eos.png", "md/md.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    for line in printed.split("What to look at:")[1].splitlines():
        if ":" in line and line.startswith("  /"):
            assert Path(line.split(":")[0].strip()).exists()
    assert main(["demo", "-o", str(folder), "--overwrite", *SHORT]) == status


@pytest.mark.slow
def test_the_demo_gives_the_lattice_parameter_and_bulk_modulus_of_its_dft(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert main(["demo", "-o", str(folder)]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert abs(summary["lattice parameter (Å)"]["relative_error"]) < 0.005
    assert abs(summary["bulk modulus (GPa)"]["relative_error"]) < 0.10
