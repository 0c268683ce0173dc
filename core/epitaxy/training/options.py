"""What can be chosen about a training: the ``training:`` section of a config file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from epitaxy.errors import ConfigError
from epitaxy.quantities import QUANTITIES

Loss = Literal["mse", "mae", "huber"]
MEASURES = ("mae", "rmse", "accuracy")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a model is trained.

    Attributes:
        epochs: passes over the training set.
        max_seconds: wall time in seconds after which training stops cleanly and keeps the best
            weights; none means no limit. The cosine schedule then ends with whichever comes
            first, epochs or time; such a run is not reproducible to the bit.
        batch_size: structures per step.
        optimizer: any class of torch.optim, in any capitalisation: adamw, adam, sgd, lbfgs ...
        optimizer_options: further options of the optimizer, for example {betas: [0.9, 0.99]}.
        lr: learning rate at its highest.
        weight_decay: decay of the weights, as the optimizer defines it.
        schedule: how lr changes: "constant"; "cosine", per step with warm-up over the whole run;
            "reduce_on_plateau", by the validation metric; or any class of
            torch.optim.lr_scheduler, stepped once per epoch: StepLR, ExponentialLR ...
        schedule_options: options of the schedule. For cosine: warmup (part of the run, 0.02) and
            final (the last lr as a part of the highest, 0.01).
        loss: "mse", "mae" or "huber", applied to each kind of label.
        huber_delta: where huber turns from square to linear, in the unit of the label.
        energy_weight: weight of the energy loss, per atom: error in eV/atom.
        forces_weight: weight of the force loss, mean over components: error in eV/Å.
        stress_weight: weight of the stress loss, mean over components: error in eV/Å^3. A stress
            error of 0.001 eV/Å^3 is 0.16 GPa, so useful weights for mse are 100 to 10000.
        ema_decay: decay per step of an exponential moving average of the weights, which is then
            what is validated and kept; 0 turns it off.
        gradient_clip: largest norm of the gradient of all parameters; 0 turns it off.
        patience: stop after so many epochs without a better validation metric; none never stops.
        validation_metric: what decides which weights are best: "loss", or a target with _mae or
            _rmse, for example energy_mae, forces_rmse, band_gap_mae.
        compile: run compiled code (`epitaxy.graphs.evaluator`), compared with the plain code on
            the first batch. Compiling takes from a quarter of a minute to some minutes; PaiNN
            then trains about four times as fast. Needs a C++ compiler.
        n_threads: threads for torch; none leaves torch's own choice.
        validate_every: epochs between validations.
        checkpoint_every: epochs between checkpoints.
        checkpoint_seconds: seconds after which a checkpoint is written in any case, also in the
            middle of an epoch.
    """

    epochs: int = 300
    max_seconds: float | None = None
    batch_size: int = 8
    optimizer: str = "adamw"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    loss: Loss = "mse"
    huber_delta: float = 0.01
    energy_weight: float = 10.0
    forces_weight: float = 1.0
    stress_weight: float = 0.0
    ema_decay: float = 0.99
    gradient_clip: float = 10.0
    patience: int | None = None
    validation_metric: str = "loss"
    compile: bool = False
    n_threads: int | None = None
    validate_every: int = 1
    checkpoint_every: int = 10
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value is out of range; the message names it.
        """
        for name in ("epochs", "batch_size", "validate_every", "checkpoint_every"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "huber_delta"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in (
            *("weight_decay", "energy_weight", "forces_weight", "stress_weight"),
            *("gradient_clip", "checkpoint_seconds"),
        ):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("max_seconds", "patience", "n_threads"):
            value = getattr(self, name)
            _require(name, value, value is None or value > 0, "above 0, or none")
        _require("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "in [0, 1)")
        _require("loss", self.loss, self.loss in get_args(Loss), " or ".join(get_args(Loss)))
        metric = self.validation_metric
        target, _, measure = metric.rpartition("_")
        is_known = metric == "loss" or (target in QUANTITIES and measure in MEASURES)
        allowed = "loss, or a target with " + ", ".join(f"_{name}" for name in MEASURES)
        _require("validation_metric", metric, is_known, allowed)
        if not (self.energy_weight or self.forces_weight or self.stress_weight):
            raise ConfigError(
                "training: energy_weight, forces_weight and stress_weight are all 0, so there is "
                "nothing to learn; set at least one"
            )

    def replace(self, **changes: Any) -> TrainingOptions:
        """Return a copy with some options changed.

        Raises:
            ConfigError: a value is out of range.
        """
        return replace(self, **changes)

    def to_config(self) -> dict[str, Any]:
        """Return all options as plain data, ready for JSON or YAML."""
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in asdict(self).items()
        }


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"training: {name} is {value!r}; allowed: {allowed}")
