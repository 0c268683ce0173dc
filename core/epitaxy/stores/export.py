"""Datasets as files of other programs: extended xyz, ASE databases, parquet.

    export(dataset, "set.extxyz")
    export(dataset, "set.parquet", overwrite=True)

Every writer streams blocks of bounded size, states the units, writes to the side and renames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from epitaxy.curation.tell import Tell
from epitaxy.errors import DataError
from epitaxy.quantities import quantity
from epitaxy.stores.columns import blocks

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

WRITERS: Mapping[str, str] = MappingProxyType(
    {
        "extxyz": "epitaxy.stores.extxyz:write_extxyz",
        "db": "epitaxy.stores.ase_db:write_ase_db",
        "parquet": "epitaxy.stores.parquet:write_parquet",
        "bp5": "epitaxy.stores.bp5:write_bp5",
        "hydragnn": "epitaxy.stores.hydragnn:write_hydragnn",
    }
)
"""Name of a format -> ``module:function``, called as ``(dataset, path, *, overwrite, tell)``."""

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {".extxyz": "extxyz", ".xyz": "extxyz", ".db": "db", ".parquet": "parquet"}
)
"""Ending of a file -> name of a format."""

UNITS = MappingProxyType({"positions": "Å", "cell": "Å"})


class WriteDataset(Protocol):
    """A writer."""

    def __call__(self, dataset: Dataset, path: Path, *, overwrite: bool, tell: Tell | None) -> None:
        """Write all of a dataset."""
        ...


def export(
    dataset: Dataset,
    path: str | Path,
    *,
    format: str | None = None,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> str:
    """Write a dataset as a file of another program and return the name of the format.

    Args:
        dataset: what to write.
        path: file (for some formats a folder) to make.
        format: one of `WRITERS`; by default the ending of `path` says it.
        overwrite: replace a file that is there.
        tell: called with the progress.

    Raises:
        DataError: no such format, no known ending, or an entry that the format cannot hold.
        StoreError: something is there already, or the disk refuses the file; what was there
            stays as it was.
    """
    path = Path(path)
    name = format or SUFFIXES.get(path.suffix.lower())
    if name is None or name not in WRITERS:
        said = f"no format {format!r}" if format else f"{path}: its ending names no format"
        raise DataError(
            f"{said}; formats: {', '.join(WRITERS)} (--format), endings: {', '.join(SUFFIXES)}"
        )
    module, _, function = WRITERS[name].partition(":")
    write: WriteDataset = getattr(import_module(module), function)
    write(dataset, path, overwrite=overwrite, tell=tell)
    return name


def units_of(dataset: Dataset) -> dict[str, str]:
    """Return the unit of everything that a dataset holds."""
    return {**UNITS, **{name: quantity(name).unit for name in dataset.targets}}


def facts_of(dataset: Dataset) -> dict[str, Any]:
    """Return what a file says about itself as a whole: units, signs, history, digest."""
    signs = {name: quantity(name).sign for name in dataset.targets if quantity(name).sign}
    return {
        "units": units_of(dataset),
        "signs": signs,
        "history": list(dataset.history),
        "digest": dataset.digest,
    }


def parts_of(dataset: Dataset, tell: Tell | None = None) -> Iterator[Dataset]:
    """Yield consecutive parts of a dataset, in memory and of bounded size."""
    from epitaxy.dataset import Dataset

    done = 0
    for block in blocks(dataset._columns, dataset._rows):
        yield Dataset(block)
        done += len(block)
        if tell is not None:
            tell(done, done, done / len(dataset))
