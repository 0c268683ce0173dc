"""A dataset as columns: flat arrays over all structures or all atoms, and small tables.

One `Columns` holds what a `Dataset` shows, whether the arrays live in memory or are mapped
from files. A `Recorder` takes blocks of columns one after another and hands them, with codes
made consistent, to sinks: a file, a hash or a list. Writing, digesting and collecting in
memory are therefore the same operation with a different sink.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar, overload

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import EntryError
from epitaxy.quantities import quantity

T = TypeVar("T")

BLOCK_ATOMS = 100_000
"""Blocks are cut near this number of atoms, so memory stays bounded (some 10 MB)."""
BLOCK_STRUCTURES = 10_000


class Strings(Sequence[str]):
    """Many texts in one array of UTF-8 bytes; nothing is decoded before it is asked for.

    Args:
        text: (n_bytes,) uint8, all texts one after another.
        ptr: (n + 1,) int64, where each text starts and ends.
        rows: which of them, in which order; all by default.
    """

    def __init__(self, text: np.ndarray, ptr: np.ndarray, rows: np.ndarray | None = None):
        self.text = text
        self.ptr = ptr
        self.rows = rows

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """Pack texts."""
        encoded = [text.encode() for text in texts]
        ptr = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=ptr[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ptr)

    def take(self, rows: np.ndarray) -> Strings:
        """Return a view of some of them."""
        return Strings(self.text, self.ptr, rows if self.rows is None else self.rows[rows])

    def packed(self) -> Strings:
        """Return a copy that holds only what the view shows."""
        return self if self.rows is None else Strings.of(self)

    def __len__(self) -> int:
        return len(self.ptr) - 1 if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Strings: ...
    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        position = range(len(self))[index]
        row = position if self.rows is None else int(self.rows[position])
        return bytes(self.text[self.ptr[row] : self.ptr[row + 1]]).decode()

    def __iter__(self) -> Iterator[str]:
        for i in range(len(self)):
            yield self[i]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Target(NamedTuple):
    """One column of labels.

    Attributes:
        values: (n, *shape) or (n_atoms_total, *shape) float64, 0 where missing.
        mask: (n,) bool, whether the structure has the label.
    """

    values: np.ndarray
    mask: np.ndarray


class Tag(NamedTuple):
    """One column of text labels.

    Attributes:
        codes: (n,) int32, index into `words`; -1 where the structure has no such tag.
        words: the distinct texts.
    """

    codes: np.ndarray
    words: Sequence[str]


@dataclass(frozen=True)
class Columns:
    """The arrays of a dataset.

    Attributes:
        atom_ptr: (n + 1,) int64, where the atoms of each structure start and end.
        numbers: (n_atoms_total,) uint8.
        positions: (n_atoms_total, 3) float64, Å.
        cells: (n, 3, 3) float64, Å.
        pbc: (n, 3) bool.
        ids: n texts.
        method_codes: (n,) int32, index into `methods`.
        origin_codes: (n,) int32, index into `origins`.
        methods: the distinct levels of theory.
        origins: the distinct origins.
        targets: quantity name -> labels.
        tags: tag name -> text labels.
    """

    atom_ptr: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    ids: Strings
    method_codes: np.ndarray
    origin_codes: np.ndarray
    methods: tuple[Method, ...]
    origins: tuple[Origin, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)
    tags: Mapping[str, Tag] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock()  # pickling forgets it

    def _lock(self) -> None:
        """Make the arrays read-only: a digest that was given out must stay true."""
        arrays = [self.atom_ptr, self.numbers, self.positions, self.cells, self.pbc]
        arrays += [self.ids.text, self.ids.ptr, self.method_codes, self.origin_codes]
        for target in self.targets.values():
            arrays += [target.values, target.mask]
        arrays += [tag.codes for tag in self.tags.values()]
        for array in arrays:
            array.setflags(write=False)

    @cached_property
    def n_atoms(self) -> np.ndarray:
        """(n,) int64, number of atoms of each structure."""
        return np.diff(self.atom_ptr)

    def __len__(self) -> int:
        return len(self.atom_ptr) - 1

    def atoms_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the indices of the atoms of some structures, in order: (sum of n_atoms,)."""
        starts = self.atom_ptr[rows]
        counts = self.atom_ptr[rows + 1] - starts
        ends = counts.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        index = np.repeat(starts - ends + counts, counts)
        index += np.arange(total)
        return index

    def take(self, rows: np.ndarray) -> Columns:
        """Return a copy of some structures, (k,) int64 in that order."""
        atoms = self.atoms_of(rows)
        ptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(self.atom_ptr[rows + 1] - self.atom_ptr[rows], out=ptr[1:])
        return Columns(
            atom_ptr=ptr,
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cells=self.cells[rows],
            pbc=self.pbc[rows],
            ids=self.ids.take(rows).packed(),
            method_codes=self.method_codes[rows],
            origin_codes=self.origin_codes[rows],
            methods=self.methods,
            origins=self.origins,
            targets={
                name: Target(
                    target.values[atoms if quantity(name).per == "atom" else rows],
                    target.mask[rows],
                )
                for name, target in self.targets.items()
            },
            tags={name: Tag(tag.codes[rows], tag.words) for name, tag in self.tags.items()},
        )

    @classmethod
    def from_entries(cls, entries: Sequence[Entry]) -> Columns:
        """Stack entries.

        Raises:
            EntryError: arrays of an entry do not fit together or positions are not finite; the
                message names it.
        """
        n = len(entries)
        counts = np.array([len(entry.numbers) for entry in entries], dtype=np.int64)
        ptr = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(counts, out=ptr[1:])
        for entry in entries:
            _check_shapes(entry)
        methods: dict[Method, int] = {}
        origins: dict[Origin, int] = {}
        targets: dict[str, Target] = {}
        words: dict[str, dict[str, int]] = {}
        codes: dict[str, np.ndarray] = {}
        method_codes = np.empty(n, dtype=np.int32)
        origin_codes = np.empty(n, dtype=np.int32)
        for i, entry in enumerate(entries):
            method_codes[i] = methods.setdefault(entry.method, len(methods))
            origin_codes[i] = origins.setdefault(entry.origin, len(origins))
            for name, word in entry.tags.items():
                if name not in codes:
                    codes[name] = np.full(n, -1, dtype=np.int32)
                    words[name] = {}
                codes[name][i] = words[name].setdefault(str(word), len(words[name]))
            for name, value in entry.targets.items():
                rule = quantity(name)
                if name not in targets:
                    rows = int(ptr[-1]) if rule.per == "atom" else n
                    targets[name] = Target(np.zeros((rows, *rule.shape)), np.zeros(n, dtype=bool))
                where = slice(ptr[i], ptr[i + 1]) if rule.per == "atom" else i
                targets[name].values[where] = value
                targets[name].mask[i] = True
        return cls(
            atom_ptr=ptr,
            numbers=_stack([entry.numbers for entry in entries], (), np.uint8),
            positions=_stack([entry.positions for entry in entries], (3,), np.float64),
            cells=np.array([entry.cell for entry in entries], dtype=np.float64).reshape(n, 3, 3),
            pbc=np.array([entry.pbc for entry in entries], dtype=bool).reshape(n, 3),
            ids=Strings.of(entry.id for entry in entries),
            method_codes=method_codes,
            origin_codes=origin_codes,
            methods=tuple(methods),
            origins=tuple(origins),
            targets=targets,
            tags={name: Tag(codes[name], tuple(words[name])) for name in codes},
        )


