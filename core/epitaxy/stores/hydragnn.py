"""Datasets in the ADIOS2 layout of HydraGNN, to be read and written by both.

One BP5 file holds the labels ``trainset``, ``valset`` and ``testset``. For each label and key
(``x``, ``pos``, ``energy`` ...) the samples are joined along the one axis that may vary;
``<label>/<key>/variable_count`` and ``variable_offset`` say which rows belong to which sample, and
the attributes ``<label>/ndata``, ``<label>/keys``, ``<label>/<key>/variable_dim``,
``total_ndata`` and ``dataset_name`` say the rest.

Source: ORNL/HydraGNN, hydragnn/utils/datasets/adiosdataset.py (AdiosWriter.save and
AdiosDataset), commit d251f81; key names of examples/mptrj/train.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.errors import DataError, StoreError
from epitaxy.quantities import quantity
from epitaxy.replacing import beside, put_in_place, recover
from epitaxy.stores.adios import ColumnFileReader, ColumnFileWriter
from epitaxy.stores.bp5_parts import disk_errors

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

LABELS: Mapping[str, str] = MappingProxyType(
    {"train": "trainset", "valid": "valset", "test": "testset"}
)
"""Our tag ``part`` -> label of HydraGNN."""

_AT_ONCE = 5_000  # structures
_FULL = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # Voigt xx, yy, zz, yz, xz, xy -> matrix
_TYPES = {"float": "float32", "double": "float64", "int32_t": "int32", "int64_t": "int64"}
_TYPES |= {"uint8_t": "uint8"}


# --- writing ---


def write_hydragnn(
    dataset: Dataset,
    path: str | Path,
    *,
    overwrite: bool = False,
    tell: Callable[[int, int, float | None], None] | None = None,
    dtype: str = "float32",
) -> None:
    """Write a dataset as a file that HydraGNN's AdiosDataset reads.

    The keys are those of HydraGNN's examples: ``x`` = [Z, x, y, z, forces], ``pos``, ``cell``,
    ``pbc``, ``natoms``, ``atomic_numbers``, ``energy``, ``energy_per_atom``, ``y`` = energy,
    ``forces``, and every other target under its name, in our units and signs. The tag ``part``
    (train, valid, test) chooses the label; without it all is ``trainset``. Edges are not
    written: HydraGNN's RadiusGraphPBC makes them.

    Args:
        dataset: what to write.
        path: file (a directory in BP5) to make.
        overwrite: replace a BP5 file that is there.
        tell: called with the progress.
        dtype: of the numbers; HydraGNN's examples use float32, float64 keeps every bit.

    Raises:
        DataError: some structures lack a target that others have (the layout cannot say so), a
            structure without atoms, or an unknown `part`.
        StoreError: something is at `path` already, or the disk refuses.
        MissingDependencyError: adios2 is not installed.
    """
    path = Path(path)
    labels = _labels(dataset)
    _check(dataset)
    recover(path)
    if path.exists() and not (overwrite and (path / "md.idx").is_file()):
        what = "there is a file already; use --overwrite (overwrite=True) to replace it, or"
        if not (path / "md.idx").is_file():
            what = "exists and is no BP5 file; it will not be replaced:"
        raise StoreError(f"{path}: {what} choose another name")
    folder = beside(path, "tmp")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            file = ColumnFileWriter(folder, statistics=True)
            try:
                done = 0
                for label, rows in labels.items():
                    for n_written in _write_label(file, label, dataset[rows], dtype):
                        if tell:
                            n = done + n_written
                            tell(n, n, n / len(dataset))
                    done += len(rows)
                file.set_attribute("total_ndata", np.array(len(dataset)))
                file.set_attribute("dataset_name", path.stem)
                file.close()
            finally:
                file.abandon()
            put_in_place(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _labels(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return label of HydraGNN -> rows."""
    if "part" not in dataset.tags:
        return {"trainset": np.arange(len(dataset))}
    words = dataset.tag("part")
    unknown = sorted(set(words.tolist()) - set(LABELS))
    if unknown:
        raise DataError(
            f"the tag 'part' is {', '.join(map(repr, unknown))} for some structures; HydraGNN "
            f"has {', '.join(LABELS)} only"
        )
    labels = {label: np.flatnonzero(words == part) for part, label in LABELS.items()}
    return {label: rows for label, rows in labels.items() if len(rows)}


