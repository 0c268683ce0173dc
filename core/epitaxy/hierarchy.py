"""Features of every depth of a trained parent, computed once and kept on disk.

Names of levels, after Chen and Ong, npj Comput. Mater. 7, 173 (2021): V0 ... Vn are features of
atoms (V0 from the element alone, Vk after k layers), u1 ... un those of a global state, v_r a
readout of the atoms, f all that the parent's head reads. Any network with `features(graph)` has
V0 ... Vn, with `structure_features(graph)` also f, with `levels(graph)` the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from epitaxy.errors import CapabilityError, ConfigError
from epitaxy.graph_model import refuse_compositions, sees_composition_only
from epitaxy.graphs.batch import GraphBatch
from epitaxy.graphs.builder import build_batch_from_atoms
from epitaxy.heads import mean_pooling
from epitaxy.hierarchy_cache import FeatureCache, structure_keys
from epitaxy.multitask import MultitaskNetwork
from epitaxy.potential import N_NUMBERS, Potential
from epitaxy.training.batches import graphs_of

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.protocols import Model
    from epitaxy.registry import Registry

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Level:
    """One depth of a parent.

    Attributes:
        name: "V0", "f" ...
        per_atom: whether there is one row per atom, or per structure.
        width: numbers in a row.
    """

    name: str
    per_atom: bool
    width: int


class Parent:
    """A trained network whose features others learn from.

    Args:
        model: trained; a graph network or a `property` model.
        digest: identifies its weights; "" if unknown, then nothing is kept on disk.
        title: what errors call it.

    Raises:
        CapabilityError: the model has no features.
    """

    def __init__(self, model: Model, *, digest: str = "", title: str = "") -> None:
        self.model, self.digest, self.title = model, digest, title or f"the parent {model!r}"
        self.module = _module(model, self.title)
        body = self.module.body if isinstance(self.module, MultitaskNetwork) else None
        self.body: nn.Module = self.module.network if body is None else body
        if not hasattr(self.body, "features"):
            raise CapabilityError(
                f"{self.title}: {type(self.body).__name__} has no features(graph), so nothing can "
                f"be learnt from its inside"
            )
        self.levels: Mapping[str, Level] = self._probe()

    @classmethod
    def open(cls, path: Path, *, registry: Registry | None = None) -> Parent:
        """Load an artifact.

        Raises:
            ArtifactError: there is no readable artifact.
            CapabilityError: it has no features.
        """
        from epitaxy.artifact import load_artifact

        found = load_artifact(path, registry=registry)
        digest = str(found.manifest["manifest_sha256"])
        return cls(found.model, digest=digest, title=f"the parent {path}")

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that the parent has learnt about."""
        return frozenset(self.module.elements)

    def level(self, name: str) -> Level:
        """Return one level.

        Raises:
            CapabilityError: the parent has none of this name.
        """
        if name not in self.levels:
            raise CapabilityError(
                f"{self.title} has no features {name!r}; it has {', '.join(self.levels)}"
            )
        return self.levels[name]

    def check(self, dataset: Dataset, names: Sequence[str]) -> None:
        """Check that features can be computed, without any work.

        Raises:
            CapabilityError: a level or an element is unknown, or entries have no structure.
        """
        for name in names:
            self.level(name)
        self.check_elements(dataset)
        if not sees_composition_only(self.body):
            refuse_compositions(dataset)

    def check_elements(self, dataset: Dataset) -> None:
        """Raise `CapabilityError` if the parent has not seen an element, naming it."""
        if unseen := sorted(dataset.elements - self.elements):
            from ase.data import chemical_symbols

            raise CapabilityError(
                f"{self.title} has not seen {', '.join(chemical_symbols[z] for z in unseen)}: drop "
                f"the entries that hold them, or take another parent"
            )

    def of_elements(self) -> np.ndarray:
        """Return V0 of each element, (119, width) float32 by atomic number; nan where unknown.

        Raises:
            CapabilityError: V0 of an atom depends on its surroundings.
        """
        from ase import Atoms

        alone = [Atoms([z], positions=[[0, 0, 0]]) for z in sorted(self.elements)]
        first = self._run(self._graph(alone))["V0"].cpu().numpy()
        pair = Atoms([min(self.elements)] * 2, positions=[[0, 0, 0], [0, 0, 0.5 * self._reach]])
        if not np.allclose(self._run(self._graph([pair]))["V0"].cpu().numpy(), first[:1]):
            raise CapabilityError(
                f"{self.title}: V0 of an atom depends on its surroundings, so there is no V0 of a "
                f"formula"
            )
        table = np.full((N_NUMBERS, first.shape[1]), np.nan, dtype=np.float32)
        table[sorted(self.elements)] = first
        return table

    def pooled(
        self, dataset: Dataset, name: str, *, cache: Path | None = None, tell: Tell | None = None
    ) -> np.ndarray:
        """Return one row per structure, (n, width): features of atoms are averaged."""
        found = hierarchical_features(self, dataset, levels=[name], cache=cache, tell=tell)[name]
        if not self.level(name).per_atom:
            return np.asarray(found)
        n_atoms = torch.from_numpy(np.array(dataset.n_atoms, dtype=np.int64))
        owner = torch.arange(len(dataset)).repeat_interleave(n_atoms)
        pooled: np.ndarray = mean_pooling(
            torch.from_numpy(np.array(found)), owner, len(dataset)
        ).numpy()
        return pooled

    @property
    def _reach(self) -> float:
        return float(self.module.cutoff) or 2.0

    def _graph(self, atoms: Sequence[Any]) -> GraphBatch:
        p = next(self.module.parameters())
        return build_batch_from_atoms(
            atoms, cutoff=float(self.module.cutoff), dtype=p.dtype, device=p.device
        )

    def _probe(self) -> dict[str, Level]:
        from ase import Atoms

        z = min(self.elements)
        pair = Atoms([z, z], positions=[[0, 0, 0], [0, 0, 0.5 * self._reach]])
        found = self._run(self._graph([pair]))
        return {n: Level(n, n.startswith("V"), int(x.shape[1])) for n, x in found.items()}

    def _run(self, graph: GraphBatch) -> dict[str, Tensor]:
        """Return all levels of a batch."""
        self.module.eval()
        with torch.no_grad():
            if hasattr(self.body, "levels"):
                all_levels = self.body.levels(graph)
                found = {f"V{k}": x for k, x in enumerate(all_levels.atoms)}
                # u0 is the state that was put in: it tells nothing.
                found |= {f"u{k}": x for k, x in enumerate(all_levels.states) if k}
                return found | {"v_r": all_levels.atom_readout, "f": all_levels.structures}
            found = {f"V{k}": x for k, x in enumerate(self.body.features(graph))}
            if hasattr(self.body, "structure_features"):
                found["f"] = self.body.structure_features(graph)
            return found

    def pieces(
        self, dataset: Dataset, names: Sequence[str]
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield consecutive rows of a dataset and their features, in bounded memory."""
        p = next(self.module.parameters())
        cutoff = float(self.module.cutoff)
        for rows, graph in graphs_of(dataset, cutoff=cutoff, dtype=p.dtype, device=p.device):
            found = self._run(graph)
            yield rows, {name: found[name].cpu().numpy().astype(np.float32) for name in names}


def hierarchical_features(
    parent: Parent,
    dataset: Dataset,
    *,
    levels: Sequence[str],
    cache: Path | None = None,
    tell: Tell | None = None,
) -> dict[str, np.ndarray]:
    """Return the features of all entries, computing only what `cache` does not have.

    Args:
        parent: whose features.
        dataset: structures.
        levels: names, for example ("V1", "f").
        cache: folder where features are kept, by parent, structure and level: memory-mapped
            files that other runs, and other selections of the same structures, use again. Without
            it all is computed in memory.
        tell: is called with a line when features are computed.

    Returns:
        Level -> (n_atoms_total, width) or (n_structures, width) float32, in the dataset's order.

    Raises:
        CapabilityError: a level or an element is unknown, or entries have no structure.
        ConfigError: `cache` is given but the parent's digest is not known.
        StoreError: the folder cannot be written.
    """
    parent.check(dataset, levels)
    if cache is None:
        return _in_memory(parent, dataset, levels, tell)
    if not parent.digest:
        raise ConfigError(f"{parent.title} has no digest: save it as an artifact to use a cache")
    store = FeatureCache(cache, parent.digest)
    keys = structure_keys(dataset)
    n_atoms = np.asarray(dataset.n_atoms)
    missing = {name: store.missing(keys, name) for name in levels}
    for rows in {m.tobytes(): m for m in missing.values() if len(m)}.values():
        wanted = [name for name in levels if np.array_equal(missing[name], rows)]
        part = dataset[rows]
        if tell:
            tell(f"features {', '.join(wanted)} of {len(rows):,} structures by {parent.title}")
        sizes = {
            name: (
                int(n_atoms[rows].sum()) if parent.level(name).per_atom else len(rows),
                parent.level(name).width,
            )
            for name in wanted
        }
        store.write(keys[rows], n_atoms[rows], sizes, (p for _, p in parent.pieces(part, wanted)))
    return {
        name: store.read(keys, n_atoms, name, per_atom=parent.level(name).per_atom)
        for name in levels
    }


def _in_memory(
    parent: Parent, dataset: Dataset, levels: Sequence[str], tell: Tell | None
) -> dict[str, np.ndarray]:
    if tell:
        tell(f"features {', '.join(levels)} of {len(dataset):,} structures by {parent.title}")
    parts = [piece for _, piece in parent.pieces(dataset, levels)]
    return {
        name: np.concatenate([p[name] for p in parts])
        if parts
        else np.zeros((0, parent.level(name).width), dtype=np.float32)
        for name in levels
    }


def _module(model: Model, title: str) -> MultitaskNetwork | Potential:
    if getattr(model, "members", None) is not None:
        raise ConfigError(f"{title} is an ensemble: name one member, for example .../members/0")
    module = getattr(model, "network", None)
    if not isinstance(module, MultitaskNetwork):
        module = getattr(model, "potential", None)
    if not isinstance(module, MultitaskNetwork | Potential):
        raise CapabilityError(
            f"{title} is a {type(model).__name__}, no network: it has no features to learn from"
        )
    return module


__all__ = ["Level", "Parent", "hierarchical_features"]
