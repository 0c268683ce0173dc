"""What the repository holds: every benchmark is listed, and nothing of the place it was made at."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The patterns are put together here so that this file does not hold what it looks for.
_SLASH = "/"
FOREIGN = {
    "a path of this kind of workplace": rf"{_SLASH}work{_SLASH}(main|shared|scratch|\.library)",
    "a home folder": rf"{_SLASH}(home|Users){_SLASH}[a-z][a-z0-9_-]+{_SLASH}",
    "a folder of the superuser": rf"(?<![\w.]){_SLASH}root{_SLASH}",
    "an installed wheel house": rf"{_SLASH}opt{_SLASH}(wheels|pypi)",
    "an index of packages": "|".join(
        ("extra[-_]" + "index[-_]url", "--" + "index-url", "PIP_" + "INDEX", "UV_" + "INDEX")
    ),
    "a mirror of packages": "|".join(
        ("art" + "ifactory", "jf" + "rog", "dev" + "pi", r"sona" + "type", "pypi" + r"[-.]mirror")
    ),
    "a host of an inner network": r"https?:" + r"//[\w.-]+\.(internal|intranet|corp|lan|local)\b",
    "a machine's private address": r"(?<![\d.])(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))"
    + r"\.\d+\.\d+(?![\d.])",
    "a scratch folder of a test": rf"{_SLASH}tmp{_SLASH}(pytest-of|bash_jobs)",
}


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("not a checkout of git")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def unpacked(path: Path) -> bytes:
    """Return the bytes of a file, of the members of a zip file too."""
    import bz2
    import gzip
    import io
    import lzma
    import zipfile

    content = path.read_bytes()
    for magic, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
        if content.startswith(magic):
            return module.decompress(content)
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return b"\n".join(archive.read(name) for name in archive.namelist())
    return content


def test_nothing_committed_names_the_place_it_was_made_at():
    patterns = {what: re.compile(text.encode()) for what, text in FOREIGN.items()}
    found = []
    for path in committed():
        if not path.is_file():
            continue  # deleted, not yet committed
        content = unpacked(path)
        for what, pattern in patterns.items():
            if match := pattern.search(content):
                found.append(f"{path.relative_to(ROOT)}: {what}: {match[0].decode()}")
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_is_for():
    for text in ("/" + "home/someone/x", "http://" + "host.internal/simple", "10" + ".1.2.3"):
        assert any(re.search(pattern, text) for pattern in FOREIGN.values()), text
    for text in ("version 10.2.3", "https://example.org/simple", "homework/main"):
        assert not any(re.search(pattern, text) for pattern in FOREIGN.values()), text


def test_every_script_of_bench_is_listed():
    scripts = {path.stem for path in (ROOT / "bench").glob("*.py")} - {"run", "device"}
    command = [sys.executable, str(ROOT / "bench" / "run.py")]
    done = subprocess.run([*command, "--list"], capture_output=True, check=True, text=True)
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == scripts
    assert all(line.split()[1] in ("quick", "long") and len(line.split()) > 4 for line in lines)
    wrong = subprocess.run([*command, "none"], capture_output=True, check=False, text=True)
    assert wrong.returncode == 1
    assert "no benchmark none: there are graphs" in wrong.stdout
