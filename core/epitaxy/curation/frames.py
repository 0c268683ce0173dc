"""Is one frame usable? Checks of a single entry, and of its being new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epitaxy.composition import has_structure
from epitaxy.curation.lengths import wrong_lengths
from epitaxy.curation.ranges import limits_with, range_reason
from epitaxy.entry import Entry, Method
from epitaxy.errors import MissingDependencyError
from epitaxy.quantities import QUANTITIES

FROM_FORCE_CALCULATION = frozenset(
    ("energy", "energies", "forces", "stress", "magmoms", "charges", "dipole", "magmom")
)
_EXAMPLES = 20
SAME_VALUE = 1e-3  # up to which two labels of one structure are the same: 1 meV/atom, or 0.1 %
JOULE = 1e-10  # eV/atom, largest energy that looks like joule: 1 J is 6e18 eV


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChecks:
    """What a usable frame is.

    Attributes:
        require: targets that every frame must have; None is decided by `ingest`.
        or_property: a frame without them is kept if it has a label that no force calculation
            gives, as band_gap.
        max_force: largest force on an atom, eV/Å; None for no limit.
        min_distance: shortest distance between atoms (and images), Å; 0 for no limit.
        max_energy: largest magnitude of the energy per atom, eV/atom; None for no limit. The
            default lets all-electron energies of every element pass.
        limits: quantity -> (lowest, highest) value, changes to `epitaxy.curation.ranges.LIMITS`;
            None takes a limit away.
        duplicates: drop frames whose structure was seen already.
        duplicate_distance: structures are the same if positions and cells, Å, agree when
            rounded to multiples of this.
    """

    require: tuple[str, ...] | None = ("energy",)
    or_property: bool = False
    max_force: float | None = 100.0
    min_distance: float = 0.1
    max_energy: float | None = 1e6
    limits: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    duplicates: bool = True
    duplicate_distance: float = 1e-5


@dataclass(slots=True)
class Rejections:
    """How many frames were dropped, why, and which."""

    n_seen: int = 0
    n_dropped: int = 0
    reasons: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count one frame."""
        self.n_dropped += 1
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.reasons.setdefault(reason, [])
        if len(named) < _EXAMPLES:
            named.append(name)

    def lines(self, *, limit: int = 5) -> list[str]:
        """Return one line per reason: "3 of 214 dropped: forces not finite (a#7, a#19, a#40)"."""
        said = []
        for reason, count in sorted(self.counts.items(), key=lambda item: -item[1]):
            names = self.reasons[reason][:limit]
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            said.append(
                f"{count:,} of {self.n_seen:,} dropped: {reason} ({', '.join(names)}{more})"
            )
        return said

    def step(self) -> dict[str, Any]:
        """Return what the history of a dataset keeps."""
        return {
            "n_seen": self.n_seen,
            "n_dropped": self.n_dropped,
            "reasons": {
                reason: {"count": count, "examples": self.reasons[reason]}
                for reason, count in self.counts.items()
            },
        }


_Names = tuple[str, ...]  # of labels, once per number that is kept of each


