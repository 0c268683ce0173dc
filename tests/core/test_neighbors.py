"""Neighbor lists against ASE, and where the kernel is known to be delicate."""

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.neighborlist import primitive_neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epitaxy.errors import StructureError
from epitaxy.graphs.neighbors import Neighbors, neighbor_list

NEVER, ALWAYS = (False, False, False), (True, True, True)


def pairs_of(found: Neighbors) -> list[tuple[int, ...]]:
    columns = np.column_stack([found.centers, found.neighbors, found.images.astype(int)])
    return sorted(map(tuple, columns.tolist()))


def pairs_by_ase(positions, cell, pbc, cutoff) -> list[tuple[int, ...]]:
    i, j, images = primitive_neighbor_list("ijS", pbc, cell, positions, cutoff)
    return sorted(map(tuple, np.column_stack([i, j, images]).tolist()))


def check_against_ase(positions, cell, pbc, cutoff) -> Neighbors:
    found = neighbor_list(positions, cell, pbc, cutoff)
    assert pairs_of(found) == pairs_by_ase(positions, np.asarray(cell), pbc, cutoff)
    assert (np.diff(found.centers) >= 0).all()
    expected = positions[found.neighbors] - positions[found.centers] + found.images @ cell
    np.testing.assert_allclose(found.vectors, expected, atol=1e-9)
    return found


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_atoms=st.integers(0, 9),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    size=st.floats(1.5, 12.0),
    spread=st.floats(0.1, 30.0),
    cutoff=st.floats(0.3, 6.0),
)
def test_random_structures_have_the_pairs_that_ase_finds(seed, n_atoms, pbc, size, spread, cutoff):
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * size  # skewed, half of them left-handed
    assume(abs(np.linalg.det(cell)) > 0.05 * size**3)
    positions = rng.normal(size=(n_atoms, 3)) * spread  # many of them outside the cell
    if n_atoms:
        check_against_ase(positions, cell, pbc, cutoff)
    else:
        assert len(neighbor_list(positions, cell, pbc, cutoff).centers) == 0


@pytest.mark.parametrize(
    "cell",
    [np.zeros((3, 3)), np.diag([5.0, 0, 0]), np.array([[5.0, 0, 0], [10.0, 0, 0], [0, 0, 0]])],
    ids=["no cell", "one vector", "parallel vectors"],
)
@pytest.mark.parametrize("along_x", [False, True])
def test_lattice_vectors_of_open_directions_may_be_missing(cell, along_x):
    if along_x and not cell[0].any():
        pytest.skip("a periodic direction needs a lattice vector")
    positions = np.random.default_rng(0).random((20, 3)) * 8
    full = np.diag([5.0, 1.0, 1.0])  # ASE cannot take a singular cell either
    pbc = (along_x, False, False)
    found = neighbor_list(positions, cell, pbc, 3.0)
    assert pairs_of(found) == pairs_by_ase(positions, full, pbc, 3.0)


def test_a_cell_far_smaller_than_the_cutoff_has_all_images():
    check_against_ase(np.zeros((1, 3)), np.eye(3) * 0.7, ALWAYS, 5.0)


def test_a_slab_in_vacuum_agrees_with_ase():
    slab = fcc111("Cu", (2, 2, 3), vacuum=10.0)
    check_against_ase(slab.positions, slab.cell.array, slab.pbc, 5.0)


@pytest.mark.parametrize("pbc", [NEVER, ALWAYS, (True, False, True)])
def test_a_nearly_empty_huge_cell_needs_little_memory(pbc):
    cell = np.eye(3) * 1e5
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], [5e4, 5e4, 5e4], [99_999.0, 0, 0]])
    check_against_ase(positions, cell, pbc, 3.0)


def test_atoms_millions_of_cells_away_keep_their_pairs():
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=1)
    home = neighbor_list(atoms.positions, atoms.cell.array, ALWAYS, 5.0)
    moved = atoms.positions + np.array([[1, -2, 3]] * 4 + [[-40_000, 0, 7]] * 4) @ atoms.cell.array
    away = neighbor_list(moved, atoms.cell.array, ALWAYS, 5.0)
    assert np.array_equal(np.sort(home.centers), np.sort(away.centers))
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(home.vectors, axis=1)),
        np.sort(np.linalg.norm(away.vectors, axis=1)),
        atol=1e-8,
    )


def test_every_pair_is_there_in_both_directions_with_exactly_opposite_vectors():
    """Also at the cutoff itself, where rounding could let one of the two slip."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    cutoff = atoms.cell[0, 0] / 2 * np.sqrt(2.0)  # exactly a shell of neighbors
    found = neighbor_list(atoms.positions, atoms.cell.array, ALWAYS, cutoff)
    forward = {
        (i, j, *n): tuple(v)
        for i, j, n, v in zip(
            found.centers.tolist(),
            found.neighbors.tolist(),
            found.images.astype(int).tolist(),
            found.vectors.tolist(),
            strict=True,
        )
    }
    for (i, j, *image), vector in forward.items():
        assert forward[(j, i, *(-n for n in image))] == tuple(-x for x in vector)


def test_a_pair_at_the_cutoff_counts_and_one_beyond_does_not():
    positions = np.array([[0.0, 0, 0], [2.5, 0, 0]])
    assert len(neighbor_list(positions, np.zeros((3, 3)), NEVER, 2.5).centers) == 2
    assert len(neighbor_list(positions, np.zeros((3, 3)), NEVER, 2.5 - 1e-12).centers) == 0


def test_one_atom_without_images_has_no_neighbors():
    assert len(neighbor_list(np.ones((1, 3)), np.zeros((3, 3)), NEVER, 5.0).centers) == 0


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (np.zeros((3, 3)), ALWAYS),
        (np.array([[4.0, 0, 0], [0, 4.0, 0], [4.0, 4.0, 0]]), ALWAYS),
        (np.array([[4.0, 0, 0], [8.0, 0, 0], [0, 0, 9.0]]), (True, True, False)),
        (np.diag([0.0, 4.0, 4.0]), (True, False, False)),
        (np.full((3, 3), np.nan), ALWAYS),
    ],
)
def test_periodic_vectors_without_a_volume_are_refused(cell, pbc):
    with pytest.raises(StructureError, match="span no volume"):
        neighbor_list(np.zeros((1, 3)), cell, pbc, 5.0)


def test_positions_that_are_not_finite_are_refused_with_the_atom():
    positions = np.array([[0.0, 0, 0], [1.0, np.nan, 0]])
    with pytest.raises(StructureError, match="position of atom 1"):
        neighbor_list(positions, np.eye(3) * 5, ALWAYS, 3.0)


def test_two_atoms_on_one_place_are_refused():
    with pytest.raises(StructureError, match="two atoms sit at the same place"):
        neighbor_list(np.zeros((2, 3)), np.eye(3) * 5, ALWAYS, 3.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_a_cutoff_that_is_no_length_is_refused(cutoff):
    with pytest.raises(StructureError, match="cutoff"):
        neighbor_list(np.zeros((1, 3)), np.eye(3) * 5, ALWAYS, cutoff)
