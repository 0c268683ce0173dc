"""Checks of a model: the physics of a graph network, and the contract of any other model.

A network is checked with random weights, in float64, on a few small structures: what holds for
them holds after training. To check a network that no plugin offers:

    from epitaxy.testing.model_checks import network_checks

    checks = network_checks(lambda: MyNetwork(cutoff=4.0))
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.component import Offer
from epitaxy.registry import Registry
from epitaxy.testing import Check
from epitaxy.testing.structures import crystal, lone_atom, molecule, same, slab

if TYPE_CHECKING:
    from ase import Atoms
    from torch import nn

    from epitaxy.potential import Outputs, Potential

Build = Callable[[], Any]

SCALE = 0.7  # eV; any number but 1
STEP = 2e-4  # Å or strain; error of the difference formula 1e-9, of its rounding 1e-11
REFERENCES = {1: -3.1, 6: -7.7, 8: -5.3, 14: -4.2}  # eV


def checks(registry: Registry, offer: Offer) -> list[Check]:
    """Return the checks of a model; it is built with `Component.example`."""
    spec = {"use": offer.qualified_name, **dict(offer.component.example)}
    build = functools.partial(registry.build, "model", spec)
    prefix = f"model/{offer.qualified_name}: "
    target = registry.load("model", offer.qualified_name)
    if _is_network(target):
        if getattr(target, "has_forces", True) and getattr(target, "gives_energies", True):
            return network_checks(build, prefix=prefix)
        from epitaxy.testing.body_checks import body_checks

        return body_checks(build, prefix=prefix)
    return contract_checks(build, prefix=prefix)


def network_checks(build: Callable[[], nn.Module], *, prefix: str = "network: ") -> list[Check]:
    """Return the checks of a network (`epitaxy.protocols.Network`).

    Args:
        build: makes the network, with random weights.
        prefix: what the names of the checks begin with.
    """
    rules: dict[str, Callable[[Build], None]] = {
        "gives one number per atom": _one_number_per_atom,
        "has parts that hold every parameter, and features per layer": _parts_and_features,
        "energy and forces follow a rotation": _rotation,
        "nothing changes with a translation": _translation,
        "nothing changes when atoms move by lattice vectors": _lattice_wrap,
        "forces follow a permutation": _permutation,
        "a supercell has a multiple of the energy": _supercell,
        "batch equals single": _batch_equals_single,
        "forces are minus the gradient of the energy": _forces,
        "stress is the strain derivative of the energy": _stress,
        "energy and forces are continuous at the cutoff": _smooth_cutoff,
        "the energy is smooth around a symmetric site": _symmetric_site,
        "atoms beyond the cutoff do not matter": _locality,
        "molecules, slabs and lone atoms have finite results": _open_directions,
        "an element that is not covered is refused by name": _unknown_element,
        "float32 agrees with float64": _single_precision,
        "loading what was saved gives the same energies": _save_and_load,
        "the graph is left as it was": _graph_unchanged,
    }
    return [Check(prefix + title, functools.partial(rule, build)) for title, rule in rules.items()]


def contract_checks(build: Build, *, prefix: str = "model: ") -> list[Check]:
    """Return the checks of a model that is no network (`epitaxy.protocols.Model`)."""
    return [
        Check(
            prefix + "fits, predicts, and loads what it saved", functools.partial(_contract, build)
        )
    ]


def _is_network(target: object) -> bool:
    import torch

    return isinstance(target, type) and issubclass(target, torch.nn.Module)


# ---------------------------------------------------------------- evaluation


def _potential(build: Build, *, seed: int = 1) -> Potential:
    """Wrap a fresh network, in float64; every parameter is random, biases too."""
    import torch

    from epitaxy.potential import Potential

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    potential = Potential(
        network, elements=tuple(REFERENCES), reference_energies=REFERENCES, scale=SCALE
    )
    return potential.double().eval()  # type: ignore[no-any-return]


def _evaluate(potential: Potential, *atoms: Atoms) -> Outputs:
    from epitaxy.graphs.builder import build_batch_from_atoms

    graph = build_batch_from_atoms(atoms, cutoff=potential.cutoff, dtype=potential.dtype)
    outputs: Outputs = potential(graph, forces=True, stress=True)
    return outputs


def _numbers(outputs: Outputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return energy, forces and stress as float64 arrays."""
    energy, _, forces, stress = (
        np.zeros(0) if value is None else value.detach().double().numpy() for value in outputs
    )
    return energy, forces, stress


def _must_interact(forces: np.ndarray) -> None:
    assert np.abs(forces).max() > 1e-8, (
        "all forces are zero: the energy does not depend on the edge vectors, or the network "
        "detaches them"
    )