def _check(dataset: Dataset) -> None:
    if not len(dataset):
        raise DataError("the dataset is empty; HydraGNN's layout has no place for that")
    if not dataset.n_atoms.all():
        raise DataError(
            f"{int((dataset.n_atoms == 0).sum())} structures have no atoms; leave them out"
        )
    for name in dataset.targets:
        mask = dataset.target(name)[1]
        if not mask.all():
            raise DataError(
                f"{int((~mask).sum())} of {len(mask)} structures have no {name}, and HydraGNN's "
                f"layout cannot say so: leave them out, as in dataset[dataset.target({name!r})[1]]"
            )


def _samples(part: Dataset, dtype: str) -> dict[str, tuple[np.ndarray, int]]:
    """Return key -> values of all samples joined along the first axis, and rows of each sample.

    0 rows stand for one row per atom.
    """
    stacked = part.gather()
    values = {name: part.target(name)[0] for name in part.targets}
    numbers = stacked.numbers.astype(dtype)[:, None]
    x = [numbers, stacked.positions, *([values["forces"]] if "forces" in values else [])]
    made: dict[str, tuple[np.ndarray, int]] = {
        "x": (np.concatenate(x, axis=1, dtype=dtype), 0),
        "pos": (stacked.positions.astype(dtype), 0),
        "atomic_numbers": (numbers, 0),
        "natoms": (stacked.n_atoms.astype(np.int32), 1),
        "cell": (stacked.cells.astype(dtype).reshape(-1, 3), 3),
        "pbc": (stacked.pbc.astype(np.int32).reshape(-1), 3),
    }
    for name, array in values.items():
        rule = quantity(name)
        if rule.per == "atom":
            made[name] = array.reshape(len(array), -1).astype(dtype), 0
        elif name == "stress":  # a matrix there, with our unit and sign
            made[name] = array[:, _FULL].reshape(-1, 3).astype(dtype), 3
        else:
            made[name] = array.reshape(-1).astype(dtype), int(np.prod(rule.shape))
    if "energy" in values:
        made["y"] = made["energy"]
        made["energy_per_atom"] = (values["energy"] / stacked.n_atoms).astype(dtype), 1
    return made


def _write_label(file: ColumnFileWriter, label: str, part: Dataset, dtype: str) -> Iterator[int]:
    """Write the samples of a label block by block; yield how many are written."""
    n_atoms = part.n_atoms
    keys: list[str] = []
    for first in range(0, len(part), _AT_ONCE):
        block = part[first : first + _AT_ONCE]
        keys = []
        for key, (values, n_rows) in _samples(block, dtype).items():
            keys.append(key)
            counts = np.full(len(part), n_rows) if n_rows else n_atoms
            offsets = np.cumsum(counts) - counts
            rows = slice(first, first + len(block))
            file.put_block(
                f"{label}/{key}",
                values,
                shape=[int(counts.sum()), *values.shape[1:]],
                start=[int(offsets[first])] + [0] * (values.ndim - 1),
            )
            for kind, column in (("count", counts), ("offset", offsets)):
                file.put_block(
                    f"{label}/{key}/variable_{kind}",
                    column[rows].astype(np.int64),
                    shape=[len(part)],
                    start=[first],
                )
        yield first + len(block)
    file.set_attribute(f"{label}/ndata", np.array(len(part)))
    file.set_attribute(f"{label}/keys", keys)
    for key in keys:
        file.set_attribute(f"{label}/{key}/variable_dim", np.array(0))


# --- reading ---


