"""Training on the store gives the weights of training on the memory map, bit by bit."""

import sys
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.stores.distributed import DistributedStore, world
from epitaxy.training.batches import LabelledGraphs
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()
comm = world()
rank = comm.Get_rank()
folder = Path(sys.argv[1])
if rank == 0:
    rng = np.random.default_rng(0)
    entries = []
    for i in range(20):
        atoms = bulk("Cu", cubic=True) if i % 2 else bulk("Al")
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        targets = {"energy": atoms.get_potential_energy()}
        if i % 5:
            targets["forces"] = atoms.get_forces()
        entries.append(Entry.from_atoms(atoms, targets=targets, id=f"metal-{i}"))
    Dataset.from_entries(entries).save(folder / "metals")
comm.Barrier()
mapped = Dataset.open(folder / "metals")


def batch_by_batch(dataset: Dataset | DistributedStore) -> list[torch.Tensor]:
    """Return graphs and labels of some batches; from a store each batch is fetched whole."""
    place = {"cutoff": 4.0, "dtype": torch.float32, "device": torch.device("cpu")}
    tensors: list[torch.Tensor] = []
    batches = np.random.default_rng(1).integers(0, 20, (5, 4))
    if isinstance(dataset, DistributedStore):
        parts = dataset.prefetch(batches)
    else:
        parts = iter([dataset[rows] for rows in batches])
    for part in parts:
        graph, labels = LabelledGraphs(part, cache_bytes=0, **place).batch(np.arange(4))
        tensors += [tensor for tensor in (*graph, *labels) if tensor is not None]
    return tensors


def trained(dataset: Dataset | DistributedStore, name: str) -> dict[str, torch.Tensor]:
    """Return the weights after a short training on the whole dataset."""
    spec = Spec("painn", {"width": 8, "n_layers": 2, "n_radial": 6, "cutoff": 4.0})
    model = build_model(spec, REGISTRY)
    training = TrainingOptions(epochs=2, batch_size=4, n_threads=1)
    run = Run(folder / f"{name}-{rank}", training=training, registry=REGISTRY)
    model.fit(dataset, mapped[:4], run=run)
    return dict(model.potential.state_dict())


with DistributedStore(folder / "metals", comm=comm) as store:
    for found, expected in zip(batch_by_batch(store), batch_by_batch(mapped), strict=True):
        assert torch.equal(found, expected)
    found, expected = trained(store, "store"), trained(mapped, "mapped")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
print(f"rank {rank} done")