# ---------------------------------------------------------------- rules


def _one_number_per_atom(build: Build) -> None:
    import torch

    from epitaxy.graphs.builder import build_batch_from_atoms

    potential = _potential(build)
    cutoff = potential.cutoff
    assert cutoff > 0, f"network.cutoff is {cutoff}; it must be a positive length in Å"
    graph = build_batch_from_atoms([crystal(), lone_atom()], cutoff=cutoff, dtype=torch.float64)
    values = potential.network(graph)
    assert tuple(values.shape) == (7,), f"7 atoms gave the shape {tuple(values.shape)}"
    assert values.dtype == torch.float64, f"float64 vectors gave {values.dtype}"


def _parts_and_features(build: Build) -> None:
    import torch

    from epitaxy.graphs.builder import build_batch_from_atoms

    potential = _potential(build)
    network = potential.network
    parts = network.parts()
    assert list(parts) == ["embedding", "body", "head"], (
        f"parts() has the keys {list(parts)}; expected embedding, body, head"
    )
    held = {id(p) for part in parts.values() for p in part.parameters()}
    names = [name for name, p in network.named_parameters() if id(p) not in held]
    assert not names, f"parameters in no part: {', '.join(names)}"
    graph = build_batch_from_atoms([crystal()], cutoff=potential.cutoff, dtype=torch.float64)
    for layer in network.features(graph):
        shape = tuple(layer.shape)
        assert len(shape) == 2, f"features of 6 atoms have the shape {shape}, not (6, width)"
        assert shape[0] == 6, f"features of 6 atoms have the shape {shape}, not (6, width)"


def _rotation(build: Build) -> None:
    potential, atoms = _potential(build), crystal()
    energy, forces, _ = _numbers(_evaluate(potential, atoms))
    _must_interact(forces)
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, -1), rotate_cell=True)
    rotation = np.linalg.solve(atoms.cell.array, turned.cell.array)
    turned_energy, turned_forces, _ = _numbers(_evaluate(potential, turned))
    same(turned_energy, energy, "energy after a rotation")
    same(turned_forces, forces @ rotation, "forces after a rotation")


def _translation(build: Build) -> None:
    potential, atoms = _potential(build), crystal()
    before = _numbers(_evaluate(potential, atoms))
    atoms.positions += [3.3, -7.1, 11.9]
    for name, old, new in zip(
        ("energy", "forces", "stress"), before, _numbers(_evaluate(potential, atoms)), strict=True
    ):
        same(new, old, f"{name} after a translation")


def _lattice_wrap(build: Build) -> None:
    potential, atoms = _potential(build), crystal()
    before = _numbers(_evaluate(potential, atoms))
    atoms.positions[2] += np.array([1, -2, 3]) @ atoms.cell.array
    for name, old, new in zip(
        ("energy", "forces", "stress"), before, _numbers(_evaluate(potential, atoms)), strict=True
    ):
        same(new, old, f"{name} after one atom moved by lattice vectors")


def _permutation(build: Build) -> None:
    potential, atoms = _potential(build), crystal()
    order = np.array([3, 1, 5, 0, 2, 4])
    energy, forces, _ = _numbers(_evaluate(potential, atoms))
    other_energy, other_forces, _ = _numbers(_evaluate(potential, atoms[order]))
    same(other_energy, energy, "energy after a permutation")
    same(other_forces, forces[order], "forces after a permutation")


def _supercell(build: Build) -> None:
    potential, atoms = _potential(build), crystal()
    energy, forces, stress = _numbers(_evaluate(potential, atoms))
    big_energy, big_forces, big_stress = _numbers(_evaluate(potential, atoms * (2, 1, 3)))
    same(big_energy, 6 * energy, "energy of a supercell of 6 cells")
    same(big_forces, np.tile(forces, (6, 1)), "forces in a supercell")
    same(big_stress, stress, "stress of a supercell")


def _batch_equals_single(build: Build) -> None:
    potential = _potential(build)
    several = [crystal(), lone_atom(), molecule(), crystal() * (2, 1, 1), slab()]
    energy, forces, stress = _numbers(_evaluate(potential, *several))
    start = 0
    for index, atoms in enumerate(several):
        alone = _numbers(_evaluate(potential, atoms))
        end = start + len(atoms)
        name = f"structure {index} of a batch of {len(several)}, {atoms.get_chemical_formula()}"
        same(energy[index : index + 1], alone[0], f"energy of {name}")
        same(forces[start:end], alone[1], f"forces of {name}")
        if atoms.pbc.all():
            same(stress[index : index + 1], alone[2], f"stress of {name}")
        start = end


