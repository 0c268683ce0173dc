"""Pairs of frames that differ little, and what their labels say about the energy between them.

Along a straight path in fractional coordinates and cell vectors, the trapezoid rule

    E_j - E_i = -1/2 sum_a (F_i + F_j)_a . dr_a + 1/2 (V_i sigma_i + V_j sigma_j) : strain

is exact for harmonic motion and off by third derivatives otherwise, so pairs that differ
little test forces and stress against energies without any further calculation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Method

N_NEIGHBORS = 3  # pairs per frame
MAX_FRAMES = 3_000  # frames looked at; larger sets are sampled in runs of neighbours
MAX_GROUP = 400  # frames compared with each other at once
MAX_DISPLACEMENT = 0.45  # Å, root mean square over the atoms
MAX_STRAIN = 0.06  # largest component
_MAX_TURN = 0.1  # rad; up to here the turn that a shear brings along stays in the path
_STIFFNESS = 5.0  # eV/Å^2 per atom, and
_ELASTICITY = 0.6  # eV/Å^3 (100 GPa): typical, they only set the weight of near against far pairs


@dataclass(frozen=True, slots=True)
class Pairs:
    """What is known of n pairs of frames; index 0 and 1 of an axis of 2 are their two ends.

    Attributes:
        rows: (n, 2) int, rows of the dataset.
        n_atoms: (n,) int.
        energy: (n,) eV, difference of the stored energies.
        force_work: (n,) eV, -1/2 sum (F_i + F_j) . dr with the stored forces.
        has_forces: (n,) bool, both ends have forces.
        stress: (n, 2, 6) the stored stresses.
        strain: (n, 2, 6) strain seen from each end, shear doubled, in ASE's Voigt order.
        volume: (n, 2) Å^3.
        has_stress: (n,) bool, both ends have a stress.
        displacement: (n,) Å, root mean square over the atoms at fixed cell.
        largest_strain: (n,) largest component of the strain.
        end_work: (n, 2) eV, the two ends' parts of `force_work`.
        rotated: (n,) bool, whether one end had to be turned onto the other.
    """

    rows: np.ndarray
    n_atoms: np.ndarray
    energy: np.ndarray
    force_work: np.ndarray
    has_forces: np.ndarray
    stress: np.ndarray
    strain: np.ndarray
    volume: np.ndarray
    has_stress: np.ndarray
    displacement: np.ndarray
    largest_strain: np.ndarray
    end_work: np.ndarray
    rotated: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)

    def __getitem__(self, which: np.ndarray) -> Pairs:
        return Pairs(*(getattr(self, name)[which] for name in self.__slots__))

    @property
    def is_complete(self) -> np.ndarray:
        """(n,) bool, whether the labels cover all that differs between the two ends."""
        moved, strained = self.displacement > 1e-4, self.largest_strain > 1e-5
        return np.asarray((self.has_forces | ~moved) & (self.has_stress | ~strained))

    @property
    def scale(self) -> np.ndarray:
        """(n,) eV, the size of a typical second-order energy between the two ends."""
        shaken = self.n_atoms * _STIFFNESS * self.displacement**2
        strained = self.volume.mean(axis=1) * _ELASTICITY * self.largest_strain**2
        return np.asarray(0.5 * (shaken + strained) + 1e-3)


@dataclass(frozen=True, slots=True)
class _Frame:
    row: int
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    periodic: bool
    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None
    method: Method


def find_pairs(dataset: Dataset) -> Pairs:
    """Return pairs of near frames with the same atoms, order of atoms and level of theory.

    Frames that are partly periodic or have no energy take no part. Sets larger than
    `MAX_FRAMES` are looked at in evenly spaced runs of consecutive frames.
    """
    groups: dict[object, list[_Frame]] = {}
    made: list[tuple[object, ...]] = []
    for row in sample_rows(len(dataset)):
        frame = _read(dataset, row)
        if frame is None:
            continue
        key = (frame.numbers.tobytes(), frame.periodic, frame.method)
        group = groups.setdefault(key, [])
        group.append(frame)
        if len(group) == MAX_GROUP:
            made += _pairs_of(groups.pop(key))
    for group in groups.values():
        made += _pairs_of(group)
    if not made:
        shapes = {"rows": (0, 2), "stress": (0, 2, 6), "strain": (0, 2, 6), "volume": (0, 2)}
        shapes["end_work"] = (0, 2)
        flags = ("has_forces", "has_stress", "rotated")
        return Pairs(
            *(
                np.zeros(shapes.get(name, (0,)), dtype=bool if name in flags else float)
                for name in Pairs.__slots__
            )
        )
    return Pairs(*(np.array(column) for column in zip(*made, strict=True)))


def sample_rows(n: int) -> np.ndarray:
    """Return all rows of a small set, evenly spaced runs of rows of a large one."""
    if n <= MAX_FRAMES:
        return np.arange(n)
    run = 30
    starts = np.linspace(0, n - run, MAX_FRAMES // run).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(run))


def _read(dataset: Dataset, row: int) -> _Frame | None:
    entry = dataset[int(row)]
    periodic = bool(entry.pbc.all())
    if "energy" not in entry.targets or (entry.pbc.any() and not periodic):
        return None
    return _Frame(
        row=int(row),
        numbers=np.asarray(entry.numbers),
        positions=np.asarray(entry.positions),
        cell=np.asarray(entry.cell) if periodic else np.eye(3),
        periodic=periodic,
        energy=float(entry.targets["energy"]),
        forces=entry.targets.get("forces"),
        stress=entry.targets.get("stress") if periodic else None,
        method=entry.method,
    )


def _pairs_of(frames: list[_Frame]) -> list[tuple[object, ...]]:
    """Pair every frame with its nearest ones."""
    if len(frames) < 2:
        return []
    cells = np.array([frame.cell for frame in frames])
    metrics = cells @ cells.transpose(0, 2, 1)
    fractions = np.array([np.linalg.solve(frame.cell.T, frame.positions.T).T for frame in frames])
    wanted: set[tuple[int, int]] = set()
    for i, frame in enumerate(frames):
        if frame.periodic:
            # Lengths and angles alone decide how far two cells are apart, not their direction.
            inverse = np.linalg.inv(cells[i])
            strains = 0.5 * (inverse @ metrics @ inverse.T - np.eye(3))
            strain = np.abs(strains).max(axis=(1, 2))
            steps = fractions - fractions[i]
            steps -= np.round(steps)
            steps -= steps.mean(axis=1, keepdims=True)
            moved = np.sqrt(((steps @ cells[i]) ** 2).sum(axis=2).mean(axis=1))
        else:
            strain = np.zeros(len(frames))
            moved = _aligned_distances(frame, frames)
        distance = moved + 3.0 * strain
        distance[i] = np.inf
        distance[(moved > MAX_DISPLACEMENT) | (strain > MAX_STRAIN)] = np.inf
        distance[(moved < 1e-6) & (strain < 1e-7)] = np.inf  # the same structure says nothing
        for j in np.argsort(distance, kind="stable")[:N_NEIGHBORS]:
            if np.isfinite(distance[j]):
                wanted.add((min(i, int(j)), max(i, int(j))))
    return [_pair(frames[i], frames[j]) for i, j in sorted(wanted)]


def _aligned_distances(frame: _Frame, frames: list[_Frame]) -> np.ndarray:
    here = frame.positions - frame.positions.mean(axis=0)
    distances = np.empty(len(frames))
    for k, other in enumerate(frames):
        there = other.positions - other.positions.mean(axis=0)
        turned = there @ _rotation(there, here)
        distances[k] = np.sqrt(((turned - here) ** 2).sum(axis=1).mean())
    return distances


def _rotation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the proper rotation R that brings left @ R nearest to right (Kabsch 1976)."""
    u, _, v = np.linalg.svd(left.T @ right)
    u[:, -1] *= np.sign(np.linalg.det(u @ v))
    rotation: np.ndarray = u @ v
    return rotation


