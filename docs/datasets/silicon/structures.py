"""The silicon structures: diamond strained and rattled, polymorphs, vacancies; all seeded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

SEED = 20261121
REFERENCE_LATTICE_CONSTANT = 5.44  # Å, between the PBE and the LDA minimum; only a starting point
SHORTEST_DISTANCE = 1.8  # Å; structures with a shorter one are drawn again
POSITION_DIGITS = 8  # decimals of positions and cells, Å
NETWORKS = ("diamond", "hexagonal_diamond", "bc8")


def diamond(lattice_constant: float = REFERENCE_LATTICE_CONSTANT) -> Atoms:
    """The 8-atom cubic cell of diamond-structure silicon; lattice constant in Å."""
    from ase.build import bulk

    return bulk("Si", "diamond", a=lattice_constant, cubic=True)


def polymorphs() -> dict[str, Atoms]:
    """One cell of each other phase of silicon near its own equilibrium volume, by name.

    Lattice constants are rounded literature and trial values; the frames scale them anyway.
    """
    from ase import Atoms
    from ase.build import bulk
    from ase.spacegroup import crystal

    def cell(
        lengths_and_angles: list[float], scaled_positions: Sequence[tuple[float, ...]]
    ) -> Atoms:
        symbols = f"Si{len(scaled_positions)}"
        return Atoms(symbols, scaled_positions=scaled_positions, cell=lengths_and_angles, pbc=True)

    third, z = 1 / 3, 1 / 16
    hexagonal_diamond = [
        (third, 2 * third, z),
        (third, 2 * third, 0.5 - z),
        (2 * third, third, 0.5 + z),
        (2 * third, third, 1 - z),
    ]
    # Ia-3 has a body-centred lattice: 8 atoms in the primitive cell of BC8.
    bc8 = crystal(
        "Si",
        [(0.1003, 0.1003, 0.1003)],
        spacegroup=206,
        cellpar=[6.62] * 3 + [90] * 3,
        primitive_cell=True,
    )
    return {
        "beta_tin": cell(
            [4.81, 4.81, 2.65, 90, 90, 90],
            [(0, 0, 0), (0.5, 0, 0.25), (0.5, 0.5, 0.5), (0, 0.5, 0.75)],
        ),
        "simple_hexagonal": cell([2.64, 2.64, 2 * 2.47, 90, 90, 120], [(0, 0, 0), (0, 0, 0.5)]),
        "hexagonal_diamond": cell([3.85, 3.85, 6.36, 90, 90, 120], hexagonal_diamond),
        "bcc": bulk("Si", "bcc", a=3.09, cubic=True),
        "fcc": cell([3.87 / 2**0.5, 3.87 / 2**0.5, 3.87, 90, 90, 90], [(0, 0, 0), (0.5, 0.5, 0.5)]),
        "hcp": bulk("Si", "hcp", a=2.70, c=4.58),
        "sc": cell([2.53, 2.53, 2 * 2.53, 90, 90, 90], [(0, 0, 0), (0, 0, 0.5)]),
        "bc8": Atoms("Si8", positions=bc8.positions, cell=bc8.cell, pbc=True),
    }


def scaled(structure: Atoms, volume_ratio: float) -> Atoms:
    """A copy whose cell has `volume_ratio` times the volume, fractional coordinates kept."""
    copy = structure.copy()
    copy.set_cell(structure.cell * volume_ratio ** (1 / 3), scale_atoms=True)
    return copy


def distorted(
    structure: Atoms,
    *,
    rng: np.random.Generator,
    strain: float,
    displacement: float,
    volume_ratio: float = 1.0,
) -> Atoms:
    """A copy that is scaled, strained and displaced at random, drawn again while atoms are too close.

    Args:
        structure: the perfect crystal.
        rng: source of the random numbers.
        strain: each of the 6 components is uniform in [-strain, strain].
        displacement: standard deviation of each Cartesian coordinate, Å.
        volume_ratio: volume before the strain over the volume of `structure`.

    Raises:
        ValueError: 2000 draws in a row had two atoms closer than SHORTEST_DISTANCE.
    """
    for _ in range(2000):
        copy = scaled(structure, volume_ratio)
        xx, yy, zz, yz, xz, xy = rng.uniform(-strain, strain, size=6)
        deformation = np.eye(3) + np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        copy.set_cell(copy.cell.array @ deformation, scale_atoms=True)
        copy.positions += rng.normal(0.0, displacement, size=copy.positions.shape)
        copy.positions -= copy.positions.mean(axis=0) - structure.positions.mean(axis=0)
        if shortest_distance(copy) > SHORTEST_DISTANCE:
            return copy
    raise ValueError(
        f"no draw with strain {strain} and displacement {displacement} Å keeps atoms "
        f"{SHORTEST_DISTANCE} Å apart; lower one of them"
    )


def shortest_distance(structure: Atoms) -> float:
    """The shortest distance between two atoms, periodic images included, in Å."""
    from ase.neighborlist import neighbor_list

    distances = neighbor_list("d", structure, cutoff=4.0)
    return float(distances.min()) if len(distances) else 4.0


def all_structures() -> list[Atoms]:
    """All frames without results, each with info keys structure_id, kind, phase and in_both.

    in_both is true for the frames that are computed with both functionals, false for LDA only.
    Positions and cell are rounded here, so that what is computed is exactly what is shipped.
    """
    rng = np.random.default_rng(SEED)
    frames: list[Atoms] = []
    counts: dict[str, int] = {}

    def add(structure: Atoms, kind: str, phase: str, *, in_both: bool) -> None:
        index = counts.get(kind, 0)
        counts[kind] = index + 1
        structure.positions = np.round(structure.positions, POSITION_DIGITS)
        structure.set_cell(np.round(structure.cell.array, POSITION_DIGITS))
        structure.info = {
            "structure_id": f"si-{kind}-{index:04d}",
            "kind": kind,
            "phase": phase,
            "in_both": in_both,
        }
        frames.append(structure)

    coarse = [0.86, 0.88, 0.90, 0.92, 1.08, 1.10, 1.12, 1.14]
    for volume_ratio in sorted([*coarse, *np.round(np.arange(0.94, 1.065, 0.01), 2)]):
        add(scaled(diamond(), volume_ratio), "eos", "diamond", in_both=True)

    for index in range(96):
        structure = distorted(
            diamond(),
            rng=rng,
            strain=rng.uniform(0.01, 0.05),
            displacement=rng.uniform(0.0, 0.1),
            volume_ratio=rng.uniform(0.95, 1.05),
        )
        add(structure, "strained", "diamond", in_both=index % 2 == 0)

    amplitudes = [0.02, 0.05, 0.1, 0.2, 0.35]
    for index in range(140):
        structure = distorted(
            diamond(),
            rng=rng,
            strain=0.0,
            displacement=amplitudes[index % len(amplitudes)],
            volume_ratio=rng.uniform(0.92, 1.08),
        )
        add(structure, "rattled", "diamond", in_both=index % 2 == 0)

    for phase, crystal in polymorphs().items():
        for index, volume_ratio in enumerate([0.88, 0.94, 1.0, 1.06, 1.12]):
            add(scaled(crystal, volume_ratio), "polymorph", phase, in_both=index % 2 == 0)
        for index in range(7):
            structure = distorted(
                crystal,
                rng=rng,
                strain=0.03,
                displacement=rng.uniform(0.02, 0.15),
                volume_ratio=rng.uniform(0.9, 1.1),
            )
            add(structure, "polymorph", phase, in_both=index % 2 == 0)

    for index in range(40):
        crystal = diamond()
        del crystal[int(rng.integers(len(crystal)))]
        structure = distorted(
            crystal,
            rng=rng,
            strain=0.03,
            displacement=rng.uniform(0.0, 0.15),
            volume_ratio=rng.uniform(0.92, 1.06),
        )
        add(structure, "vacancy", "diamond", in_both=index % 2 == 0)
    return frames


def in_computing_order(frames: list[Atoms]) -> list[Atoms]:
    """The EOS frames first, then those shared by both functionals, networks before the metals; parts shuffled."""
    order = np.random.default_rng(SEED).permutation(len(frames))

    def rank(frame: Atoms) -> tuple[bool, bool, bool]:
        return (
            frame.info["kind"] != "eos",
            not frame.info["in_both"],
            frame.info["phase"] not in NETWORKS,
        )

    return sorted([frames[index] for index in order], key=rank)
