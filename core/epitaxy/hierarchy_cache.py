"""A folder of features, found again by parent, structure and level.

    FOLDER/<parent>/<structures>/keys.npy    (n, 16) uint8, one key per structure
    FOLDER/<parent>/<structures>/n_atoms.npy (n,) int64
    FOLDER/<parent>/<structures>/V1.npy      (rows, width) float32

The key of a structure is a digest of its elements, positions and cell (and formula), so that
labels, order and selection do not matter: a subset finds its features in the file of the whole set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.composition import TAG
from epitaxy.stores.new_file import new_file

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

_STRUCTURES_AT_ONCE = 20_000
_KEY = np.dtype((np.void, 16))


def structure_keys(dataset: Dataset) -> np.ndarray:
    """Return the key of each structure, (n,) of 16 bytes."""
    keys = np.empty(len(dataset), dtype=_KEY)
    formulas = dataset.tag(TAG) if TAG in dataset.tags else None
    for start in range(0, len(dataset), _STRUCTURES_AT_ONCE):
        end = min(start + _STRUCTURES_AT_ONCE, len(dataset))
        some = dataset.gather(slice(start, end))
        ends = np.cumsum(some.n_atoms)
        numbers = np.ascontiguousarray(some.numbers)
        positions = np.ascontiguousarray(some.positions, dtype=np.float64)
        cells = np.ascontiguousarray(some.cells, dtype=np.float64)
        pbc = np.ascontiguousarray(some.pbc, dtype=bool)
        for i, (n, last) in enumerate(zip(some.n_atoms.tolist(), ends.tolist(), strict=True)):
            digest = hashlib.sha256(numbers[last - n : last].astype(np.int16).tobytes())
            digest.update(positions[last - n : last].tobytes())
            digest.update(cells[i].tobytes())
            digest.update(pbc[i].tobytes())
            if formulas is not None:
                digest.update(str(formulas[start + i]).encode())
            keys[start + i] = np.void(digest.digest()[:16])
    return keys


class FeatureCache:
    """The features of one parent.

    Args:
        folder: of all parents.
        parent: digest of the parent.
    """

    def __init__(self, folder: Path, parent: str) -> None:
        self._folder = Path(folder) / parent[:16]

    def missing(self, keys: np.ndarray, level: str) -> np.ndarray:
        """Return the rows (k,) whose features are not there; of equal structures the first."""
        found = np.zeros(len(keys), dtype=bool)
        for group in self._groups(keys, level):
            found |= np.isin(keys, _keys(group))
        _, first = np.unique(keys, return_index=True)
        is_first = np.zeros(len(keys), dtype=bool)
        is_first[first] = True
        rows: np.ndarray = np.flatnonzero(~found & is_first)
        return rows

    def write(
        self,
        keys: np.ndarray,
        n_atoms: np.ndarray,
        sizes: Mapping[str, tuple[int, int]],
        pieces: Iterable[Mapping[str, np.ndarray]],
    ) -> None:
        """Write the features of some structures piece by piece; each file is whole or not there.

        Args:
            keys: (n,), all different.
            n_atoms: (n,).
            sizes: level -> (rows, width).
            pieces: level -> rows, in the order of `keys`.

        Raises:
            StoreError: the disk refuses.
        """
        group = self._folder / hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        for name, array in (("keys", keys.view(np.uint8).reshape(-1, 16)), ("n_atoms", n_atoms)):
            with new_file(group / f"{name}.npy", overwrite=True) as path, path.open("wb") as file:
                np.save(file, np.ascontiguousarray(array))
        self._write_levels(group, list(sizes), sizes, pieces)

    def _write_levels(
        self,
        group: Path,
        names: list[str],
        sizes: Mapping[str, tuple[int, int]],
        pieces: Iterable[Mapping[str, np.ndarray]],
    ) -> None:
        from contextlib import ExitStack

        with ExitStack() as stack:
            files = {}
            for name in names:
                path = stack.enter_context(new_file(group / f"{name}.npy", overwrite=True))
                file = stack.enter_context(path.open("wb"))
                header = {"descr": "<f4", "fortran_order": False, "shape": sizes[name]}
                np.lib.format.write_array_header_2_0(file, header)
                files[name] = file
            for piece in pieces:
                for name, file in files.items():
                    file.write(np.ascontiguousarray(piece[name], dtype="<f4").tobytes())

    def read(
        self, keys: np.ndarray, n_atoms: np.ndarray, level: str, *, per_atom: bool
    ) -> np.ndarray:
        """Return the features of all structures in the order of `keys`.

        The file of exactly these structures is memory-mapped; a selection is copied to memory.
        """
        counts = n_atoms if per_atom else np.ones(len(keys), dtype=np.int64)
        ends = np.cumsum(counts)
        found: np.ndarray | None = None
        open_rows = np.ones(len(keys), dtype=bool)
        for group in self._groups(keys, level):
            values = np.load(group / f"{level}.npy", mmap_mode="r")
            theirs = _keys(group)
            if len(theirs) == len(keys) and (theirs == keys).all():
                return np.asanyarray(values)
            order = np.argsort(theirs)
            place = np.searchsorted(theirs, keys, sorter=order).clip(max=len(theirs) - 1)
            rows = np.flatnonzero((theirs[order[place]] == keys) & open_rows)
            if found is None:
                found = np.zeros((int(counts.sum()), values.shape[1]), dtype=np.float32)
            if not len(rows):
                continue
            own = np.load(group / "n_atoms.npy") if per_atom else np.ones(len(theirs), np.int64)
            their_ends = np.cumsum(own)
            source = order[place[rows]]
            found[_ragged(ends[rows], counts[rows])] = values[
                _ragged(their_ends[source], counts[rows])
            ]
            open_rows[rows] = False
        assert found is not None
        assert not open_rows.any()
        return found

    def _groups(self, keys: np.ndarray, level: str) -> list[Path]:
        """Return the folders with a whole file of this level, that of exactly `keys` first."""
        if not self._folder.is_dir():
            return []
        own = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        groups = [p.parent for p in sorted(self._folder.glob(f"*/{level}.npy"))]
        return sorted((g for g in groups if _is_whole(g, level)), key=lambda g: g.name != own)


def _is_whole(group: Path, level: str) -> bool:
    """Whether the files of a folder can be read and fit each other; others are made anew."""
    try:
        n_atoms = np.load(group / "n_atoms.npy", mmap_mode="r")
        keys = np.load(group / "keys.npy", mmap_mode="r")
        values = np.load(group / f"{level}.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    n_rows = int(n_atoms.sum()) if level.startswith("V") else len(n_atoms)
    return keys.shape == (len(n_atoms), 16) and values.ndim == 2 and len(values) == n_rows


def _keys(group: Path) -> np.ndarray:
    keys: np.ndarray = np.load(group / "keys.npy").view(_KEY).reshape(-1)
    return keys


def _ragged(ends: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the positions of all items of some rows that end at `ends`."""
    total = int(counts.sum())
    shift = np.repeat(ends - np.cumsum(counts), counts)
    return np.asarray(np.arange(total) + shift)
