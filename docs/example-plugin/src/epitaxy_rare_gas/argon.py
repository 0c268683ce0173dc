"""Argon crystals with the Lennard-Jones potential."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.units import kB

from epitaxy import Card, Entry, Method, Origin

# Rahman, Phys. Rev. 136, A405 (1964): epsilon / k_B = 119.8 K, sigma = 3.4 Å.
EPSILON = 119.8 * kB
SIGMA = 3.4
LATTICE_PARAMETER = 5.26
"""Å, about where this potential has its minimum."""


class Argon:
    """Cubic cells of fcc argon, strained and rattled at random, labelled by Lennard-Jones.

    Args:
        n_structures: how many.
        strain: largest component of the strain.
        rattle: standard deviation of the displacements, Å.
        seed: of the random numbers; the same seed gives the same structures.
    """

    card = Card(
        title="Lennard-Jones argon",
        quantities=("energy", "forces", "stress"),
        license="CC0-1.0",
        citation="A. Rahman, Phys. Rev. 136, A405 (1964)",
        version="1",
    )

    def __init__(
        self, *, n_structures: int = 200, strain: float = 0.04, rattle: float = 0.1, seed: int = 0
    ) -> None:
        self.n_structures = n_structures
        self.strain = strain
        self.rattle = rattle
        self.seed = seed

    def __iter__(self) -> Iterator[Entry]:
        """Yield one structure after the other; each has random numbers of its own."""
        perfect = bulk("Ar", "fcc", a=LATTICE_PARAMETER, cubic=True)
        method = Method(code="ASE LennardJones", settings=f"sigma {SIGMA} Å, rc 2.5 sigma, smooth")
        origin = Origin(database="epitaxy-rare-gas", license=self.card.license)
        for index in range(self.n_structures):
            rng = np.random.default_rng((self.seed, index))
            atoms = perfect.copy()
            strain = rng.uniform(-self.strain, self.strain, (3, 3))
            atoms.set_cell(atoms.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
            atoms.positions += rng.normal(scale=self.rattle, size=atoms.positions.shape)
            atoms.calc = LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=2.5 * SIGMA, smooth=True)
            yield Entry.from_atoms(
                atoms,
                targets={
                    "energy": atoms.get_potential_energy(),
                    "forces": atoms.get_forces(),
                    "stress": atoms.get_stress(),
                },
                id=f"argon-{self.seed}-{index}",
                method=method,
                origin=origin,
            )
