"""Dense layers on standardised features as plain arrays: a line is one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Activation = Literal["relu", "tanh", "logistic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """Shift and scale of features and label, so that both have mean 0 and deviation 1.

    Attributes:
        shift: (width,) float64.
        scale: (width,) float64.
        label_shift: mean of the labels; 0 for a claim.
        label_scale: standard deviation of the labels; 1 for a claim.
    """

    shift: np.ndarray
    scale: np.ndarray
    label_shift: float
    label_scale: float

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, *, is_claim: bool) -> Scaler:
        """Fit it to a training set whose columns are not constant."""
        scale = features.std(axis=0)
        return cls(
            shift=features.mean(axis=0),
            scale=np.where(scale > 0, scale, 1.0),
            label_shift=0.0 if is_claim else float(labels.mean()),
            label_scale=1.0 if is_claim else (float(labels.std()) or 1.0),
        )

    def features(self, features: np.ndarray) -> np.ndarray:
        """Return standardised features."""
        scaled: np.ndarray = (features - self.shift) / self.scale
        return scaled

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Return standardised labels."""
        scaled: np.ndarray = (labels - self.label_shift) / self.label_scale
        return scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Dense layers with one activation between them.

    Attributes:
        scaler: of features and labels.
        weights: of each layer (width in, width out).
        biases: of each layer (width out,).
        activation: between layers.
        is_logistic: whether the result is a logit that becomes a probability.
    """

    scaler: Scaler
    weights: Sequence[np.ndarray]
    biases: Sequence[np.ndarray]
    activation: Activation = "relu"
    is_logistic: bool = False

    kind = "layers"

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the prediction of every row, (n,)."""
        x = self.scaler.features(features)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if index:
                x = _activated(x, self.activation)
            x = x @ weight + bias
        value = x[:, 0]
        if self.is_logistic:
            return 1 / (1 + np.exp(-value)), None
        return value * self.scaler.label_scale + self.scaler.label_shift, None

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return everything as arrays."""
        named = {f"weight{i}": weight for i, weight in enumerate(self.weights)}
        named |= {f"bias{i}": bias for i, bias in enumerate(self.biases)}
        label = [self.scaler.label_shift, self.scaler.label_scale]
        return {
            **named,
            "shift": self.scaler.shift,
            "scale": self.scaler.scale,
            "label": np.array(label),
            "flags": np.array([_ACTIVATIONS.index(self.activation), self.is_logistic], np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Layers:
        """Make the same again."""
        n_layers = sum(name.startswith("weight") for name in arrays)
        label_shift, label_scale = (float(x) for x in arrays["label"])
        activation, is_logistic = arrays["flags"]
        return cls(
            scaler=Scaler(
                shift=arrays["shift"],
                scale=arrays["scale"],
                label_shift=label_shift,
                label_scale=label_scale,
            ),
            weights=[arrays[f"weight{i}"] for i in range(n_layers)],
            biases=[arrays[f"bias{i}"] for i in range(n_layers)],
            activation=_ACTIVATIONS[int(activation)],
            is_logistic=bool(is_logistic),
        )


_ACTIVATIONS: tuple[Activation, ...] = ("relu", "tanh", "logistic")


def _activated(x: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == "relu":
        return np.maximum(x, 0.0)  # type: ignore[no-any-return]
    y: np.ndarray = np.tanh(x) if activation == "tanh" else 1 / (1 + np.exp(-x))
    return y
