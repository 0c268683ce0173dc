"""Parquet: one row per structure, lists for what is per atom, units in the metadata.

Columns: id; numbers, list of uint8; positions, list of 3 numbers per atom, Å; cell, 9 numbers, Å,
row by row; pbc, 3 booleans; one column per target, null where it is missing; "tag:<name>" texts;
"method.<...>" and "origin.<...>" texts. The metadata "epitaxy" of the file are JSON: format,
version, units, signs, digest and history. pandas, polars, DuckDB and Spark read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.curation.tell import Tell
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.quantities import quantity
from epitaxy.stores.columns import Columns
from epitaxy.stores.export import facts_of, parts_of
from epitaxy.stores.new_file import new_file

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

FORMAT = "epitaxy-parquet"
VERSION = 1
KEY = b"epitaxy"
_STRUCTURE = ("id", "numbers", "positions", "cell", "pbc")
_METHOD = tuple(f"method.{field.name}" for field in fields(Method))
_ORIGIN = tuple(f"origin.{field.name}" for field in fields(Origin))
_ROWS_AT_ONCE = 1000


def write_parquet(
    dataset: Dataset, path: Path, *, overwrite: bool = False, tell: Tell | None = None
) -> None:
    """Write a dataset as a parquet file.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        StoreError: see `epitaxy.stores.export.export`.
    """
    pyarrow, parquet = _pyarrow()
    facts = {"format": FORMAT, "version": VERSION, **facts_of(dataset)}
    schema = pyarrow.schema(
        [(name, kind) for name, kind in _types(dataset, pyarrow).items()],
        metadata={KEY: json.dumps(facts, ensure_ascii=False).encode()},
    )
    with (
        new_file(path, overwrite=overwrite) as partial,
        parquet.ParquetWriter(str(partial), schema, compression="zstd") as writer,
    ):
        for part in parts_of(dataset, tell):
            arrays = _arrays(part._columns, schema, pyarrow)
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def iterate_parquet(path: Path) -> Iterator[tuple[Entry, float]]:
    """Yield the entries of a file that `write_parquet` made, and the part that was read.

    Raises:
        DataError: the file is damaged, was not made by epitaxy, by a newer one, or has other
            units.
    """
    pyarrow, parquet = _pyarrow()
    done = 0
    try:
        with parquet.ParquetFile(str(path)) as file:
            _check_facts(path, file.schema_arrow)
            total = file.metadata.num_rows
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                columns = {
                    name: column
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                reader = _BatchReader(columns)
                for i in range(batch.num_rows):
                    done += 1
                    yield reader.entry(i), done / total
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet after row {done}: {error}") from error


def read_facts(path: Path) -> dict[str, Any]:
    """Return units, signs, history and digest that a parquet file states.

    Raises:
        DataError: see `iterate_parquet`.
    """
    pyarrow, parquet = _pyarrow()
    try:
        return _check_facts(path, parquet.read_schema(str(path)))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error


def _pyarrow() -> tuple[Any, Any]:
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet


# --- writing ---


def _types(dataset: Dataset, pyarrow: Any) -> dict[str, Any]:
    number = pyarrow.float64()
    types = {
        "id": pyarrow.string(),
        "numbers": pyarrow.list_(pyarrow.uint8()),
        "positions": pyarrow.list_(pyarrow.list_(number, 3)),
        "cell": pyarrow.list_(number, 9),
        "pbc": pyarrow.list_(pyarrow.bool_(), 3),
    }
    for name in dataset.targets:
        rule = quantity(name)
        size = int(np.prod(rule.shape))
        kind = pyarrow.list_(number, size) if rule.shape else number
        types[name] = pyarrow.list_(kind) if rule.per == "atom" else kind
    words = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    return types | dict.fromkeys(
        (*(f"tag:{name}" for name in dataset.tags), *_METHOD, *_ORIGIN), words
    )


def _arrays(columns: Columns, schema: Any, pyarrow: Any) -> list[Any]:
    """Return the arrays of a block in the order of the schema."""
    n = len(columns)
    ptr = pyarrow.array(columns.atom_ptr.astype(np.int32))
    found: dict[str, Any] = {
        "id": pyarrow.array(list(columns.ids), pyarrow.string()),
        "numbers": pyarrow.ListArray.from_arrays(ptr, pyarrow.array(columns.numbers)),
        "positions": pyarrow.ListArray.from_arrays(ptr, _fixed(columns.positions, 3, pyarrow)),
        "cell": _fixed(columns.cells, 9, pyarrow),
        "pbc": _fixed(columns.pbc, 3, pyarrow),
    }
    for field in schema:
        name = field.name
        of = name.partition(".")[2]
        if name in found:
            continue
        if name.startswith("tag:"):
            tag = columns.tags.get(name.removeprefix("tag:"))
            codes = np.full(n, -1, dtype=np.int32) if tag is None else tag.codes
            found[name] = _words(codes, () if tag is None else list(tag.words), pyarrow)
        elif name in _METHOD:
            words = [str(getattr(method, of)) for method in columns.methods]
            found[name] = _words(columns.method_codes, words, pyarrow)
        elif name in _ORIGIN:
            words = [str(getattr(origin, of)) for origin in columns.origins]
            found[name] = _words(columns.origin_codes, words, pyarrow)
        else:
            found[name] = _labels(columns, name, field.type, pyarrow)
    return [found[field.name] for field in schema]


def _labels(columns: Columns, name: str, kind: Any, pyarrow: Any) -> Any:
    target = columns.targets.get(name)
    if target is None:
        return pyarrow.nulls(len(columns), kind)
    rule = quantity(name)
    missing = ~target.mask
    size = int(np.prod(rule.shape))
    values = np.ascontiguousarray(target.values)
    if rule.per == "atom":
        # A list that is null keeps no values: arrow would show zeros in their place otherwise.
        kept = np.repeat(target.mask, columns.n_atoms)
        ptr = np.zeros(len(columns) + 1, dtype=np.int32)
        np.cumsum(np.where(target.mask, columns.n_atoms, 0), out=ptr[1:])
        values = values[kept]
        items = _fixed(values, size, pyarrow) if rule.shape else pyarrow.array(values)
        return pyarrow.ListArray.from_arrays(
            pyarrow.array(ptr), items, mask=_mask(missing, pyarrow)
        )
    if not rule.shape:
        return pyarrow.array(values, mask=missing)
    return pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(values.reshape(-1)), size, mask=_mask(missing, pyarrow)
    )


def _mask(missing: np.ndarray, pyarrow: Any) -> Any:
    return pyarrow.array(missing)


def _fixed(values: np.ndarray, size: int, pyarrow: Any) -> Any:
    flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
    return pyarrow.FixedSizeListArray.from_arrays(flat, size)


def _words(codes: np.ndarray, words: list[str] | tuple[str, ...], pyarrow: Any) -> Any:
    used, places = np.unique(codes, return_inverse=True)  # a block uses few of many words
    texts = [words[int(code)] for code in used if code >= 0]
    places = places.reshape(-1).astype(np.int32) - np.int32(len(used) - len(texts))
    return pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(places, mask=codes < 0), pyarrow.array(texts, pyarrow.string())
    )


# --- reading ---


def _check_facts(path: Path, schema: Any) -> dict[str, Any]:
    try:
        facts = json.loads((schema.metadata or {})[KEY])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: a parquet file that epitaxy did not write (its metadata have no "
            f"{KEY.decode()!r}); columns: {', '.join(schema.names[:20])}. Only files made by "
            "`epitaxy export` are read"
        ) from error
    if facts.get("format") != FORMAT or int(facts.get("version", 0)) > VERSION:
        raise DataError(
            f"{path}: format {facts.get('format')!r} version {facts.get('version')}; this epitaxy "
            f"reads {FORMAT!r} up to {VERSION}: upgrade epitaxy"
        )
    if missing := [name for name in _STRUCTURE if name not in schema.names]:
        raise DataError(f"{path}: the columns {', '.join(missing)} are missing")
    for name in schema.names:
        if name in _STRUCTURE or name.startswith(("tag:", "method.", "origin.")):
            continue
        unit = facts.get("units", {}).get(name)
        if unit != quantity(name).unit:
            raise DataError(
                f"{path}: {name} is in {unit!r}, this epitaxy expects {quantity(name).unit!r}"
            )
    found: dict[str, Any] = facts
    return found


class _BatchReader:
    """Makes entries of the rows of one batch."""

    def __init__(self, columns: dict[str, Any]):
        self._texts = {
            name: column.to_pylist()
            for name, column in columns.items()
            if name == "id" or name.startswith(("tag:", "method.", "origin."))
        }
        self._tags = [name for name in columns if name.startswith("tag:")]
        self._lists = {name: columns[name] for name in columns if name not in self._texts}
        self._methods: dict[tuple[str, ...], Method] = {}
        self._origins: dict[tuple[str, ...], Origin] = {}

    def entry(self, i: int) -> Entry:
        """Return the entry of a row."""
        numbers = self._values("numbers", i).astype(np.uint8)
        targets = {}
        for name, column in self._lists.items():
            if name not in _STRUCTURE and column[i].is_valid:
                rule = quantity(name)
                shape = (len(numbers), *rule.shape) if rule.per == "atom" else rule.shape
                targets[name] = self._values(name, i).reshape(shape)
        method = tuple(self._text(name, i) for name in _METHOD)
        origin = tuple(self._text(name, i) for name in _ORIGIN)
        return Entry(
            numbers=numbers,
            positions=self._values("positions", i).reshape(-1, 3),
            cell=self._values("cell", i).reshape(3, 3),
            pbc=self._values("pbc", i).astype(bool),
            targets=MappingProxyType(targets),
            id=self._text("id", i),
            method=self._methods.setdefault(method, Method(*method)),
            origin=self._origins.setdefault(origin, Origin(*origin)),
            tags=MappingProxyType(
                {
                    name.removeprefix("tag:"): self._texts[name][i]
                    for name in self._tags
                    if self._texts[name][i] is not None
                }
            ),
        )

    def _text(self, name: str, i: int) -> str:
        return self._texts[name][i] or "" if name in self._texts else ""

    def _values(self, name: str, i: int) -> np.ndarray:
        value = self._lists[name][i]
        if not hasattr(value, "values"):
            return np.asarray(value.as_py(), dtype=np.float64)
        items = value.values
        while hasattr(items, "flatten") and hasattr(items, "values"):
            items = items.flatten()
        array: np.ndarray = items.to_numpy(zero_copy_only=False)
        return array
