"""Checks of an ASE calculator: its contract with ASE, and its physics.

    from epitaxy.testing.calculator_checks import calculator_checks

    checks = calculator_checks(lambda: MyCalculator(dtype="float64"), atoms)

The list was drawn from the bugs that users of machine-learned potentials report: sign and
shape of the stress, isolated atoms, molecules without a cell, left-handed cells, stale caches.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from epitaxy.component import Offer
from epitaxy.registry import Registry
from epitaxy.testing import Check

if TYPE_CHECKING:
    from ase import Atoms

_SMALL = MappingProxyType({"width": 16, "n_layers": 2, "n_radial": 6})
"""Options that make a network quick to evaluate, where it has them."""


def calculator_checks(
    make: Callable[[], Any], atoms: Atoms, *, title: str = "calculator"
) -> list[Check]:
    """Return all checks of a calculator.

    Args:
        make: returns a fresh calculator, in float64: in float32 finite differences are noise.
        atoms: a small structure, periodic in three directions, off its equilibrium, of
            elements that the calculator knows.
        title: what the checks are called.
    """
    from epitaxy.testing import calculator_contract as contract
    from epitaxy.testing import calculator_physics as physics

    rules: dict[str, Callable[[Callable[[], Any], Atoms], None]] = {
        "delivers what it lists": contract.lists_what_it_delivers,
        "types and shapes are those of ASE": contract.types_and_shapes_are_those_of_ase,
        "energies sum to the energy": contract.energies_sum_to_the_energy,
        "one evaluation serves all properties": contract.one_evaluation_serves_all,
        "every change is noticed": contract.every_change_is_noticed,
        "unlike structures leave nothing behind": contract.unlike_structures_leave_nothing_behind,
        "results are not shared": contract.results_are_not_shared,
        "input is not changed": contract.input_is_not_changed,
        "copies are independent": contract.copies_are_independent,
        "the order of questions does not matter": contract.the_order_of_questions_does_not_matter,
        "global settings are left alone": contract.global_settings_are_left_alone,
        "a molecule has no stress": contract.a_molecule_has_no_stress,
        "unusable structures are refused": contract.unusable_structures_are_refused,
        "unknown elements are named": contract.unknown_elements_are_named,
        "forces are minus the gradient": physics.forces_are_minus_the_gradient,
        "stress is the strain derivative": physics.stress_is_the_strain_derivative,
        "rotation": physics.rotation_turns_everything,
        "translation": physics.translation_changes_nothing,
        "wrapping": physics.wrapping_changes_nothing,
        "permutation": physics.permutation_permutes_the_forces,
        "supercells are extensive": physics.supercells_are_extensive,
        "the choice of cell does not matter": physics.the_choice_of_cell_does_not_matter,
        "small cells equal large ones": physics.small_cells_equal_large_ones,
        "vacuum equals no periodicity": physics.vacuum_equals_no_periodicity,
        "an isolated atom feels no force": physics.an_isolated_atom_feels_no_force,
        "smooth through the cutoff": physics.the_energy_is_smooth_through_the_cutoff,
        "dynamics conserve the energy": physics.dynamics_conserve_the_energy,
    }
    return [
        Check(f"{title}: {name}", functools.partial(rule, make, atoms))
        for name, rule in rules.items()
    ]


def checks(registry: Registry, offer: Offer) -> list[Check]:
    """Return the checks of a calculator on an artifact that is made for them.

    The artifact holds a small untrained network: physics holds for any weights.
    """
    sample = Sample(registry, offer)
    return calculator_checks(
        sample.calculator, sample_structure(), title=f"calculator/{offer.qualified_name}"
    )


class Sample:
    """An artifact in a temporary folder, made when it is first asked for."""

    def __init__(self, registry: Registry, offer: Offer) -> None:
        self._registry = registry
        self._offer = offer
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def calculator(self) -> Any:
        """Return a fresh calculator of the artifact, in float64."""
        if self._folder is None:
            folder = tempfile.TemporaryDirectory(prefix="epitaxy-check-")
            write_sample_artifact(Path(folder.name) / "artifact", registry=self._registry)
            self._folder = folder
        example = dict(self._offer.component.example)
        make = self._registry.build("calculator", {"use": self._offer.qualified_name, **example})
        return make(Path(self._folder.name) / "artifact", device="cpu", dtype="float64")


def sample_structure() -> Atoms:
    """Return silicon carbide with displaced atoms in a strained cell."""
    import numpy as np
    from ase.build import bulk

    atoms = bulk("SiC", "zincblende", a=4.4, cubic=True)
    strain = np.array([[0.03, 0.01, 0.0], [0.01, -0.02, 0.02], [0.0, 0.02, 0.01]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def write_sample_artifact(
    directory: Path,
    *,
    registry: Registry,
    n_members: int = 1,
    structures: Sequence[Atoms] = (),
) -> Path:
    """Write the artifact of a small untrained network of the first plugin that offers one.

    Args:
        directory: where to; must not exist.
        registry: where networks are found.
        n_members: more than one makes an ensemble.
        structures: whose elements it knows; silicon carbide if there are none.

    Raises:
        SkipTest: no installed plugin offers a network.
    """
    import torch

    from epitaxy.artifact import save_artifact
    from epitaxy.dataset import Dataset
    from epitaxy.ensemble import EnsembleModel
    from epitaxy.graph_model import GraphModel
    from epitaxy.models import build_model
    from epitaxy.options import options_of
    from epitaxy.run import Run
    from epitaxy.spec import Spec

    dataset = Dataset.from_entries(_labelled_entries(structures))
    run = Run(directory.with_name("run"))
    for offer in registry.offers["model"]:
        if offer.component.missing():
            continue
        names = {option.name for option in options_of(registry.load("model", offer.qualified_name))}
        options = {name: value for name, value in _SMALL.items() if name in names}
        spec = Spec(offer.qualified_name, {**options, **offer.component.example})
        if not isinstance(build_model(spec, registry), GraphModel):
            continue
        members = []
        for seed in range(n_members):
            model = build_model(spec, registry)
            assert isinstance(model, GraphModel)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = registry.build("model", spec)
            model.start_from(network, dataset, run=run)
            members.append(model)
        whole = EnsembleModel(members) if n_members > 1 else members[0]
        return save_artifact(whole, directory)
    raise SkipTest("no installed plugin offers a graph network: pip install 'epitaxy[graphs]'")


def _labelled_entries(structures: Sequence[Atoms]) -> list[Any]:
    """Structures with energies and forces, from which references and scale are fitted."""
    import numpy as np

    from epitaxy.entry import Entry

    first = sample_structure()
    second = first[np.flatnonzero(first.numbers == 14)]
    return [
        Entry.from_atoms(
            atoms,
            targets={"energy": -6.0 * len(atoms), "forces": np.ones((len(atoms), 3))},
            id=f"sample-{index}",
        )
        for index, atoms in enumerate(structures or (first, second))
    ]
