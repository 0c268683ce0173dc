"""Whole structures as records of bytes: everything about one structure lies in one piece.

A batch from a remote memory then costs one message per structure, not one per structure and
column. A record is

    head      cell, targets per structure, length of the id, codes, pbc, masks
    atoms     n_atoms times (position, targets per atom), float64
    rest      n_atoms atomic numbers, the id; padded to 8 bytes

Methods, origins and the words of tags are small tables that stay outside: `Tables`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from epitaxy.entry import Method, Origin
from epitaxy.quantities import quantity
from epitaxy.stores.columns import Columns, Strings, Tag, Target

T = TypeVar("T")

WORD = 8
"""Bytes; records begin and end at multiples of it."""


@dataclass(frozen=True)
class Tables:
    """What the codes of a record mean.

    Attributes:
        targets: names of the quantities that some structure carries.
        tags: name -> its distinct texts.
        methods: the distinct levels of theory.
        origins: the distinct origins.
    """

    targets: tuple[str, ...]
    tags: dict[str, Sequence[str]]
    methods: tuple[Method, ...]
    origins: tuple[Origin, ...]

    @classmethod
    def of(cls, columns: Columns) -> Tables:
        """Return the tables of columns."""
        return cls(
            targets=tuple(sorted(columns.targets)),
            tags={name: columns.tags[name].words for name in sorted(columns.tags)},
            methods=columns.methods,
            origins=columns.origins,
        )

    @classmethod
    def merged(cls, several: Sequence[Tables]) -> Tables:
        """Return tables that hold everything that some of the given ones hold."""
        names = sorted({name for tables in several for name in tables.tags})
        return cls(
            targets=tuple(sorted({name for tables in several for name in tables.targets})),
            tags={name: _union(tables.tags.get(name, ()) for tables in several) for name in names},
            methods=_union(tables.methods for tables in several),
            origins=_union(tables.origins for tables in several),
        )

    def recode(self, columns: Columns) -> Columns:
        """Return columns with the codes, and all the targets and tags, of these tables."""
        n, n_atoms = len(columns), len(columns.numbers)
        targets = dict(columns.targets)
        for name in set(self.targets) - set(targets):
            n_rows = n_atoms if quantity(name).per == "atom" else n
            values = np.zeros((n_rows, *quantity(name).shape))
            targets[name] = Target(values, np.zeros(n, dtype=bool))
        tags = {}
        for name, words in self.tags.items():
            own = columns.tags.get(name, Tag(np.full(n, -1, dtype=np.int32), ()))
            tags[name] = Tag(_translated(own.codes, own.words, words), words)
        return replace(
            columns,
            targets=targets,
            tags=tags,
            methods=self.methods,
            origins=self.origins,
            method_codes=_translated(columns.method_codes, columns.methods, self.methods),
            origin_codes=_translated(columns.origin_codes, columns.origins, self.origins),
        )

    @property
    def sha256(self) -> str:
        """Hex digest of all tables."""
        found = hashlib.sha256()
        words = {name: list(texts) for name, texts in self.tags.items()}
        for part in (
            self.targets,
            words,
            [asdict(method) for method in self.methods],
            [asdict(origin) for origin in self.origins],
        ):
            found.update(json.dumps(part).encode())
        return found.hexdigest()


def _union(lists: Iterable[Iterable[T]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(item for items in lists for item in items))


def _translated(codes: np.ndarray, own: Sequence[T], to: Sequence[T]) -> np.ndarray:
    """Return codes of one table as codes of another that holds all its items; -1 stays -1."""
    place = {item: code for code, item in enumerate(to)}
    table = np.array([*(place[item] for item in own), -1], dtype=np.int32)
    found: np.ndarray = table[codes]
    return found


@dataclass(frozen=True)
class Layout:
    """Where everything is in a record.

    Args:
        targets: names of quantities.
        tags: names of tags.
    """

    targets: tuple[str, ...]
    tags: tuple[str, ...]

    @cached_property
    def head(self) -> np.dtype:
        """Structured type of the part that has the same length in every record."""
        fields: list[tuple[str, type, tuple[int, ...]]] = [("cell", np.float64, (3, 3))]
        for name in self.targets:
            if quantity(name).per == "structure":
                fields.append((f"target:{name}", np.float64, quantity(name).shape))
        fields += [(name, np.int32, ()) for name in ("n_id_bytes", "method", "origin")]
        fields += [(f"tag:{name}", np.int32, ()) for name in self.tags]
        fields += [("pbc", np.bool_, (3,))]
        fields += [(f"mask:{name}", np.bool_, ()) for name in self.targets]
        return np.dtype(fields, align=True)

    @cached_property
    def per_atom(self) -> tuple[tuple[str, tuple[int, ...], slice], ...]:
        """Name, shape and words of every target per atom; the first three are the position."""
        found, start = [], 3
        for name in self.targets:
            rule = quantity(name)
            if rule.per == "atom":
                stop = start + int(np.prod(rule.shape, dtype=np.int64))
                found.append((name, rule.shape, slice(start, stop)))
                start = stop
        return tuple(found)

    @cached_property
    def head_words(self) -> int:
        """Length of the head in words."""
        return self.head.itemsize // WORD

    @cached_property
    def atom_words(self) -> int:
        """Length of one atom in words."""
        return self.per_atom[-1][2].stop if self.per_atom else 3

    def sizes(self, n_atoms: np.ndarray, n_id_bytes: np.ndarray) -> np.ndarray:
        """Return the length of each record in bytes, (n,) int64.

        Args:
            n_atoms: (n,) atoms of each structure.
            n_id_bytes: (n,) length of each id in UTF-8.
        """
        rest = -(-(n_atoms + n_id_bytes) // WORD)
        lengths: np.ndarray = WORD * (self.head_words + n_atoms * self.atom_words + rest)
        return lengths

    def pack(self, columns: Columns, out: np.ndarray) -> None:
        """Write the records of all structures of columns, one after another.

        Args:
            columns: of these targets and tags.
            out: (sum of sizes,) uint8, zeros, beginning at a multiple of 8.
        """
        ids = columns.ids.packed()
        n_atoms, n_id_bytes = columns.n_atoms, np.diff(ids.ptr)
        sizes = self.sizes(n_atoms, n_id_bytes)
        starts = sizes.cumsum() - sizes
        words = out.view(np.int64)

        head = np.zeros(len(columns), dtype=self.head)
        head["cell"], head["pbc"] = columns.cells, columns.pbc
        head["method"], head["origin"] = columns.method_codes, columns.origin_codes
        head["n_id_bytes"] = n_id_bytes
        for name in self.tags:
            head[f"tag:{name}"] = columns.tags[name].codes
        for name in self.targets:
            target = columns.targets[name]
            head[f"mask:{name}"] = target.mask
            if quantity(name).per == "structure":
                head[f"target:{name}"] = target.values
        as_words = head.view(np.int64).reshape(-1, self.head_words)  # (n, head_words)
        _windows(words, self.head_words)[starts // WORD] = as_words

        atoms = np.empty((int(n_atoms.sum()), self.atom_words))
        atoms[:, :3] = columns.positions
        for name, _, where in self.per_atom:
            atoms[:, where] = columns.targets[name].values.reshape(
                len(atoms), where.stop - where.start
            )
        first_atom = starts // WORD + self.head_words
        _windows(words, self.atom_words)[_ragged(first_atom, n_atoms, self.atom_words)] = (
            atoms.view(np.int64)
        )

        first_number = WORD * (first_atom + n_atoms * self.atom_words)
        out[_ragged(first_number, n_atoms)] = columns.numbers
        out[_ragged(first_number + n_atoms, n_id_bytes)] = ids.text

    def unpack(
        self, records: np.ndarray, starts: np.ndarray, n_atoms: np.ndarray, tables: Tables
    ) -> Columns:
        """Return the structures of some records, in order.

        Args:
            records: (n_bytes,) uint8, beginning at a multiple of 8.
            starts: (k,) int64, first byte of each record; one may come more than once.
            n_atoms: (k,) int64, atoms of each.
            tables: what the codes mean.
        """
        words = records[: len(records) // WORD * WORD].view(np.int64)
        first_head = starts // WORD
        head = _windows(words, self.head_words)[first_head].view(self.head).reshape(-1)

        first_atom = first_head + self.head_words
        joined = _pieces(records, WORD * first_atom, WORD * self.atom_words * n_atoms)
        atoms = joined.view(np.float64).reshape(-1, self.atom_words)  # (n_atoms_total, atom_words)

        first_number = WORD * (first_atom + n_atoms * self.atom_words)
        n_id_bytes = head["n_id_bytes"].astype(np.int64)
        targets = {
            name: np.ascontiguousarray(head[f"target:{name}"])
            for name in self.targets
            if quantity(name).per == "structure"
        }
        for name, shape, where in self.per_atom:
            targets[name] = np.ascontiguousarray(atoms[:, where]).reshape(len(atoms), *shape)
        return Columns(
            atom_ptr=_pointers(n_atoms),
            numbers=_pieces(records, first_number, n_atoms),
            positions=np.ascontiguousarray(atoms[:, :3]),
            cells=np.ascontiguousarray(head["cell"]),
            pbc=np.ascontiguousarray(head["pbc"]),
            ids=Strings(
                _pieces(records, first_number + n_atoms, n_id_bytes), _pointers(n_id_bytes)
            ),
            method_codes=np.ascontiguousarray(head["method"]),
            origin_codes=np.ascontiguousarray(head["origin"]),
            methods=tables.methods,
            origins=tables.origins,
            targets={
                name: Target(values, np.ascontiguousarray(head[f"mask:{name}"]))
                for name, values in targets.items()
            },
            tags={
                name: Tag(np.ascontiguousarray(head[f"tag:{name}"]), tables.tags[name])
                for name in self.tags
            },
        )


def id_lengths(ids: Strings, rows: np.ndarray) -> np.ndarray:
    """Return the length of some ids in UTF-8, (k,) int64."""
    chosen = rows if ids.rows is None else ids.rows[rows]
    lengths: np.ndarray = ids.ptr[chosen + 1] - ids.ptr[chosen]
    return lengths


def _pointers(counts: np.ndarray) -> np.ndarray:
    ptr = np.zeros(len(counts) + 1, dtype=np.int64)
    counts.cumsum(out=ptr[1:])
    return ptr


def _ragged(starts: np.ndarray, counts: np.ndarray, step: int = 1) -> np.ndarray:
    """Return start, start + step ... (count of them) for each row, one after another."""
    ends = counts.cumsum()
    index: np.ndarray = np.arange(int(ends[-1]) if len(ends) else 0)
    if step != 1:
        index *= step
    index += np.repeat(starts - step * (ends - counts), counts)
    return index


def _pieces(records: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return copies of pieces of bytes, one after another: few long copies, no index."""
    pieces = map(slice, starts.tolist(), (starts + lengths).tolist())
    joined = bytearray().join(map(records.data.__getitem__, pieces))
    return np.frombuffer(joined, dtype=np.uint8)


def _windows(words: np.ndarray, width: int) -> np.ndarray:
    """Return the view whose row i is ``words[i : i + width]``: picking rows copies pieces."""
    n_rows = max(0, len(words) - width + 1)
    return np.lib.stride_tricks.as_strided(words, (n_rows, width), (WORD, WORD))
