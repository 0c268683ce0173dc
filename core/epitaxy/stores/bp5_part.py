"""One part of a BP5 dataset: the structures that one process wrote, in one BP5 file.

A part is complete in itself: its codes of methods, origins and tags are its own, and its
attributes say what it is, in which units, and what sha256 the bytes of each column have.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.entry import Method, Origin
from epitaxy.errors import StoreError
from epitaxy.quantities import quantity
from epitaxy.stores.adios import ColumnFileReader, ColumnFileWriter, stored_dtype
from epitaxy.stores.columns import Columns, HashSink, Recorder, Strings, digest_of

FORMAT = "epitaxy-dataset-bp5"
VERSION = 1
_BLOCK_BYTES = 1 << 20
"""Bytes of a column that are written at once. Blocks of 1 to 4 MB are read at the speed of
numpy; ADIOS2 reads one block of 160 MB at a fifth of it (docs/benchmarks/data.md)."""
_SHOWN = 100  # texts in an attribute that is meant for people
_FACTS = "epitaxy"
_STAMPS = ("stamp.first", "stamp.last")


@dataclass(frozen=True)
class PartFacts:
    """A row of the index.

    Attributes:
        file: name of the part.
        id: made at random by its writer, and stored in the part.
        n_structures: in the part.
        n_atoms: in the part.
        targets: quantities that some structure of the part carries.
        tags: text labels that some structure of the part carries.
        files: name of each file of the part -> its bytes, and its sha256 where it is small.
    """

    file: str
    id: str
    n_structures: int
    n_atoms: int
    targets: Sequence[str]
    tags: Sequence[str]
    files: Mapping[str, tuple[int, str | None]]


# --- writing ---


class _ColumnSink:
    """Collects a column until there is a block of it."""

    def __init__(self, file: ColumnFileWriter, name: str, dtype: np.dtype, tail: tuple[int, ...]):
        self._file = file
        self._name = name
        self._hash = HashSink(name, dtype, tail)
        self._waiting: list[np.ndarray] = []
        self._n_bytes = 0

    def append(self, values: np.ndarray) -> None:
        self._hash.append(values)
        self._waiting.append(values)
        self._n_bytes += values.nbytes
        if self._n_bytes >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._n_bytes:
            self._file.put(self._name, np.concatenate(self._waiting))
        self._waiting, self._n_bytes = [], 0

    def facts(self) -> dict[str, Any]:
        self.flush()
        shape = [self._hash.length, *self._hash.tail]
        return {"dtype": self._hash.dtype.str, "shape": shape, "sha256": self._hash.sha256}


class PartFile:
    """Writes one part, in bounded memory.

    Args:
        path: of the part.

    Raises:
        StoreError: the file cannot be made.
    """

    def __init__(self, path: Path):
        self.path = path
        self.id = uuid.uuid4().hex
        self._file = ColumnFileWriter(path)
        self.recorder = Recorder(self._make_sink)
        try:
            self._file.put(_STAMPS[0], np.frombuffer(self.id.encode(), dtype=np.uint8))
        except BaseException:
            self._file.abandon()
            raise

    def _make_sink(self, name: str, dtype: np.dtype, tail: tuple[int, ...]) -> _ColumnSink:
        return _ColumnSink(self._file, self._stored_name(name), dtype, tail)

    def _stored_name(self, name: str) -> str:
        kind, _, of = name.partition(":")
        if kind in ("tag", "words", "words_ptr"):  # the name of a tag may hold anything
            of = str(list(self.recorder.words).index(of))
        return f"{kind}:{of}" if of else kind

    def add(self, block: Columns) -> None:
        """Append structures."""
        self.recorder.add(block)

    def finish(self, *, history: Sequence[Mapping[str, Any]] = ()) -> PartFacts:
        """Complete the file and return its row of the index.

        Raises:
            StoreError: the disk refuses.
        """
        recorder = self.recorder
        recorder.finish()
        columns = {}
        for name, sink in recorder.sinks.items():
            assert isinstance(sink, _ColumnSink)
            columns[self._stored_name(name)] = sink.facts()
        tables: dict[str, Iterable[Method | Origin]] = {
            "methods": recorder.methods,
            "origins": recorder.origins,
        }
        for name, table in tables.items():
            text = np.frombuffer(_to_json([asdict(row) for row in table]), dtype=np.uint8)
            columns[name] = {
                "dtype": text.dtype.str,
                "shape": [len(text)],
                "sha256": hashlib.sha256(text.data).hexdigest(),
            }
            self._file.put(name, text)
        self._file.put(_STAMPS[1], np.frombuffer(self.id.encode(), dtype=np.uint8))
        targets, tags = sorted(recorder.targets), list(recorder.words)
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "id": self.id,
            "n_structures": recorder.n_structures,
            "n_atoms": recorder.n_atoms,
            "targets": targets,
            "tags": tags,
            "columns": columns,
        }
        self._file.set_attribute(_FACTS, _to_json(facts).decode())
        self._say_to_people(history)
        self._file.close()
        files = {}
        for file in sorted(self.path.iterdir()):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            files[file.name] = fingerprint(file)
        return PartFacts(
            file=self.path.name,
            id=self.id,
            n_structures=recorder.n_structures,
            n_atoms=recorder.n_atoms,
            targets=targets,
            tags=sorted(tags),
            files=files,
        )

    def digest(self) -> str:
        """Return the digest of the data in this part."""
        sha256 = {}
        for name, sink in self.recorder.sinks.items():
            assert isinstance(sink, _ColumnSink)
            sha256[name] = str(sink.facts()["sha256"])
        return digest_of(self.recorder, sha256)

    def _say_to_people(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Set the attributes that tools for BP5 files show; we read only the facts."""
        recorder = self.recorder
        units = {"positions": "Å", "cells": "Å"}
        units |= {f"target:{name}": quantity(name).unit for name in recorder.targets}
        for name, unit in units.items():
            if recorder.n_atoms or name != "positions":
                self._file.set_attribute(f"{name}/unit", unit)
        for name in recorder.targets:
            rule = quantity(name)
            said = ". ".join(filter(None, (rule.meaning.rstrip("."), rule.sign)))
            self._file.set_attribute(f"target:{name}/meaning", f"{said} (per {rule.per})")
        self._file.set_attribute("methods", _several(asdict(m) for m in recorder.methods))
        self._file.set_attribute("origins", _several(asdict(o) for o in recorder.origins))
        self._file.set_attribute("tag_names", list(recorder.words) or "")
        self._file.set_attribute("history", _to_json(list(history)).decode())

    def abandon(self) -> None:
        """Give the part up."""
        self._file.abandon()


