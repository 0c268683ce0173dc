"""Reference energies of the elements: the one least-squares fit that everything uses.

The energy per atom of a structure is close to the mean of one number per element,

    E / n_atoms = sum over elements of fraction_Z * reference_Z,

up to the energy of formation. Where compositions do not determine the elements (all structures
are GaN), the solution of least norm is taken and the elements are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

_BLOCK = 8192  # structures whose matrix is built at once: some MB
_CUTOFF = 1e-9  # relative size of singular values that count as zero
_ROUNDS = 40  # of reweighting at most; twice
_FLOOR = 1e-6  # eV/atom, spread below which energies are equal


@dataclass(frozen=True, slots=True)
class Compositions:
    """How many atoms of which element n structures have, without zeros.

    Attributes:
        elements: (k,) int64, atomic numbers that occur, ascending.
        structures: (m,) int64, structure of each count, ascending.
        columns: (m,) int64, index into `elements`.
        counts: (m,) float64, atoms.
        n_atoms: (n,) int64.
    """

    elements: np.ndarray
    structures: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    n_atoms: np.ndarray

    def __len__(self) -> int:
        return len(self.n_atoms)

    @classmethod
    def of(cls, dataset: Dataset, rows: np.ndarray | None = None) -> Compositions:
        """Count the atoms of (some rows of) a dataset, in bounded memory."""
        rows = np.arange(len(dataset)) if rows is None else np.asarray(rows)
        structures, numbers, counts, sizes = [], [], [], []
        for start in range(0, len(rows), _BLOCK):
            block = dataset.gather(rows[start : start + _BLOCK])
            owner = np.repeat(np.arange(len(block.n_atoms)), block.n_atoms)
            table = np.bincount(owner * 256 + block.numbers, minlength=256 * len(block.n_atoms))
            (key,) = table.nonzero()
            structures.append(key // 256 + start)
            numbers.append(key % 256)
            counts.append(table[key])
            sizes.append(block.n_atoms)
        empty = np.zeros(0, dtype=np.int64)
        elements, columns = np.unique(np.concatenate([empty, *numbers]), return_inverse=True)
        return cls(
            elements=elements,
            structures=np.concatenate([empty, *structures]),
            columns=columns.reshape(-1),
            counts=np.concatenate([empty, *counts]).astype(np.float64),
            n_atoms=np.concatenate([empty, *sizes]),
        )

    def take(self, rows: np.ndarray) -> Compositions:
        """Return some structures, (k,) int in ascending order, with the elements they have."""
        position = np.full(len(self), -1, dtype=np.int64)
        position[rows] = np.arange(len(rows))
        kept = position[self.structures] >= 0
        present, columns = np.unique(self.columns[kept], return_inverse=True)
        return Compositions(
            elements=self.elements[present],
            structures=position[self.structures[kept]],
            columns=columns.reshape(-1),
            counts=self.counts[kept],
            n_atoms=self.n_atoms[rows],
        )

    def fractions(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the atomic fractions of consecutive structures, (stop - start, k)."""
        stop = len(self) if stop is None else stop
        first, last = np.searchsorted(self.structures, (start, stop))
        part = slice(first, last)
        matrix = np.zeros((stop - start, len(self.elements)))
        rows = self.structures[part]
        matrix[rows - start, self.columns[part]] = self.counts[part] / self.n_atoms[rows]
        return matrix

    def mean(self, by_column: np.ndarray) -> np.ndarray:
        """Return the mean over the atoms of one value per element: (k,) -> (n,)."""
        share = self.counts / self.n_atoms[self.structures]
        return np.bincount(
            self.structures, share * by_column[self.columns], minlength=len(self)
        ).astype(np.float64)

    def largest(self, by_column: np.ndarray) -> np.ndarray:
        """Return the largest value among the elements of each structure: (k,) -> (n,)."""
        found = np.full(len(self), -np.inf)
        np.maximum.at(found, self.structures, by_column[self.columns])
        return found

    def occurrences(self) -> np.ndarray:
        """Return in how many structures each element occurs, (k,) int64."""
        return np.bincount(self.columns, minlength=len(self.elements))


@dataclass(frozen=True, slots=True)
class References:
    """Fitted energies of the elements.

    Attributes:
        energies: atomic number -> eV per atom.
        undetermined: atomic numbers whose energy the compositions leave open.
        residuals: (n,) eV/atom, energies per atom less what the references say.
        spread: eV/atom, 1.4826 times the median absolute residual.
        leverage: (n,) 0 to 1, how much each structure would decide over its own fit if it
            counted in full; zeros if not asked for.
    """

    energies: Mapping[int, float]
    undetermined: tuple[int, ...]
    residuals: np.ndarray
    spread: float
    leverage: np.ndarray


