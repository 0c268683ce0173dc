"""A dataset on disk: one .npy file per column and a manifest, mapped into memory.

The directory holds ``manifest.json`` and column files that any numpy reads. It is written
beside its final place (``<name>.partial-<process id>``), flushed to disk and then renamed, so
whatever happens on the way, the final path holds either the old dataset or the new one.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, StoreError
from epitaxy.quantities import quantity
from epitaxy.stores.columns import (
    BLOCK_ATOMS,
    Columns,
    Recorder,
    Strings,
    Tag,
    Target,
    blocks,
    digest_of,
)

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

FORMAT = "epitaxy-dataset"
VERSION = 1
MANIFEST = "manifest.json"
_HEADER = 128  # bytes; room for any shape that we write, so the header can be filled in last
_FLUSH = 1 << 20  # bytes kept back before a column file is written to


def is_dataset(path: Path) -> bool:
    """Return whether a directory looks like a dataset."""
    return (path / MANIFEST).is_file()


# --- reading ---


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a dataset.

    Raises:
        StoreError: there is none, it cannot be read, or its format is newer than ours.
    """
    file = path / MANIFEST
    if not path.exists():
        remove_stale_partials(path)  # puts back what a writer killed between two renames left
    if not path.exists():
        raise StoreError(f"{path}: no such dataset (make one with `epitaxy ingest`)")
    if not file.is_file():
        raise StoreError(
            f"{path}: not a dataset, {MANIFEST} is missing (a dataset is a directory made by "
            f"`epitaxy ingest`; other files are read with `epitaxy ingest {path} -o DATASET`)"
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StoreError(f"{file}: cannot be read: {error}; restore it or ingest again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{file}: not the manifest of a dataset (format is not {FORMAT!r})")
    version = manifest.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise StoreError(
            f"{path}: format version {version}, this epitaxy reads up to {VERSION}: upgrade epitaxy"
        )
    return manifest


def open_columns(path: Path, *, verify: bool = False) -> tuple[Columns, dict[str, Any]]:
    """Map the columns of a dataset.

    Args:
        path: directory of the dataset.
        verify: also compare the sha256 of every column.

    Raises:
        StoreError: see `Dataset.open`.
    """
    manifest = read_manifest(path)
    try:
        arrays = {
            name: _map_column(path / column["file"], column, verify=verify)
            for name, column in manifest["columns"].items()
        }
        for name, fact in manifest["quantities"].items():
            _check_quantity(path, name, fact)
        columns = Columns(
            atom_ptr=arrays["atom_ptr"],
            numbers=arrays["numbers"],
            positions=arrays["positions"],
            cells=arrays["cells"],
            pbc=arrays["pbc"],
            ids=Strings(arrays["ids.text"], arrays["ids.ptr"]),
            method_codes=arrays["method"],
            origin_codes=arrays["origin"],
            methods=tuple(Method(**method) for method in manifest["methods"]),
            origins=tuple(Origin(**origin) for origin in manifest["origins"]),
            targets={
                name: Target(arrays[f"target:{name}"], arrays[f"mask:{name}"])
                for name in manifest["quantities"]
            },
            tags={
                name: Tag(
                    arrays[f"tag:{name}"],
                    Strings(arrays[f"words:{name}"], arrays[f"words_ptr:{name}"]),
                )
                for name in manifest["tags"]
            },
        )
        n_structures, n_atoms = manifest["n_structures"], manifest["n_atoms"]
        _ = manifest["history"], manifest["digest"]
    except StoreError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise StoreError(f"{path / MANIFEST}: incomplete or edited: {error!r}") from error
    if len(columns) != n_structures or int(columns.atom_ptr[-1]) != n_atoms:
        raise StoreError(
            f"{path}: atom_ptr has {len(columns)} structures and {int(columns.atom_ptr[-1])} "
            f"atoms, the manifest says {n_structures} and {n_atoms}"
        )
    return columns, manifest


def _map_column(file: Path, column: Mapping[str, Any], *, verify: bool) -> np.ndarray:
    wanted = int(column["n_bytes"])
    try:
        found = file.stat().st_size
    except OSError as error:
        raise StoreError(
            f"{file}: column is missing ({error.strerror}); restore it or ingest again"
        ) from error
    if found != wanted:
        what = "truncated" if found < wanted else "edited"
        raise StoreError(
            f"{file}: column is {what}: {found:,} bytes, the manifest says {wanted:,}; "
            "restore it or ingest again"
        )
    dtype, shape = np.dtype(column["dtype"]), tuple(column["shape"])
    with file.open("rb") as stream:
        if stream.read(_HEADER) != _header(dtype, shape):
            raise StoreError(
                f"{file}: column is edited: its header is not that of a {dtype} array of shape "
                f"{shape}; restore it or ingest again"
            )
        if verify:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            if sha256 != column["sha256"]:
                raise StoreError(
                    f"{file}: column is edited: sha256 {sha256[:12]}…, the manifest says "
                    f"{column['sha256'][:12]}…; restore it or ingest again"
                )
    if 0 in shape:
        return np.zeros(shape, dtype=dtype)
    # A plain array over the map: the memmap subclass would cost microseconds per access.
    return np.asarray(np.memmap(file, dtype=dtype, mode="r", offset=_HEADER, shape=shape))


def _check_quantity(path: Path, name: str, fact: Mapping[str, Any]) -> None:
    try:
        rule = quantity(name)
    except DataError as error:
        raise StoreError(f"{path}: made by another epitaxy: {error}") from error
    if (rule.unit, list(rule.shape), rule.per) != (fact["unit"], fact["shape"], fact["per"]):
        raise StoreError(
            f"{path}: {name} is stored in {fact['unit']} with shape {fact['shape']} per "
            f"{fact['per']}; this epitaxy expects {rule.unit}, {list(rule.shape)}, {rule.per}"
        )


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return a .npy header (format 1.0) of fixed length."""
    description = repr({"descr": dtype.str, "fortran_order": False, "shape": shape})
    text = description.ljust(_HEADER - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.encode("latin1")


# --- writing ---


class _FileSink:
    """One column file that grows; its header is written last."""

    def __init__(self, file: Path, dtype: np.dtype, tail: tuple[int, ...]):
        self.file = file
        self.dtype = dtype
        self.tail = tail
        self.length = 0
        self._hash = hashlib.sha256()
        self._stream: BinaryIO = file.open("wb", buffering=_FLUSH)
        self._stream.write(_header(dtype, (0, *tail)))

    def append(self, values: np.ndarray) -> None:
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        self._hash.update(raw)
        self._stream.write(raw)
        self.length += len(values)

    def finish(self) -> dict[str, Any]:
        shape = (self.length, *self.tail)
        self._stream.seek(0)
        self._stream.write(_header(self.dtype, shape))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return {
            "file": self.file.name,
            "dtype": self.dtype.str,
            "shape": list(shape),
            "n_bytes": self.file.stat().st_size,
            "sha256": self._hash.hexdigest(),
        }

    def abandon(self) -> None:
        # A full disk refuses the last buffer too; the file is removed anyway.
        with suppress(OSError):
            self._stream.close()


class Writer:
    """Writes a dataset as it comes, in bounded memory.

    Use it in a ``with`` block: leaving the block normally puts the dataset in place; leaving
    it by an error or Ctrl-C removes what was written and leaves an old dataset as it was.

    Args:
        path: directory to make.
        overwrite: replace a dataset that is there already.

    Raises:
        StoreError: something is there already, or the disk refuses the files.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False):
        self.path = Path(path)
        self.removed_partials: tuple[Path, ...] = ()
        self._overwrite = overwrite
        self._history: list[dict[str, Any]] = []
        self._columns: dict[str, dict[str, Any]] | None = None
        self._waiting: list[Entry] = []
        self._waiting_atoms = 0
        self._n_structures = 0
        if self.path.name in ("", ".."):
            raise StoreError(f"{self.path}: a dataset is a directory of its own: give it a name")
        self._partial = self.path.with_name(f"{self.path.name}.partial-{os.getpid()}")
        self._check_place()

    def _check_place(self) -> None:
        if not (self.path.exists() or self.path.is_symlink()):
            return
        if not is_dataset(self.path):
            raise StoreError(
                f"{self.path}: exists and is not a dataset; it will not be replaced, choose "
                "another name"
            )
        if not self._overwrite:
            raise StoreError(
                f"{self.path}: there is a dataset already; use --overwrite (overwrite=True) to "
                "replace it, or choose another name"
            )

    def __enter__(self) -> Writer:
        with _disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.removed_partials = remove_stale_partials(self.path)
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
            try:
                (self._partial / "host").write_text(socket.gethostname())
            except OSError:
                shutil.rmtree(self._partial, ignore_errors=True)
                raise
        self._recorder = Recorder(self._make_sink)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            for sink in self._recorder.sinks.values():
                assert isinstance(sink, _FileSink)
                sink.abandon()
            shutil.rmtree(self._partial, ignore_errors=True)

    @property
    def removed(self) -> tuple[str, ...]:
        """One sentence for each thing that a killed writer had left and that is gone now."""
        return tuple(
            f"removed {left.name}, left by a run that was killed" for left in self.removed_partials
        )

    def __len__(self) -> int:
        """Number of structures taken so far."""
        return self._n_structures

    def append(self, entry: Entry) -> None:
        """Take one entry.

        Raises:
            EntryError: arrays of an entry do not fit together; the message names it.
            StoreError: the disk refuses the files.
        """
        if self._columns is not None:
            raise RuntimeError("nothing can be added after a preview")
        self._waiting.append(entry)
        self._waiting_atoms += len(entry)
        self._n_structures += 1
        if self._waiting_atoms >= BLOCK_ATOMS // 8 or len(self._waiting) >= 1000:
            self._flush()

    def extend(self, entries: Dataset | Iterable[Entry]) -> None:
        """Take many entries; a dataset is copied block by block."""
        from epitaxy.dataset import Dataset

        if not isinstance(entries, Dataset):
            for entry in entries:
                self.append(entry)
            return
        self._flush()
        for block in blocks(entries._columns, entries._rows):
            with _disk_errors(self.path):
                self._recorder.add(block)
        self._n_structures += len(entries)

    def record(self, step: Mapping[str, Any]) -> None:
        """Add one operation to the history."""
        self._history.append(dict(step))

    def _flush(self) -> None:
        if self._waiting:
            block = Columns.from_entries(self._waiting)
            with _disk_errors(self.path):
                self._recorder.add(block)
        self._waiting, self._waiting_atoms = [], 0

    def _make_sink(self, name: str, dtype: np.dtype, tail: tuple[int, ...]) -> _FileSink:
        kind, _, of = name.partition(":")
        if kind in ("tag", "words", "words_ptr"):
            # The name of a tag may hold anything, the name of a file may not.
            of = str(list(self._recorder.words).index(of))
        return _FileSink(self._partial / f"{kind}{of and '-'}{of}.npy", dtype, tail)

    def preview(self) -> Dataset:
        """Return the dataset as it will be, before it is put in place; nothing more can be added.

        Raises:
            StoreError: the disk refuses the files.
        """
        from epitaxy.dataset import Dataset

        self._finish()
        return Dataset.open(self._partial)

    def _finish(self) -> None:
        """Complete the column files and write the manifest, still to the side."""
        self._flush()
        recorder = self._recorder
        with _disk_errors(self.path):
            if self._columns is None:
                recorder.finish()
                self._columns = {}
                for name, sink in recorder.sinks.items():
                    assert isinstance(sink, _FileSink)
                    self._columns[name] = sink.finish()
            sha256 = {name: column["sha256"] for name, column in self._columns.items()}
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "digest": digest_of(recorder, sha256),
                "n_structures": recorder.n_structures,
                "n_atoms": recorder.n_atoms,
                "quantities": {
                    name: {
                        "unit": quantity(name).unit,
                        "shape": list(quantity(name).shape),
                        "per": quantity(name).per,
                        "sign": quantity(name).sign,
                    }
                    for name in sorted(recorder.targets)
                },
                "tags": sorted(recorder.words),
                "methods": [asdict(method) for method in recorder.methods],
                "origins": [asdict(origin) for origin in recorder.origins],
                "history": self._history,
                "columns": self._columns,
            }
            text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            with (self._partial / MANIFEST).open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())

    def _commit(self) -> None:
        self._finish()
        with _disk_errors(self.path):
            (self._partial / "host").unlink()
            _sync_directory(self._partial)
            self._check_place()
            _replace(self._partial, self.path)
            _sync_directory(self.path.parent)


