"""The zip file that is made while it is sent."""

import hashlib
import io
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from epitaxy.errors import DataError
from epitaxy_nomad.bundle import Member, ZipStream


def members(folder: Path) -> list[Member]:
    texts = {"z/ä b.txt": b"x" * 5000, "a.bin": bytes(range(256)) * 40, "empty": b"", "n": b"\n"}
    for number, content in enumerate(texts.values()):
        (folder / str(number)).write_bytes(content)
    return [Member.of(name, folder / str(number)) for number, name in enumerate(texts)]


@pytest.mark.parametrize("compressed", [False, True])
def test_it_unpacks_to_what_went_in(tmp_path, compressed):
    stream = ZipStream([*members(tmp_path), Member.of("text", b"abc")], compressed=compressed)
    with zipfile.ZipFile(io.BytesIO(b"".join(stream))) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == ["a.bin", "empty", "n", "text", "z/ä b.txt"]
        for number, member in enumerate(members(tmp_path)):
            assert packed.read(member.name) == (tmp_path / str(number)).read_bytes()
        assert packed.read("text") == b"abc"
        assert not any(info.is_dir() for info in packed.infolist())


def test_other_programs_unpack_it(tmp_path):
    file = tmp_path / "x.zip"
    file.write_bytes(b"".join(ZipStream(members(tmp_path), sums="sums.sha256")))
    done = subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", str(file), str(tmp_path / "out")], check=True
    )
    assert done.returncode == 0
    for line in (tmp_path / "out/sums.sha256").read_text("utf-8").splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest


def test_the_same_content_gives_the_same_bytes(tmp_path):
    first = b"".join(ZipStream(members(tmp_path), sums="s"))
    other = tmp_path / "other"
    other.mkdir()
    stream = ZipStream(members(other)[::-1], sums="s")
    assert b"".join(stream) == first
    assert b"".join(stream) == first  # and again from the same stream


@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 9000, 100])
@pytest.mark.parametrize("sums", ["", "sums.sha256"])
def test_the_length_is_known_before(tmp_path, monkeypatch, limit, sums):
    """With 64-bit fields, too: their limit is lowered instead of a file of 4 GiB."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    stream = ZipStream(members(tmp_path), sums=sums)
    content = b"".join(stream)
    assert len(content) == stream.n_bytes
    monkeypatch.undo()
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        assert packed.testzip() is None


def test_many_files_are_counted_in_64_bits(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 20)
    stream = ZipStream([Member.of(f"f{number}", b"") for number in range(30)])
    content = b"".join(stream)
    assert len(content) == stream.n_bytes
    monkeypatch.undo()
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        assert len(packed.namelist()) == 30


def test_a_compressed_stream_has_no_known_length(tmp_path):
    stream = ZipStream([Member.of("a", b"0" * 100_000)], compressed=True)
    assert stream.n_bytes is None
    assert len(b"".join(stream)) < 1000


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a\\b", "", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(DataError, match="cannot be the name of a file in an upload"):
        Member.of(name, b"")


def test_two_files_of_one_name_are_refused():
    with pytest.raises(DataError, match="both named 'a'"):
        ZipStream([Member.of("a", b""), Member.of("a", b"")])
    with pytest.raises(DataError, match="both named 's'"):
        ZipStream([Member.of("s", b"")], sums="s")


@pytest.mark.parametrize("size", [0, 4999, 5001])
def test_a_file_that_changes_meanwhile_is_noticed(tmp_path, size):
    stream = ZipStream(members(tmp_path))
    (tmp_path / "0").write_bytes(b"y" * size)
    with pytest.raises(DataError, match=r"has changed while it was sent: .* 5,000 bytes"):
        b"".join(stream)
    (tmp_path / "0").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        b"".join(stream)
    with pytest.raises(DataError, match="cannot be read"):
        Member.of("x", tmp_path / "0")


def test_a_large_file_passes_through_little_memory(tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200 * 2**20)  # sparse: takes no room on the disk
    stream = ZipStream([Member.of("large", large)], sums="s")
    tracemalloc.start()
    try:
        assert sum(map(len, stream)) == stream.n_bytes
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * 2**20


_SENDS = """
import resource, sys
from epitaxy_nomad.bundle import Member, ZipStream
from epitaxy_nomad.service import Service
from pathlib import Path
service = Service(sys.argv[1], requests_per_second=0)
small = ZipStream([Member.of("a", b"x" * 2**21)])
service.send("u", small, n_bytes=small.n_bytes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
large = ZipStream([Member.of("a", Path(sys.argv[2]))], sums="s")
service.send("u", large, n_bytes=large.n_bytes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_upload_needs_little_memory(tmp_path):
    from loopback import Loopback, Reply

    with (tmp_path / "large").open("wb") as file:
        file.truncate(200 * 2**20)
    upload = {"upload_id": "u", "process_running": False, "errors": [], "warnings": []}
    with Loopback(lambda request: Reply.of({"upload_id": "u", "data": upload})) as server:
        done = subprocess.run(
            [sys.executable, "-c", _SENDS, server.url, str(tmp_path / "large")],
            capture_output=True,
            check=True,
            text=True,
        )
        assert len(server.requests[-1].body) > 200 * 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 30 * 2**20
