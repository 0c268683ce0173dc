"""Checks of a calculator against physics: derivatives, symmetries, cells, smoothness, dynamics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import SkipTest

import numpy as np
from ase import Atoms, units
from ase.build import make_supercell
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet

from epitaxy.testing.calculator_contract import ENERGY_TOLERANCE, FORCES_TOLERANCE, Make

STRESS_TOLERANCE = 1e-8
"""eV/Å^3: the same structure described in two ways, in float64."""

DERIVATIVE_TOLERANCE = 1e-5
"""Of the largest force or stress: central differences in float64 reach 1e-7."""

DISPLACEMENT, STRAIN = 1e-4, 1e-5
"""Å and 1: steps of the central differences."""

VACUUM = 40.0
"""Å, more than any cutoff."""

SCAN, SCAN_STEP = (1.5, 12.0), 0.05
"""Å, range and step of a scan through the cutoff."""

LARGEST_ENERGY_STEP, LARGEST_FORCE_STEP = 1e-5, 1e-3
"""eV and eV/Å that count as smooth."""


class Answer(NamedTuple):
    """Energy, forces and, where there is one, stress."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


def ask(make: Make, atoms: Atoms) -> Answer:
    """Return what a fresh calculator says about a structure."""
    calculator = make()
    has_stress = "stress" in calculator.implemented_properties and atoms.pbc.all()
    return Answer(
        calculator.get_property("energy", atoms),
        calculator.get_property("forces", atoms),
        calculator.get_property("stress", atoms) if has_stress else None,
    )


def forces_are_minus_the_gradient(make: Make, atoms: Atoms) -> None:
    """Analytic forces against central differences of the energy."""
    given = atoms.copy()
    given.calc = make()
    forces = given.get_forces()
    numerical = calculate_numerical_forces(given, eps=DISPLACEMENT)
    _assert_close("forces and -dE/dx", forces, numerical, _allowed(numerical), "eV/Å")


def stress_is_the_strain_derivative(make: Make, atoms: Atoms) -> None:
    """Analytic stress (ASE sign and Voigt order) against central differences of the energy."""
    given = atoms.copy()
    given.calc = make()
    if "stress" not in given.calc.implemented_properties:
        raise SkipTest("the calculator has no stress")
    # A strained cell: without symmetry a swapped Voigt component shows.
    strain = np.array([[0.02, 0.01, -0.015], [0.01, -0.01, 0.005], [-0.015, 0.005, 0.03]])
    given.set_cell(given.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    stress = given.get_stress()
    numerical = calculate_numerical_stress(given, eps=STRAIN)
    _assert_close("stress and dE/dstrain/V", stress, numerical, _allowed(numerical), "eV/Å^3")


def rotation_turns_everything(make: Make, atoms: Atoms) -> None:
    """Energy stays, forces and stress turn with the structure; also for a reflection."""
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    before = ask(make, atoms)
    for what, matrix in (("rotation", turn), ("reflection", np.diag([1.0, 1.0, -1.0]))):
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ matrix)
        turned.positions = atoms.positions @ matrix
        stress = None
        if before.stress is not None:
            stress = _voigt(matrix.T @ _tensor(before.stress) @ matrix)
        expected = Answer(before.energy, before.forces @ matrix, stress)
        _assert_same(what, ask(make, turned), expected)


def translation_changes_nothing(make: Make, atoms: Atoms) -> None:
    """Moving all atoms, out of the cell too, changes nothing."""
    moved = atoms.copy()
    moved.positions += [0.37, -41.3, 7.7]
    _assert_same("translation", ask(make, moved), ask(make, atoms))


def wrapping_changes_nothing(make: Make, atoms: Atoms) -> None:
    """Moving single atoms by lattice vectors changes nothing."""
    moved = atoms.copy()
    images = np.random.default_rng(6).integers(-3, 4, (len(atoms), 3))
    moved.positions += images @ atoms.cell.array
    _assert_same("lattice translation of atoms", ask(make, moved), ask(make, atoms))


def permutation_permutes_the_forces(make: Make, atoms: Atoms) -> None:
    """The order of the atoms does not matter."""
    order = np.random.default_rng(8).permutation(len(atoms))
    before = ask(make, atoms)
    expected = Answer(before.energy, before.forces[order], before.stress)
    _assert_same("permutation", ask(make, atoms[order]), expected)


