"""Predictions beside the labels that a file brings, and their error bars where it brings none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms

from epitaxy.evaluation.metrics import Compared, Errors, Evaluation
from epitaxy.evaluation.plots import COLORS, new_figure, plot_parity, write_figure
from epitaxy.quantities import quantity, readable_unit

if TYPE_CHECKING:
    from epitaxy_calculator.recording import Recording

# Target -> what ASE calls its label, the first one that a file holds.
LABELS: Mapping[str, tuple[str, ...]] = {
    "energy": ("free_energy", "energy"),
    "forces": ("forces",),
    "stress": ("stress",),
}


class _Pair(NamedTuple):
    """Rows of one target of one structure: (n, ...) each, std None without an ensemble."""

    label: np.ndarray
    predicted: np.ndarray
    std: np.ndarray | None
    structure: int


class Comparison:
    """Collects labels and predictions while files are read.

    Attributes:
        names: of the structures seen, as files and frames.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.names: list[str] = []
        self._pairs: dict[str, list[_Pair]] = {}

    def see(self, atoms: Atoms, results: Mapping[str, Any], *, name: str) -> None:
        """Keep what the file says of a structure beside what was predicted.

        Args:
            atoms: as read; the calculator that the file brings holds the labels.
            results: of the potential, units and shapes as ASE's.
            name: of the structure.
        """
        labels = atoms.calc.results if atoms.calc is not None else {}
        for target, keys in LABELS.items():
            key = next((key for key in keys if key in labels), None)
            if key is None or target not in results:
                continue
            rule = quantity(target)
            scale = 1 / len(atoms) if rule.extensive else 1.0
            shape = (-1, *rule.shape)
            label = scale * np.asarray(labels[key], dtype=np.float64).reshape(shape)
            if not np.isfinite(label).all():
                continue
            std = results.get(f"{target}_std")
            pair = _Pair(
                label=label,
                predicted=scale * np.asarray(results[target], dtype=np.float64).reshape(shape),
                std=None if std is None else scale * np.asarray(std).reshape(shape),
                structure=len(self.names),
            )
            self._pairs.setdefault(target, []).append(pair)
        self.names.append(name)

    def evaluation(self) -> Evaluation | None:
        """Return the errors of all that was labelled, energies per atom; None if nothing was."""
        if not self._pairs:
            return None
        compared = {target: _joined(target, pairs) for target, pairs in self._pairs.items()}
        return Evaluation(
            n_structures=len(self.names),
            errors={n: Errors.of(c.predicted, c.label, unit=c.unit) for n, c in compared.items()},
            by_group={},
            calibration={},
            compared=compared,
            ids=tuple(self.names),
        )


def _joined(target: str, pairs: list[_Pair]) -> Compared:
    rule = quantity(target)
    stds = [pair.std for pair in pairs if pair.std is not None]
    return Compared(
        label=np.concatenate([pair.label for pair in pairs]),
        predicted=np.concatenate([pair.predicted for pair in pairs]),
        std=np.concatenate(stds) if len(stds) == len(pairs) else None,
        structure=np.concatenate([np.full(len(p.label), p.structure) for p in pairs]),
        unit=rule.unit + ("/atom" if rule.extensive else ""),
    )


def describe(evaluation: Evaluation) -> str:
    """Return one line with the mean absolute errors."""
    found = []
    for target, errors in evaluation.errors.items():
        factor, unit = readable_unit(errors.unit)
        n = len(np.unique(evaluation.compared[target].structure))
        found.append(f"{target} {errors.mae * factor:.3g} {unit} ({n} labelled)")
    return f"mean absolute difference from the labels in the files: {', '.join(found)}"


def plot(comparison: Comparison, recording: Recording, path: Path, *, threshold: float) -> bool:
    """Draw predictions against labels or, without labels, the error bars of an ensemble.

    Returns:
        Whether there was anything to draw.
    """
    evaluation = comparison.evaluation()
    if evaluation is not None:
        plot_parity(evaluation, path)
        return True
    if "max_force_std_eV_per_A" not in recording.rows[0]:
        return False
    std = np.sort(recording.column("max_force_std_eV_per_A"))[::-1]
    figure, axis = new_figure(4.8, 3.6)
    axis.plot(np.arange(1, len(std) + 1), std, "o-", ms=3, lw=1, color=COLORS[0])
    axis.axhline(threshold, color=COLORS[1], lw=1, ls="--", label="threshold")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("structures, the most uncertain first")
    axis.set_ylabel("largest std of a force (eV/Å)")
    axis.legend(frameon=False, fontsize=8)
    write_figure(figure, path)
    return True