def _stack(arrays: list[np.ndarray], tail: tuple[int, ...], dtype: type) -> np.ndarray:
    if not arrays:
        return np.zeros((0, *tail), dtype=dtype)
    return np.concatenate(arrays).astype(dtype, copy=False)


def _check_shapes(entry: Entry) -> None:
    n_atoms = len(entry.numbers)
    expected: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "numbers": (np.shape(entry.numbers), (n_atoms,)),
        "positions": (np.shape(entry.positions), (n_atoms, 3)),
        "cell": (np.shape(entry.cell), (3, 3)),
        "pbc": (np.shape(entry.pbc), (3,)),
    }
    for name, value in entry.targets.items():
        rule = quantity(name)
        shape = (n_atoms, *rule.shape) if rule.per == "atom" else rule.shape
        expected[name] = (np.shape(value), shape)
    for name, (seen, wanted) in expected.items():
        if seen != wanted:
            raise EntryError(
                f"entry {entry.id or '?'}: {name} has shape {seen}, expected {wanted} "
                f"for {n_atoms} atoms"
            )
    if not np.isfinite(entry.positions).all():
        raise EntryError(f"entry {entry.id or '?'}: positions are not finite (NaN or infinite)")
    for name, value in entry.targets.items():
        if not np.isfinite(value).all():
            raise EntryError(
                f"entry {entry.id or '?'}: {name} is not finite (NaN or infinite); leave a label "
                f"out where it is missing"
            )
    if n_atoms and not (0 <= int(np.min(entry.numbers)) <= int(np.max(entry.numbers)) <= 255):
        raise EntryError(f"entry {entry.id or '?'}: atomic numbers must be 0 to 255")


