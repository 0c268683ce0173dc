"""A parent's features as a featurizer, for models of tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import ArtifactError
from epitaxy.hierarchy import Parent
from epitaxy_atomsets.inputs import elements_of


class ParentFeatures:
    """One row per structure: features of atoms averaged, others as they are.

    With V0 the mean over the elements is taken by fraction, so that formulas will do. The
    parent is read again when a model with these features is loaded; its digest is checked.

    Args:
        parent: folder of the parent's artifact.
        level: V0, V1 ..., u1 ..., v_r or f, what the parent has.
        cache: folder where features are kept for other runs (`epitaxy.hierarchy`); a model that
            was loaded computes them in memory.
    """

    extrapolates = True  # the parent says which elements it knows

    def __init__(self, *, parent: Path, level: str, cache: Path | None = None) -> None:
        self.composition_only = level == "V0"
        self._path, self._level, self._cache = Path(parent), level, cache
        self._opened: Parent | None = None

    @property
    def _parent(self) -> Parent:
        if self._opened is None:
            self._opened = Parent.open(self._path)
            self._opened.level(self._level)
        return self._opened

    def fit(self, dataset: Dataset) -> None:
        """Check that the parent has the features of these entries.

        Raises:
            ArtifactError: the parent cannot be read.
            CapabilityError: it lacks the level or an element, or entries have no structure.
        """
        self.check(dataset)

    def check(self, dataset: Dataset) -> None:
        """Check that the parent has the features of these entries, without any work.

        Raises:
            ArtifactError: the parent cannot be read.
            CapabilityError: it lacks the level or an element, or entries have no structure.
        """
        self._parent.level(self._level)
        if self.composition_only:
            self._parent.check_elements(dataset)
        else:
            self._parent.check(dataset, [self._level])

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each column."""
        width = self._parent.level(self._level).width
        return tuple(f"{self._level}[{k}]" for k in range(width))

    def matrix(self, dataset: Dataset) -> np.ndarray:
        """Return the features of all entries, (n, width) float64.

        Raises:
            CapabilityError: the parent has no features of an entry.
        """
        self.check(dataset)
        if not self.composition_only:
            found = self._parent.pooled(dataset, self._level, cache=self._cache)
            return found.astype(np.float64)
        table = self._parent.of_elements().astype(np.float64)
        elements = elements_of(dataset)
        if not len(dataset):
            return np.zeros((0, table.shape[1]))
        weighted = elements.fractions[:, None] * table[elements.numbers]
        return np.asarray(np.add.reduceat(weighted, elements.ptr[:-1]))

    def __call__(self, entry: Entry) -> Mapping[str, np.ndarray]:
        """Return {level: (width,) float64}."""
        return {self._level: self.matrix(Dataset.from_entries([entry]))[0]}

    def state(self) -> dict[str, np.ndarray]:
        """Return what identifies the parent, for `restore`."""
        return {"parent": np.frombuffer(self._parent.digest.encode(), dtype=np.uint8)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Check that the parent is the one of `state`.

        Raises:
            ArtifactError: it is another one, or cannot be read.
        """
        self._cache = None  # it may be a place of another machine
        expected = bytes(np.asarray(arrays["parent"], dtype=np.uint8)).decode()
        if self._parent.digest != expected:
            raise ArtifactError(
                f"the parent {self._path} is not the one that the model was trained with: its "
                f"manifest has the digest {self._parent.digest[:12]}, not {expected[:12]}"
            )
