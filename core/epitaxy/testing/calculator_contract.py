"""Checks of a calculator against what ASE asks of it: properties, types, caching, copies."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import chemical_symbols
from ase.outputs import all_outputs

Make = Callable[[], Any]
"""Returns a fresh calculator."""

ENERGY_TOLERANCE = 1e-8
"""eV per atom: the same structure evaluated in two ways, in float64."""

FORCES_TOLERANCE = 1e-7
"""eV/Å: the same."""


def lists_what_it_delivers(make: Make, atoms: Atoms) -> None:
    """Everything listed is delivered; free_energy is listed, finite differences ask for it."""
    calculator = make()
    listed = calculator.implemented_properties
    for name in ("energy", "free_energy", "forces"):
        assert name in listed, f"{name!r} is not in implemented_properties ({list(listed)})"
    for name in listed:
        if name in all_outputs:
            assert calculator.get_property(name, atoms) is not None, f"{name!r} is not delivered"
    missing = [n for n in calculator.results if n in all_outputs and n not in listed]
    assert not missing, f"{missing} in results but not in implemented_properties"


def types_and_shapes_are_those_of_ase(make: Make, atoms: Atoms) -> None:
    """Energies are Python floats, arrays float64 of ASE's shapes, stress Voigt."""
    calculator = make()
    for name in ("energy", "free_energy"):
        energy = calculator.get_property(name, atoms)
        assert type(energy) is float, f"{name} is a {type(energy).__name__}, not a float"
        assert np.isfinite(energy), f"{name} is {energy}"
    shapes = {"forces": (len(atoms), 3), "stress": (6,), "energies": (len(atoms),)}
    for name, shape in shapes.items():
        if name in calculator.implemented_properties:
            value = calculator.get_property(name, atoms)
            assert isinstance(value, np.ndarray), f"{name} is a {type(value).__name__}"
            assert value.shape == shape, f"{name} has shape {value.shape}, ASE wants {shape}"
            assert value.dtype == np.float64, f"{name} has dtype {value.dtype}, ASE wants float64"
            assert np.isfinite(value).all(), f"{name} is not finite"


def energies_sum_to_the_energy(make: Make, atoms: Atoms) -> None:
    """The atomic energies, where there are any, add up to the total."""
    calculator = make()
    if "energies" not in calculator.implemented_properties:
        raise SkipTest("the calculator has no atomic energies")
    total = calculator.get_property("energies", atoms).sum()
    energy = calculator.get_property("energy", atoms)
    assert abs(total - energy) <= ENERGY_TOLERANCE * len(atoms), f"sum {total}, energy {energy}"


def one_evaluation_serves_all(make: Make, atoms: Atoms) -> None:
    """Energy, forces and stress of one structure cost one evaluation."""
    calculator, n_calls = _counted(make())
    for name in ("energy", "forces", "free_energy", "stress", "energy"):
        if name in calculator.implemented_properties:
            calculator.get_property(name, atoms)
    assert n_calls[0] == 1, f"{n_calls[0]} evaluations for energy, forces and stress"
    calculator.get_property("energy", atoms.copy())
    assert n_calls[0] == 1, "an equal structure is evaluated again"
    assert not calculator.calculation_required(atoms, ["energy"]), "a known energy is required"


def every_change_is_noticed(make: Make, atoms: Atoms) -> None:
    """Positions, cell, elements, periodicity, order, atoms removed: the results follow."""
    calculator = make()
    for what, changed in _changes(atoms):
        calculator.get_property("energy", atoms)
        _assert_like_fresh(calculator, make(), changed, what)


def unlike_structures_leave_nothing_behind(make: Make, atoms: Atoms) -> None:
    """Structures that have nothing in common, in turn, get the results of fresh calculators."""
    calculator = make()
    symbol = atoms.symbols[0]
    others = [
        atoms,
        Atoms(symbol),
        atoms * (2, 1, 1),
        Atoms([symbol] * 2, positions=[[0, 0, 0], [0, 0, 2.2]]),
        Atoms(symbol, cell=np.eye(3) * 2.6, pbc=True),
    ]
    slab = atoms.copy()
    slab.pbc = (True, False, True)
    for structure in [*others, slab, *others[::-1]]:
        _assert_like_fresh(calculator, make(), structure, str(structure.symbols))


def results_are_not_shared(make: Make, atoms: Atoms) -> None:
    """What the user gets, or changes, is no internal array; old results stay as they were."""
    calculator = make()
    forces = calculator.get_property("forces", atoms)
    expected = forces.copy()
    forces += 1.0
    assert np.array_equal(calculator.get_property("forces", atoms), expected), (
        "changing the array that get_forces returned changes the stored forces"
    )
    kept = calculator.results["forces"]
    before = kept.copy()
    moved = atoms.copy()
    moved.rattle(0.05, seed=5)
    calculator.get_property("forces", moved)
    assert np.array_equal(kept, before), "a new evaluation writes into the old results"
    moved.positions += 0.2 * np.arange(3)
    moved.positions[0] += 0.1
    _assert_like_fresh(calculator, make(), moved, "positions changed in place")


def input_is_not_changed(make: Make, atoms: Atoms) -> None:
    """The structure is the same before and after."""
    given = atoms.copy()
    given.calc = make()
    given.get_forces()
    assert given == atoms, "the calculator changes the structure"
    assert set(given.arrays) == set(atoms.arrays), "the calculator adds arrays to the structure"


def copies_are_independent(make: Make, atoms: Atoms) -> None:
    """A deep copy, and a pickle, of atoms with the calculator go on by themselves."""
    ways: tuple[Callable[[Atoms], Any], ...] = (
        copy.deepcopy,
        lambda given: pickle.loads(pickle.dumps(given)),
    )
    for how in ways:
        original = atoms.copy()
        original.calc = make()
        energy = original.get_potential_energy()
        other = how(original)
        other.rattle(0.1, seed=9)
        _assert_like_fresh(other.calc, make(), other, "after a copy")
        assert original.calc.results["energy"] == energy, "the copy changes the original"
        assert original.get_potential_energy() == energy


