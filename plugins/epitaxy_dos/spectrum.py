"""A density of states as a file has it, before it is aligned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from epitaxy.entry import Method
from epitaxy.errors import EntryError


@dataclass(frozen=True, slots=True)
class Structure:
    """Atoms of the cell that a density of states belongs to.

    Attributes:
        numbers: (n_atoms,) atomic numbers.
        positions: (n_atoms, 3), Å.
        cell: (3, 3), Å.
        pbc: periodic directions.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: tuple[bool, bool, bool] = (True, True, True)


def _no_tags() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """A total density of states.

    Attributes:
        energies: (n_points,) eV, increasing.
        channels: (n_spins, n_points) states/eV of the cell; one channel counts both spins.
        fermi: eV on the same scale; None if the file does not say it.
        highest: valence band maximum, eV on the same scale, where the file says it.
        structure: of the cell, where the file or one beside it has it.
        formula: of the cell or compound, where there is no structure.
        method: level of theory.
        tags: settings by name.
        name: that tells it from others in the file; "" if it is the only one.
    """

    energies: np.ndarray
    channels: np.ndarray
    fermi: float | None = None
    highest: float | None = None
    structure: Structure | None = None
    formula: str = ""
    method: Method = field(default_factory=Method)
    tags: Mapping[str, str] = field(default_factory=_no_tags)
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no density of states.

        Raises:
            EntryError: shapes do not fit, energies do not increase or a value is not finite.
        """
        if self.channels.ndim != 2 or self.channels.shape[1] != len(self.energies):
            raise EntryError(
                f"density of states of shape {self.channels.shape} at {len(self.energies)} energies"
            )
        if len(self.energies) < 2 or (np.diff(self.energies) <= 0).any():
            raise EntryError("energies of the density of states do not increase")
        if not (np.isfinite(self.energies).all() and np.isfinite(self.channels).all()):
            raise EntryError("the density of states has values that are not finite")

    @property
    def total(self) -> np.ndarray:
        """(n_points,) states/eV, spins summed; a channel that is drawn downwards is turned up."""
        signs = np.where(self.channels.sum(axis=1) < 0, -1.0, 1.0)
        return np.asarray((signs[:, None] * self.channels).sum(axis=0))
