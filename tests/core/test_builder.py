"""Packed batches from datasets and from Atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import StructureError
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.builder import build_batch, build_batch_from_atoms
from epitaxy.graphs.neighbors import neighbor_list

CUTOFF = 4.5


def structures() -> list[Atoms]:
    slab = bulk("Cu", cubic=True) * (2, 2, 1)
    slab.pbc = [True, True, False]
    return [bulk("Si"), molecule("H2O"), slab, Atoms("He"), bulk("NaCl", "rocksalt", a=5.64)]


def equal(one: GraphBatch, other: GraphBatch) -> bool:
    return all(
        torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
        for a, b in zip(one[:-1], other[:-1], strict=True)  # the last, amounts, is for formulas
    )


def test_a_batch_holds_the_neighbor_lists_of_its_structures():
    atoms = structures()
    graph = build_batch_from_atoms(atoms, cutoff=CUTOFF, dtype=torch.float64)
    assert graph.n_structures == len(atoms)
    assert graph.n_atoms_per_structure.tolist() == [len(one) for one in atoms]
    assert graph.numbers.tolist() == [z for one in atoms for z in one.numbers]
    assert (graph.centers.diff() >= 0).all()
    first_atom = first_edge = 0
    for one in atoms:
        alone = neighbor_list(one.positions, one.cell.array, one.pbc, CUTOFF)
        edges = slice(first_edge, first_edge + len(alone.centers))
        assert np.array_equal(graph.centers[edges].numpy(), alone.centers + first_atom)
        assert np.array_equal(graph.neighbors[edges].numpy(), alone.neighbors + first_atom)
        np.testing.assert_allclose(graph.vectors[edges].numpy(), alone.vectors, atol=1e-12)
        first_atom += len(one)
        first_edge = edges.stop
    assert first_edge == len(graph.centers)


def test_volumes_are_given_where_all_directions_are_periodic():
    atoms = structures()
    volumes = build_batch_from_atoms(atoms, cutoff=CUTOFF).volumes
    assert volumes.isnan().tolist() == [False, True, True, True, False]
    assert float(volumes[0]) == pytest.approx(atoms[0].get_volume(), rel=1e-6)
    left_handed = bulk("Si")
    left_handed.set_cell(left_handed.cell.array[[1, 0, 2]])
    assert float(build_batch_from_atoms([left_handed], cutoff=CUTOFF).volumes[0]) > 0


def test_a_dataset_and_its_atoms_give_the_same_batch():
    atoms = structures()
    dataset = Dataset.from_entries(
        [Entry.from_atoms(one, id=str(i)) for i, one in enumerate(atoms)]
    )
    rows = [3, 0, 2]
    from_dataset = build_batch(dataset, rows, cutoff=CUTOFF)
    assert equal(from_dataset, build_batch_from_atoms([atoms[r] for r in rows], cutoff=CUTOFF))
    assert build_batch(dataset, cutoff=CUTOFF).n_structures == len(atoms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_have_the_precision_asked_for(dtype):
    graph = build_batch_from_atoms(structures(), cutoff=CUTOFF, dtype=dtype)
    assert graph.vectors.dtype == graph.volumes.dtype == dtype
    assert graph.vectors.is_contiguous()


def test_every_edge_has_its_reverse_with_the_opposite_vector_in_float32():
    atoms = bulk("Si", cubic=True) * (2, 1, 1)
    atoms.rattle(0.2, seed=0)
    graph = build_batch_from_atoms([atoms], cutoff=5.0)
    forward = torch.column_stack([graph.centers, graph.neighbors, graph.vectors])
    backward = torch.column_stack([graph.neighbors, graph.centers, -graph.vectors])
    assert sorted(forward.tolist()) == sorted(backward.tolist())


def test_no_structures_and_no_edges_are_fine():
    nothing = build_batch_from_atoms([], cutoff=CUTOFF)
    assert nothing.n_structures == 0
    lone = build_batch_from_atoms([Atoms("He"), Atoms("Ne")], cutoff=CUTOFF)
    assert lone.vectors.shape == (0, 3)
    assert lone.structures.tolist() == [0, 1]


def test_the_structures_are_left_as_they_were():
    atoms = bulk("Si")
    before = atoms.copy()
    build_batch_from_atoms([atoms], cutoff=CUTOFF)
    assert atoms == before


def test_an_unusable_structure_is_named_by_its_id():
    flat = Atoms("Si", cell=[5, 5, 0], pbc=True)
    entries = [Entry.from_atoms(bulk("Si"), id="good"), Entry.from_atoms(flat, id="train.xyz#17")]
    dataset = Dataset.from_entries(entries)
    with pytest.raises(StructureError, match=r"structure train\.xyz#17: .* span no volume"):
        build_batch(dataset, [0, 1], cutoff=CUTOFF)


def test_a_position_that_is_not_finite_is_named_by_structure_and_atom():
    broken = molecule("H2O")
    broken.positions[2, 1] = np.nan
    with pytest.raises(StructureError, match="structure 1: position of atom 2"):
        build_batch_from_atoms([bulk("Si"), broken], cutoff=CUTOFF)
