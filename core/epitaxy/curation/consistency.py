"""Do forces, stress and energies of a set belong together?

Pairs of near frames (`epitaxy.curation.pairs`) give, for each, an energy difference and what
forces and stress say about it. A robust line through them has slope one if all is well;
another slope names the culprit: -1 a sign, 1.89 forces in eV/Bohr, 1/n an energy per atom.
A verdict is given only where the line explains the energies; otherwise it is "cannot tell".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from epitaxy.composition import TAG
from epitaxy.curation.conventions import (
    ENERGY_UNITS,
    FORCE_UNITS,
    STRESS_ORDERS,
    STRESS_UNITS,
    Conventions,
)
from epitaxy.curation.findings import ConsistencyReport, Finding, Label, Verdict
from epitaxy.curation.lines import Line, fit_line, huber_weights
from epitaxy.curation.mixtures import (
    blank_forces,
    contradicting_frames,
    mixed_energies,
    odd_forces,
    placeholder,
)
from epitaxy.curation.pairs import Pairs, find_pairs, sample_rows
from epitaxy.dataset import Dataset
from epitaxy.entry import Method

MIN_PAIRS = 8
MIN_FRAMES = 6
MIN_FITTED = 30  # pairs from which the energy of strain is fitted where there is no stress
MIN_SIZES = 3  # pairs of sizes from which a verdict on the energies is given
MIN_EXPLAINED = 0.5  # of the squared energy differences, in units of `Pairs.scale`
GOOD_SLOPES = (0.65, 1.5)  # anharmonic motion and Pulay stress stay well inside, units outside
_EXPLAINED_UNIT = 0.8  # a line that explains less does not show a unit, only that much is wrong
_UNIT_MATCH = 0.12  # relative distance within which a slope is that of a unit

_OURS = Conventions()
_RARE = 0.3  # added to the misfit of units that hardly anybody uses when causes are ranked
_RARE_UNITS = ("meV/Å", "eV/nm", "kJ/mol/nm", "meV", "J", "meV/Å^3", "Pa", "bar", "MPa")

_DERIVED: tuple[Label, ...] = ("forces", "stress")


def check_consistency(dataset: Dataset) -> ConsistencyReport:
    """Compare energies, forces and stresses of a dataset with each other."""
    if TAG in dataset.tags:  # formulas without a structure say nothing here
        dataset = dataset[dataset.tag(TAG) == ""]
    labels: list[Label] = [name for name in _DERIVED if name in dataset.targets]
    if "energy" not in dataset.targets:
        return ConsistencyReport(
            tuple(
                Finding(label=name, verdict="cannot tell", cause="no energies to compare with")
                for name in labels
            )
        )
    findings: list[Finding] = []
    pairs = find_pairs(dataset)
    if (mixed := mixed_energies(dataset)) is not None:
        # Nothing can be compared with such energies.
        empty = (placeholder(dataset, name, pairs) for name in labels)
        return ConsistencyReport((mixed, *(found for found in empty if found is not None)))
    by_size = energy_against_size(dataset)
    energy_factor = np.ones(len(pairs))
    if by_size is not None and by_size.verdict == "inconsistent":
        findings.append(by_size)
        energy_factor = pairs.n_atoms.astype(float)
    if (turned := _judge_sign(pairs, energy_factor, labels)) is not None:
        return ConsistencyReport((*findings, turned))
    force_factor = 1.0
    for name in list(labels):
        if (empty_label := placeholder(dataset, name, pairs)) is not None:
            findings.append(empty_label)
            labels.remove(name)
    if "forces" in labels:
        found = _judge_forces(pairs, energy_factor)
        if found.verdict != "inconsistent" and not findings:
            found = _judge_frames(dataset, pairs, found)
        findings.append(found)
        if found.verdict == "inconsistent":
            energy_factor = energy_factor * _energy_factor(found.remedy, pairs.n_atoms)
            force_factor = _force_factor(found.remedy)
    if "stress" in labels:
        findings.append(_judge_stress(pairs, energy_factor, force_factor))
    if by_size is not None and by_size.verdict != "inconsistent":
        findings.insert(0, by_size)
    return ConsistencyReport(tuple(findings))


# --- energies against the number of atoms ---


def energy_against_size(dataset: Dataset) -> Finding | None:
    """Judge whether energies grow with the number of atoms at equal composition.

    Returns None where no composition comes in clearly different sizes.
    """
    from epitaxy.split import compositions

    seen: dict[tuple[str, Method], dict[int, list[float]]] = {}
    sample = dataset[sample_rows(len(dataset))]
    energy, has_energy = sample.target("energy")
    for i, formula in enumerate(compositions(sample).tolist()):
        if has_energy[i]:
            sizes = seen.setdefault((formula, sample.method(i)), {})
            sizes.setdefault(int(sample.n_atoms[i]), []).append(float(energy[i]))
    exponents: list[float] = []
    n_frames = 0
    for sizes in seen.values():
        # Energies near zero (formation energies) do not show how they scale.
        known = [
            (size, float(np.median(values)), len(values))
            for size, values in sorted(sizes.items())
            if abs(np.median(values)) > 3 * np.std(values)
        ]
        for k, (small, low, n_low) in enumerate(known):
            for large, high, n_high in known[k + 1 :]:
                if large >= 1.5 * small and low * high > 0:
                    exponents.append(np.log(high / low) / np.log(large / small))
                    n_frames += n_low + n_high
    if len(exponents) < 1 or n_frames < MIN_FRAMES:
        return None
    exponent = float(np.median(exponents))
    spread = float(np.max(np.abs(np.array(exponents) - exponent)))
    facts = {"slope": exponent, "slope_error": spread, "explained": 1.0, "n_pairs": len(exponents)}
    if abs(exponent - 1) < 0.3:
        if len(exponents) < MIN_SIZES:
            cause = f"{len(exponents)} pairs of sizes of one composition, {MIN_SIZES} needed"
            return Finding(
                label="energy", verdict="cannot tell", cause=cause, n_pairs=len(exponents)
            )
        return Finding(label="energy", verdict="consistent", **facts)  # type: ignore[arg-type]
    if abs(exponent) < 0.3 and spread < 0.3:
        return Finding(
            label="energy",
            verdict="inconsistent",
            cause="energies do not grow with the number of atoms: they are per atom, not total",
            remedy=Conventions(energy_per_atom=True),
            **facts,  # type: ignore[arg-type]
        )
    return None


# --- forces ---


def _judge_forces(pairs: Pairs, energy_factor: np.ndarray) -> Finding:
    moved = pairs.has_forces & (pairs.displacement > 1e-4)
    tested = moved & (pairs.largest_strain < 1e-5)
    if tested.sum() < MIN_PAIRS:
        # Too few frames of one cell: take the part of the energy that the stress explains out.
        tested = moved & pairs.is_complete
    if tested.sum() < MIN_PAIRS:
        strained = moved & ~pairs.is_complete
        if (fitted := _judge_strained(pairs[strained], energy_factor[strained])) is not None:
            return fitted
        cause = f"{int(tested.sum())} pairs of near frames, {MIN_PAIRS} needed"
        if strained.any():
            cause += (
                f" ({int(strained.sum())} more differ in their cells and have no stress label, "
                "so the energy of the strain is unknown)"
            )
        return Finding(
            label="forces", verdict="cannot tell", cause=cause, n_pairs=int(tested.sum())
        )
    used = pairs[tested]
    energy = used.energy * energy_factor[tested]
    energy = energy - _strain_energy(used, energy)
    line = fit_line(energy / used.scale, used.force_work / used.scale, used.rows)
    if (unclear := _unclear("forces", line)) is not None:
        return unclear
    if GOOD_SLOPES[0] <= line.slope <= GOOD_SLOPES[1]:
        return Finding(label="forces", verdict="consistent", **line.facts())
    cause, remedy = _name_forces(line, used, energy, _stress_slope(pairs, energy_factor))
    is_unit = bool(set(remedy.changes) - {"forces_are_gradients"})
    if line.explained < (_EXPLAINED_UNIT if is_unit or not remedy.changes else MIN_EXPLAINED):
        if is_unit:
            cause = "forces and energies agree too little to say what is wrong with them"
        return Finding(label="forces", verdict="cannot tell", cause=cause, **line.facts())
    label: Label = "energy" if remedy.energy_per_atom or remedy.energy_unit != "eV" else "forces"
    return Finding(label=label, verdict="inconsistent", cause=cause, remedy=remedy, **line.facts())


def _judge_strained(pairs: Pairs, energy_factor: np.ndarray) -> Finding | None:
    """Judge forces of frames whose cells differ and that have no stress.

    The energy of the strain is fitted along with the forces: one constant stress, and a term
    in the square of the volume. None where too few pairs, or too little explained, remain.
    """
    if len(pairs) < MIN_FITTED or (pairs.n_atoms != pairs.n_atoms[0]).any():
        return None
    energy = pairs.energy * energy_factor
    volume = pairs.volume / pairs.volume.mean()
    terms = np.concatenate([pairs.strain.mean(axis=1), np.diff((volume - 1) ** 2, axis=1)], axis=1)
    x = np.concatenate([pairs.force_work[:, None], terms], axis=1) / pairs.scale[:, None]
    y = energy / pairs.scale
    weights = np.ones(len(y))
    slopes = np.zeros(x.shape[1])
    for _ in range(20):
        root = np.sqrt(weights)
        slopes = np.linalg.lstsq(x * root[:, None], y * root)[0]
        weights = huber_weights(y - x @ slopes)
    left = energy - terms @ slopes[1:]
    line = fit_line(left / pairs.scale, pairs.force_work / pairs.scale, pairs.rows)
    if _unclear("forces", line) is not None or line.explained < _EXPLAINED_UNIT:
        return None
    if GOOD_SLOPES[0] <= line.slope <= GOOD_SLOPES[1]:
        return Finding(label="forces", verdict="consistent", **line.facts())
    cause, remedy = _name_forces(line, pairs, left, None)
    verdict: Verdict = "inconsistent" if remedy.changes else "cannot tell"
    return Finding(label="forces", verdict=verdict, cause=cause, remedy=remedy, **line.facts())


def _judge_sign(pairs: Pairs, energy_factor: np.ndarray, labels: Sequence[Label]) -> Finding | None:
    """Find energies of the wrong sign: both forces and stress say so, each by itself."""
    if not {"forces", "stress"} <= set(labels):
        return None
    forces = _judge_forces(pairs, energy_factor)
    if forces.slope is None or forces.verdict == "cannot tell":
        return None
    stress = _judge_stress(pairs, energy_factor, -1.0)
    if stress.slope is None or stress.verdict == "cannot tell":
        return None
    low, high = GOOD_SLOPES
    if not (low <= -forces.slope <= high and low <= -stress.slope <= high):
        return None
    if stress.remedy.stress_order != "ase" or stress.remedy.stress_is_virial:
        return None
    return replace(
        forces,
        label="energy",
        verdict="inconsistent",
        cause="energies have the wrong sign (or forces and stress both have)",
        remedy=_OURS,
    )


def _judge_frames(dataset: Dataset, pairs: Pairs, found: Finding) -> Finding:
    """Judge the forces of every frame by its own pairs, trusting the stored stress."""
    used = pairs[pairs.has_forces & (pairs.displacement > 1e-4) & pairs.is_complete]
    energy = used.energy - _work(used, "ase", False)
    odd = odd_forces(dataset, used, energy) or blank_forces(dataset, used, energy)
    if odd is not None:
        return odd
    if found.verdict == "consistent":
        cause = contradicting_frames(dataset, used, energy)
        if cause is not None:
            return replace(found, verdict="cannot tell", cause=cause)
    return found


def _strain_energy(pairs: Pairs, energy: np.ndarray) -> np.ndarray:
    """Return the part of the energy differences that follows the stress, (n,) eV."""
    work = _work(pairs, "ase", False)
    if not work.any():
        return np.zeros(len(pairs))
    x = np.stack([pairs.force_work, work], axis=1) / pairs.scale[:, None]
    y = energy / pairs.scale
    weights = np.ones(len(y))
    slopes = np.zeros(2)
    for _ in range(20):
        slopes = np.linalg.lstsq(x * np.sqrt(weights)[:, None], y * np.sqrt(weights))[0]
        weights = huber_weights(y - x @ slopes)
    return np.asarray(slopes[1] * work)


def _stress_slope(pairs: Pairs, energy_factor: np.ndarray) -> float | None:
    """Return what frames that differ by a strain alone say about the energies, if anything."""
    only = pairs.has_stress & (pairs.displacement < 1e-4) & (pairs.largest_strain > 1e-4)
    if only.sum() < MIN_PAIRS:
        return None
    used = pairs[only]
    energy = used.energy * energy_factor[only]
    line = fit_line(energy / used.scale, _work(used, "ase", False) / used.scale, used.rows)
    return line.slope if _unclear("stress", line) is None else None


def _name_forces(
    line: Line, pairs: Pairs, energy: np.ndarray, stress_slope: float | None
) -> tuple[str, Conventions]:
    flipped = line.slope < 0
    size = abs(line.slope)
    stress_is_good = stress_slope is not None and GOOD_SLOPES[0] < stress_slope < GOOD_SLOPES[1]
    stress_is_alike = (
        stress_slope is not None and not stress_is_good and _misfit(size, abs(stress_slope)) < 0.15
    )
    candidates: list[tuple[float, float, str, Conventions]] = []
    if not stress_is_alike:  # else the energies are the odd ones out
        for unit, factor in FORCE_UNITS.items():
            what = "forces have the wrong sign" if factor == 1 else f"forces look like {unit}"
            if unit == "eV/Bohr":
                what += " (or energies and forces are both in atomic units)"
            if factor == 1 and stress_slope is None:
                what += " (or the energies have: no stress tells which)"
            remedy = Conventions(forces_unit=unit, forces_are_gradients=flipped)
            candidates.append((_misfit(size, factor), _rarity(unit), what, remedy))
    if not stress_is_good:
        for unit, factor in ENERGY_UNITS.items():
            if factor != 1:
                remedy = Conventions(energy_unit=unit, forces_are_gradients=flipped)
                what = f"energies look like {unit}"
                candidates.append((_misfit(size, 1 / factor), _rarity(unit), what, remedy))
        if (pairs.n_atoms > 1).all():
            work = pairs.force_work / pairs.scale
            per_atom = fit_line(energy * pairs.n_atoms / pairs.scale, work, pairs.rows)
            if per_atom.explained >= line.explained - 0.02:
                remedy = Conventions(energy_per_atom=True, forces_are_gradients=flipped)
                what = "energies are per atom, not total"
                candidates.append((_misfit(abs(per_atom.slope), 1.0), 0.0, what, remedy))
    candidates.sort(key=lambda candidate: candidate[0] + candidate[1])
    tolerance = max(_UNIT_MATCH, 3 * line.error / size)
    likely = [candidate for candidate in candidates if candidate[0] < tolerance]
    if not likely:
        return f"forces are off by a factor of {line.slope:.3g} that is no unit we know", _OURS
    cause, remedy = likely[0][2:]
    if len(likely) > 1:
        cause += f" (or {likely[1][2]})"
    if flipped and "sign" not in cause:
        cause += ", and forces have the wrong sign"
    return cause, remedy


def _rarity(unit: str) -> float:
    return _RARE if unit in _RARE_UNITS else 0.0


def _energy_factor(remedy: Conventions, n_atoms: np.ndarray) -> np.ndarray:
    factor = np.full(len(n_atoms), ENERGY_UNITS[remedy.energy_unit])
    return factor * n_atoms if remedy.energy_per_atom else factor


def _force_factor(remedy: Conventions) -> float:
    return FORCE_UNITS[remedy.forces_unit] * (-1 if remedy.forces_are_gradients else 1)


# --- stress ---


def _judge_stress(pairs: Pairs, energy_factor: np.ndarray, force_factor: float) -> Finding:
    strained = pairs.has_stress & (pairs.largest_strain > 1e-4) & pairs.is_complete
    n_strained = int(strained.sum())
    if n_strained < MIN_PAIRS:
        return Finding(
            label="stress",
            verdict="cannot tell",
            cause=f"{n_strained} pairs of near frames of different strain, {MIN_PAIRS} needed",
            n_pairs=n_strained,
        )
    used = pairs[strained]
    left = used.energy * energy_factor[strained] - used.force_work * force_factor
    stress_order, stress = _best_fit(used, left, virial=False)
    virial_order, virial = _best_fit(used, left, virial=True)
    if _is_virial(stress, virial):
        flipped = virial.slope < 0
        causes = ["it is a virial (volume times stress)", *_causes(virial_order, flipped)]
        remedy = Conventions(
            stress_is_virial=True, stress_order=virial_order, stress_is_pressure=flipped
        )
        return Finding(
            label="stress",
            verdict="inconsistent",
            cause="; ".join(causes),
            remedy=remedy,
            **virial.facts(),
        )
    if (unclear := _unclear("stress", stress)) is not None:
        return unclear
    if GOOD_SLOPES[0] <= stress.slope <= GOOD_SLOPES[1] and stress_order == "ase":
        return Finding(label="stress", verdict="consistent", **stress.facts())
    cause, remedy = _name_stress(stress, stress_order, virial)
    if not remedy.changes and stress.explained < 0.8:
        return Finding(label="stress", verdict="cannot tell", cause=cause, **stress.facts())
    return Finding(
        label="stress", verdict="inconsistent", cause=cause, remedy=remedy, **stress.facts()
    )


def _best_fit(pairs: Pairs, energy: np.ndarray, *, virial: bool) -> tuple[str, Line]:
    """Return the Voigt order that the energies prefer, and its line."""
    y = energy / pairs.scale
    fits = {
        order: fit_line(y, _work(pairs, order, virial) / pairs.scale, pairs.rows)
        for order in STRESS_ORDERS
    }
    order = _best_order(pairs, energy, fits, virial=virial)
    return order, fits[order]


def _is_virial(stress: Line, virial: Line) -> bool:
    """Return whether what was stored is a virial: its slope is ±1 and nothing else explains it.

    A volume can look like a unit (1/160 Å^3 is GPa), so the virial has to explain more.
    """
    if _unclear("stress", virial) is not None or _misfit(abs(virial.slope), 1.0) > _UNIT_MATCH:
        return False
    if _unclear("stress", stress) is not None or (1 - virial.explained) < 0.5 * (
        1 - stress.explained
    ):
        return True
    return _nearest_stress_unit(stress)[0] > max(_UNIT_MATCH, 3 * stress.error / abs(stress.slope))


def _nearest_stress_unit(line: Line) -> tuple[float, str]:
    ranked = sorted(
        (_misfit(abs(line.slope), factor) + _rarity(unit), unit)
        for unit, factor in STRESS_UNITS.items()
    )
    unit = ranked[0][1]
    return _misfit(abs(line.slope), STRESS_UNITS[unit]), unit


def _work(pairs: Pairs, order: str, virial: bool) -> np.ndarray:
    """Return the energy of straining by the stored stress read in an order, (n,)."""
    stress = pairs.stress[:, :, list(STRESS_ORDERS[order])]
    weight = np.ones_like(pairs.volume) if virial else pairs.volume
    return np.asarray(0.5 * (weight[..., None] * stress * pairs.strain).sum(axis=(1, 2)))


def _best_order(pairs: Pairs, energy: np.ndarray, fits: Mapping[str, Line], *, virial: bool) -> str:
    """Return the Voigt order that the energies prefer; ASE's unless another clearly wins."""

    def misfits(order: str) -> np.ndarray:
        return np.asarray(np.abs(energy - fits[order].slope * _work(pairs, order, virial)))

    ours = misfits("ase")
    best, best_ratio = "ase", 0.5
    for order in STRESS_ORDERS:
        if order == "ase":
            continue
        theirs = misfits(order)
        # Only pairs in which the order matters can tell.
        matters = np.abs(ours - theirs) > 0.05 * (np.abs(energy) + 1e-3)
        if matters.sum() < MIN_PAIRS or len(np.unique(pairs.rows[matters])) < MIN_FRAMES:
            continue
        wins = float((theirs < ours)[matters].mean())
        ratio = float(theirs[matters].sum() / max(ours[matters].sum(), 1e-300))
        if wins >= 0.75 and ratio < best_ratio and fits[order].explained > 0.7:
            best, best_ratio = order, ratio
    return best


