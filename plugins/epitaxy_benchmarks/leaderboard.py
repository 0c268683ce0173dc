"""Labels by id, with the published split: the zip files of the JARVIS leaderboard.

Layout (https://github.com/usnistgov/jarvis_leaderboard, benchmarks/AI): one JSON file
``{"train": {id: value}, "val": {...}, "test": {...}}``. Most values are numbers (some written as
text), those of edos_pdos_ph_dos are 66 numbers joined by ";", those of dft_3d_Tc_supercon and of
perov5_heat_ref are POSCAR texts. Labels without structures are joined by id with a file that has
them.

Trap: a few ids are in the train and in the test part of a file; here they are test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from epitaxy.errors import DataError
from epitaxy.quantities import quantity
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.geometry import number
from epitaxy_benchmarks.reading import Reading, existing_file, explained, plain_stem

QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "dft_3d_formation_energy_peratom": "formation_energy",
        "dft_3d_optb88vdw_bandgap": "band_gap",
        "dft_3d_mbj_bandgap": "band_gap",
        "dft_3d_ehull": "energy_above_hull",
        "dft_3d_bulk_modulus_kv": "bulk_modulus",
        "dft_3d_shear_modulus_gv": "shear_modulus",
        "dft_3d_exfoliation_energy": "exfoliation_energy",
        "megnet_e_form": "formation_energy",
        "megnet_gappbe": "band_gap",
        "snumat_Band_gap_HSE": "band_gap",
        "edos_pdos_ph_dos": "phonon_dos",
    }
)
"""Name of a leaderboard file -> quantity of its values, in that quantity's unit."""

PARTS = ("train", "val", "test")
POSCAR_FILES = ("dft_3d_Tc_supercon", "perov5_heat_ref", "jarvis_perov5_heat_ref_structures")
"""Leaderboard files whose values are structures."""


class Labels:
    """The values of one leaderboard file, in memory.

    Args:
        path: the zip or JSON file.

    Attributes:
        name: of the file, for example "megnet_e_form".
        quantity: of the values.
    """

    def __init__(self, path: Path):
        path = existing_file(path)
        self.name = plain_stem(path)
        if self.name not in QUANTITIES:
            raise DataError(
                f"{path}: labels of this name are not known, only {', '.join(QUANTITIES)}"
            )
        self.quantity = QUANTITIES[self.name]
        shape = quantity(self.quantity).shape
        self._values: dict[str, Any] = {}
        self._parts: dict[str, str] = {}
        for part, id, value in rows(path, Reading([path])):
            with explained(f"{path}: {part} {id}", "a leaderboard file"):
                self._values[id] = _value(value, shape)
                self._parts[id] = part

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._values)

    def __contains__(self, id: str) -> bool:
        return id in self._values

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids that have a label, in the order of the file."""
        return tuple(self._values)

    def value(self, id: str) -> Any:
        """Return the label of an entry, None if there is none."""
        return self._values.get(id)

    def part(self, id: str) -> str:
        """Return "train", "val" or "test", "" for an unknown entry."""
        return self._parts.get(id, "")


def join(labels: tuple[Labels, ...], id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the targets of an entry and tags that say in which published part it is."""
    found = [one for one in labels if id in one]
    targets = {one.quantity: one.value(id) for one in found}
    names = {one: "part" if len(labels) == 1 else f"part_{one.name}" for one in found}
    return targets, {tag: one.part(id) for one, tag in names.items()}


def read_labels(paths: list[Path] | None) -> tuple[Labels, ...]:
    """Return the labels of several files.

    Raises:
        DataError: a file is damaged or unknown, or two give the same quantity.
    """
    found = tuple(Labels(Path(path)) for path in paths or ())
    names = [one.quantity for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        files = [one.name for one in found if one.quantity == twice[0]]
        raise DataError(f"{' and '.join(files)} both give {twice[0]}: choose one of them")
    return found


def rows(path: Path, reading: Reading) -> Iterator[tuple[str, str, Any]]:
    """Yield part, id and value in the order of the file.

    Raises:
        DataError: the file is damaged or has other parts than train, val and test.
    """
    for part, id, value in streaming_json.nested_pairs(path, reading):
        if part not in PARTS:
            raise DataError(f"{path}: part {part!r} is not one of {', '.join(PARTS)}")
        yield part, id, value


def _value(value: Any, shape: tuple[int, ...]) -> Any:
    if not shape:
        return number(value)
    found = np.array([float(x) for x in value.split(";")])
    if found.shape != shape:
        raise DataError(f"{found.shape[0]} values, {shape[0]} needed")
    return found
