"""Which structures of one group are really the same: pymatgen's StructureMatcher.

Source: Ong et al., Comput. Mater. Sci. 68, 314 (2013), doi:10.1016/j.commatsci.2012.10.028.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from epitaxy.curation.parallel import map_pieces
from epitaxy.curation.spacegroup import Tell, is_degenerate
from epitaxy.dataset import Dataset, Structures
from epitaxy.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_REPRESENTATIVES = 20
"""Different structures of one group at most; what fits none of them then is labelled "more"."""
MAX_COMPARISONS = 2_000
"""Comparisons in one group at most (some ten seconds); what is left then is "more" too."""
MAX_ATOMS = 200
"""Atoms in the primitive cell; comparing larger ones takes minutes, they are labelled "large"."""

_PAIRS_AT_ONCE = 20  # about half a second


@dataclass(frozen=True, slots=True)
class Matched:
    """What matching has found.

    Attributes:
        labels: (n,) str, the group and the number of the structure type in it: ``O2Ti_136#0``.
        n_over_the_limit: structures labelled "more" or "large".
    """

    labels: np.ndarray
    n_over_the_limit: int


def matched_groups(
    dataset: Dataset, groups: np.ndarray, *, n_workers: int = 1, tell: Tell | None = None
) -> np.ndarray:
    """Return the labels of `match_groups`, (n,) str."""
    return match_groups(dataset, groups, n_workers=n_workers, tell=tell).labels


def match_groups(
    dataset: Dataset, groups: np.ndarray, *, n_workers: int = 1, tell: Tell | None = None
) -> Matched:
    """Compare the structures inside each group, up to scale, setting and supercell.

    Structures are taken in the order of their volume per atom and compared with one
    representative of each type seen before, which `MAX_REPRESENTATIVES` and `MAX_COMPARISONS`
    bound. Matching within a tolerance is not transitive, so the types are those
    of the representatives.

    Args:
        dataset: the structures.
        groups: (n,) str, from `epitaxy.curation.groups.duplicate_groups`.
        n_workers: processes; a group is the work of one.
        tell: called with (structures done, structures in groups of two or more).

    Raises:
        DataError: there are not as many labels as structures.
    """
    if len(groups) != len(dataset):
        raise DataError(f"{len(groups)} groups for {len(dataset)} structures")
    names, codes = np.unique(groups, return_inverse=True)
    sizes = np.bincount(codes, minlength=len(names))
    ends = np.full(len(dataset), "#0", dtype="U12")
    total, done, n_over = int(sizes[sizes > 1].sum()), 0, 0
    pieces = _pieces(dataset, codes, sizes)
    for rows, found in map_pieces(_match, pieces, n_workers=n_workers):
        ends[rows] = [f"#{kind}" for kind in found]
        n_over += sum(kind in ("more", "large") for kind in found)
        done += len(rows)
        if tell:
            tell(done, total)
    labels = np.char.add(np.asarray(groups).astype(str), ends) if len(dataset) else groups
    return Matched(labels, n_over)


class _Piece(NamedTuple):
    rows: np.ndarray
    sizes: tuple[int, ...]  # of the groups, one after another
    structures: Structures


def _pieces(dataset: Dataset, codes: np.ndarray, sizes: np.ndarray) -> Iterator[_Piece]:
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(sizes)
    held: list[np.ndarray] = []
    for group in (sizes > 1).nonzero()[0]:
        held.append(order[ends[group] - sizes[group] : ends[group]])
        if sum(map(len, held)) >= _PAIRS_AT_ONCE:
            yield _piece(dataset, held)
            held = []
    if held:
        yield _piece(dataset, held)


def _piece(dataset: Dataset, groups: list[np.ndarray]) -> _Piece:
    rows = np.concatenate(groups)
    return _Piece(rows, tuple(map(len, groups)), dataset.gather(rows))


def _match(piece: _Piece) -> tuple[np.ndarray, list[str]]:
    """Return the rows of a piece and the name of the type of each."""
    structures = list(to_pymatgen(piece.structures))
    found: list[str] = []
    start = 0
    for size in piece.sizes:
        found += _match_group(structures[start : start + size])
        start += size
    return piece.rows, found


def _match_group(structures: list[Structure | None]) -> list[str]:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(primitive_cell=False, attempt_supercell=False)
    # Each is reduced once, not once per comparison.
    reduced = [None if one is None else _reduced(one) for one in structures]
    order = sorted(
        range(len(reduced)),
        key=lambda i: 0.0 if (one := reduced[i]) is None else one.volume / len(one),
    )
    representatives: list[Structure] = []
    kinds = ["0"] * len(reduced)  # also of what cannot be compared
    n_compared = 0
    for i in order:
        one = reduced[i]
        if one is None:
            continue
        if len(one) > MAX_ATOMS or n_compared >= MAX_COMPARISONS:
            kinds[i] = "large" if len(one) > MAX_ATOMS else "more"
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitting = next(
                (
                    k
                    for k, other in enumerate(representatives)
                    if matcher.fit(other, one, skip_structure_reduction=True)
                ),
                None,
            )
        n_compared += len(representatives) if fitting is None else fitting + 1
        if fitting is None and len(representatives) < MAX_REPRESENTATIVES:
            fitting = len(representatives)
            representatives.append(one)
        kinds[i] = "more" if fitting is None else str(fitting)
    return kinds


def _reduced(structure: Structure) -> Structure:
    reduced = structure.get_reduced_structure(reduction_algo="niggli")
    return reduced.get_primitive_structure()


def to_pymatgen(structures: Structures) -> Iterator[Structure | None]:
    """Yield pymatgen structures; None for what is not periodic, or has no real cell."""
    from pymatgen.core import Element, Structure

    numbers, positions, cells, pbc, n_atoms = structures
    ends = np.cumsum(n_atoms)
    for k, (first, end) in enumerate(zip(ends - n_atoms, ends, strict=True)):
        if not pbc[k].all() or is_degenerate(cells[k], end - first):
            yield None
            continue
        species = [Element.from_Z(int(z)) for z in numbers[first:end]]
        yield Structure(cells[k], species, positions[first:end], coords_are_cartesian=True)
