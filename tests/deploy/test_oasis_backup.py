"""Backup and restore of the Oasis, with a `docker` that writes down what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCKER = """#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
    *"$FAIL"*) exit 7 ;;
    "compose ps --services"*) printf 'app\\nmongo\\nworker\\n' ;;
    "compose ps --all"*) printf '%s' "$THERE" ;;
    *mongodump*) echo metadata ;;
    *pg_dump*) echo "tables of $*" ;;
    *"tar --create"*) echo files ;;
    *mongorestore* | *pg_restore* | *"tar --extract"*) cat > /dev/null ;;
esac
"""


@dataclass
class Machine:
    """A copy of deploy/oasis with a `docker` that obeys."""

    oasis: Path
    programs: Path
    log: Path

    def run(
        self, script: str, folder: Path, *, fail: str = "nothing at all", there: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a script; a docker command with the text `fail` fails."""
        return subprocess.run(
            ["sh", str(self.oasis / "scripts" / script), str(folder)],
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "LOG": str(self.log),
                "FAIL": fail,
                "THERE": there,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(oasis: Path, tmp_path: Path) -> Machine:
    copy = shutil.copytree(oasis, tmp_path / "oasis", ignore=shutil.ignore_patterns(".env"))
    (copy / ".env").write_text("MONGO_PASSWORD=one\n")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    return Machine(copy, programs, tmp_path / "log")


def test_backup_holds_everything_but_the_search_index(machine: Machine, tmp_path: Path) -> None:
    done = machine.run("backup.sh", tmp_path / "backup")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == [
        ".env",
        "SHA256SUMS",
        "files.tar",
        "mongo.archive.gz",
        "nomad.yaml",
        "temporal.dump",
        "temporal_visibility.dump",
    ]
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path / "backup", check=True)
    assert (tmp_path / "backup" / ".env").stat().st_mode & 0o077 == 0


def test_backup_stops_what_writes_and_starts_just_that_again(
    machine: Machine, tmp_path: Path
) -> None:
    machine.run("backup.sh", tmp_path / "backup")
    assert machine.asked[1] == "compose stop app worker"
    assert machine.asked[-1] == "compose start app worker"


def test_failed_backup_says_so_and_starts_everything_again(
    machine: Machine, tmp_path: Path
) -> None:
    done = machine.run("backup.sh", tmp_path / "backup", fail="pg_dump")
    assert done.returncode == 7
    assert machine.asked[-1] == "compose start app worker"
    assert not (tmp_path / "backup" / "SHA256SUMS").exists()


def test_backup_does_not_touch_an_older_one(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    assert machine.run("backup.sh", tmp_path / "backup").returncode != 0
    assert machine.asked == []


def test_restore_fills_the_databases_before_nomad_starts_and_indexes(
    machine: Machine, tmp_path: Path
) -> None:
    machine.run("backup.sh", tmp_path / "backup")
    machine.log.unlink()
    done = machine.run("restore.sh", tmp_path / "backup")
    assert done.returncode == 0, done.stderr
    steps = [
        "up --detach --wait mongo postgres elastic",
        "mongorestore",
        "pg_restore",
        "tar --extract",
    ]
    steps += ["up --detach --wait", "nomad admin uploads index"]
    found = [next(i for i, line in enumerate(machine.asked) if steps[0] in line)]
    for step in steps[1:]:
        found.append(
            next(i for i, line in enumerate(machine.asked) if step in line and i > found[-1])
        )
    assert found == sorted(found)


def test_restore_refuses_what_it_would_damage(machine: Machine, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    machine.run("backup.sh", backup)
    there = machine.run("restore.sh", backup, there="0123456789ab")
    assert there.returncode == 1
    assert "Only an empty one is written to" in there.stderr
    (machine.oasis / ".env").write_text("MONGO_PASSWORD=two\n")
    other = machine.run("restore.sh", backup)
    assert other.returncode == 1
    assert "is not that of the backup" in other.stderr
    (backup / "files.tar").write_text("cut")
    assert machine.run("restore.sh", backup).returncode != 0
    assert not any("mongorestore" in line for line in machine.asked)