def _name_stress(line: Line, order: str, virial: Line) -> tuple[str, Conventions]:
    flipped = line.slope < 0
    misfit, unit = _nearest_stress_unit(line)
    tolerance = max(_UNIT_MATCH, 3 * line.error / abs(line.slope))
    what = []
    if GOOD_SLOPES[0] <= abs(line.slope) <= GOOD_SLOPES[1]:
        unit = "eV/Å^3"
    elif misfit <= tolerance:
        what = [f"it looks like {unit}"]
        if _misfit(abs(virial.slope), 1.0) < tolerance:
            what = [f"{what[0]} (or like a virial: these volumes cannot tell)"]
    else:
        unit = "eV/Å^3"
        what = [f"it is off by a factor of {line.slope:.3g} that is no unit we know"]
        if _misfit(abs(line.slope), 0.1) < tolerance:
            what = [f"it is off by a factor of {line.slope:.3g}, as if kbar were read as GPa"]
    return "; ".join([*what, *_causes(order, flipped)]), Conventions(
        stress_unit=unit, stress_order=order, stress_is_pressure=flipped
    )


def _causes(order: str, flipped: bool) -> list[str]:
    causes = []
    if order != "ase":
        causes.append(f"components are in the order {_ORDER_WORDS.get(order, order)}")
    if flipped:
        causes.append("the sign is that of a pressure, positive under compression")
    return causes


_ORDER_WORDS = {"vasp": "xx, yy, zz, xy, yz, zx (VASP's)"}


# --- shared ---


def _misfit(value: float, wanted: float) -> float:
    return float(abs(np.log(value / wanted))) if value > 0 else float("inf")


def _unclear(label: Label, line: Line) -> Finding | None:
    why = ""
    if line.n_frames < MIN_FRAMES:
        why = f"only {line.n_frames} frames are near others"
    elif line.explained < MIN_EXPLAINED:
        why = "no line through the pairs explains the energies: frames too far apart, or noise"
    elif line.error > 0.2 * abs(line.slope):
        why = "the slope is too uncertain"
    if why:
        return Finding(label=label, verdict="cannot tell", cause=why, **line.facts())
    return None
