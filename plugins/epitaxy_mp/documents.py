"""Documents of the Materials Project in local files, one after another in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from epitaxy.errors import DataError

_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_SPACE = re.compile(r"[ \t\r\n,]*")
_OUR_ID = re.compile(rb'"entry_id": ?"(mp|mvc)-\d')  # other databases use this class too
_CHUNK = 1 << 20  # characters read at a time
_DAMAGED = (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError)


class Documents:
    """The documents of a file: a JSON list, JSON lines, one document, or an answer of the API.

    Args:
        path: .json or .jsonl, also with .gz, .bz2 or .xz.

    Raises:
        DataError: there is no such file.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file")
        self.fraction: float | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the documents.

        Raises:
            DataError: the file is damaged or cut, or holds something else; it says where.
        """
        size = self.path.stat().st_size
        self.fraction = 0.0
        with self.path.open("rb") as raw:
            opener = _OPEN.get(self.path.suffix.lower())
            with io.TextIOWrapper(opener(raw) if opener else raw, encoding="utf-8") as stream:
                for n, document in enumerate(self._values(stream)):
                    if not isinstance(document, dict):
                        raise DataError(
                            f"{self.path}: document {n} is {type(document).__name__}, not an object"
                        )
                    yield document
                    self.fraction = min(1.0, raw.tell() / size)
        self.fraction = 1.0

    def _values(self, stream: TextIO) -> Iterator[Any]:
        decoder = json.JSONDecoder()
        text = self._more(stream, "").lstrip()
        is_list = text.startswith("[")
        at = int(is_list)
        n = 0
        while True:
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            if is_list and text.startswith("]", at):
                return
            try:
                value, at = decoder.raw_decode(text, at)
            except ValueError as error:
                rest = text[at:]
                text, at = self._more(stream, rest), 0
                if len(text) > len(rest):
                    continue
                if rest:
                    raise DataError(
                        f"{self.path}: document {n} is cut or damaged: {error}. Get it anew"
                    ) from error
                if is_list:
                    raise DataError(f"{self.path}: cut after {n} documents. Get it anew") from error
                return
            if n == 0 and not is_list and _is_answer(value):
                yield from value["data"]
                n += len(value["data"])
                continue
            yield value
            n += 1

    def _more(self, stream: TextIO, text: str) -> str:
        """Return the text and what follows it, at least as much again."""
        try:
            return text + stream.read(max(_CHUNK, len(text)))
        except _DAMAGED as error:
            raise DataError(
                f"{self.path}: damaged or cut: {type(error).__name__}: {error}. Get it anew"
            ) from error


def _is_answer(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("data"), list) and "meta" in value


def looks_like_ours(path: Path) -> bool:
    """Whether the first bytes of a JSON file are those of Materials Project documents."""
    if not path.is_file() or not {".json", ".jsonl"} & {s.lower() for s in path.suffixes}:
        return False
    try:
        with _OPEN.get(path.suffix.lower(), open)(path, "rb") as stream:
            head = stream.read(1 << 18)
    except _DAMAGED:
        return False
    if b'"lattice"' not in head or not (b'"material_id"' in head or b'"task_id"' in head):
        return False  # without an id it may be a cut of a public training set
    if b'"ComputedStructureEntry"' in head and _OUR_ID.search(head):
        return True
    ours = (b'"uncorrected_energy_per_atom"', b'"calcs_reversed"', b'"orig_inputs"')
    return any(name in head for name in (*ours, b'"builder_meta"'))
