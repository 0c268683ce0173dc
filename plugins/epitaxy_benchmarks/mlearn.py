"""The mlearn benchmark: Zuo et al., J. Phys. Chem. A 124, 731 (2020).

``virial_stress`` is VASP's stress in kbar, positive under compression. The order of its six
numbers is not written down and not the same for all elements. The energies decide (trapezoid
rule over near frames, see `epitaxy.curation.pairs`): in the files of Li, Ge and Si it is
xx, yy, zz, xy, yz, xz; in those of Cu and Ni it is xx, yy, zz, xy, xz, yz.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card
from epitaxy_benchmarks import streaming_json
from epitaxy_benchmarks.reading import Reading

_ORDERS: Mapping[str, str] = MappingProxyType(
    {"Cu": "xx,yy,zz,xy,xz,yz", "Ni": "xx,yy,zz,xy,xz,yz"}
)
_URL = "https://github.com/materialsvirtuallab/mlearn"


class MlearnSource:
    """Reads one of mlearn's files, compressed or not.

    The groups (AIMD-NVT, Vacancy, Elastic, Surface) become the tag "group", train and test
    the tag "part".

    Args:
        path: for example "Si_training.json" or "Si_test.json.xz".
        group: only frames of this group; all by default.
        stress_order: order of the six numbers; "auto" takes the one found for the element.
    """

    def __init__(
        self,
        *,
        path: Path,
        group: str = "",
        stress_order: Literal["auto", "vasp", "xx,yy,zz,xy,xz,yz"] = "auto",
    ):
        self._path = Path(path)
        self._group = group
        self._order = stress_order
        self._reading = Reading()
        if not self._path.is_file():
            raise DataError(f"{self._path}: no such file")

    @property
    def card(self) -> Card:
        """What the data are."""
        return Card(
            title=f"mlearn {self._path.name}",
            quantities=("energy", "forces", "stress"),
            license="BSD-3-Clause",
            citation="Zuo et al., J. Phys. Chem. A 124, 731-745 (2020)",
            url=_URL,
        )

    @property
    def fraction(self) -> float | None:
        """Part of the file that was read so far."""
        return self._reading.fraction

    def __iter__(self) -> Iterator[Entry]:
        """Yield the frames in the order of the file.

        Raises:
            DataError: the file is damaged or not one of mlearn's; the message names the frame.
        """
        from ase.data import atomic_numbers

        stem = self._path.name.partition(".")[0]
        origin = Origin(url=f"{_URL} {stem}", database="mlearn", license="BSD-3-Clause")
        method = Method(code="VASP", xc_functional="PBE", settings="PAW, 520 eV")
        self._reading = reading = Reading([self._path])
        for i, frame in enumerate(self._frames(reading)):
            name = f"{stem}#{i}"
            try:
                if self._group and frame["group"] != self._group:
                    continue
                structure, outputs = frame["structure"], frame["outputs"]
                sites = structure["sites"]
                symbols = [site["species"][0]["element"] for site in sites]
                cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
                targets = {
                    "energy": np.array(outputs["energy"], dtype=np.float64),
                    "forces": np.array(outputs["forces"], dtype=np.float64),
                    "stress": np.array(outputs["virial_stress"], dtype=np.float64),
                }
                numbers = np.array([atomic_numbers[s] for s in symbols], dtype=np.uint8)
                positions = np.array([site["xyz"] for site in sites], dtype=np.float64)
                tags = {"group": frame["group"], "part": frame.get("tag", "")}
            except (KeyError, TypeError, IndexError, ValueError) as error:
                raise DataError(
                    f"{self._path}: frame {i} is not as in mlearn's files: {error!r}"
                ) from error
            yield Entry(
                numbers=numbers,
                positions=positions.reshape(-1, 3),
                cell=cell,
                pbc=np.ones(3, dtype=bool),
                targets=MappingProxyType(
                    self._conventions(symbols).convert(targets, n_atoms=len(numbers), volume=None)
                ),
                id=name,
                method=method,
                origin=origin,
                tags=MappingProxyType({key: value for key, value in tags.items() if value}),
            )

    def _conventions(self, symbols: list[str]) -> Conventions:
        order: str = self._order
        if order == "auto":
            order = _ORDERS.get(symbols[0], "vasp") if symbols else "vasp"
        return Conventions(stress_unit="kbar", stress_is_pressure=True, stress_order=order)

    def _frames(self, reading: Reading) -> Iterator[Any]:
        n_frames = 0
        for frame in streaming_json.items(self._path, "item", reading):
            yield frame
            n_frames += 1
        if not n_frames:
            raise DataError(f"{self._path}: not a list of frames, as mlearn's files are")
