"""A zip file that comes into being while it is sent: never whole in memory, nor on disk.

The same content gives the same bytes: names are sorted, times are fixed. Without compression
(the default, as weights and arrays hardly shrink) the length is known before the first byte, so
that it can be announced and checked against limits.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from epitaxy.errors import DataError

_CHUNK = 1 << 20  # bytes read at a time
_TIME = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
_MODE = 0o100644 << 16  # a plain file that everybody may read
_SHA256_LINE = 64 + 2 + 1  # digits, two spaces, end of line; the name comes on top

# Sizes of the parts of a zip file, PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.16.
_LOCAL, _LOCAL_ZIP64, _DESCRIPTOR, _DESCRIPTOR_ZIP64 = 30, 20, 16, 24
_CENTRAL, _EXTRA, _EXTRA_FIELD = 46, 4, 8
_END, _END_ZIP64 = 22, 56 + 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the zip file.

    Attributes:
        name: path in the zip file, with slashes.
        content: the bytes, or where they are on disk.
        n_bytes: how many.
    """

    name: str
    content: Path | bytes
    n_bytes: int

    @classmethod
    def of(cls, name: str, content: Path | bytes) -> Member:
        """Make a member, its size read from the disk.

        Raises:
            DataError: the file cannot be read, or the name leads out of the zip file.
        """
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise DataError(f"{name!r} cannot be the name of a file in an upload")
        try:
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
        except OSError as error:
            raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
        return cls(name, content, size)


class ZipStream:
    """The pieces of a zip file; can be iterated over again and again.

    Args:
        members: files; they are sorted by name.
        sums: name of one more file, the last one, with the sha256 of all others in the form that
            `sha256sum --check` reads; "" for none. Computed while the files are sent.
        compressed: deflate the files; the length is then not known beforehand.

    Attributes:
        members: sorted by name.
        n_bytes: length of the zip file, None if compressed.

    Raises:
        DataError: two members have the same name.
    """

    def __init__(self, members: Sequence[Member], *, sums: str = "", compressed: bool = False):
        self.members = tuple(sorted(members, key=lambda member: member.name))
        names = [member.name for member in self.members] + ([sums] if sums else [])
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise DataError(f"two files of an upload are both named {twice[0]!r}")
        self.sums = sums
        self._method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        self.n_bytes = None if compressed else self._length()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the zip file in pieces of about 1 MiB.

        Raises:
            DataError: a file has changed its size since the stream was made, or is gone.
        """
        sink = Sink()
        lines = []
        with zipfile.ZipFile(cast("IO[bytes]", sink), "w", self._method) as packed:
            for member in self.members:
                digest = hashlib.sha256()
                with packed.open(self._entry(member.name, member.n_bytes), "w") as goal:
                    for piece in _pieces(member):
                        if self.sums:
                            digest.update(piece)
                        goal.write(piece)
                        yield from sink.taken()
                lines.append(f"{digest.hexdigest()}  {member.name}\n")
            if self.sums:
                text = "".join(lines).encode()
                with packed.open(self._entry(self.sums, len(text)), "w") as goal:
                    goal.write(text)
        yield from sink.taken()

    def _entry(self, name: str, n_bytes: int) -> zipfile.ZipInfo:
        entry = zipfile.ZipInfo(name, _TIME)
        entry.compress_type = self._method
        entry.external_attr = _MODE
        entry.create_system = 3  # Unix, wherever it is made
        entry.file_size = n_bytes  # tells whether 64-bit fields are needed
        return entry

    def _length(self) -> int:
        """Return the length of the zip file as `zipfile` writes it to what cannot seek."""
        limit = zipfile.ZIP64_LIMIT
        sizes = [(len(m.name.encode()), m.n_bytes) for m in self.members]
        if self.sums:
            text = sum(_SHA256_LINE + n_name for n_name, _ in sizes)
            sizes.append((len(self.sums.encode()), text))
        here = central = 0
        for n_name, n_bytes in sizes:
            is_large = n_bytes * 1.05 > limit
            fields = (2 if n_bytes > limit else 0) + (here > limit)
            central += _CENTRAL + n_name + (_EXTRA + _EXTRA_FIELD * fields if fields else 0)
            # The first header announces 64-bit fields only where the file may need them.
            here += _LOCAL + n_name + (_LOCAL_ZIP64 if is_large else 0) + n_bytes
            here += _DESCRIPTOR_ZIP64 if is_large else _DESCRIPTOR
        is_large = len(sizes) > zipfile.ZIP_FILECOUNT_LIMIT or here > limit or central > limit
        return here + central + _END + (_END_ZIP64 if is_large else 0)


def _pieces(member: Member) -> Iterator[bytes]:
    if isinstance(member.content, bytes):
        yield member.content
        return
    left = member.n_bytes
    try:
        with member.content.open("rb") as file:
            while piece := file.read(_CHUNK):
                left -= len(piece)
                if left < 0:
                    break
                yield piece
    except OSError as error:
        raise DataError(f"{member.content}: cannot be read: {error.strerror or error}") from error
    if left:
        raise DataError(
            f"{member.content} has changed while it was sent: it no longer has "
            f"{member.n_bytes:,} bytes; start again when nothing writes to it"
        )


class Sink:
    """What `zipfile` writes to: it cannot seek, and gives away what it got."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, piece: bytes) -> int:
        """Take some bytes."""
        self._parts.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Do nothing: `zipfile` asks for it."""

    def taken(self) -> Iterator[bytes]:
        """Give away what is there, joined where it is small."""
        if self._parts:
            parts, self._parts = self._parts, []
            yield parts[0] if len(parts) == 1 else b"".join(parts)
