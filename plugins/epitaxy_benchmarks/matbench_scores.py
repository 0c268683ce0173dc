"""Scores of one fold: those that MatBench records, and the ROC-AUC as it should be.

matbench 0.6 (`data_ops.score_array`) overwrites the probabilities with labels when it computes
the accuracy, and computes "rocauc" from these labels afterwards. The area under a curve with one
threshold is the balanced accuracy, so that is what the board shows. It is `rocauc_official` here;
`rocauc` is the area under the curve of the probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

REGRESSION = ("mae", "rmse", "mape", "max_error")
CLASSIFICATION = ("accuracy", "balanced_accuracy", "f1", "rocauc")
"""Scores that a submission must have, as MatBench names them."""

THRESHOLD = 0.5
_SMALL = 1e-5  # labels closer to zero do not count in mape


def regression_scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return mae, rmse, mape and max_error; mape leaves out labels near zero."""
    error = np.abs(predicted - labels)
    counts = np.abs(labels) > _SMALL
    relative = error[counts] / np.abs(labels[counts])
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mape": float(relative.mean()) if counts.any() else 0.0,
        "max_error": float(error.max()),
    }


def classification_scores(labels: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Return accuracy, balanced_accuracy, f1, rocauc_official and the true rocauc.

    With one class alone among the labels the last two are nan.

    Args:
        labels: (n,) 0 or 1.
        probability: (n,) of 1.
    """
    truth, said = labels > THRESHOLD, probability > THRESHOLD
    hits = float((truth & said).sum())
    found = [float((said == truth)[truth == kind].mean()) for kind in np.unique(truth)]
    both = len(found) > 1
    return {
        "accuracy": float((said == truth).mean()),
        "balanced_accuracy": float(np.mean(found)),
        "f1": 2 * hits / max(float(truth.sum() + said.sum()), 1.0),
        "rocauc_official": float(np.mean(found)) if both else float("nan"),
        "rocauc": _area(truth, probability) if both else float("nan"),
    }


def scores(labels: np.ndarray, predicted: np.ndarray, *, is_claim: bool) -> dict[str, float]:
    """Return the scores of a fold."""
    return (classification_scores if is_claim else regression_scores)(labels, predicted)


def recorded(found: Mapping[str, float], *, is_claim: bool) -> dict[str, float]:
    """Return the scores as a submission records them."""
    if not is_claim:
        return {name: found[name] for name in REGRESSION}
    return {name: found["rocauc_official" if name == "rocauc" else name] for name in CLASSIFICATION}


def over_folds(folds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return score -> mean, standard deviation (as numpy's std), smallest and largest fold."""
    table = {name: np.array([fold[name] for fold in folds]) for name in folds[0]}
    return {
        name: {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "min": float(values.min()),
            "max": float(values.max()),
        }
        for name, values in table.items()
    }


def _area(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the area under the ROC curve: the part of pairs in the right order, ties half."""
    _, code, counts = np.unique(probability, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    n_true = int(truth.sum())
    n_false = len(truth) - n_true
    above = float(mean_rank[code][truth].sum()) - n_true * (n_true + 1) / 2
    return above / (n_true * n_false)