class FrameChecker:
    """Checks frames one after another and remembers which structures it has seen."""

    def __init__(self, checks: FrameChecks | None = None):
        self.checks = checks or FrameChecks()
        self.limits = limits_with(self.checks.limits)
        self._seen: dict[bytes, tuple[_Names, bytes]] = {}
        self._names: dict[_Names, _Names] = {}
        self._directions = np.zeros((2, 0))

    def reason_against(self, entry: Entry) -> str | None:
        """Return why a frame cannot be used, or None; a usable one is remembered."""
        return self.unusable(entry) or self.repeated(entry)

    def unusable(self, entry: Entry) -> str | None:
        """Return why a frame cannot be used by itself, or None."""
        if reason := self._wrong_arrays(entry) or self._wrong_labels(entry):
            return reason
        if not has_structure(entry):
            return None
        return (
            wrong_lengths(
                np.asarray(entry.numbers),
                np.asarray(entry.positions),
                np.asarray(entry.cell),
                np.asarray(entry.pbc, dtype=bool),
            )
            or self._wrong_cell(entry)
            or self._wrong_distances(entry)
        )

    def _wrong_arrays(self, entry: Entry) -> str | None:
        n_atoms = np.shape(entry.numbers)[0] if np.ndim(entry.numbers) == 1 else 0
        if n_atoms == 0:
            return "no atoms"
        for name, array, shape in (
            ("positions", entry.positions, (n_atoms, 3)),
            ("cell", entry.cell, (3, 3)),
            ("pbc", entry.pbc, (3,)),
        ):
            if np.shape(array) != shape:
                return f"{name} of the wrong shape {np.shape(array)}, not {_shape(shape)}"
            if not np.isfinite(array).all():
                return f"{name} not finite"
        numbers = np.asarray(entry.numbers).astype(int)
        if numbers.min() < 1 or numbers.max() > 118:
            return "atomic numbers outside 1 to 118"
        for name, value in entry.targets.items():
            if name not in QUANTITIES:
                return f"unknown quantity {name!r}"
            rule = QUANTITIES[name]
            per_atom = rule.per == "atom"
            if np.shape(value) != ((n_atoms, *rule.shape) if per_atom else rule.shape):
                expected = ("n_atoms", *rule.shape) if per_atom else rule.shape
                return f"{name} of the wrong shape, not {_shape(expected)}"
            if not np.isfinite(value).all():
                return f"{name} not finite"
        return None

    def _wrong_labels(self, entry: Entry) -> str | None:
        checks = self.checks
        if not (checks.or_property and set(entry.targets) - FROM_FORCE_CALCULATION):
            for name in checks.require or ():
                if name not in entry.targets:
                    return f"{name} missing"
        if "energy" in entry.targets and checks.max_energy is not None:
            per_atom = abs(float(entry.targets["energy"])) / len(entry)
            if per_atom > checks.max_energy:
                return f"|energy| > {checks.max_energy:g} eV/atom"
            if 0 < per_atom < JOULE:
                return "energy looks like joule, not eV"
        if "forces" in entry.targets and checks.max_force is not None:
            largest = float(np.linalg.norm(entry.targets["forces"], axis=1).max())
            if largest > checks.max_force:
                return f"|F| > {checks.max_force:g} eV/Å"
        for name in self.limits:
            if name in entry.targets and (
                reason := range_reason(name, float(entry.targets[name]), self.limits)
            ):
                return reason
        return None

    def _wrong_cell(self, entry: Entry) -> str | None:
        periodic = np.asarray(entry.pbc, dtype=bool)
        if not periodic.any():
            return None
        vectors = np.asarray(entry.cell)[periodic]
        if (np.linalg.norm(vectors, axis=1) < 1e-8).any():
            return "a periodic direction without a cell vector"
        # (length, area or volume) of the periodic cell, relative to that of a cube
        gram = np.linalg.det(vectors @ vectors.T)
        lengths = np.linalg.norm(vectors, axis=1)
        if np.sqrt(max(gram, 0.0)) < 1e-6 * lengths.prod():
            return "periodic cell of zero volume"
        return None

    def _wrong_distances(self, entry: Entry) -> str | None:
        limit = self.checks.min_distance
        if limit > 0 and _closer_than(entry, limit):
            return f"atoms closer than {limit:g} Å"
        return None

    def repeated(self, entry: Entry) -> str | None:
        """Return why a frame is not new, or None; a new one is remembered."""
        if not self.checks.duplicates:
            return None
        key = structure_key(entry, self.checks.duplicate_distance)
        numbers = {name: self._numbers_of(entry, name) for name in sorted(entry.targets)}
        # Packed, for there may be millions: names are shared, values are bytes.
        repeated = tuple(name for name, kept in numbers.items() for _ in kept)
        names = self._names.setdefault(repeated, repeated)
        packed = (names, np.array([x for kept in numbers.values() for x in kept]).tobytes())
        seen = self._seen.setdefault(key, packed)
        if seen is packed:
            return None
        others: dict[str, list[float]] = {}
        for name, value in zip(seen[0], np.frombuffer(seen[1]).tolist(), strict=True):
            others.setdefault(name, []).append(value)
        for name, kept in sorted(numbers.items(), key=lambda item: item[0] != "energy"):
            size = abs(kept[0]) if len(kept) == 1 else kept[-1]
            apart = np.abs(np.subtract(kept, others.get(name, kept))).max()
            if apart > SAME_VALUE * max(1.0, size):
                which = "another" if len(kept) == 1 else "other"
                return f"structure seen before with {which} {name}"
        if lost := numbers.keys() - others.keys():
            return f"structure seen before without {', '.join(sorted(lost))}"
        return "duplicate structure" if has_structure(entry) else "formula and labels seen before"

    def _numbers_of(self, entry: Entry, name: str) -> tuple[float, ...]:
        """Return what is kept of a label to tell whether another is the same.

        A number stays itself, per atom where it is extensive. Of an array three numbers are kept:
        its components along two fixed random directions, which differ by about the root mean
        square of the difference of two arrays, and its root mean square. Other than those of a
        hash, they change little where the values do, so labels rounded by another program agree.
        """
        value = np.asarray(entry.targets[name], dtype=np.float64)
        if value.ndim == 0:
            return (float(value) / (len(entry) if QUANTITIES[name].extensive else 1),)
        flat = value.reshape(-1)
        if self._directions.shape[1] < flat.size:
            size = max(2 * self._directions.shape[1], flat.size, 1024)
            self._directions = np.random.default_rng(0).standard_normal((size, 2)).T.copy()
        root = max(1, flat.size) ** 0.5
        first, second = self._directions[:, : flat.size] @ flat / root
        return (float(first), float(second), float(np.linalg.norm(flat)) / root)