def the_order_of_questions_does_not_matter(make: Make, atoms: Atoms) -> None:
    """Energy first, or stress first: the same numbers."""
    found = []
    for first in ("energy", "forces", "stress"):
        calculator = make()
        if first in calculator.implemented_properties:
            calculator.get_property(first, atoms)
            found.append(calculator.get_property("energy", atoms))
    assert len(set(found)) == 1, f"energy is {found} after asking for energy, forces, stress"


def global_settings_are_left_alone(make: Make, atoms: Atoms) -> None:
    """Torch's default dtype, threads and gradient mode stay; threads do not change results."""
    torch = sys.modules.get("torch")
    calculator = make()
    if torch is None:
        torch = sys.modules.get("torch")
    if torch is None:
        raise SkipTest("the calculator does not use torch")
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    energy = calculator.get_property("energy", atoms)
    after = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    assert before == after, f"dtype, threads, gradients were {before}, are {after}"
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            again = make().get_property("energy", atoms)
            assert abs(again - energy) <= ENERGY_TOLERANCE * len(atoms), (
                f"energy {energy} becomes {again} with {n_threads} threads"
            )
    finally:
        torch.set_num_threads(before[1])


def a_molecule_has_no_stress(make: Make, atoms: Atoms) -> None:
    """Stress without a cell is "not implemented", and leaves the calculator usable."""
    molecule = Atoms(atoms.symbols[:2], positions=[[0, 0, 0], [0, 0, 2.2]])
    calculator = make()
    try:
        stress = calculator.get_property("stress", molecule)
    except PropertyNotImplementedError:
        pass
    else:
        raise AssertionError(f"the stress of a molecule is {stress}")
    assert np.isfinite(calculator.get_property("forces", molecule)).all()


def unusable_structures_are_refused(make: Make, atoms: Atoms) -> None:
    """No atoms, nan, a periodic cell of no volume, atoms on each other: an error, no number."""
    symbol = atoms.symbols[0]
    unusable = {
        "no atoms": Atoms(),
        "a position that is nan": Atoms([symbol] * 2, positions=[[0, 0, 0], [np.nan, 0, 0]]),
        "a cell that is inf": Atoms(symbol, cell=np.diag([np.inf, 3, 3]), pbc=True),
        "a periodic cell of zeros": Atoms(symbol, pbc=True),
        "a flat periodic cell": Atoms(symbol, cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True),
        "two atoms on one place": Atoms([symbol] * 2, positions=np.ones((2, 3))),
    }
    cryptic = (IndexError, KeyError, AttributeError, TypeError, np.linalg.LinAlgError)
    for what, structure in unusable.items():
        energy, error = _energy_or_error(make(), structure)
        assert error is not None, f"{what}: the energy is {energy}"
        assert not isinstance(error, cryptic), f"{what}: a cryptic {error!r}"
        assert str(error).strip(), f"{what}: a {type(error).__name__} without a message"


def unknown_elements_are_named(make: Make, atoms: Atoms) -> None:
    """An element that the calculator does not know is an error that names it."""
    for symbol in ("Og", "Rn", "He"):
        strange = atoms.copy()
        strange.symbols[0] = symbol
        _, error = _energy_or_error(make(), strange)
        if error is not None:
            names = (symbol, str(chemical_symbols.index(symbol)))
            assert any(name in str(error) for name in names), (
                f"the error does not name {symbol}: {error}"
            )
            return
    raise SkipTest("the calculator knows Og, Rn and He")


def _energy_or_error(calculator: Any, atoms: Atoms) -> tuple[float | None, Exception | None]:
    try:
        return calculator.get_property("energy", atoms), None
    except Exception as error:
        return None, error


def _counted(calculator: Any) -> tuple[Any, list[int]]:
    n_calls = [0]
    calculate = calculator.calculate

    def counted(*arguments: Any, **named: Any) -> None:
        n_calls[0] += 1
        calculate(*arguments, **named)

    calculator.calculate = counted
    return calculator, n_calls


def _changes(atoms: Atoms) -> list[tuple[str, Atoms]]:
    moved, strained, open_, reordered = (atoms.copy() for _ in range(4))
    moved.positions[0] += [0.02, -0.01, 0.03]
    strained.set_cell(atoms.cell.array * 1.01)
    open_.pbc = (True, True, False)
    reordered = reordered[::-1]
    changes = [
        ("one atom moved", moved),
        ("the cell changed", strained),
        ("pbc changed", open_),
        ("the order changed", reordered),
        ("an atom removed", atoms[1:]),
    ]
    known = sorted(set(atoms.numbers.tolist()))
    if len(known) > 1:
        exchanged = atoms.copy()
        exchanged.numbers[:] = np.roll(exchanged.numbers, 1)
        changes.append(("elements exchanged", exchanged))
    return changes


def _assert_like_fresh(calculator: Any, fresh: Any, atoms: Atoms, what: str) -> None:
    energy, expected = (c.get_property("energy", atoms) for c in (calculator, fresh))
    assert abs(energy - expected) <= ENERGY_TOLERANCE * len(atoms), (
        f"{what}: energy {energy}, a fresh calculator says {expected}"
    )
    difference = calculator.get_property("forces", atoms) - fresh.get_property("forces", atoms)
    worst = float(np.abs(difference).max())
    assert worst <= FORCES_TOLERANCE, (
        f"{what}: forces differ by {worst:.2g} eV/Å from those of a fresh calculator"
    )
