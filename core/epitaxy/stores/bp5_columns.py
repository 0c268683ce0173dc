"""The columns of a BP5 dataset, or of some consecutive rows of it; each is read when first used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from epitaxy.entry import Method, Origin
from epitaxy.quantities import quantity
from epitaxy.stores.bp5_part import Part, PartFacts
from epitaxy.stores.columns import Columns, Strings, Tag, Target

V = TypeVar("V")
W = TypeVar("W")
_OPEN_FILES = 64  # more parts than this are opened and closed in turn


class _OnDemand(Mapping[str, V]):
    """A mapping whose values are made when first asked for."""

    def __init__(self, names: Sequence[str], make: Callable[[str], V]):
        self._names = tuple(names)
        self._make = make
        self._made: dict[str, V] = {}

    def __getitem__(self, name: str) -> V:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class PartRange:
    """Consecutive rows of one part.

    Args:
        part: the part.
        start: first row.
        stop: one past the last row.
    """

    def __init__(self, part: Part, start: int, stop: int):
        self.part = part
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def atoms(self) -> tuple[int, int]:
        """First atom and one past the last atom of the rows."""
        facts = self.part.facts
        if (self.start, self.stop) == (0, facts.n_structures):
            return 0, facts.n_atoms
        return self._edges("atom_ptr")

    @cached_property
    def id_bytes(self) -> tuple[int, int]:
        """First byte and one past the last byte of the ids of the rows."""
        if (self.start, self.stop) == (0, self.part.facts.n_structures):
            return 0, self.part.length("ids.text")
        return self._edges("ids.ptr")

    def _edges(self, name: str) -> tuple[int, int]:
        first = self.part.read(name, self.start, self.start + 1)
        last = self.part.read(name, self.stop, self.stop + 1)
        return int(first[0]), int(last[0])


class RangeReader:
    """Reads the fields of `Columns` from rows of parts, in order.

    Args:
        ranges: the rows; at least one range.
        targets: names of the quantities in the dataset.
        tags: names of the text labels in the dataset.
    """

    def __init__(self, ranges: list[PartRange], *, targets: Sequence[str], tags: Sequence[str]):
        self.ranges = ranges
        self.targets = tuple(targets)
        self.tags = tuple(tags)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.ranges)

    def read(self, field: str) -> Any:
        """Read one field of `Columns`."""
        return getattr(self, f"_read_{field}")()

    def _read_atom_ptr(self) -> np.ndarray:
        return self._joined_ptr("atom_ptr", [rows.atoms for rows in self.ranges])

    def _read_numbers(self) -> np.ndarray:
        return self._per_atom("numbers", np.uint8, ())

    def _read_positions(self) -> np.ndarray:
        return self._per_atom("positions", np.float64, (3,))

    def _read_cells(self) -> np.ndarray:
        return self._per_structure("cells", np.float64, (3, 3))

    def _read_pbc(self) -> np.ndarray:
        return self._per_structure("pbc", np.bool_, (3,))

    def _read_ids(self) -> Strings:
        edges = [rows.id_bytes for rows in self.ranges]
        text = self._collected("ids.text", np.uint8, (), edges)
        return Strings(text, self._joined_ptr("ids.ptr", edges))

    def _read_method_codes(self) -> np.ndarray:
        return self._translated("method", self._methods_of_parts)

    def _read_origin_codes(self) -> np.ndarray:
        return self._translated("origin", self._origins_of_parts)

    def _read_methods(self) -> tuple[Method, ...]:
        return tuple(_table(self._methods_of_parts))

    def _read_origins(self) -> tuple[Origin, ...]:
        return tuple(_table(self._origins_of_parts))

    def _read_targets(self) -> Mapping[str, Target]:
        return _OnDemand(self.targets, self._read_target)

    def _read_tags(self) -> Mapping[str, Tag]:
        return _OnDemand(self.tags, self._read_tag)

    # --- how they are put together from the parts ---

    def _read_target(self, name: str) -> Target:
        rule = quantity(name)
        has = [name in rows.part.facts.targets for rows in self.ranges]
        read = self._per_atom if rule.per == "atom" else self._per_structure
        return Target(
            read(f"target:{name}", np.float64, rule.shape, has),
            self._per_structure(f"mask:{name}", np.bool_, (), has),
        )

    def _read_tag(self, name: str) -> Tag:
        words: dict[str, int] = {}
        codes = np.full(len(self), -1, dtype=np.int32)
        done = 0
        for rows in self.ranges:
            if name in rows.part.facts.tags:
                column = rows.part.tag_column("tag", name)
                of_part = rows.part.read(column, rows.start, rows.stop)
                codes[done : done + len(rows)] = _translate(of_part, rows.part.words(name), words)
            done += len(rows)
        codes.setflags(write=False)
        return Tag(codes, tuple(words))

    @cached_property
    def _methods_of_parts(self) -> list[Sequence[Method]]:
        return [rows.part.methods for rows in self.ranges]

    @cached_property
    def _origins_of_parts(self) -> list[Sequence[Origin]]:
        return [rows.part.origins for rows in self.ranges]

    def _translated(self, name: str, tables: Sequence[Sequence[Any]]) -> np.ndarray:
        whole: dict[Any, int] = {}
        codes = np.empty(len(self), dtype=np.int32)
        done = 0
        for rows, table in zip(self.ranges, tables, strict=True):
            of_part = rows.part.read(name, rows.start, rows.stop)
            for row in table:  # all of them, so that the table needs no codes
                whole.setdefault(row, len(whole))
            codes[done : done + len(rows)] = _translate(of_part, table, whole)
            done += len(rows)
        codes.setflags(write=False)
        return codes

    def _per_structure(
        self, name: str, dtype: Any, tail: tuple[int, ...], has: Sequence[bool] | None = None
    ) -> np.ndarray:
        edges = [(rows.start, rows.stop) for rows in self.ranges]
        return self._collected(name, dtype, tail, edges, has)

    def _per_atom(
        self, name: str, dtype: Any, tail: tuple[int, ...], has: Sequence[bool] | None = None
    ) -> np.ndarray:
        return self._collected(name, dtype, tail, [rows.atoms for rows in self.ranges], has)

    def _collected(
        self,
        name: str,
        dtype: Any,
        tail: tuple[int, ...],
        edges: Sequence[tuple[int, int]],
        has: Sequence[bool] | None = None,
    ) -> np.ndarray:
        """Read a column from all parts; zeros for those that do not have it."""
        out = np.empty((sum(stop - start for start, stop in edges), *tail), dtype=dtype)
        done = 0
        for i, (rows, (start, stop)) in enumerate(zip(self.ranges, edges, strict=True)):
            piece = out[done : done + stop - start]
            if has is None or has[i]:
                rows.part.fill(name, piece, start=start)
                if len(self.ranges) > _OPEN_FILES:
                    rows.part.close()
            else:
                piece[:] = 0
            done += stop - start
        out.setflags(write=False)
        return out

    def _joined_ptr(self, name: str, edges: Sequence[tuple[int, int]]) -> np.ndarray:
        ptr = np.zeros(len(self) + 1, dtype=np.int64)
        done, before = 0, 0
        for rows, (start, stop) in zip(self.ranges, edges, strict=True):
            piece = ptr[done : done + len(rows) + 1]
            rows.part.fill(name, piece, start=rows.start)
            piece += before - start
            done += len(rows)
            before += stop - start
        ptr.setflags(write=False)
        return ptr


_FIELDS = tuple(field.name for field in fields(Columns))


class StoredColumns(Columns):
    """Columns that read themselves from the parts of a BP5 dataset.

    An array is read whole when it is first used and then kept; what is not used costs nothing.
    Made by `stored_columns`.
    """

    _reader: RangeReader

    def __getattr__(self, name: str) -> Any:
        """Read a field when it is first asked for."""
        if name.startswith("__") or "_reader" not in self.__dict__ or name not in _FIELDS:
            raise AttributeError(name)
        value = self._reader.read(name)
        self.__dict__[name] = value
        return value

    def __len__(self) -> int:
        return len(self._reader) if "_reader" in self.__dict__ else super().__len__()

    def __reduce__(self) -> tuple[Any, ...]:
        if "_reader" not in self.__dict__:
            return (Columns, tuple(getattr(self, name) for name in _FIELDS))
        reader = self._reader
        parts = [(rows.part.path.parent, rows.part.facts) for rows in reader.ranges]
        edges = (reader.ranges[0].start, reader.ranges[-1].stop)
        return (_reopen, (parts, edges, reader.targets, reader.tags))


def stored_columns(
    ranges: list[PartRange], *, targets: Sequence[str], tags: Sequence[str]
) -> StoredColumns:
    """Return columns that read themselves.

    Args:
        ranges: rows of parts, in order; at least one.
        targets: names of the quantities in the dataset.
        tags: names of the text labels in the dataset.
    """
    columns = StoredColumns.__new__(StoredColumns)
    columns.__dict__["_reader"] = RangeReader(ranges, targets=targets, tags=tags)
    return columns


def _reopen(
    parts: list[tuple[Path, PartFacts]],
    edges: tuple[int, int],
    targets: Sequence[str],
    tags: Sequence[str],
) -> StoredColumns:
    ranges = [PartRange(Part(*part), 0, part[1].n_structures) for part in parts]
    ranges[0].start, ranges[-1].stop = edges
    return stored_columns(ranges, targets=targets, tags=tags)


def _table(tables: Sequence[Sequence[V]]) -> dict[V, int]:
    """Return the distinct rows of the tables of all parts, in order, with their codes."""
    whole: dict[V, int] = {}
    for table in tables:
        for row in table:
            whole.setdefault(row, len(whole))
    return whole


def _translate(codes: np.ndarray, words: Sequence[W], table: dict[W, int]) -> np.ndarray:
    """Translate the codes of a part into those of the whole table, which grows, (n,) int32."""
    known = [table.setdefault(word, len(table)) for word in words]
    of_part = np.array([*known, -1], dtype=np.int32)  # code -1 is the last one
    translated: np.ndarray = of_part[codes]
    return translated