@dataclass(frozen=True)
class Key:
    """One array of a label: what its samples look like.

    Attributes:
        name: of the array, ``label/key``.
        dtype: of the values.
        shape: of all samples joined.
        axis: along which they are joined.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int


class HydraFile:
    """Reads a BP5 file in the layout of HydraGNN.

    Args:
        path: of the file.

    Raises:
        StoreError: it is not a BP5 file, damaged, or not of this layout.
        MissingDependencyError: adios2 is not installed.
    """

    def __init__(self, path: Path):
        self.path = path
        if not (path / "md.idx").is_file():
            raise StoreError(f"{path}: not a BP5 file (a directory with md.idx and data.0)")
        self._file = ColumnFileReader(path)
        found = set(self._file.attributes)
        self.labels = tuple(label for label in LABELS.values() if f"{label}/ndata" in found)
        if not self.labels:
            raise StoreError(
                f"{path}: not in the layout of HydraGNN: none of the attributes "
                f"{', '.join(f'{label}/ndata' for label in LABELS.values())} is there"
            )
        self._check_size()
        self.is_normalized = bool(found & {"minmax_graph_feature", "minmax_node_feature"})
        self.name = self._file.texts("dataset_name")[0] if "dataset_name" in found else ""

    def _check_size(self) -> None:
        """ADIOS2 waits for ever for what a truncated file should hold, so this comes first."""
        wanted = 0
        for fact in self._file.arrays.values():
            shape = [int(n) for n in fact["Shape"].split(",") if n.strip()]
            size = np.dtype(_TYPES.get(fact["Type"], "uint8")).itemsize
            wanted += int(np.prod(shape)) * size * int(fact.get("AvailableStepsCount", "1"))
        found = sum(file.stat().st_size for file in self.path.glob("data.*"))
        if found < wanted:
            raise StoreError(
                f"{self.path}: truncated: its arrays have {wanted:,} bytes, its data files "
                f"{found:,}; copy it again"
            )

    def n_samples(self, label: str) -> int:
        """Return the number of structures of a label."""
        return int(self._file.numbers(f"{label}/ndata").reshape(-1)[0])

    def keys(self, label: str) -> dict[str, Key]:
        """Return the arrays of a label.

        Raises:
            StoreError: one that the list of keys names is missing.
        """
        arrays = self._file.arrays
        keys = {}
        for key in self._file.texts(f"{label}/keys"):
            name = f"{label}/{key}"
            if key == "dataset_name":
                continue
            for wanted in (name, f"{name}/variable_count", f"{name}/variable_offset"):
                if wanted not in arrays:
                    raise StoreError(f"{self.path}: {wanted} is missing; the file is incomplete")
            axis = int(self._file.numbers(f"{name}/variable_dim").reshape(-1)[0])
            kind = arrays[name]["Type"]
            keys[key] = Key(name, _TYPES.get(kind, kind), self._file.shape(name), axis)
        return keys

    def samples(self, key: Key, start: int, stop: int) -> list[np.ndarray]:
        """Return the values of consecutive samples.

        Raises:
            StoreError: counts and offsets do not fit the array.
        """
        counts, offsets = (
            self._column(f"{key.name}/variable_{kind}", start, stop) for kind in ("count", "offset")
        )
        ends = offsets + counts
        if len(counts) and (
            counts.min() < 0 or offsets.min() < 0 or ends.max() > key.shape[key.axis]
        ):
            raise StoreError(
                f"{self.path}: {key.name}: samples {start} to {stop} reach to row "
                f"{int(ends.max())} of {key.shape[key.axis]}; the file is damaged"
            )
        low, high = (int(offsets.min()), int(ends.max())) if len(counts) else (0, 0)
        if high - low != counts.sum():  # not one after the other: read one by one
            return [self._rows(key, int(a), int(b)) for a, b in zip(offsets, ends, strict=True)]
        joined = self._rows(key, low, high)
        before = (slice(None),) * key.axis
        return [
            joined[(*before, slice(int(a - low), int(b - low)))]
            for a, b in zip(offsets, ends, strict=True)
        ]

    def _column(self, name: str, start: int, stop: int) -> np.ndarray:
        kind = self._file.arrays[name]["Type"]
        out = np.empty(stop - start, dtype=_TYPES.get(kind, kind))
        self._file.read(name, out, start=start)
        return out.astype(np.int64)

    def _rows(self, key: Key, start: int, stop: int) -> np.ndarray:
        shape = list(key.shape)
        shape[key.axis] = stop - start
        out = np.empty(shape, dtype=key.dtype)
        self._file.read(key.name, out, start=start, axis=key.axis)
        return out
