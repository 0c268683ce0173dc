"""Checks of a network that gives features but no smooth energies: a body for `property` models."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.testing import Check
from epitaxy.testing.structures import crystal, lone_atom, molecule, same, slab

if TYPE_CHECKING:
    from ase import Atoms

    from epitaxy.multitask import MultitaskNetwork

Build = Callable[[], Any]

ELEMENTS = (1, 6, 8, 14)
TARGET = "formation_energy"


def body_checks(build: Build, *, prefix: str = "body: ") -> list[Check]:
    """Return the checks of a body: what it predicts through a head must be a property.

    Args:
        build: makes the network, with random weights.
        prefix: what the names of the checks begin with.
    """
    rules: dict[str, Callable[[Build], None]] = {
        "has parts that hold every parameter, and features per layer": _parts_and_features,
        "nothing changes with a rotation": _rotation,
        "nothing changes with a translation": _translation,
        "nothing changes when atoms move by lattice vectors": _lattice_wrap,
        "nothing changes with a permutation": _permutation,
        "a supercell has the same property": _supercell,
        "batch equals single": _batch_equals_single,
        "molecules, slabs and lone atoms have finite results": _open_directions,
        "every parameter is trained": _every_parameter,
        "float32 agrees with float64": _single_precision,
        "loading what was saved gives the same property": _save_and_load,
        "the graph is left as it was": _graph_unchanged,
    }
    return [Check(prefix + title, functools.partial(rule, build)) for title, rule in rules.items()]


def _network(build: Build, *, seed: int = 1) -> MultitaskNetwork:
    """Put a head on a fresh body, in float64; every parameter is random, biases too."""
    import torch

    from epitaxy.heads import HeadOptions
    from epitaxy.multitask import MultitaskNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MultitaskNetwork(build(), targets={TARGET: HeadOptions()}, elements=ELEMENTS)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    network.double().eval()
    return network


def _graph(network: MultitaskNetwork, *atoms: Atoms) -> Any:
    from epitaxy.graphs.builder import build_batch_from_atoms

    return build_batch_from_atoms(atoms, cutoff=network.cutoff, dtype=network.dtype)


def _property(network: MultitaskNetwork, *atoms: Atoms) -> np.ndarray:
    import torch

    branch = torch.zeros(len(atoms), dtype=torch.int64)
    with torch.no_grad():
        found = network(_graph(network, *atoms), branch)[TARGET].mean
    values: np.ndarray = found.double().numpy()
    return values


def _parts_and_features(build: Build) -> None:
    body = _network(build).body
    parts = body.parts()
    assert list(parts) == ["embedding", "body", "head"], (
        f"parts() has the keys {list(parts)}; expected embedding, body, head"
    )
    held = {id(p) for part in parts.values() for p in part.parameters()}
    names = [name for name, p in body.named_parameters() if id(p) not in held]
    assert not names, f"parameters in no part: {', '.join(names)}"
    for layer in body.features(_graph(_network(build), crystal())):
        shape = tuple(layer.shape)
        assert len(shape) == 2 and shape[0] == 6, (  # noqa: PT018
            f"features of 6 atoms have the shape {shape}, not (6, width)"
        )


def _rotation(build: Build) -> None:
    network, atoms = _network(build), crystal()
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, -1), rotate_cell=True)
    before = _property(network, atoms)
    same(_property(network, turned), before, "the property after a rotation")
    if getattr(network.body, "composition_only", False):
        return
    other = crystal()
    other.numbers[[0, 1]] = other.numbers[[1, 0]]
    assert np.abs(_property(network, other) - before).max() > 1e-9, (
        "the property stays the same when two unlike atoms change places: the network sees only "
        "the composition; if it should, set composition_only = True on its class"
    )


def _translation(build: Build) -> None:
    network, atoms = _network(build), crystal()
    before = _property(network, atoms)
    atoms.positions += [3.3, -7.1, 11.9]
    same(_property(network, atoms), before, "the property after a translation")


def _lattice_wrap(build: Build) -> None:
    network, atoms = _network(build), crystal()
    before = _property(network, atoms)
    atoms.positions[2] += np.array([1, -2, 3]) @ atoms.cell.array
    same(_property(network, atoms), before, "the property after one atom moved by lattice vectors")


def _permutation(build: Build) -> None:
    network, atoms = _network(build), crystal()
    before = _property(network, atoms)
    order = np.array([3, 1, 5, 0, 2, 4])
    same(_property(network, atoms[order]), before, "the property after a permutation")


def _supercell(build: Build) -> None:
    network, atoms = _network(build), crystal()
    big = _property(network, atoms * (2, 1, 3))
    same(big, _property(network, atoms), "the property of a supercell")


def _batch_equals_single(build: Build) -> None:
    network = _network(build)
    several = [crystal(), lone_atom(), molecule(), crystal() * (2, 1, 1), slab()]
    together = _property(network, *several)
    for index, atoms in enumerate(several):
        same(together[index : index + 1], _property(network, atoms), f"structure {index} of 5")


def _open_directions(build: Build) -> None:
    network = _network(build)
    for atoms in (molecule(), slab(), lone_atom()):
        found = _property(network, atoms)
        assert np.isfinite(found).all(), f"{atoms.get_chemical_formula()}: {found}"


def _every_parameter(build: Build) -> None:
    import torch

    network = _network(build).train()
    graph = _graph(network, crystal(), molecule(), crystal() * (2, 1, 1))
    branch = torch.zeros(3, dtype=torch.int64)
    loss = network(graph, branch)[TARGET].mean.square().sum()
    loss.backward()
    dead = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not float(p.grad.abs().max()) > 0
    ]
    allowed = set(getattr(network.body, "untrained_parameters", ()))
    dead = [name for name in dead if name.removeprefix("body.") not in allowed]
    assert not dead, f"no gradient reaches {', '.join(dead[:5])}"


def _single_precision(build: Build) -> None:
    network = _network(build)
    exact = _property(network, crystal(), molecule())
    rounded = _property(network.float(), crystal(), molecule())
    same(rounded, exact, "the property in float32", tolerance=2e-4)


def _save_and_load(build: Build) -> None:
    from epitaxy.weights import fill, read_weights, write_weights

    network = _network(build)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder), network, {})
        other = _network(build, seed=2)
        fill(other, read_weights(Path(folder))[1], title="the copy")
    found = _property(other, crystal())
    same(found, _property(network, crystal()), "the property of the copy", tolerance=0.0)


def _graph_unchanged(build: Build) -> None:
    import torch

    network = _network(build)
    graph = _graph(network, crystal(), molecule())
    before = {n: t.clone() for n, t in graph._asdict().items() if t is not None}
    network(graph, torch.zeros(2, dtype=torch.int64))
    for name, old in before.items():
        new = getattr(graph, name)
        assert torch.equal(torch.nan_to_num(old), torch.nan_to_num(new)), f"graph.{name} changed"
