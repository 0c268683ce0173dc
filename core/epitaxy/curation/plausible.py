"""What a set as a whole lets doubt: values that no physics forbids, but that no set has.

These are warnings, never refusals: they say what looks odd, what the cause often is, and what to
look at.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from epitaxy.composition import TAG
from epitaxy.curation.conventions import ENERGY_UNITS
from epitaxy.curation.lengths import nearest_ratio
from epitaxy.curation.methods import method_labels
from epitaxy.curation.pairs import sample_rows
from epitaxy.dataset import Dataset
from epitaxy.references import Compositions

_MANY = 30  # entries from which a set as a whole is judged
_SAMPLE = 300  # structures whose distances are looked at
_HIGH = 1.0  # eV/atom; few compounds of a table lie above the elements, or the hull, by so much
_HIGH_SHARE = 0.3
_HULL_DEPTH = 5.0  # eV/atom, deeper than any convex hull (-4.6 in 132,752 entries)
_FAR, _NEAR = 1.6, 0.62  # of usual distances: Bohr read as Å makes 1.89, the reverse 0.53
_UNIT_MATCH = 0.02  # relative distance within which a ratio is that of a unit
_NOBLE = (2, 10, 18, 36, 54, 86)


def doubts_about(dataset: Dataset) -> tuple[str, ...]:
    """Return one sentence for everything that looks odd."""
    said = [
        *_levels(dataset),
        *_all_electron(dataset),
        *_formation(dataset),
        *_hull(dataset),
        *_distances(dataset),
        *_names(dataset),
    ]
    return tuple(said)


def _levels(dataset: Dataset) -> list[str]:
    """Total energies of several levels of theory."""
    if "energy" not in dataset.targets or len(dataset.methods) < 2:
        return []
    _, mask = dataset.target("energy")
    named = {(m.code.split(" ")[0], m.xc_functional) for m in dataset.methods}
    if len(named) < 2:
        return []
    counts = Counter(method_labels(dataset)[mask].tolist())
    if len(counts) < 2:
        return []
    shown = "; ".join(f"{label}: {n:,}" for label, n in counts.most_common(5))
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    return [
        f"energies of {len(counts)} levels of theory in one set ({shown}{more}): they have zeros "
        f"of their own; `align` them, or drop all but one, before a model sees them"
    ]


def _all_electron(dataset: Dataset) -> list[str]:
    """Total energies of all electrons in another unit: the atoms alone give nearly all of them."""
    if "energy" not in dataset.targets:
        return []
    rows = sample_rows(len(dataset))
    sample = dataset[rows]
    energy, mask = sample.target("energy")
    counts = Compositions.of(sample)
    atoms = counts.mean(_energy_of_atom(counts.elements)) * counts.n_atoms
    heavy = counts.largest(counts.elements.astype(float)) >= 6  # the formula is poor for H to B
    known = mask & heavy & (energy < 0)
    if known.sum() < _MANY:
        return []
    ratios = energy[known] / atoms[known]
    ratio = float(np.median(ratios))
    if float(np.median(np.abs(ratios - ratio))) > _UNIT_MATCH * ratio:
        return []
    for unit in ("Hartree", "Ry", "kcal/mol", "kJ/mol"):
        if abs(np.log(ratio * ENERGY_UNITS[unit])) < _UNIT_MATCH:
            return [
                f"energies are {ratio:.4g} times those of all electrons of the atoms: they look "
                f"like {unit}, and forces may be too: say --energy-unit {unit} (and --forces-unit)"
            ]
    return []


def _energy_of_atom(numbers: np.ndarray) -> np.ndarray:
    """Return total energies of neutral atoms, eV, to 1 % from carbon on.

    Source: the statistical atom with Scott's and exchange corrections, J. Schwinger, Phys. Rev. A
    24, 2353 (1981), eq. 1.
    """
    z = np.asarray(numbers, dtype=np.float64)
    hartree = -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3)
    return np.asarray(hartree * ENERGY_UNITS["Hartree"])


def _formation(dataset: Dataset) -> list[str]:
    if "formation_energy" not in dataset.targets:
        return []
    values, mask = dataset.target("formation_energy")
    values = values[mask]
    if len(values) < _MANY:
        return []
    median, high = float(np.median(values)), float((values > _HIGH).mean())
    if high <= _HIGH_SHARE and -3.5 < median < 0.7:
        return []
    n_atoms = float(np.median(dataset.n_atoms[mask]))
    return [
        f"formation_energy: median {median:+.2f} eV/atom, {high:.0%} above +{_HIGH:g}: tables of "
        f"compounds lie mostly below zero; are these per formula unit or cell (divided by "
        f"{n_atoms:g} atoms: {median / n_atoms:+.2f}), or against other references?"
    ]


def _hull(dataset: Dataset) -> list[str]:
    if "energy_above_hull" not in dataset.targets:
        return []
    values, mask = dataset.target("energy_above_hull")
    said = []
    if mask.sum() >= _MANY:
        high = float((values[mask] > _HIGH).mean())
        if high > _HIGH_SHARE:
            said.append(
                f"energy_above_hull: {high:.0%} lie more than {_HIGH:g} eV/atom above the hull "
                f"(median {np.median(values[mask]):.2f}): another quantity, or per cell?"
            )
    if "formation_energy" in dataset.targets:
        formation, both = dataset.target("formation_energy")
        both = both & mask
        difference = values[both] - formation[both]
        # The hull is at or below zero, and nowhere deeper than the most stable compounds.
        n_wrong = int(((difference < -0.05) | (difference > _HULL_DEPTH)).sum())
        if n_wrong > max(5, 0.01 * int(both.sum())):
            said.append(
                f"energy_above_hull contradicts formation_energy in {n_wrong:,} of "
                f"{int(both.sum()):,} entries: their difference is the depth of the hull, 0 to "
                f"{_HULL_DEPTH:g} eV/atom"
            )
    return said


def _distances(dataset: Dataset) -> list[str]:
    rows = sample_rows(len(dataset))
    if TAG in dataset.tags:
        rows = rows[dataset[rows].tag(TAG) == ""]
    rows = rows[:: max(1, len(rows) // _SAMPLE)]
    ratios = []
    for row in rows.tolist():
        entry = dataset[row]
        numbers = np.asarray(entry.numbers)
        crystal = bool(np.asarray(entry.pbc).all())
        partly = bool(np.asarray(entry.pbc).any()) and not crystal
        # The nearest neighbor of a single atom is its own image, farther than a bond.
        if partly or len(numbers) < 2 or np.isin(numbers, _NOBLE).any():
            continue
        cell = np.asarray(entry.cell) if crystal else None
        ratios.append(nearest_ratio(numbers, np.asarray(entry.positions), cell))
    if len(ratios) < _MANY:
        return []
    ratio = float(np.median(ratios))
    if _NEAR < ratio < _FAR:
        return []
    cause = "Bohr read as Å" if ratio >= _FAR else "Å read as Bohr, or another unit"
    return [
        f"nearest distances are {ratio:.2f} times the sum of covalent radii (median; 0.9 to 1.2 "
        f"is usual): {cause}? `convert` with positions_unit"
    ]


def _names(dataset: Dataset) -> list[str]:
    lengths = np.array([len(name) for name in dataset.ids])
    n_without = int((lengths == 0).sum())
    n_named = len(dataset) - n_without
    n_double = n_named - len(set(dataset.ids) - {""})
    said = []
    if n_without:
        said.append(
            f"{n_without:,} of {len(dataset):,} entries have no id; splits and joins will know "
            f"them by row only"
        )
    if n_double:
        said.append(f"{n_double} ids occur more than once; splits will name rows instead of ids")
    return said
