"""Asks every member of an ensemble about one shared graph, and turns the answers into results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy_calculator.compiled import Evaluate


class Answers(NamedTuple):
    """What the members say about a batch, in float64 on the CPU.

    Attributes:
        energy: (n_members, n_structures), eV.
        energies: (n_members, n_atoms), eV.
        forces: (n_members, n_atoms, 3), eV/Å.
        stress: (n_members, n_structures, 6), eV/Å^3, Voigt, ASE sign; None if not asked for.
    """

    energy: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    stress: np.ndarray | None


def evaluate(evaluators: Sequence[Evaluate], graph: GraphBatch, *, stress: bool) -> Answers:
    """Return the answers of all members; the graph is built once and shared."""
    outputs = [evaluate(graph, stress) for evaluate in evaluators]
    return Answers(
        energy=_stacked([o.energy for o in outputs]),
        energies=_stacked([o.energies for o in outputs]),
        forces=_stacked([o.forces for o in outputs]),
        stress=_stacked([o.stress for o in outputs]) if stress else None,
    )


def results_of(answers: Answers, structure: int, atoms: slice, *, stress: bool) -> dict[str, Any]:
    """Return one structure's entry of ASE's `results`; every array is a fresh copy.

    Args:
        answers: of a batch.
        structure: index of the structure in the batch.
        atoms: its atoms in the batch.
        stress: whether the structure has a stress.

    Returns:
        energy, free_energy, energies, forces, and stress if asked for, as the mean over the
        members; with more than one member also the spread, as in `epitaxy.ensemble` (the root
        mean square deviation from the mean, divided by n): energy_std, energies_std (n_atoms,),
        forces_std (n_atoms, 3), stress_std (6,), and energy_members (n_members,).
    """
    members = {
        "energy": answers.energy[:, structure],
        "energies": answers.energies[:, atoms],
        "forces": answers.forces[:, atoms],
    }
    if stress and answers.stress is not None:
        members["stress"] = answers.stress[:, structure]
    results: dict[str, Any] = {}
    n_members = len(answers.energy)
    for name, values in members.items():
        mean = values[0].copy() if n_members == 1 else values.mean(axis=0)
        results[name] = float(mean) if mean.ndim == 0 else mean
        if n_members > 1:
            std = values.std(axis=0)
            results[f"{name}_std"] = float(std) if std.ndim == 0 else std
    results["free_energy"] = results["energy"]
    if n_members > 1:
        results["energy_members"] = members["energy"].copy()
    return results


def _stacked(tensors: Sequence[Any]) -> np.ndarray:
    arrays = [t.detach().cpu().numpy() for t in tensors]
    if len(arrays) == 1:
        return np.asarray(arrays[0], dtype=np.float64)[None]
    stacked = np.empty((len(arrays), *arrays[0].shape))
    for index, array in enumerate(arrays):
        stacked[index] = array
    return stacked