def blocks(columns: Columns, rows: np.ndarray | None = None) -> Iterator[Columns]:
    """Yield copies of consecutive parts of bounded size."""
    n_rows = len(columns) if rows is None else len(rows)
    start = 0
    while start < n_rows:
        stop = min(start + BLOCK_STRUCTURES, n_rows)
        part = np.arange(start, stop) if rows is None else rows[start:stop]
        atoms = np.cumsum(columns.atom_ptr[part + 1] - columns.atom_ptr[part])
        keep = max(1, int(np.searchsorted(atoms, BLOCK_ATOMS, side="right")))
        yield columns.take(part[:keep])
        start += len(part[:keep])


class Sink(Protocol):
    """Where one column goes."""

    def append(self, values: np.ndarray) -> None:
        """Take the next values; the first axis is the one that grows."""
        ...


MakeSink = Callable[[str, np.dtype, tuple[int, ...]], Sink]
"""``(column name, dtype, shape without the first axis) -> sink``."""


class Recorder:
    """Puts blocks of columns one after another into sinks.

    Methods, origins and the words of tags get codes in the order of their first appearance
    and targets that first appear late are filled with zeros and a false mask, so the result
    does not depend on how the entries were cut into blocks.

    Args:
        make_sink: called once per column, when it first appears.
    """

    def __init__(self, make_sink: MakeSink):
        self._make_sink = make_sink
        self.sinks: dict[str, Sink] = {}
        self.methods: dict[Method, int] = {}
        self.origins: dict[Origin, int] = {}
        self.words: dict[str, dict[str, int]] = {}
        self.targets: list[str] = []
        self.n_structures = 0
        self.n_atoms = 0
        self._n_bytes = 0
        self._append("atom_ptr", np.zeros(1, dtype=np.int64))
        self._append("ids.ptr", np.zeros(1, dtype=np.int64))

    def add(self, block: Columns) -> None:
        """Append a block."""
        self._append("atom_ptr", np.asarray(block.atom_ptr[1:]) + self.n_atoms)
        self._append("numbers", block.numbers)
        self._append("positions", block.positions)
        self._append("cells", block.cells)
        self._append("pbc", block.pbc)
        ids = block.ids.packed()
        self._append("ids.text", ids.text)
        self._append("ids.ptr", np.asarray(ids.ptr[1:]) + self._n_bytes)
        self._append("method", _recode(block.method_codes, block.methods, self.methods))
        self._append("origin", _recode(block.origin_codes, block.origins, self.origins))
        n, n_atoms = len(block), int(block.atom_ptr[-1])
        for name in sorted(set(self.targets) | set(block.targets)):
            self._add_target(name, block.targets.get(name), n, n_atoms)
        for name in sorted(set(self.words) | set(block.tags)):
            self._add_tag(name, block.tags.get(name), n)
        self.n_structures += n
        self.n_atoms += n_atoms
        self._n_bytes += int(ids.ptr[-1])

    def finish(self) -> None:
        """Write the words of the tags, which are known only now."""
        if not self.n_structures:
            self.add(Columns.from_entries([]))
        for name, words in self.words.items():
            packed = Strings.of(words)
            self._append(f"words:{name}", packed.text)
            self._append(f"words_ptr:{name}", packed.ptr)

    def _append(self, name: str, values: np.ndarray) -> None:
        if name not in self.sinks:
            self.sinks[name] = self._make_sink(name, values.dtype, values.shape[1:])
        self.sinks[name].append(np.ascontiguousarray(values))

    def _add_target(self, name: str, target: Target | None, n: int, n_atoms: int) -> None:
        if name not in self.targets:
            if target is None or not target.mask.any():
                return
            self.targets.append(name)
            self._zeros(name, self.n_structures, self.n_atoms)
        if target is None:
            self._zeros(name, n, n_atoms)
            return
        self._append(f"target:{name}", target.values)
        self._append(f"mask:{name}", target.mask)

    def _zeros(self, name: str, n: int, n_atoms: int) -> None:
        rule = quantity(name)
        left = n_atoms if rule.per == "atom" else n
        self._append(f"target:{name}", np.zeros((0, *rule.shape)))
        while left:
            step = min(left, BLOCK_ATOMS)
            self._append(f"target:{name}", np.zeros((step, *rule.shape)))
            left -= step
        self._append(f"mask:{name}", np.zeros(n, dtype=bool))

    def _add_tag(self, name: str, tag: Tag | None, n: int) -> None:
        if name not in self.words:
            if tag is None or not (tag.codes >= 0).any():
                return
            self.words[name] = {}
            self._append(f"tag:{name}", np.full(self.n_structures, -1, dtype=np.int32))
        codes = np.full(n, -1, dtype=np.int32) if tag is None else tag.codes
        known = () if tag is None else tag.words
        self._append(f"tag:{name}", _recode(codes, known, self.words[name]))


