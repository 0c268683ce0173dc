"""The embedded convergence study: boron nitride and silicon with many settings, by this project.

The same two crystals with LDA and PBE, plane waves of several cutoffs and three sets of
atomic orbitals, and k-points from few to many, computed with GPAW. What is stored are the
eigenvalues; densities of states are made from them when they are read, so that the broadening
can be chosen. Program versions, settings and checksums are in ``convergence/provenance.json``.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator
from functools import cached_property
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from epitaxy.entry import Entry, Method, Origin
from epitaxy.errors import DataError, OptionError
from epitaxy.protocols import Card
from epitaxy_benchmarks import tetrahedra

GRID = np.arange(-1000, 1001) / 100
"""(2001,) eV: energies of the quantity `dos`, relative to the valence band maximum."""

_REACH = 8.0
"""Standard deviations at which a Gaussian ends: its value there is 1e-14 of its highest."""


class GpawConvergenceSource:
    """Reads the convergence study that comes with epitaxy: energy, gap and density of states.

    Each entry is one calculation. Its tags name the settings: `material`, `xc`, `basis`
    ("pw400": plane waves and cutoff in eV, or "sz", "szp", "dzp": atomic orbitals),
    `basis_kind`, `cutoff` ("400 eV", plane waves only), `kpoints` ("4x4x2") and `n_kpoints` (points
    along the first axis). The zero of a density of states is the highest occupied eigenvalue on
    the k-points of that calculation, and so are gaps.

    Args:
        material: only this crystal.
        xc: only this exchange-correlation functional.
        part: all, every combination of functional, basis and k-points to 12 along the first
            axis, or the one basis and functional that has denser k-points, too.
        integration: how eigenvalues become a density of states: Gaussians, or linear
            tetrahedra between the k-points.
        width: standard deviation of the Gaussians, eV.
    """

    def __init__(
        self,
        *,
        material: Literal["all", "h-BN", "Si"] = "all",
        xc: Literal["all", "LDA", "PBE"] = "all",
        part: Literal["all", "combinations", "dense"] = "all",
        integration: Literal["gaussian", "tetrahedra"] = "gaussian",
        width: float = 0.1,
    ):
        if not 0.01 <= width <= 5:
            raise OptionError(
                f"width = {width!r}: the Gaussians' standard deviation must be 0.01 to 5 eV; "
                "0.1 is usual"
            )
        self._wanted = {"material": material, "xc": xc}
        self._part = part
        self._integration = integration
        self._width = width

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """How the data were made: program versions, settings, times, checksums."""
        text = (files("epitaxy_benchmarks") / "convergence" / "provenance.json").read_text("utf-8")
        provenance: dict[str, Any] = json.loads(text)
        return provenance

    @cached_property
    def data(self) -> dict[str, Any]:
        """What is stored: `crystals`, `grids` of k-points and `calculations` (README.md there).

        Raises:
            DataError: the file is not the one that `provenance.json` describes.
        """
        name = self.provenance["file"]
        packed = (files("epitaxy_benchmarks") / "convergence" / name).read_bytes()
        if hashlib.sha256(packed).hexdigest() != self.provenance["sha256"]:
            raise DataError(f"{name}: damaged or edited (sha256 differs); reinstall epitaxy")
        data: dict[str, Any] = json.loads(lzma.decompress(packed))
        return data

    @property
    def card(self) -> Card:
        """What the data are."""
        provenance = self.provenance
        return Card(
            title=provenance["title"],
            quantities=("energy", "band_gap", "dos"),
            license=provenance["license"],
            citation=f"computed by {provenance['made_by']}",
            version=provenance["date"],
            url="epitaxy_benchmarks/convergence",
        )

    def __iter__(self) -> Iterator[Entry]:
        """Yield the calculations in the order of the file.

        Raises:
            DataError: the file is not the one that `provenance.json` describes.
        """
        origin = Origin(
            url="epitaxy_benchmarks/convergence",
            database=f"epitaxy convergence study {self.provenance['date']}",
            license=self.provenance["license"],
            retrieved=self.provenance["date"],
        )
        for calculation in self.data["calculations"]:
            if self._is_wanted(calculation):
                yield self._entry(calculation, origin)

    def _is_wanted(self, calculation: dict[str, Any]) -> bool:
        if any(want not in ("all", calculation[key]) for key, want in self._wanted.items()):
            return False
        settings = self.provenance["settings"]
        if self._part == "dense":
            dense = settings["dense_kpoints"]
            basis = dense["basis"][calculation["material"]]
            return (calculation["xc"], calculation["basis"]) == (dense["xc"], basis)
        in_all = calculation["kpoints"][0] in settings["kpoints_along_first_axis"]
        return self._part == "all" or in_all

    def _entry(self, calculation: dict[str, Any], origin: Origin) -> Entry:
        crystal = self.data["crystals"][calculation["material"]]
        basis = calculation["basis"]
        kpoints = "x".join(str(n) for n in calculation["kpoints"])
        kind, cutoff = "atomic orbitals", ""
        if basis.startswith("pw-"):
            kind, cutoff = "plane waves", basis.removeprefix("pw-")
        what = f"{kind}; cutoff {cutoff} eV" if cutoff else f"{kind}; basis {basis}"
        tags = {name: calculation[name] for name in ("material", "xc")}
        tags["basis"] = basis.replace("-", "")
        tags |= {
            "basis_kind": kind,
            "kpoints": kpoints,
            "n_kpoints": str(calculation["kpoints"][0]),
        }
        tags |= {"cutoff": f"{cutoff} eV"} if cutoff else {}
        tags |= {"dos_reference": "valence band maximum", "dos_integration": self._how}
        return Entry(
            numbers=np.array(crystal["numbers"], dtype=np.uint8),
            positions=np.array(crystal["positions"], dtype=np.float64),
            cell=np.array(crystal["cell"], dtype=np.float64),
            pbc=np.ones(3, dtype=bool),
            targets=MappingProxyType(
                {
                    "energy": np.array(calculation["energy"]),
                    "band_gap": np.array(calculation["band_gap"]),
                    "dos": self.density_of_states(calculation),
                }
            ),
            id=calculation["id"],
            method=Method(
                code=f"GPAW {self.provenance['versions']['gpaw']}",
                xc_functional=calculation["xc"],
                settings=f"{what}; k-mesh {kpoints}, with Gamma",
            ),
            origin=origin,
            tags=MappingProxyType(tags),
        )

    @property
    def _how(self) -> str:
        if self._integration == "tetrahedra":
            return "linear tetrahedra"
        return f"Gaussians, {self._width:g} eV"

    def density_of_states(self, calculation: dict[str, Any]) -> np.ndarray:
        """Return the density of states on `GRID` (2001,), states/eV per cell, both spins.

        Args:
            calculation: one of ``data["calculations"]``.
        """
        kpoints = "x".join(str(n) for n in calculation["kpoints"])
        points = self.data["grids"][f"{calculation['material']} {kpoints}"]
        bands = np.array(calculation["bands"])  # (n_kpoints, n_bands) eV
        if self._integration == "gaussian":
            return _gaussians(bands, np.array(points["weights"]), self._width)
        cell = np.array(self.data["crystals"][calculation["material"]]["cell"])
        everywhere = bands[points["irreducible"]].reshape(*calculation["kpoints"], -1)
        return 2 * tetrahedra.density_of_states(everywhere, cell, GRID)


def _gaussians(bands: np.ndarray, weights: np.ndarray, width: float) -> np.ndarray:
    """Sum one Gaussian for each eigenvalue: 2 electrons times the weight of its k-point.

    Args:
        bands: (n_kpoints, n_bands) eV.
        weights: (n_kpoints,), sum 1.
        width: standard deviation, eV.
    """
    dos = np.zeros(len(GRID))
    heights = 2 * weights / (width * np.sqrt(2 * np.pi))
    for energies, height in zip(bands, heights, strict=True):
        distance = (GRID - energies[:, None]) / width
        near = np.abs(distance) < _REACH
        dos += height * np.where(near, np.exp(-0.5 * np.minimum(distance**2, 99)), 0).sum(axis=0)
    return dos
