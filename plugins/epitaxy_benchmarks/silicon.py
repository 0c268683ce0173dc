"""The embedded silicon set: small cells with energies, forces and stresses, by this project.

Computed with GPAW; program versions, settings and checks are in ``silicon/provenance.json``.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError
from epitaxy.protocols import Card


class SiliconSource:
    """Reads the silicon frames that come with epitaxy.

    Frames are tagged with their kind (eos, strained, rattled, vacancy, polymorph ...) and
    phase; the same id names the same structure in both functionals.

    Args:
        xc: exchange-correlation functional.
        kind: only frames of these kinds; all by default.
    """

    def __init__(self, *, xc: Literal["PBE", "LDA"] = "PBE", kind: Sequence[str] | None = None):
        self._xc = xc
        self._kinds = None if kind is None else tuple(kind)
        known = self._facts["n_frames_by_kind"]
        if unknown := [name for name in self._kinds or () if name not in known]:
            raise DataError(f"kind = {unknown[0]!r} is not one of {', '.join(known)}")

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """How the data were made: program versions, settings, checks."""
        text = (files("epitaxy_benchmarks") / "silicon" / "provenance.json").read_text("utf-8")
        provenance: dict[str, Any] = json.loads(text)
        return provenance

    @cached_property
    def _facts(self) -> dict[str, Any]:
        functionals = self.provenance["functionals"]
        if self._xc not in functionals:
            raise DataError(f"there are no frames with {self._xc}, only {', '.join(functionals)}")
        facts: dict[str, Any] = functionals[self._xc]
        return facts

    @property
    def card(self) -> Card:
        """What the data are."""
        provenance = self.provenance
        return Card(
            title=f"{provenance['title']} [{self._xc}]",
            quantities=("energy", "forces", "stress"),
            license=provenance["license"],
            citation=f"computed by {provenance['made_by']}",
            version=provenance["date"],
            url="epitaxy_benchmarks/silicon",
        )

    def __iter__(self) -> Iterator[Entry]:
        """Yield the frames in the order of the file.

        Raises:
            DataError: the file is not the one that `provenance.json` describes.
        """
        from ase.io.extxyz import read_xyz

        name = self._facts["file"]
        packed = (files("epitaxy_benchmarks") / "silicon" / name).read_bytes()
        if hashlib.sha256(packed).hexdigest() != self._facts["sha256"]:
            raise DataError(f"{name}: damaged or edited (sha256 differs); reinstall epitaxy")
        provenance = self.provenance
        settings = provenance["settings"]
        method = Method(
            code=f"GPAW {provenance['versions']['gpaw']}",
            xc_functional=self._xc,
            settings=f"plane waves {settings['cutoff_ev']:g} eV, "
            f"{settings['smearing']} {settings['smearing_ev']:g} eV",
        )
        origin = Origin(
            url="epitaxy_benchmarks/silicon",
            database=f"epitaxy silicon {provenance['date']}",
            license=provenance["license"],
            retrieved=provenance["date"],
        )
        text = io.StringIO(lzma.decompress(packed).decode("utf-8"))
        for atoms in read_xyz(text, index=slice(None)):
            kind = str(atoms.info.get("kind", ""))
            if self._kinds is not None and kind not in self._kinds:
                continue
            results = atoms.calc.results
            yield Entry(
                numbers=atoms.numbers.astype(np.uint8),
                positions=np.array(atoms.positions),
                cell=np.array(atoms.cell.array),
                pbc=np.array(atoms.pbc, dtype=bool),
                targets=MappingProxyType(
                    {
                        name: np.array(results[name], dtype=np.float64)
                        for name in ("energy", "forces", "stress")
                        if name in results
                    }
                ),
                id=str(atoms.info["structure_id"]),
                method=method,
                origin=origin,
                tags=MappingProxyType(
                    {k: v for k, v in atoms.info.items() if isinstance(v, str)} | {"kind": kind}
                ),
            )
