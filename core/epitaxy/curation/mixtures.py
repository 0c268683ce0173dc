"""Sets in which only some frames are wrong: other units, another sign, placeholders.

A line through all pairs cannot see them, or sees nothing at all. Here every frame is judged
by its own pairs: which factor on its forces explains the energies, given what is believed of
the frames at the other ends. Frames are changed one at a time, the most convincing first, so
a minority is found against the majority.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from epitaxy.curation.conventions import ENERGY_UNITS, FORCE_UNITS
from epitaxy.curation.findings import Finding, Label
from epitaxy.curation.pairs import Pairs, sample_rows
from epitaxy.dataset import Dataset
from epitaxy.entry import Method

_SHOWN = 5  # frames named in a message
_MIN_FRAMES = 6  # of one composition, or zeros
_MIN_VOTES = 2  # pairs that a frame needs before it is called wrong
_MIN_GAIN = 0.2  # of relative misfit per pair that another factor on the forces must bring
_MIN_GAP = 3.0  # ratio between energies that are no longer one cluster
_MAX_SPREAD = 1.5  # largest by smallest energy of one cluster
_MIN_PAIRS = 24  # from which a part of the pairs may be called odd
_AGREES, _CONTRADICTS = 0.065, 0.2  # relative misfit of a pair
_CLEAR_SHARE = 0.12  # of pairs that contradict
_UNIT_MATCH = 0.06  # relative distance within which a ratio is that of a unit

# Factors near one (eV/Bohr is 1.9) are not among these: in a single frame, anharmonic motion
# looks like them.
_FORCE_FACTORS: Mapping[str, float] = {
    "have the wrong sign": -1.0,
    **{
        f"look like {unit}": FORCE_UNITS[unit]
        for unit in ("Hartree/Bohr", "Ry/Bohr", "kcal/mol/Å", "kJ/mol/Å")
    },
}


def mixed_energies(dataset: Dataset) -> Finding | None:
    """Find frames whose energies are in another unit, or of another sign, than the others'.

    Compared are frames of exactly the same composition: their energies form clusters whose
    ratio is that of two units.
    """
    rows = sample_rows(len(dataset))
    sample = dataset[rows]
    energy, has_energy = sample.target("energy")
    groups: dict[tuple[bytes, Method], list[int]] = {}
    for i in has_energy.nonzero()[0]:
        numbers = np.sort(np.asarray(sample[int(i)].numbers))
        if len(numbers) > 1:
            groups.setdefault((numbers.tobytes(), sample.method(int(i))), []).append(int(i))
    wrong: dict[str, list[int]] = {}
    n_compared = 0
    for members in groups.values():
        if len(members) < _MIN_FRAMES:
            continue
        n_compared += len(members)
        n_atoms = int(sample.n_atoms[members[0]])
        for what, odd in _odd_energies(energy[members], n_atoms).items():
            wrong.setdefault(what, []).extend(members[k] for k in odd)
    if not wrong:
        return None
    causes = [
        f"{len(odd)} of {n_compared} frames {what} ({_names(sample, odd)})"
        for what, odd in wrong.items()
    ]
    return Finding(
        label="energy",
        verdict="inconsistent",
        cause="mixed energies: "
        + "; ".join(causes)
        + "; convert these frames or ingest each part with its own unit",
    )


def _odd_energies(energy: np.ndarray, n_atoms: int) -> dict[str, np.ndarray]:
    """Return what is wrong with which of the energies of one composition."""
    if (energy == 0).any():
        return {}
    size = np.abs(energy)
    order = np.argsort(size)
    cuts = (np.diff(np.log(size[order])) > np.log(_MIN_GAP)).nonzero()[0] + 1
    clusters = np.split(order, cuts)
    if any(size[c].max() > _MAX_SPREAD * size[c].min() for c in clusters):
        return {}
    found: dict[str, np.ndarray] = {}
    if len(clusters) == 1:
        negative = energy < 0
        minority = negative if negative.sum() * 2 < len(energy) else ~negative
        return {"have the wrong sign": minority.nonzero()[0]} if minority.any() else {}
    if (energy > 0).any() and (energy < 0).any():
        return {}
    largest = max(clusters, key=len)
    for cluster in clusters:
        if cluster is largest:
            continue
        pair = (cluster, largest)
        low, high = sorted(pair, key=lambda c: float(np.median(size[c])))
        ratio = float(np.median(size[high]) / np.median(size[low]))
        ranked = sorted(
            (abs(np.log(ratio / max(value, 1 / value))), unit, value > 1)
            for unit, value in ENERGY_UNITS.items()
            if value != 1
        )
        misfit, unit, is_large = ranked[0]
        if abs(np.log(ratio / n_atoms)) < min(misfit, _UNIT_MATCH):
            found["are per atom, the others of the whole structure"] = low
        elif misfit < _UNIT_MATCH:
            # A large unit makes small numbers.
            found[f"look like {unit}, the others like eV (mixed units)"] = low if is_large else high
    return found


def placeholder(dataset: Dataset, label: Label, pairs: Pairs) -> Finding | None:
    """Find a label that is exactly zero in every frame although the structures differ."""
    if label not in dataset.targets:
        return None
    sample = dataset[sample_rows(len(dataset))]
    values, mask = sample.target(label)
    if values.any() or not mask.any():
        return None
    if label == "forces":
        # Symmetry alone makes all forces vanish in a crystal that was only strained.
        moved = pairs.has_forces & (pairs.displacement > 1e-2)
        speaks = moved & (np.abs(pairs.energy) > 1e-3 * pairs.scale)
        if not speaks.any():
            return None
    elif mask.sum() < _MIN_FRAMES:
        return None
    return Finding(
        label=label,
        verdict="inconsistent",
        cause=f"exactly zero in all {int(mask.sum())} frames although the structures differ: "
        f"a placeholder, no {label}; leave the label out of the file",
    )


def blank_forces(dataset: Dataset, pairs: Pairs, energy: np.ndarray) -> Finding | None:
    """Find frames whose forces are exactly zero although their energies say otherwise.

    The forces of a perfect crystal vanish too; then the forces at the other end of its pairs
    explain the energy differences alone, to second order. Where they do not, and do in pairs of
    other frames, the zeros are placeholders.

    Args:
        dataset: that the pairs were found in.
        pairs: those whose energy differences forces (and stress) should explain.
        energy: (n,) eV, the energy differences less what the stress explains.
    """
    rows, ends = np.unique(pairs.rows.astype(np.int64), return_inverse=True)
    if not len(rows):
        return None
    ends = ends.reshape(-1, 2)
    is_blank = np.array([not dataset[int(row)].targets["forces"].any() for row in rows])
    blank_ends = is_blank[ends]
    if not is_blank.any() or is_blank.all():
        return None
    # Strain does work of its own that is known less exactly.
    moved = (pairs.displacement > 1e-2) & (pairs.largest_strain < 1e-3)
    work = pairs.end_work.sum(axis=1)
    misfit = np.abs(energy - work) / (np.abs(energy) + np.abs(pairs.end_work).sum(axis=1) + 1e-6)
    whole = moved & ~blank_ends.any(axis=1)
    if whole.sum() < _MIN_FRAMES or np.median(misfit[whole]) > 0.2:
        return None
    half = moved & (blank_ends.sum(axis=1) == 1)
    owner = ends[half][np.arange(int(half.sum())), blank_ends[half].argmax(axis=1)]
    bad = [
        row
        for row in np.unique(owner)
        if (owner == row).sum() >= _MIN_VOTES and np.median(misfit[half][owner == row]) > 0.35
    ]
    if not bad:
        return None
    return Finding(
        label="forces",
        verdict="inconsistent",
        cause=f"exactly zero in {len(bad)} of {len(rows)} frames although their energies differ "
        f"({_names(dataset, rows[bad].tolist())}): placeholders; drop these frames or leave the "
        f"label out of them",
        n_pairs=len(pairs),
    )


def contradicting_frames(dataset: Dataset, pairs: Pairs, energy: np.ndarray) -> str | None:
    """Return what to say where most pairs agree well and a clear part of them not at all.

    That is what a few frames in another unit near ours (eV/Bohr), or of another sign with few
    near frames, look like. Noise and anharmonic motion give no such gap.

    Args:
        dataset: that the pairs were found in.
        pairs: those whose energy differences forces (and stress) should explain.
        energy: (n,) eV, the energy differences less what the stress explains.
    """
    moved = pairs.displacement > 1e-2
    if moved.sum() < _MIN_PAIRS:
        return None
    work = pairs.end_work[moved]
    size = np.abs(energy[moved]) + np.abs(work).sum(axis=1) + 1e-6
    misfit = np.abs(energy[moved] - work.sum(axis=1)) / size
    contradict = misfit > _CONTRADICTS
    between = (misfit > _CONTRADICTS / 2) & ~contradict
    if np.median(misfit) > _AGREES or contradict.mean() < _CLEAR_SHARE:
        return None
    if 2 * between.sum() > contradict.sum():
        return None
    rows, ends = np.unique(pairs.rows[moved].astype(np.int64), return_inverse=True)
    ends = ends.reshape(-1, 2).ravel()
    twice = np.repeat(contradict, 2)
    share = np.bincount(ends, twice, len(rows)) / np.bincount(ends, minlength=len(rows))
    likely = rows[share > 0.6].tolist()
    return (
        f"{int(contradict.sum())} of {len(misfit)} pairs contradict their energies by "
        f"{np.median(misfit[contradict]):.0%} where half of all agree within "
        f"{np.median(misfit):.0%}: some frames are in another unit (eV/Bohr?) or of another sign, "
        f"likely {_names(dataset, likely) or 'several'}"
    )


def odd_forces(dataset: Dataset, pairs: Pairs, energy: np.ndarray) -> Finding | None:
    """Find frames whose forces have another sign or unit than those of the other frames.

    Args:
        dataset: that the pairs were found in.
        pairs: those whose energy differences forces (and stress) should explain.
        energy: (n,) eV, the energy differences less what the stress explains.
    """
    rows, ends = np.unique(pairs.rows.astype(np.int64), return_inverse=True)
    if not len(rows):
        return None
    ends = ends.reshape(-1, 2)
    choice, before, after, votes = _best_factors(ends, pairs.end_work, energy, len(rows))
    bad = (choice > 0) & (votes >= _MIN_VOTES) & (before > 0.4) & (after < 0.15)
    bad &= after < 0.3 * before
    trusted = np.ones(len(rows), dtype=bool)
    trusted[bad] = False
    good = (votes >= _MIN_VOTES) & trusted
    if not bad.any() or 2 * bad.sum() > len(rows) or np.median(after[good | bad]) > 0.15:
        return None
    words = list(_FORCE_FACTORS)
    causes = [
        f"in {int(these.sum())} of {len(rows)} frames they {what} "
        f"({_names(dataset, rows[these].tolist())})"
        for k, what in enumerate(words, start=1)
        if (these := bad & (choice == k)).any()
    ]
    return Finding(
        label="forces",
        verdict="inconsistent",
        cause="some frames differ from the rest: " + "; ".join(causes) + "; mend or drop these",
        n_pairs=len(pairs),
    )


def _best_factors(
    ends: np.ndarray, work: np.ndarray, energy: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return for n frames the best factor (0 is none), misfit before and after, and votes."""
    factors = np.array([1.0, *_FORCE_FACTORS.values()])
    choice = np.zeros(n, dtype=np.int64)

    def misfits(parts: np.ndarray) -> np.ndarray:
        size = np.abs(energy) + np.abs(parts).sum(axis=-1) + 1e-6
        return np.asarray(np.abs(energy - parts.sum(axis=-1)) / size)

    def per_frame() -> tuple[np.ndarray, np.ndarray]:
        """(2, n factors, n) sum of misfits of the pairs that can tell: factor 1, and another."""
        now = work * factors[choice[ends]]
        sums = np.zeros((2, len(factors), n))
        for side in (0, 1):
            parts = now.copy()
            parts[:, side] = work[:, side]
            usual = misfits(parts)
            for k, factor in enumerate(factors):
                parts[:, side] = work[:, side] * factor
                can_tell = hears[k][:, side]
                for which, misfit in enumerate((usual, misfits(parts))):
                    told = np.where(can_tell, misfit, 0.0)
                    sums[which, k] += np.bincount(ends[:, side], told, n)
        return sums[0], sums[1]

    def audible(factor: float) -> np.ndarray:
        own = np.abs(work * factor)
        return np.asarray(own > 0.15 * (np.abs(energy)[:, None] + np.abs(work[:, ::-1]) + own))

    # A pair tells something of a frame only if its forces do a good part of the work in it,
    # in one unit or the other.
    hears = [audible(1.0) | audible(factor) for factor in factors]
    votes = np.array([np.bincount(ends.ravel(), heard.ravel(), n) for heard in hears])
    frames = np.arange(n)
    for _ in range(2 * n):
        usual, other = per_frame()
        gains = (usual - other) / np.maximum(votes, 1)
        # A quarter of a misfit per pair is needed: noise does not bring it.
        gains[gains < _MIN_GAIN] = 0
        total = gains * votes
        lead = total.max(axis=0) - total[choice, frames]
        best = int(np.argmax(lead))
        if lead[best] <= 0:
            break
        choice[best] = int(np.argmax(total[:, best]))
    usual, other = per_frame()
    voters = votes[choice, frames]
    many = np.maximum(voters, 1)
    return choice, usual[choice, frames] / many, other[choice, frames] / many, voters


def _names(dataset: Dataset, rows: list[int]) -> str:
    shown = ", ".join(dataset.ids[i] or f"row {i}" for i in sorted(map(int, rows))[:_SHOWN])
    return shown if len(rows) <= _SHOWN else f"{shown} and {len(rows) - _SHOWN} more"