def fit_references(
    compositions: Compositions,
    per_atom: np.ndarray,
    *,
    robust: bool = False,
    leverage: bool = False,
) -> References:
    """Fit one energy per element to energies per atom; each structure counts the same.

    Args:
        compositions: of n structures.
        per_atom: (n,) eV/atom.
        robust: weigh structures far from the fit down (least absolute deviations, then
            Huber's estimator, by reweighting; Huber 1964) instead of plain least squares.
        leverage: also compute the leverage of each structure.
    """
    per_atom = np.asarray(per_atom, dtype=np.float64)
    weights = np.ones(len(per_atom))
    # Elements that nothing determines go to the typical energy, not to zero.
    middle = float(np.median(per_atom)) if robust and len(per_atom) else 0.0
    triangle, solution = _solve(compositions, per_atom - middle, weights)
    residuals = per_atom - middle - compositions.mean(solution)
    if robust:
        for is_absolute in (True, False):  # least absolute deviations find the majority
            # Huber's limit stays as they leave it: a limit that grows lets the minority back in.
            spread = spread_of(residuals)
            for _ in range(_ROUNDS):
                before = solution
                misfit = np.abs(residuals)
                if is_absolute:
                    spread = spread_of(residuals)
                weights = (
                    1 / np.maximum(misfit, 0.1 * spread)
                    if is_absolute
                    else np.minimum(1.0, 2 * spread / np.maximum(misfit, _FLOOR))
                )
                triangle, solution = _solve(compositions, per_atom - middle, weights)
                residuals = per_atom - middle - compositions.mean(solution)
                if np.abs(solution - before).max(initial=0.0) < 1e-3 * spread:
                    break
    solution = solution + middle
    return References(
        energies={int(z): float(e) for z, e in zip(compositions.elements, solution, strict=True)},
        undetermined=tuple(int(z) for z in compositions.elements[_open(triangle)]),
        residuals=residuals,
        spread=spread_of(residuals),
        leverage=_leverage(compositions, triangle, weights) if leverage else np.zeros(len(weights)),
    )


def spread_of(residuals: np.ndarray) -> float:
    """Return 1.4826 times the median absolute value: the standard deviation if normal."""
    return max(1.4826 * float(np.median(np.abs(residuals))), _FLOOR) if len(residuals) else _FLOOR


def solve_blocks(
    blocks: Iterator[tuple[np.ndarray, np.ndarray]], n_columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solve a tall least-squares problem that comes in blocks of rows.

    A triangle is updated with each block (QR), so memory does not grow with the rows and no
    precision is lost to normal equations.

    Args:
        blocks: matrices (rows, n_columns) and right sides (rows,).
        n_columns: unknowns.

    Returns:
        the triangle (n_columns, n_columns) and the solution (n_columns,) of least norm.
    """
    triangle = np.zeros((0, n_columns + 1))
    for matrix, right in blocks:
        stacked = np.concatenate([matrix, right[:, None]], axis=1)
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, stacked]), mode="r"))
    left = np.zeros((n_columns, n_columns))
    right = np.zeros(n_columns)
    n_rows = min(n_columns, len(triangle))
    left[:n_rows], right[:n_rows] = triangle[:n_rows, :-1], triangle[:n_rows, -1]
    if not n_columns:
        return left, right
    return left, np.linalg.lstsq(left, right, rcond=_CUTOFF)[0]


def _solve(
    compositions: Compositions, values: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    roots = np.sqrt(weights)

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(compositions), _BLOCK):
            stop = min(start + _BLOCK, len(compositions))
            part = roots[start:stop]
            yield compositions.fractions(start, stop) * part[:, None], values[start:stop] * part

    return solve_blocks(rows(), len(compositions.elements))


def _open(triangle: np.ndarray) -> np.ndarray:
    """Return which unknowns the equations leave open, (k,) bool."""
    if not len(triangle):
        return np.zeros(0, dtype=bool)
    _, sizes, axes = np.linalg.svd(triangle)
    null = axes[sizes <= _CUTOFF * max(float(sizes[0]), 1e-300)]
    return np.asarray(np.sqrt((null**2).sum(axis=0)) > 1e-6)


def _leverage(compositions: Compositions, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the diagonal of the hat matrix, (n,), each row with weight one in its turn."""
    inverse = np.linalg.pinv(triangle, rcond=_CUTOFF)
    parts = [
        (
            (compositions.fractions(start, min(start + _BLOCK, len(compositions))) @ inverse) ** 2
        ).sum(axis=1)
        for start in range(0, len(compositions), _BLOCK)
    ]
    size = np.concatenate([np.zeros(0), *parts])
    return np.asarray(size / (1 + (1 - np.minimum(weights, 1)) * size))