def _several(rows: Iterable[Mapping[str, str]]) -> list[str] | str:
    said = []
    for row in rows:
        said.append(", ".join(value for value in row.values() if value))
        if len(said) == _SHOWN:
            said.append("...")
            break
    return said or ""


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def fingerprint(file: Path) -> tuple[int, str | None]:
    """Return the bytes of a file, and its sha256 if it does not hold the columns."""
    size = file.stat().st_size
    if file.name.startswith("data."):
        return size, None
    return size, hashlib.sha256(file.read_bytes()).hexdigest()


# --- reading ---


class Part:
    """Reads one part.

    Args:
        folder: of the dataset.
        facts: its row of the index.
    """

    def __init__(self, folder: Path, facts: PartFacts):
        self.path = folder / facts.file
        self.facts = facts

    def check_files(self) -> None:
        """Compare the files with the index; the columns are not read.

        Raises:
            StoreError: one is missing, truncated or of another part.
        """
        mend = "restore it from a copy, or write the dataset again"
        if not self.path.is_dir():
            raise StoreError(f"{self.path}: this part of the dataset is missing; {mend}")
        for name, (n_bytes, sha256) in self.facts.files.items():
            file = self.path / name
            try:
                found = file.stat().st_size
            except OSError as error:
                raise StoreError(f"{file}: is missing ({error.strerror}); {mend}") from error
            if found != n_bytes:
                what = "truncated" if found < n_bytes else "edited or of another part"
                raise StoreError(
                    f"{file}: is {what}: {found:,} bytes, the index says {n_bytes:,}; {mend}"
                )
            if sha256 is not None and fingerprint(file)[1] != sha256:
                raise StoreError(
                    f"{file}: is edited, or belongs to another part or dataset: its sha256 is "
                    f"not that of the index; {mend}"
                )

    @cached_property
    def reader(self) -> ColumnFileReader:
        """The open file.

        Raises:
            StoreError: the file is not the one of the index.
        """
        reader = ColumnFileReader(self.path)
        for name in _STAMPS:
            stamp = np.zeros(32, dtype=np.uint8)
            reader.read(name, stamp)
            if stamp.tobytes() != self.facts.id.encode():
                raise StoreError(
                    f"{self.path}: its data belong to another part or dataset (stamp "
                    f"{stamp.tobytes()[:8]!r}, the index says {self.facts.id[:8]}); parts were "
                    "exchanged: put the right one back, or write the dataset again"
                )
        return reader

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if "reader" in self.__dict__:
            self.reader.close()
            del self.__dict__["reader"]

    @cached_property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """Name of each column -> its dtype, shape and sha256.

        Raises:
            StoreError: the part and the index disagree.
        """
        said = self._said
        for name in ("n_structures", "n_atoms", "id"):
            if said.get(name) != getattr(self.facts, name):
                raise StoreError(
                    f"{self.path}: the index disagrees with this part: {name} is "
                    f"{getattr(self.facts, name)} in the index and {said.get(name)} in the part; "
                    "the index was edited, or the part is another one"
                )
        for name in ("targets", "tags"):
            if sorted(said[name]) != sorted(getattr(self.facts, name)):
                raise StoreError(f"{self.path}: the index disagrees with this part: {name}")
        found: Mapping[str, Mapping[str, Any]] = said["columns"]
        return found

    @cached_property
    def _said(self) -> dict[str, Any]:
        try:
            said = json.loads(self.reader.texts(_FACTS)[0])
            version = said["version"]
        except StoreError:
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise StoreError(f"{self.path}: not a part of a dataset of epitaxy") from error
        if version > VERSION:
            raise StoreError(
                f"{self.path}: format version {version}, this epitaxy reads up to {VERSION}: "
                "upgrade epitaxy"
            )
        assert isinstance(said, dict)
        return said

    def tag_column(self, kind: str, tag: str) -> str:
        """Return the name of the column `kind` ("tag", "words", "words_ptr") of a tag."""
        return f"{kind}:{self._said['tags'].index(tag)}"

    def length(self, name: str) -> int:
        """Return the number of rows of a column."""
        return int(self.columns[name]["shape"][0])

    def fill(self, name: str, out: np.ndarray, *, start: int = 0) -> None:
        """Read rows of a column into an array of its type."""
        column = self.columns[name]
        dtype = np.dtype(column["dtype"])
        if dtype != out.dtype or list(out.shape[1:]) != column["shape"][1:]:
            raise StoreError(
                f"{self.path}: {name} is {dtype} {column['shape']}, expected {out.dtype} "
                f"{list(out.shape)}; made by another epitaxy"
            )
        self.reader.read(name, out.view(stored_dtype(dtype)), start=start)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows of a column."""
        column = self.columns[name]
        stop = self.length(name) if stop is None else stop
        out = np.empty((stop - start, *column["shape"][1:]), dtype=column["dtype"])
        self.fill(name, out, start=start)
        return out

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """The levels of theory that the codes of this part mean."""
        return tuple(Method(**row) for row in json.loads(self.read("methods").tobytes()))

    @cached_property
    def origins(self) -> tuple[Origin, ...]:
        """The origins that the codes of this part mean."""
        return tuple(Origin(**row) for row in json.loads(self.read("origins").tobytes()))

    def words(self, tag: str) -> Strings:
        """Return the texts that the codes of a tag mean in this part."""
        text, ptr = (self.tag_column(kind, tag) for kind in ("words", "words_ptr"))
        return Strings(self.read(text), self.read(ptr))

    def verify(self) -> None:
        """Read every column and compare its sha256.

        Raises:
            StoreError: a column is edited; the message names it.
        """
        for name, column in self.columns.items():
            row_bytes = np.dtype(column["dtype"]).itemsize * int(np.prod(column["shape"][1:]))
            step = max(1, _BLOCK_BYTES // max(row_bytes, 1))
            sha256 = hashlib.sha256()
            for start in range(0, self.length(name), step):
                rows = self.read(name, start, min(start + step, self.length(name)))
                sha256.update(rows.reshape(-1).view(np.uint8).data)
            if sha256.hexdigest() != column["sha256"]:
                raise StoreError(
                    f"{self.path}: column {name} is edited: sha256 {sha256.hexdigest()[:12]}…, "
                    f"the part says {column['sha256'][:12]}…; restore it or write the dataset again"
                )
