import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from epitaxy.graphs.neighbors import neighbor_list
from epitaxy_calculator.skin import VerletList

from .conftest import rattled_silicon, unlike_structures

CUTOFF = 4.5


def edge_set(centers: np.ndarray, neighbors: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    rows = np.column_stack([centers, neighbors, np.round(vectors, 8) + 0.0])
    return rows[np.lexsort(rows.T[::-1])]


def assert_fresh(verlet: VerletList, atoms: Atoms) -> None:
    """The edges are those of a list that was built for this structure."""
    cell, pbc = atoms.cell.array, atoms.pbc
    edges = verlet.edges(atoms.positions, cell, pbc)
    fresh = neighbor_list(atoms.positions, cell, pbc, verlet.cutoff)
    assert (np.diff(edges.centers) >= 0).all()
    np.testing.assert_allclose(
        edge_set(edges.centers, edges.neighbors, edges.vectors),
        edge_set(fresh.centers, fresh.neighbors, fresh.vectors),
        atol=1e-7,
    )


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.0, 3.0])
def test_edges_are_those_of_a_fresh_list_while_atoms_diffuse(skin: float) -> None:
    verlet = VerletList(CUTOFF, skin=skin)
    atoms = rattled_silicon()
    rng = np.random.default_rng(0)
    for _ in range(40):
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        assert_fresh(verlet, atoms)
    assert verlet.n_builds + verlet.n_reuses == 40
    assert (verlet.n_reuses == 0) == (skin == 0)


def test_a_list_is_reused_until_an_atom_has_moved_half_the_skin() -> None:
    verlet = VerletList(CUTOFF, skin=0.6)
    atoms = bulk("Si", cubic=True) * (2, 2, 2)
    assert_fresh(verlet, atoms)
    atoms.positions[0] += [0.29, 0, 0]
    assert_fresh(verlet, atoms)
    assert (verlet.n_builds, verlet.n_reuses) == (1, 1)
    atoms.positions[0] += [0.05, 0, 0]
    assert_fresh(verlet, atoms)
    assert (verlet.n_builds, verlet.n_reuses) == (2, 1)


def test_a_translation_of_all_atoms_needs_no_new_list() -> None:
    verlet = VerletList(CUTOFF, skin=0.3)
    atoms = rattled_silicon()
    assert_fresh(verlet, atoms)
    atoms.positions += [3.0, -2.0, 50.0]
    assert_fresh(verlet, atoms)
    assert verlet.n_builds == 1


def test_a_small_strain_needs_no_new_list_and_a_large_one_does() -> None:
    verlet = VerletList(CUTOFF, skin=0.5)
    atoms = rattled_silicon()
    start = atoms.copy()
    assert_fresh(verlet, atoms)
    rng = np.random.default_rng(1)
    for _ in range(10):
        strained = start.copy()
        strain = np.eye(3) + rng.uniform(-0.01, 0.01, (3, 3))
        strained.set_cell(start.cell.array @ strain, scale_atoms=True)
        strained.rattle(0.01, rng=rng)
        assert_fresh(verlet, strained)
    assert verlet.n_builds == 1
    start.set_cell(start.cell.array * 0.85, scale_atoms=True)
    assert_fresh(verlet, start)
    assert verlet.n_builds == 2


@pytest.mark.parametrize("factor", [0.80, 0.89, 0.90, 0.91, 0.95, 1.05, 1.3])
def test_no_pair_is_missed_when_the_cell_shrinks(factor: float) -> None:
    verlet = VerletList(CUTOFF, skin=0.5)
    atoms = rattled_silicon()
    assert_fresh(verlet, atoms)
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    assert_fresh(verlet, atoms)


def test_moving_the_cell_but_not_the_atoms_is_noticed() -> None:
    verlet = VerletList(CUTOFF, skin=0.5)
    atoms = rattled_silicon(2)
    for factor in (1.0, 1.001, 1.02, 0.97, 1.3):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array * factor, scale_atoms=False)
        assert_fresh(verlet, moved)


def test_unlike_structures_in_turn_get_their_own_edges() -> None:
    verlet = VerletList(CUTOFF, skin=0.5)
    for _ in range(2):
        for atoms in unlike_structures():
            assert_fresh(verlet, atoms)


def test_a_change_of_periodicity_is_noticed() -> None:
    verlet = VerletList(CUTOFF, skin=0.5)
    atoms = rattled_silicon()
    for pbc in [(1, 1, 1), (1, 1, 0), (0, 0, 0), (1, 0, 1), (1, 1, 1)]:
        atoms.pbc = pbc
        assert_fresh(verlet, atoms)
    assert verlet.n_builds == 5


def test_exchanged_atoms_are_noticed() -> None:
    verlet = VerletList(CUTOFF, skin=0.5)
    atoms = rattled_silicon()
    assert_fresh(verlet, atoms)
    assert_fresh(verlet, atoms[[3, 1, 2, 0, 4, 5, 6, 7]])
    assert verlet.n_builds == 2


def test_wrapped_atoms_are_noticed() -> None:
    verlet = VerletList(CUTOFF, skin=0.5)
    atoms = rattled_silicon()
    assert_fresh(verlet, atoms)
    atoms.wrap()
    assert_fresh(verlet, atoms)
