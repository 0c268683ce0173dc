"""How far predictions are from labels: overall, and by group of structures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.errors import DataError
from epitaxy.evaluation.calibration import Calibration, calibrate
from epitaxy.quantities import quantity

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.protocols import Predictions


@dataclass(frozen=True, slots=True)
class Errors:
    """Error measures of one target, over all compared values at once.

    Attributes:
        n: number of values compared (components count one each).
        mae: mean absolute error.
        rmse: root mean square error over all values, never a mean of batches.
        max: largest absolute error.
        bias: mean of prediction minus label.
        r2: coefficient of determination; nan when the labels do not vary.
        unit: unit of all but `r2`.
    """

    n: int
    mae: float
    rmse: float
    max: float
    bias: float
    r2: float
    unit: str

    @classmethod
    def of(cls, predicted: np.ndarray, label: np.ndarray, *, unit: str) -> Errors:
        """Compare two arrays of the same shape.

        Raises:
            DataError: the shapes differ or nothing is there to compare.
        """
        if predicted.shape != label.shape or predicted.size == 0:
            raise DataError(
                f"cannot compare predictions of shape {predicted.shape} with labels of shape "
                f"{label.shape}"
            )
        difference = np.asarray(predicted, dtype=np.float64) - label
        spread = float(np.sum((label - label.mean()) ** 2))
        square = float(np.sum(difference**2))
        return cls(
            n=difference.size,
            mae=float(np.mean(np.abs(difference))),
            rmse=float(np.sqrt(square / difference.size)),
            max=float(np.max(np.abs(difference))),
            bias=float(np.mean(difference)),
            r2=1.0 - square / spread if spread > 0 else float("nan"),
            unit=unit,
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Labels and predictions of one target, ready to plot.

    Extensive quantities of a structure are compared per atom.

    Attributes:
        label: (n, ...) values of the dataset.
        predicted: (n, ...) values of the model.
        std: (n, ...) one standard deviation, or None.
        structure: (n,) index of the structure that each row belongs to.
        unit: unit of the values.
    """

    label: np.ndarray
    predicted: np.ndarray
    std: np.ndarray | None
    structure: np.ndarray
    unit: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The comparison of a model's predictions with a dataset.

    Attributes:
        n_structures: structures in the dataset.
        errors: target -> errors over everything.
        by_group: group -> target -> errors, when a tag was given.
        calibration: target -> how well the standard deviations describe the errors.
        compared: target -> the values behind the numbers.
        ids: names of the structures.
    """

    n_structures: int
    errors: Mapping[str, Errors]
    by_group: Mapping[str, Mapping[str, Errors]]
    calibration: Mapping[str, Calibration]
    compared: Mapping[str, Compared] = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)

    def numbers(self) -> dict[str, float]:
        """Return flat numbers for a manifest or a log, for example ``energy_mae``."""
        flat: dict[str, float] = {}
        for name, errors in self.errors.items():
            flat[f"{name}_mae"] = errors.mae
            flat[f"{name}_rmse"] = errors.rmse
        for name, calibration in self.calibration.items():
            flat[f"{name}_error_std_ratio"] = calibration.scale
            flat[f"{name}_rank_correlation"] = calibration.rank_correlation
        return flat

    def worst(self, name: str, count: int = 5) -> list[tuple[str, float]]:
        """Return the `count` structures with the largest absolute error of a target."""
        pair = self.compared[name]
        error = np.abs(pair.predicted - pair.label).reshape(len(pair.label), -1).max(axis=1)
        per_structure = np.zeros(self.n_structures)
        np.maximum.at(per_structure, pair.structure, error)
        order = np.argsort(per_structure)[::-1][:count]
        return [(self.ids[i], float(per_structure[i])) for i in order]


def evaluate(predictions: Predictions, dataset: Dataset, *, group: str = "") -> Evaluation:
    """Compare predictions with the labels of a dataset; missing labels are left out.

    Args:
        predictions: what `Model.predict(dataset)` returned.
        dataset: the labels.
        group: tag of the dataset by which errors are also listed.

    Raises:
        DataError: no target is both predicted and labelled.
    """
    compared = {
        name: pair
        for name in predictions.mean
        if name in dataset.targets and (pair := compare(predictions, dataset, name)) is not None
    }
    if not compared:
        raise DataError(
            f"nothing to compare: predicted {', '.join(predictions.mean) or 'nothing'}, "
            f"labelled {', '.join(dataset.targets) or 'nothing'}"
        )
    errors = {n: Errors.of(c.predicted, c.label, unit=c.unit) for n, c in compared.items()}
    by_group: dict[str, dict[str, Errors]] = {}
    if group:
        labels = np.asarray(dataset.tag(group))
        for value in sorted(set(labels.tolist())):
            members = labels == value
            rows = {name: members[c.structure] for name, c in compared.items()}
            by_group[value or "(none)"] = {
                name: Errors.of(c.predicted[rows[name]], c.label[rows[name]], unit=c.unit)
                for name, c in compared.items()
                if rows[name].any()
            }
    calibration = {
        n: calibrate(c.predicted - c.label, c.std) for n, c in compared.items() if c.std is not None
    }
    return Evaluation(
        n_structures=len(dataset),
        errors=errors,
        by_group=by_group,
        calibration=calibration,
        compared=compared,
        ids=tuple(dataset.ids),
    )


def compare(predictions: Predictions, dataset: Dataset, name: str) -> Compared | None:
    """Line up the labels and predictions of one target; None if nothing is labelled."""
    rule = quantity(name)
    label, mask = dataset.target(name)
    if not mask.any():
        return None
    n_atoms = np.asarray(dataset.n_atoms)
    predicted = np.asarray(predictions.mean[name], dtype=np.float64)
    std = None if predictions.std is None else predictions.std.get(name)
    structure = np.arange(len(dataset))
    if rule.per == "atom":
        structure = np.repeat(structure, n_atoms)
        rows = np.repeat(mask, n_atoms)
    else:
        rows = mask.copy()
    finite = np.isfinite(predicted.reshape(len(predicted), -1)).all(axis=1)
    if name == "stress":
        # Only a structure that is periodic in three directions has a stress.
        pbc = np.asarray(dataset.gather().pbc, dtype=bool).all(axis=1)
        finite |= ~pbc
        rows = rows & pbc
    if (bad := np.unique(structure[rows & ~finite])).size:
        names = ", ".join(str(dataset.ids[i]) for i in bad[:5])
        raise DataError(
            f"the model predicts a {name} that is not finite for {bad.size} of {len(dataset)} "
            f"structures ({names}): it is not usable there; look at these structures, or train "
            f"it again"
        )
    if not rows.any():
        return None
    scale = np.ones(len(label))
    unit = rule.unit
    if rule.extensive and rule.per == "structure":
        scale = 1.0 / n_atoms
        unit += "/atom"
    scale = scale.reshape(-1, *(1,) * (label.ndim - 1))
    return Compared(
        label=(label * scale)[rows],
        predicted=(predicted * scale)[rows],
        std=None if std is None else (np.asarray(std, dtype=np.float64) * scale)[rows],
        structure=structure[rows],
        unit=unit,
    )
