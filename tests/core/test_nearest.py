"""Nearest neighbors keep whole shells."""

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.graphs.nearest import nearest_neighbors, shells


def graph_of(*atoms: Atoms, cutoff: float = 6.0):
    return build_batch_from_atoms(list(atoms), cutoff=cutoff, dtype=torch.float64)


def test_a_shell_is_kept_whole() -> None:
    # fcc: 12 nearest neighbors, then 6, then 24
    graph = graph_of(bulk("Cu", "fcc", a=3.6))
    assert len(nearest_neighbors(graph, 12).centers) == 12
    assert len(nearest_neighbors(graph, 4).centers) == 12
    assert len(nearest_neighbors(graph, 13).centers) == 18


def test_atoms_with_few_neighbors_keep_them_and_edges_stay_sorted() -> None:
    water = Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    kept = nearest_neighbors(graph_of(water, bulk("Si", cubic=True), Atoms("He")), 4)
    counts = torch.bincount(kept.centers, minlength=12)
    assert counts.tolist() == [2, 2, 2, *[4] * 8, 0]
    assert (kept.centers.diff() >= 0).all()
    for atom in range(11):
        lengths = kept.vectors[kept.centers == atom].norm(dim=1)
        assert (lengths.diff() >= -1e-12).all()


def test_shells_are_counted_from_the_nearest() -> None:
    graph = nearest_neighbors(graph_of(bulk("Cu", "fcc", a=3.6)), 30)
    numbers = shells(graph)
    assert np.bincount(numbers.numpy()).tolist() == [12, 6, 24]
    assert len(shells(graph_of(Atoms("He")))) == 0