def supercells_are_extensive(make: Make, atoms: Atoms) -> None:
    """A supercell has n times the energy, the same forces and the same stress."""
    before = ask(make, atoms)
    for repeat in ((2, 1, 1), (1, 2, 2)):
        n = int(np.prod(repeat))
        expected = Answer(n * before.energy, np.tile(before.forces, (n, 1)), before.stress)
        _assert_same(f"supercell {repeat}", ask(make, atoms * repeat), expected)


def the_choice_of_cell_does_not_matter(make: Make, atoms: Atoms) -> None:
    """Skewed and left-handed cells of the same crystal give the same answer."""
    before = ask(make, atoms)
    matrices = {
        "a skewed cell": [[1, 0, 0], [2, 1, 0], [-1, 1, 1]],
        "a very skewed cell": [[1, 0, 0], [5, 1, 0], [0, -4, 1]],
        "a left-handed cell": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    }
    for what, matrix in matrices.items():
        other = atoms.copy()
        other.set_cell(np.array(matrix) @ atoms.cell.array)
        _assert_same(what, ask(make, other), before)


def small_cells_equal_large_ones(make: Make, atoms: Atoms) -> None:
    """One atom in a cell smaller than the cutoff equals its supercells; primitive equals cubic."""
    symbol = atoms.symbols[0]
    one = Atoms(symbol, cell=np.eye(3) * 2.5, pbc=True)
    before = ask(make, one)
    many = ask(make, one * (3, 3, 3))
    expected = Answer(27 * before.energy, np.tile(before.forces, (27, 1)), before.stress)
    _assert_same("one atom against 27", many, expected)
    fcc = Atoms(symbol, cell=2.1 * (1 - np.eye(3)), pbc=True)
    cubic = make_supercell(fcc, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    before = ask(make, fcc)
    expected = Answer(4 * before.energy, np.zeros((4, 3)), before.stress)
    _assert_same("primitive against cubic fcc", ask(make, cubic), expected)


def vacuum_equals_no_periodicity(make: Make, atoms: Atoms) -> None:
    """Molecules and slabs: a wide periodic gap is the same as no periodicity."""
    for pbc in ((True, True, False), (False, True, False), (False, False, False)):
        open_ = atoms.copy()
        open_.pbc = pbc
        wide = atoms.copy()
        for axis in np.flatnonzero(~np.array(pbc)):
            # Along the normal of the other two vectors, so that the gap is as wide as it is long.
            others = [k for k in range(3) if k != axis]
            normal = np.cross(*wide.cell.array[others])
            wide.cell[axis] = normal / np.linalg.norm(normal) * VACUUM
        wide.pbc = True
        periodic = ask(make, wide)._replace(stress=None)
        _assert_same(f"pbc {pbc}", ask(make, open_), periodic)
        without = open_.copy()
        for axis in np.flatnonzero(~np.array(pbc)):
            without.cell[axis] = 0.0
        _assert_same(f"pbc {pbc}, no vector there", ask(make, without), periodic)


def an_isolated_atom_feels_no_force(make: Make, atoms: Atoms) -> None:
    """One atom without a cell, in a huge cell, and far from another one."""
    symbol = atoms.symbols[0]
    alone = ask(make, Atoms(symbol))
    assert np.isfinite(alone.energy), f"the energy is {alone.energy}"
    assert np.abs(alone.forces).max() <= FORCES_TOLERANCE, f"the force is {alone.forces[0]}"
    boxed = ask(make, Atoms(symbol, cell=np.eye(3) * 1000.0, pbc=True))
    _assert_same("an atom in a huge cell", boxed._replace(stress=None), alone)
    pair = Atoms([symbol] * 2, positions=[[0, 0, 0], [VACUUM, 0, 0]])
    expected = Answer(2 * alone.energy, np.zeros((2, 3)), None)
    _assert_same("two atoms far apart", ask(make, pair), expected)


def the_energy_is_smooth_through_the_cutoff(make: Make, atoms: Atoms) -> None:
    """A dimer and a trimer pulled apart: no step in the energy, no step in the force.

    The roughest places of a coarse scan are looked at closer and closer, down to about
    1e-6 Å: what is only steep becomes smooth there, what is a step stays one.
    """
    symbol = atoms.symbols[0]
    calculator = make()
    scans: dict[str, Callable[[float], Atoms]] = {
        "dimer": lambda r: Atoms([symbol] * 2, positions=[[0, 0, 0], [r, 0, 0]]),
        "trimer": lambda r: Atoms([symbol] * 3, positions=[[0, 0, 0], [0, 2.4, 0], [r, 0.7, 0]]),
    }
    for what, structure in scans.items():
        coarse = np.arange(*SCAN, SCAN_STEP)
        changes = _scan(calculator, structure, coarse)
        for name, allowed, unit in (
            ("energy", LARGEST_ENERGY_STEP, "eV"),
            ("force", LARGEST_FORCE_STEP, "eV/Å"),
        ):
            distances, values = coarse, changes[name]
            for _ in range(3):
                where = int(np.abs(values).argmax())
                distances = np.linspace(distances[where], distances[where + 1], 26)
                values = _scan(calculator, structure, distances)[name]
            worst = float(np.abs(values).max())
            assert worst <= allowed, (
                f"{what}: the {name} jumps by {worst:.2g} {unit} at {distances[0]:.3f} Å"
            )
        last = float(changes["last_force"][0])
        assert abs(last) <= FORCES_TOLERANCE, (
            f"{what}: the force at {coarse[-1]:.1f} Å is still {last:.2g} eV/Å"
        )


def _scan(
    calculator: Any, structure: Callable[[float], Atoms], distances: np.ndarray
) -> dict[str, np.ndarray]:
    """Return per step the energy that the forces do not explain and the change of the force.

    The work of the force is integrated by the trapezoid rule, exact to third order in the step.
    """
    found = []
    for r in distances:
        given = structure(float(r))
        energy = calculator.get_property("energy", given)
        found.append((energy, calculator.get_property("forces", given)[-1, 0]))
    energies, forces = np.array(found).T
    work = np.diff(distances) * (forces[1:] + forces[:-1]) / 2
    return {
        "energy": np.diff(energies) + work,
        "force": np.diff(forces),
        "last_force": forces[-1:],
    }


def dynamics_conserve_the_energy(make: Make, atoms: Atoms) -> None:
    """50 fs at constant energy: halving the time step of Verlet's method quarters the error."""
    errors = []
    for timestep in (1.0, 0.5):
        given = atoms.copy()
        given.calc = make()
        rng = np.random.default_rng(11)
        speed = np.sqrt(300 * units.kB / given.get_masses())[:, None]
        given.set_velocities(rng.normal(size=(len(given), 3)) * speed)
        kinetic, total = [], []
        dynamics = VelocityVerlet(given, timestep * units.fs)
        for _ in dynamics.irun(round(50 / timestep)):
            kinetic.append(given.get_kinetic_energy())
            total.append(kinetic[-1] + given.get_potential_energy())
        errors.append(float(np.ptp(total)))
    exchanged = float(np.ptp(kinetic))
    assert errors[1] <= 0.05 * exchanged + 1e-9, (
        f"the total energy varies by {errors[1]:.2g} eV while {exchanged:.2g} eV are exchanged"
    )
    assert errors[1] <= 0.5 * errors[0] + 1e-9, (
        f"the total energy varies by {errors[0]:.2g} eV with steps of 1 fs and still by "
        f"{errors[1]:.2g} eV with steps of 0.5 fs: forces and energy do not belong together"
    )


def _assert_same(what: str, found: Answer, expected: Answer) -> None:
    difference = abs(found.energy - expected.energy)
    assert difference <= ENERGY_TOLERANCE * len(expected.forces), (
        f"{what}: the energy differs by {difference:.2g} eV"
    )
    _assert_close(f"{what}: forces", found.forces, expected.forces, FORCES_TOLERANCE, "eV/Å")
    if found.stress is not None and expected.stress is not None:
        _assert_close(f"{what}: stress", found.stress, expected.stress, STRESS_TOLERANCE, "eV/Å^3")


def _assert_close(
    what: str, found: np.ndarray, expected: np.ndarray, allowed: float, unit: str
) -> None:
    assert found.shape == expected.shape, f"{what}: shapes {found.shape} and {expected.shape}"
    worst = float(np.abs(found - expected).max(initial=0.0))
    assert worst <= allowed, f"{what} differ by {worst:.2g} {unit} (allowed {allowed:.2g})"


def _allowed(reference: np.ndarray) -> float:
    return DERIVATIVE_TOLERANCE * max(float(np.abs(reference).max(initial=0.0)), 1e-2)


def _tensor(stress: np.ndarray) -> np.ndarray:
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _voigt(tensor: np.ndarray) -> np.ndarray:
    return np.asarray(tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])
