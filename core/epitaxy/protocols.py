"""What each kind of component must be able to do.

Nothing here needs to be inherited: a class that has the methods is the thing. The
conformance kit (`epitaxy.testing`) checks the behaviour.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator as AseCalculator
    from torch import Tensor, nn

    from epitaxy.dataset import Dataset
    from epitaxy.entry import Entry
    from epitaxy.graphs.batch import GraphBatch
    from epitaxy.run import Run
    from epitaxy.spec import Spec
    from epitaxy.split import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a source says about itself.

    Attributes:
        title: name of the data, for a person.
        quantities: names from `epitaxy.quantities` that entries may carry.
        license: SPDX name or "unknown".
        citation: how to cite the data.
        version: version or date of the data.
        url: where they live.
    """

    title: str
    quantities: tuple[str, ...]
    license: str = "unknown"
    citation: str = ""
    version: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can do, checked before any work starts.

    Attributes:
        targets: names from `epitaxy.quantities` that it predicts.
        pbc: whether periodic structures are understood.
        forces: whether forces are minus the gradient of the energy.
        stress: whether stress is the strain derivative of the energy.
        uncertainty: whether `Predictions.std` is given.
        composition_only: whether positions are ignored.
        elements: atomic numbers that it was trained on; None while untrained.
    """

    targets: tuple[str, ...] = ("energy",)
    pbc: bool = True
    forces: bool = False
    stress: bool = False
    uncertainty: bool = False
    composition_only: bool = False
    elements: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted targets of a dataset, in its order.

    Attributes:
        mean: quantity name -> values; per-atom quantities are stacked over all atoms in the
            dataset's order, so ``forces`` is (n_atoms_total, 3).
        std: the same for one standard deviation, or None if the model gives no uncertainty.
    """

    mean: Mapping[str, np.ndarray]
    std: Mapping[str, np.ndarray] | None = None


@runtime_checkable
class Source(Protocol):
    """Yields entries one at a time, in the same order each time it is iterated."""

    @property
    def card(self) -> Card:
        """What the data are."""
        ...

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the entries in bounded memory."""
        ...


@runtime_checkable
class Featurizer(Protocol):
    """Turns an entry into fixed-length arrays."""

    def fit(self, dataset: Dataset) -> None:
        """Learn what must be learnt (elements, scales)."""
        ...

    def __call__(self, entry: Entry) -> Mapping[str, np.ndarray]:
        """Return the features of one entry."""
        ...


@runtime_checkable
class Model(Protocol):
    """Learns targets and predicts them."""

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        ...

    def fit(self, train: Dataset, valid: Dataset, *, run: Run) -> Mapping[str, float]:
        """Train; return the final metrics. The test set is never seen here."""
        ...

    def predict(self, dataset: Dataset) -> Predictions:
        """Predict the targets of every structure."""
        ...

    def save(self, directory: Path) -> None:
        """Write everything needed to `load` into an existing, empty directory."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Model:
        """Read what `save` wrote."""
        ...


@runtime_checkable
class Network(Protocol):
    """A `torch.nn.Module` that the core trains, saves and differentiates.

    This is all that a new graph network needs: keyword-only options, a cutoff, and one
    dimensionless number per atom. Reference energies, scaling, forces, stress, training,
    saving and the calculator come from the core.
    """

    cutoff: float

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return the atomic energies (n_atoms,), in units of the fitted energy scale."""
        ...

    def parts(self) -> Mapping[str, nn.Module]:
        """Return {"embedding", "body", "head"}: what transfer learning freezes."""
        ...

    def features(self, graph: GraphBatch) -> tuple[Tensor, ...]:
        """Return atom features V0 (after the embedding) ... Vn, each (n_atoms, width)."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """One verb from a spec to a trained model; strategies nest."""

    def __call__(self, model: Spec, split: Split, *, run: Run) -> Model:
        """Train and return a model; the test part of `split` is not touched."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of a publication."""

    publisher: str
    identifier: str
    url: str = ""
    facts: Mapping[str, Any] | None = None


@runtime_checkable
class Publisher(Protocol):
    """Puts an artifact or a dataset where others find it."""

    def publish(self, path: Path, *, dry_run: bool = False) -> Receipt:
        """Publish; with `dry_run` open no socket and say what would be done."""
        ...


CalculatorFactory = Callable[..., "AseCalculator"]
"""``(path, *, device="cpu", dtype="float32", **own options) -> ASE calculator``."""


class Command(Protocol):
    """A module with a verb of the command line."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the arguments; imports nothing heavy."""
        ...

    @staticmethod
    def run(args: Namespace) -> int:
        """Do the work and return the exit status."""
        ...
