"""In which order structures are shown."""

from __future__ import annotations

import hashlib

import numpy as np


class Sampler:
    """Shuffles anew each epoch; the order follows from seed and epoch alone.

    As nothing is remembered between epochs, a position (epoch, batch) is all that resuming
    needs. Batches of one epoch differ by at most one structure, so no step is left with a
    small rest.
    """

    def __init__(self, n_structures: int, *, batch_size: int, seed: int) -> None:
        self._n_structures = n_structures
        self._seed = seed
        self.n_batches = max(1, -(-n_structures // batch_size))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        digest = hashlib.sha256(f"{self._seed}:{epoch}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return list(np.array_split(rng.permutation(self._n_structures), self.n_batches))
