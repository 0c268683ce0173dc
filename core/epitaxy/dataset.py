"""Many structures with their targets, as columns; selections are views that copy nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, overload

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, StoreError
from epitaxy.quantities import quantity
from epitaxy.stores.columns import Columns, Strings, Tag, Target, digest
from epitaxy.stores.selection import Selection


class Structures(NamedTuple):
    """Structures stacked one after another.

    Attributes:
        numbers: (n_atoms_total,) uint8, atomic numbers.
        positions: (n_atoms_total, 3) float64, Å.
        cells: (k, 3, 3) float64, Å, rows are the lattice vectors.
        pbc: (k, 3) bool.
        n_atoms: (k,) int64, atoms per structure.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    n_atoms: np.ndarray


Rows = slice | Sequence[int] | np.ndarray

BATCH_ROWS = 10_000
"""Views up to this size keep in mind where their atoms are."""


def row_numbers(rows: Rows, n: int) -> np.ndarray:
    """Return a selection of `n` rows as numbers from 0, (k,) int64.

    Raises:
        IndexError: a row is not there, or `rows` is none of the three.
    """
    if isinstance(rows, slice):
        return np.arange(*rows.indices(n))
    numbers = np.asarray(rows)
    if numbers.dtype == bool:
        if numbers.shape != (n,):
            raise IndexError(f"mask has shape {numbers.shape}, expected ({n},)")
        return numbers.nonzero()[0]
    if numbers.size == 0:
        return np.zeros(0, dtype=np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise IndexError(
            f"rows must be a slice, a mask or whole numbers in one dimension; got "
            f"dtype {numbers.dtype}, shape {numbers.shape}"
        )
    if numbers.dtype == np.int64 and int(numbers.view(np.uint64).max()) < n:
        return numbers  # one look at a batch is enough: negative numbers are the largest here
    low, high = int(numbers.min()), int(numbers.max())
    if low < -n or high >= n:
        wrong = low if low < -n else high
        raise IndexError(f"row {wrong} is not in a dataset of {n} structures")
    numbers = numbers.astype(np.int64, copy=False)
    return np.where(numbers < 0, numbers + n, numbers) if low < 0 else numbers


class Dataset:
    """Structures with their targets, in a fixed order.

    Made by `Dataset.from_entries`, `Dataset.open` or by selecting from another dataset:
    ``dataset[10:20]``, ``dataset[[3, 1, 1]]`` and ``dataset[mask]`` are views of the same
    arrays, ``dataset[3]`` is an `Entry` whose arrays are views too. All of them are read-only.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        rows: np.ndarray | None = None,
        history: Sequence[Mapping[str, Any]] = (),
        digest: str | None = None,
        path: Path | None = None,
    ):
        self._columns = columns
        self._rows = rows
        self._history = tuple(dict(step) for step in history)
        self._digest = digest
        self._path = path

    # --- made and kept ---

    @classmethod
    def from_entries(
        cls, entries: Iterable[Entry], *, history: Sequence[Mapping[str, Any]] = ()
    ) -> Dataset:
        """Collect entries in memory, in their order.

        Raises:
            EntryError: arrays of an entry do not fit together or positions are not finite; the
                message names it.
            DataError: an entry has a target that is not in `epitaxy.quantities`.
        """
        return cls(Columns.from_entries(list(entries)), history=history)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> Dataset:
        """Open a dataset of any store (`epitaxy.stores`); no column is read before it is used.

        Args:
            path: directory of the dataset.
            verify: read every column and compare its sha256 with the manifest.

        Raises:
            StoreError: the directory is not a dataset, is of a newer format, or a column is
                missing, truncated or (with `verify`) edited; the message names the file.
        """
        from epitaxy.stores.formats import open_columns

        columns, manifest = open_columns(Path(path), verify=verify)
        history = manifest["history"]
        if not isinstance(history, list) or not all(isinstance(step, dict) for step in history):
            raise StoreError(f"{path}: the history in its manifest was edited; restore it")
        return cls(columns, history=manifest["history"], digest=manifest["digest"], path=Path(path))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the dataset as a directory of column files and a manifest.

        It is written to the side and renamed when complete.

        Raises:
            StoreError: something is at `path` already and `overwrite` is false, or the disk
                refuses to take the files; what was there stays as it was.
        """
        from epitaxy.stores.memory_map import Writer

        with Writer(Path(path), overwrite=overwrite) as writer:
            writer.extend(self)
            for step in self._history:
                writer.record(step)

    @property
    def path(self) -> Path | None:
        """Directory that the columns are mapped from; None for a dataset in memory."""
        return self._path

    # --- size and selection ---

    def __len__(self) -> int:
        """Number of structures."""
        return len(self._columns) if self._rows is None else len(self._rows)

    def __iter__(self) -> Iterator[Entry]:
        for i in range(len(self)):
            yield self[i]

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Entry: ...
    @overload
    def __getitem__(self, key: Rows) -> Dataset: ...
    def __getitem__(self, key: int | np.integer[Any] | Rows) -> Entry | Dataset:
        if isinstance(key, (int, np.integer)):
            return self._entry(range(len(self))[int(key)])
        return Dataset(
            self._columns, rows=self._base_rows(key), history=self._history, path=self._path
        )

    def __repr__(self) -> str:
        where = f" in {self._path}" if self._path else ""
        targets = ", ".join(self.targets) or "no targets"
        return f"<Dataset: {len(self)} structures with {targets}{where}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped dataset travels to another process as its path, not as its bytes.
        if self._path is None:
            return (_rebuild, (self._columns, self._rows, self._history, self._digest))
        return (_reopen, (str(self._path), self._rows, self._history, self._digest))

    def _base_rows(self, key: Rows | None) -> np.ndarray | None:
        """Translate a selection of this view into rows of the columns."""
        if key is None:
            return self._rows
        rows = row_numbers(key, len(self))
        return rows if self._rows is None else self._rows[rows]

    def _entry(self, i: int) -> Entry:
        columns = self._columns
        row = i if self._rows is None else int(self._rows[i])
        atoms = slice(int(columns.atom_ptr[row]), int(columns.atom_ptr[row + 1]))
        targets = {}
        for name, target in columns.targets.items():
            if target.mask[row]:
                where = atoms if quantity(name).per == "atom" else row
                targets[name] = np.asarray(target.values[where])
        tags = {
            name: tag.words[int(tag.codes[row])]
            for name, tag in columns.tags.items()
            if tag.codes[row] >= 0
        }
        return Entry(
            numbers=columns.numbers[atoms],
            positions=columns.positions[atoms],
            cell=columns.cells[row],
            pbc=columns.pbc[row],
            targets=MappingProxyType(targets),
            id=columns.ids[row],
            method=columns.methods[int(columns.method_codes[row])],
            origin=columns.origins[int(columns.origin_codes[row])],
            tags=MappingProxyType(tags),
        )

    # --- structures ---

    @cached_property
    def n_atoms(self) -> np.ndarray:
        """(n,) int64, number of atoms of each structure."""
        counts = self._columns.n_atoms
        return counts if self._rows is None else counts[self._rows]

    @cached_property
    def atom_ptr(self) -> np.ndarray:
        """(n + 1,) int64, where the atoms of each structure start and end in this view."""
        if self._rows is None:
            return self._columns.atom_ptr
        ptr = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(self.n_atoms, out=ptr[1:])
        return ptr

    def gather(self, rows: Rows | None = None) -> Structures:
        """Return copies of some structures, stacked in the order of `rows`.

        Args:
            rows: rows of this view (slice, whole numbers, mask); all by default.
        """
        columns, chosen = self._columns, self._select(rows)
        return Structures(
            numbers=chosen.per_atom(columns.numbers),
            positions=chosen.per_atom(columns.positions),
            cells=chosen.per_structure(columns.cells),
            pbc=chosen.per_structure(columns.pbc),
            n_atoms=chosen.n_atoms.copy(),
        )

    def _select(self, rows: Rows | None) -> Selection:
        if rows is None and self._rows is not None and len(self) <= BATCH_ROWS:
            return self._batch
        return Selection(self._columns, self._base_rows(rows))

    @cached_property
    def _batch(self) -> Selection:
        """Rows of a view as small as a batch: several targets are taken of it, one by one."""
        return Selection(self._columns, self._rows)

    @cached_property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that occur."""
        counts = np.zeros(256, dtype=np.int64)
        if self._rows is None:
            numbers = self._columns.numbers
            for start in range(0, len(numbers), 1 << 22):
                counts += np.bincount(numbers[start : start + (1 << 22)], minlength=256)
        else:
            unique = np.unique(self._rows)
            atoms = self._columns.atoms_of(unique)
            counts += np.bincount(self._columns.numbers[atoms], minlength=256)
        return frozenset(int(z) for z in counts.nonzero()[0])

    # --- labels ---

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the quantities that some structure carries."""
        return tuple(sorted(self._columns.targets))

    def target(self, name: str, rows: Rows | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of one target and which structures have it.

        Args:
            name: one of `targets`.
            rows: rows of this view; all by default.

        Returns:
            values (k, *shape) or (n_atoms_total, *shape) float64 in the unit of
            `epitaxy.quantities`, 0 where missing, stacked in the order of `rows`; and
            mask (k,) bool per structure.

        Raises:
            DataError: no structure has this target; the message lists those there are.
        """
        if name not in self._columns.targets:
            quantity(name)  # a misspelt name gets the nearest match
            raise DataError(
                f"no structure has the target {name!r}; there are: "
                f"{', '.join(self.targets) or 'none'}"
            )
        values, mask = self._columns.targets[name]
        chosen = self._select(rows)
        pick = chosen.per_atom if quantity(name).per == "atom" else chosen.per_structure
        return pick(values), chosen.per_structure(mask)

    # --- where they come from ---

    @property
    def ids(self) -> Strings:
        """Name of each structure."""
        return self._columns.ids if self._rows is None else self._columns.ids.take(self._rows)

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the text labels that some structure carries."""
        return tuple(sorted(self._columns.tags))

    def tag(self, name: str) -> np.ndarray:
        """Return one text label of every structure, (n,) str; "" where it is missing.

        Raises:
            DataError: no structure has this tag; the message lists those there are.
        """
        if name not in self._columns.tags:
            raise DataError(
                f"no structure has the tag {name!r}; there are: {', '.join(self.tags) or 'none'}"
            )
        codes, words = self._columns.tags[name]
        chosen = codes if self._rows is None else codes[self._rows]
        texts: np.ndarray = np.array([*words, ""]).take(
            chosen, mode="wrap"
        )  # code -1 is the last one, ""
        return texts

    def method(self, i: int) -> Method:
        """Return the level of theory of structure `i`."""
        return self._columns.methods[int(self._columns.method_codes[self._row(i)])]

    def origin(self, i: int) -> Origin:
        """Return where structure `i` came from."""
        return self._columns.origins[int(self._columns.origin_codes[self._row(i)])]

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """The distinct levels of theory, in the order of their first appearance."""
        return _distinct(self._columns.method_codes, self._rows, self._columns.methods)

    @cached_property
    def origins(self) -> tuple[Origin, ...]:
        """The distinct origins, in the order of their first appearance."""
        return _distinct(self._columns.origin_codes, self._rows, self._columns.origins)

    def _row(self, i: int) -> int:
        position = range(len(self))[i]
        return position if self._rows is None else int(self._rows[position])

    @property
    def history(self) -> tuple[dict[str, Any], ...]:
        """What was done since the source, one plain dict per operation."""
        return tuple(dict(step) for step in self._history)

    def with_history(self, step: Mapping[str, Any]) -> Dataset:
        """Return the same data with one more operation in the history."""
        return Dataset(
            self._columns,
            rows=self._rows,
            history=(*self._history, step),
            digest=self._digest,
            path=self._path,
        )

    # --- changed copies ---

    def with_tag(self, name: str, words: Sequence[str]) -> Dataset:
        """Return the same structures with a text label added or replaced.

        Args:
            name: of the tag.
            words: (n,) texts, one per structure; "" where there is none.

        Raises:
            DataError: the number of texts is not that of the structures.
        """
        if len(words) != len(self):
            raise DataError(f"{len(words)} texts for the tag {name!r} of {len(self)} structures")
        columns = self._own_columns()
        present, codes = np.unique(np.asarray(words, dtype=str), return_inverse=True)
        texts = tuple(str(word) for word in present if word)
        codes = codes - (len(present) - len(texts))  # "" sorts first and becomes -1
        tag = Tag(codes.astype(np.int32), texts)
        tags = {**columns.tags, name: tag} if texts else _without(columns.tags, name)
        return Dataset(replace(columns, tags=tags), history=self._history)

    def with_target(self, name: str, values: np.ndarray, mask: np.ndarray | None = None) -> Dataset:
        """Return the same structures with one target added or replaced.

        Args:
            name: a quantity.
            values: (n, *shape) or (n_atoms_total, *shape) in the unit of `epitaxy.quantities`.
            mask: (n,) bool, which structures have it; all by default.

        Raises:
            DataError: no such quantity, a wrong shape, or a value that is not finite.
        """
        rule = quantity(name)
        n_rows = int(self.n_atoms.sum()) if rule.per == "atom" else len(self)
        values = np.array(values, dtype=np.float64)
        mask = np.ones(len(self), dtype=bool) if mask is None else np.array(mask, dtype=bool)
        if values.shape != (n_rows, *rule.shape) or mask.shape != (len(self),):
            raise DataError(
                f"{name}: values of shape {values.shape} and a mask of shape {mask.shape}; "
                f"expected {(n_rows, *rule.shape)} and {(len(self),)}"
            )
        values[~(np.repeat(mask, self.n_atoms) if rule.per == "atom" else mask)] = 0.0
        if not np.isfinite(values).all():
            raise DataError(f"{name}: some values are not finite; mask them out")
        columns = self._own_columns()
        targets = {**columns.targets, name: Target(values, mask)}
        return Dataset(replace(columns, targets=targets), history=self._history)

    def _own_columns(self) -> Columns:
        """Return columns whose rows are exactly those of this view."""
        return self._columns if self._rows is None else self._columns.take(self._rows)

    @property
    def digest(self) -> str:
        """sha256 over what the data mean: structures, labels, methods and tags, in order.

        Ids, origins, history and file names do not count, and it is the same in memory, in
        a view and on disk.
        """
        if self._digest is None:
            self._digest = digest(self._columns, self._rows)
        return self._digest


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def _distinct(codes: np.ndarray, rows: np.ndarray | None, words: Sequence[Any]) -> tuple[Any, ...]:
    present, first = np.unique(codes if rows is None else codes[rows], return_index=True)
    return tuple(words[int(code)] for code in present[np.argsort(first)])


def _rebuild(
    columns: Columns, rows: np.ndarray | None, history: Any, digest: str | None
) -> Dataset:
    return Dataset(columns, rows=rows, history=history, digest=digest)


def _reopen(path: str, rows: np.ndarray | None, history: Any, digest: str | None) -> Dataset:
    columns = Dataset.open(path)._columns
    return Dataset(columns, rows=rows, history=history, digest=digest, path=Path(path))