def structure_key(entry: Entry, distance: float = 1e-5) -> bytes:
    """Return a hash that is the same for equal structures at one level of theory.

    A formula without a structure is the same as another only if all its labels are, too: tables
    list one formula for several polymorphs.

    Args:
        entry: the structure; whole periods and the order of atoms do count.
        distance: positions and cells, Å, are rounded to multiples of this.
    """
    method: Method = entry.method
    hashed = hashlib.sha256(f"{method.code}|{method.xc_functional}|{method.settings}".encode())
    hashed.update(np.asarray(entry.numbers, dtype=np.uint8).tobytes())
    hashed.update(np.asarray(entry.pbc, dtype=bool).tobytes())
    if not has_structure(entry):
        for name in sorted(entry.targets):
            value = np.asarray(entry.targets[name], dtype=np.float64)
            hashed.update(name.encode() + value.tobytes())
        return hashed.digest()[:16]
    for array in (entry.cell, entry.positions):
        hashed.update(np.rint(np.asarray(array) / distance).astype(np.int64).tobytes())
    return hashed.digest()[:16]


def _closer_than(entry: Entry, limit: float) -> bool:
    """Return whether two atoms, or an atom and an image, are closer than `limit` (Å)."""
    tree = kd_tree()
    positions = np.asarray(entry.positions, dtype=float)
    periodic = np.asarray(entry.pbc, dtype=bool)
    if periodic.any():
        cell = completed_cell(np.asarray(entry.cell, dtype=float), periodic)
        inverse = np.linalg.inv(cell)
        heights = 1 / np.linalg.norm(inverse, axis=0)  # distance between opposite faces
        if (heights[periodic] < limit).any():
            return True
        fractions = positions @ inverse
        fractions[:, periodic] %= 1.0
        images = fractions
        for axis in periodic.nonzero()[0]:
            margin = limit / heights[axis]
            low, high = images[images[:, axis] < margin], images[images[:, axis] > 1 - margin]
            shift = np.eye(3)[axis]
            images = np.concatenate([images, low + shift, high - shift])
        positions = images @ cell
    if len(positions) < 2:
        return False
    distances, _ = tree(positions).query(positions, k=2, distance_upper_bound=limit)
    return bool((distances[:, 1] < limit).any())


def kd_tree() -> Any:
    """Return scipy's k-d tree.

    Raises:
        MissingDependencyError: scipy is not installed; the message has the pip command.
    """
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise MissingDependencyError(
            "distances between atoms need scipy: pip install 'epitaxy[curation]', or leave them "
            "out with --min-distance 0"
        ) from error
    return cKDTree


def completed_cell(cell: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """Return the cell with unit vectors, orthogonal to the rest, in directions not periodic."""
    whole = np.where(periodic[:, None], cell, 0.0)
    missing = (~periodic).nonzero()[0]
    if len(missing):
        _, _, basis = np.linalg.svd(cell[periodic])
        whole[missing] = basis[int(periodic.sum()) :]
    return whole


def _shape(shape: Iterable[object]) -> str:
    words = [str(size) for size in shape]
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"