def _replace(new: Path, old: Path) -> None:
    """Put directory `new` at `old`; on failure `old` is as it was."""
    if not old.exists():
        new.rename(old)
        return
    target = old.resolve()
    aside = target.with_name(f"{target.name}.replaced-{os.getpid()}")
    target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def remove_stale_partials(path: Path) -> tuple[Path, ...]:
    """Remove what writers that no longer live have left beside `path`; return what it was.

    A dataset that was moved aside by a process that died between its two renames is put back.
    """
    removed: list[Path] = []
    for left in sorted(path.parent.glob(f"{glob.escape(path.name)}.*-*")):
        kind, _, pid = left.name.removeprefix(f"{path.name}.").rpartition("-")
        if not pid.isdigit() or int(pid) == os.getpid() or _is_alive(int(pid)):
            continue
        if kind == "replaced" and is_dataset(left):
            if path.exists():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.rename(path)
        elif kind == "partial" and _is_local(left):
            shutil.rmtree(left, ignore_errors=True)
            removed.append(left)
    return tuple(removed)


def _is_local(partial: Path) -> bool:
    """Return whether a partial was made on this machine; another's process ids mean nothing."""
    try:
        return (partial / "host").read_text() == socket.gethostname()
    except OSError:
        return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_errors(where: Path) -> Iterator[None]:
    """Turn the errors of a file system into ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{where}: the dataset could not be written: {error.strerror or error}; "
            "nothing was kept of it and what was there before is untouched"
        ) from error