def _derivative(energy_at: Callable[[float], float], step: float) -> float:
    """Return the first derivative at 0 by five points, error of order step^4."""
    far = energy_at(2 * step) - energy_at(-2 * step)
    return (8 * (energy_at(step) - energy_at(-step)) - far) / (12 * step)


def _forces(build: Build) -> None:
    potential = _potential(build)
    for atoms in (crystal(), molecule()):
        _, forces, _ = _numbers(_evaluate(potential, atoms))
        _must_interact(forces)
        numeric = np.zeros_like(forces)
        for atom, axis in np.ndindex(forces.shape):

            def energy_at(shift: float, atoms: Any = atoms, at: Any = (atom, axis)) -> float:
                moved = atoms.copy()
                moved.positions[at] += shift
                return float(_evaluate(potential, moved).energy[0])

            numeric[atom, axis] = -_derivative(energy_at, STEP)
        largest = np.abs(forces).max()
        same(forces / largest, numeric / largest, "forces, relative", tolerance=1e-6)


def _stress(build: Build) -> None:
    potential, atoms = _potential(build), crystal()
    _, _, stress = _numbers(_evaluate(potential, atoms))
    numeric = np.zeros((1, 6))
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):

        def energy_at(strain: float, a: int = a, b: int = b) -> float:
            deformation = np.eye(3)
            deformation[a, b] += strain / 2
            deformation[b, a] += strain / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
            return float(_evaluate(potential, strained).energy[0])

        numeric[0, voigt] = _derivative(energy_at, STEP) / atoms.get_volume()
    largest = max(np.abs(stress).max(), 1e-12)
    same(stress / largest, numeric / largest, "stress, relative", tolerance=1e-6)


def _smooth_cutoff(build: Build) -> None:
    from ase import Atoms

    potential = _potential(build)
    cutoff = potential.cutoff

    def trimer(distance: float) -> Atoms:
        places = [[0.0, 0, 0], [0.25 * cutoff, 0.1 * cutoff, 0], [distance, 0, 0]]
        return Atoms([14, 8, 6], positions=places)

    scan = [trimer(cutoff * x) for x in np.linspace(0.4, 0.95, 8)]
    energies, forces, _ = _numbers(_evaluate(potential, *scan))
    typical_energy, typical_force = np.ptp(energies), np.abs(forces).max()
    inside, outside = trimer(cutoff * (1 - 1e-6)), trimer(cutoff * (1 + 1e-6))
    energies, forces, _ = _numbers(_evaluate(potential, inside, outside))
    energy_jump = abs(energies[0] - energies[1])
    # The third atom stays within reach of the second, so energies may change smoothly.
    assert energy_jump <= 1e-4 * typical_energy, (
        f"the energy jumps by {energy_jump:.3g} eV when an atom crosses the cutoff of {cutoff} Å "
        f"(it varies by {typical_energy:.3g} eV inside)"
    )
    force_jump = np.abs(forces[:3] - forces[3:]).max()
    assert force_jump <= 1e-3 * typical_force, (
        f"a force jumps by {force_jump:.3g} eV/Å when an atom crosses the cutoff of {cutoff} Å "
        f"(the largest inside is {typical_force:.3g} eV/Å)"
    )


def _symmetric_site(build: Build) -> None:
    """A force is proportional to a small displacement; norms of vector features break that."""
    from ase.build import bulk

    potential = _potential(build)
    shifts = np.array([1e-3, 1e-2])
    moved = []
    for shift in shifts:
        atoms = bulk("Si", cubic=True)
        atoms.positions[0] += shift * np.array([0.48, 0.6, 0.64])
        moved.append(atoms)
    _, forces, _ = _numbers(_evaluate(potential, *moved))
    near, far = np.abs(forces.reshape(2, -1)).max(axis=1) / shifts
    assert near <= 1.5 * far + 1e-9, (
        f"an atom of a perfect crystal that is moved by {shifts[0]} Å feels {near:.3g} eV/Å per "
        f"Å, by {shifts[1]} Å {far:.3g}: the energy has a cone at symmetric sites. Round the "
        f"norms of vector features: sqrt(|v|^2 + 0.1^2)"
    )


def _locality(build: Build) -> None:
    from ase import Atoms

    potential = _potential(build)
    alone = molecule()
    far = alone + Atoms("C", positions=[[1e3, 0, 0]])
    energies, forces, _ = _numbers(_evaluate(potential, alone, Atoms("C"), far))
    same(energies[2:], energies[:1] + energies[1:2], "energy with an atom 1000 Å away")
    same(forces[5:9], forces[:4], "forces with an atom 1000 Å away")