def _pair(first: _Frame, second: _Frame) -> tuple[object, ...]:
    # Turn the second frame onto the first one: a rotation costs no energy.
    if first.periodic:
        turn = _rotation(second.cell, first.cell)
        if np.abs(turn - np.eye(3)).max() < _MAX_TURN:
            turn = np.eye(3)
        cell_j = second.cell @ turn
        step = np.linalg.solve(second.cell.T, second.positions.T).T
        step -= np.linalg.solve(first.cell.T, first.positions.T).T
        step -= np.round(step)
        step -= step.mean(axis=0)
    else:
        centered = [frame.positions - frame.positions.mean(axis=0) for frame in (first, second)]
        turn = _rotation(centered[1], centered[0])
        cell_j = np.eye(3)
        step = centered[1] @ turn - centered[0]
    cell_i = first.cell
    change = cell_j - cell_i
    strains = [_voigt_strain(np.linalg.solve(cell, change)) for cell in (cell_i, cell_j)]
    volumes = [abs(np.linalg.det(cell)) for cell in (cell_i, cell_j)]
    has_forces = first.forces is not None and second.forces is not None
    work = np.zeros(2)
    if first.forces is not None and second.forces is not None:
        work[0] = -0.5 * (first.forces * (step @ cell_i)).sum()
        work[1] = -0.5 * ((second.forces @ turn) * (step @ cell_j)).sum()
    rotated = bool(np.abs(turn - np.eye(3)).max() > 1e-6)
    stress = np.zeros((2, 6))
    # The order of a stress that would have to be turned is unknown here, so it is not used.
    has_stress = first.stress is not None and second.stress is not None and not rotated
    if first.stress is not None and second.stress is not None and not rotated:
        stress[0], stress[1] = first.stress, second.stress
    displacement = float(np.sqrt(((step @ cell_i) ** 2).sum(axis=1).mean()))
    return (
        (first.row, second.row),
        len(first.numbers),
        second.energy - first.energy,
        float(work.sum()),
        has_forces,
        stress,
        np.array(strains),
        volumes,
        has_stress,
        displacement,
        float(np.abs(strains[0]).max()) if first.periodic else 0.0,
        work,
        rotated,
    )


def _voigt_strain(gradient: np.ndarray) -> np.ndarray:
    """Return the symmetric part as (6,) xx, yy, zz, 2yz, 2xz, 2xy."""
    e = gradient + gradient.T
    return np.array([e[0, 0] / 2, e[1, 1] / 2, e[2, 2] / 2, e[1, 2], e[0, 2], e[0, 1]])