def _recode(codes: np.ndarray, words: Sequence[T], table: dict[T, int]) -> np.ndarray:
    """Translate codes of a block into those of the growing table, (n,) int32."""
    present, first = np.unique(codes, return_index=True)
    translate = np.full(int(present[-1]) + 1 if len(present) else 0, -1, dtype=np.int32)
    for code in present[np.argsort(first)]:
        if code >= 0:
            translate[code] = table.setdefault(words[int(code)], len(table))
    if not len(translate):
        return np.full(len(codes), -1, dtype=np.int32)
    return np.where(codes < 0, np.int32(-1), translate[np.maximum(codes, 0)]).astype(np.int32)


class HashSink:
    """Keeps the sha256 and the length of a column."""

    def __init__(self, name: str, dtype: np.dtype, tail: tuple[int, ...]):
        self.dtype = dtype
        self.tail = tail
        self.length = 0
        self._hash = hashlib.sha256()

    def append(self, values: np.ndarray) -> None:
        """Take the next values."""
        self.length += len(values)
        self._hash.update(values.reshape(-1).view(np.uint8).data)

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes so far."""
        return self._hash.hexdigest()


def digest_of(recorder: Recorder, sha256: Mapping[str, str]) -> str:
    """Return the digest of what a recorder has seen: structures, labels, methods and tags.

    Ids, origins and history are left out: the same physics read from another file is the
    same data.

    Args:
        recorder: the finished recorder.
        sha256: hex digest of the bytes of each column.
    """
    left_out = ("ids.", "origin")
    meaning = {
        "columns": {
            name: digest for name, digest in sorted(sha256.items()) if not name.startswith(left_out)
        },
        "methods": [asdict(method) for method in recorder.methods],
        "units": {name: quantity(name).unit for name in sorted(recorder.targets)},
    }
    text = json.dumps(meaning, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(columns: Columns, rows: np.ndarray | None = None) -> str:
    """Return the digest of (some rows of) columns, computed block by block."""
    sinks: dict[str, HashSink] = {}

    def make(name: str, dtype: np.dtype, tail: tuple[int, ...]) -> HashSink:
        return sinks.setdefault(name, HashSink(name, dtype, tail))

    recorder = Recorder(make)
    for block in blocks(columns, rows):
        recorder.add(block)
    recorder.finish()
    return digest_of(recorder, {name: sink.sha256 for name, sink in sinks.items()})