def _open_directions(build: Build) -> None:
    potential = _potential(build)
    wire = crystal()
    wire.pbc = [False, True, False]
    for atoms in (molecule(), slab(), wire, lone_atom()):
        energy, forces, stress = _numbers(_evaluate(potential, atoms))
        name = f"{atoms.get_chemical_formula()} with pbc {atoms.pbc.tolist()}"
        assert np.isfinite(energy).all(), f"energy of {name} is {energy}"
        assert np.isfinite(forces).all(), f"forces of {name} are not finite"
        assert np.isnan(stress).all(), f"stress of {name} is {stress}, but it has no volume"
    _, forces, _ = _numbers(_evaluate(potential, lone_atom()))
    assert (forces == 0).all(), f"a lone atom has the force {forces}"


def _unknown_element(build: Build) -> None:
    from ase import Atoms

    from epitaxy.errors import CapabilityError

    message = ""
    try:
        _evaluate(_potential(build), Atoms("SiXe", positions=[[0, 0, 0], [2, 0, 0]]))
    except CapabilityError as error:
        message = str(error)
    assert message, "Xe was accepted although it is not covered"
    assert "Xe" in message, f"the message does not name Xe: {message}"


def _single_precision(build: Build) -> None:
    potential = _potential(build)
    exact = _numbers(_evaluate(potential, crystal(), molecule()))
    rough = _numbers(_evaluate(potential.float(), crystal(), molecule()))
    for name, fine, coarse in zip(("energy", "forces"), exact, rough, strict=False):
        same(coarse, fine, f"{name} in float32", tolerance=1e-4)


def _save_and_load(build: Build) -> None:
    from safetensors.torch import load, save

    saved = _potential(build, seed=1)
    other = _potential(build, seed=2)
    expected = _numbers(_evaluate(saved, crystal()))
    weights = {name: value.contiguous() for name, value in saved.state_dict().items()}
    other.load_state_dict(load(save(weights)))
    for name, old, new in zip(
        ("energy", "forces", "stress"),
        expected,
        _numbers(_evaluate(other, crystal())),
        strict=True,
    ):
        assert np.array_equal(old, new), f"{name} changed by saving and loading"


def _graph_unchanged(build: Build) -> None:
    import torch

    from epitaxy.graphs.builder import build_batch_from_atoms

    potential = _potential(build)
    graph = build_batch_from_atoms([crystal()], cutoff=potential.cutoff, dtype=torch.float64)
    before = {n: value.clone() for n, value in graph._asdict().items() if value is not None}
    first = potential(graph, stress=True)
    second = potential(graph, stress=True)
    for name, old in before.items():
        assert torch.equal(old, getattr(graph, name)), f"the network changed graph.{name}"
    assert not graph.vectors.requires_grad, "graph.vectors requires a gradient now"
    same(_numbers(second)[1], _numbers(first)[1], "forces of a second call")


# ---------------------------------------------------------------- other models


def _contract(build: Build) -> None:
    from ase.build import bulk
    from ase.calculators.lj import LennardJones

    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry
    from epitaxy.run import Run

    entries = []
    for seed in range(24):
        atoms = bulk("Ar", cubic=True, a=5.2 + 0.02 * (seed % 8))
        atoms.rattle(0.1, seed=seed)
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0)
        targets = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"argon#{seed}"))
    everything = Dataset.from_entries(entries)
    digest = everything.digest
    train, valid = everything[:16], everything[16:20]
    model = build()
    with tempfile.TemporaryDirectory() as folder:
        metrics = model.fit(train, valid, run=Run(Path(folder) / "run"))
        assert all(np.isfinite(value) for value in metrics.values()), f"metrics: {metrics}"
        before = model.predict(everything).mean
        assert "energy" in model.capabilities.targets, f"targets: {model.capabilities.targets}"
        for name in model.capabilities.targets:
            assert np.isfinite(before[name]).all(), f"predicted {name} is not finite"
        assert before["energy"].shape == (24,), f"24 energies: shape {before['energy'].shape}"
        alone = model.predict(everything[5:6]).mean["energy"]
        same(alone, before["energy"][5:6], "energy predicted alone", tolerance=1e-5)
        place = Path(folder) / "model"
        place.mkdir()
        model.save(place)
        after = type(model).load(place).predict(everything).mean
    for name, values in before.items():
        assert np.array_equal(after[name], values), f"{name} changed by saving and loading"
    assert Dataset.from_entries(entries).digest == digest, "fitting changed the entries"
