"""Optimizers and schedules by name."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from epitaxy.errors import ConfigError

if TYPE_CHECKING:
    from epitaxy.training.options import TrainingOptions


# These are in torch but take only sparse gradients, or only matrices: no network has only those.
_UNFIT = ("Optimizer", "SparseAdam", "Muon")
OPTIMIZERS: Mapping[str, Any] = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and name not in _UNFIT
}
"""Optimizers of torch that can train a network."""

_EPOCHS_TRIED = 10_000  # of a schedule, before training: a fraction of a second


class Schedule(Protocol):
    """Changes the learning rate as training goes on."""

    def before_step(self, progress: float) -> None:
        """Called before each step; `progress` runs from 0 to 1 over the whole run."""
        ...

    def after_epoch(self, metric: float | None) -> None:
        """Called after each epoch with the validation metric, None if it was not computed."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        ...


def check_training(options: TrainingOptions) -> None:
    """Build optimizer and schedule on a tiny parameter, so that mistakes show before any work.

    Raises:
        ConfigError: a name or an option is wrong.
    """
    # A matrix and a vector, because some optimizers take one kind only.
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    optimizer = make_optimizer(parameters, options)
    schedule = make_schedule(optimizer, options)

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.stack([p.square().sum() for p in parameters]).sum()
        loss.backward()
        return float(loss.detach())

    try:
        optimizer.step(closure)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"training: optimizer {options.optimizer} cannot train a network: {error}; AdamW can"
        ) from None
    try:
        for _ in range(min(options.epochs, _EPOCHS_TRIED)):
            schedule.after_epoch(1.0)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"training: schedule {options.schedule} does not reach the end of {options.epochs} "
            f"epochs: {error}. It makes one step per epoch: change its schedule_options"
        ) from None


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    options: TrainingOptions,
    *,
    lr_factors: Sequence[float] = (),
) -> torch.optim.Optimizer:
    """Return the optimizer named in the options.

    Args:
        parameters: to train.
        options: name, options and learning rate.
        lr_factors: learning rate of each parameter as a part of ``options.lr``; 1 if empty.

    Raises:
        ConfigError: there is no such optimizer, or it does not take an option.
    """
    parameters = list(parameters)
    kind = OPTIMIZERS[_match("optimizer", options.optimizer, OPTIMIZERS)]
    takes = inspect.signature(kind).parameters
    chosen = dict(options.optimizer_options)
    _check_options("optimizer", kind.__name__, chosen, takes)
    if options.weight_decay and "weight_decay" not in takes:
        raise ConfigError(
            f"training: optimizer {kind.__name__} has no weight decay; set weight_decay: 0"
        )
    if "weight_decay" in takes:
        chosen.setdefault("weight_decay", options.weight_decay)
    if "fused" in takes and not {"fused", "foreach"} & chosen.keys():
        # One kernel for all parameters: a network of many small tensors steps faster.
        chosen["fused"] = all(p.device.type in ("cpu", "cuda") for p in parameters)
    try:
        optimizer: torch.optim.Optimizer = kind(
            _groups(parameters, options.lr, lr_factors), lr=options.lr, **chosen
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training: optimizer {kind.__name__} refused: {error}") from None
    return optimizer


def _groups(parameters: list[nn.Parameter], lr: float, factors: Sequence[float]) -> list[Any]:
    """Return one group of parameters per learning rate, or the parameters if there is one."""
    if not factors or set(factors) == {1.0}:
        return parameters
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter, factor in zip(parameters, factors, strict=True):
        groups.setdefault(factor, []).append(parameter)
    return [{"params": group, "lr": lr * factor} for factor, group in groups.items()]


def make_schedule(optimizer: torch.optim.Optimizer, options: TrainingOptions) -> Schedule:
    """Return the schedule named in the options.

    Raises:
        ConfigError: there is no such schedule, or it does not take an option.
    """
    chosen = dict(options.schedule_options)
    own: dict[str, dict[str, None]] = {
        "constant": {},
        "cosine": {"warmup": None, "final": None},
    }
    if options.schedule.lower() in own:
        name = options.schedule.lower()
        _check_options("schedule", name, chosen, own[name])
        return WarmupCosine(optimizer, **chosen) if name == "cosine" else Constant()
    schedulers = torch.optim.lr_scheduler
    known: dict[str, Any] = {
        name: value
        for name, value in vars(schedulers).items()
        if inspect.isclass(value)
        and issubclass(value, schedulers.LRScheduler)
        and not name.startswith("_")
        # These take functions or other schedules, which a config file cannot hold.
        and name
        not in ("LRScheduler", "LambdaLR", "MultiplicativeLR", "ChainedScheduler", "SequentialLR")
    }
    wanted = options.schedule
    if wanted.lower() == "reduce_on_plateau":
        wanted = "ReduceLROnPlateau"
    kind = known[_match("schedule", wanted, known, extra=(*own, "reduce_on_plateau"))]
    takes = inspect.signature(kind).parameters
    _check_options("schedule", kind.__name__, chosen, takes)
    required = [
        one
        for one, p in takes.items()
        if p.default is inspect.Parameter.empty and one != "optimizer"
    ]
    others = ", ".join(one for one in takes if one not in ("optimizer", *required)) or "none"
    if missing := [one for one in required if one not in chosen]:
        raise ConfigError(
            f"training: schedule {kind.__name__} needs schedule_options "
            f"{{{', '.join(f'{one}: ...' for one in missing)}}}; it also takes: {others}"
        )
    try:
        return PerEpoch(kind(optimizer, **chosen))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"training: schedule {kind.__name__} refused its schedule_options: {error}; it takes "
            f"{', '.join([*required, others])} and makes one step per epoch"
        ) from None


class Constant:
    """Leaves the learning rate alone."""

    def before_step(self, progress: float) -> None:
        """Nothing changes."""

    def after_epoch(self, metric: float | None) -> None:
        """Nothing changes."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class WarmupCosine(Constant):
    """Rises in a line from 0, then falls as half a cosine: a function of the progress alone.

    Source: Loshchilov and Hutter, ICLR 2017, arXiv:1608.03983, equation 5 without restarts.

    Args:
        optimizer: whose learning rates to set.
        warmup: part of the run during which lr rises.
        final: last lr as a part of the highest.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, warmup: float = 0.02, final: float = 0.01
    ) -> None:
        for name, value in (("warmup", warmup), ("final", final)):
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise ConfigError(
                    f"training: schedule_options {name} is {value!r}; allowed: in [0, 1)"
                )
        self._optimizer = optimizer
        self._highest = [group["lr"] for group in optimizer.param_groups]
        self._warmup, self._final = warmup, final

    def before_step(self, progress: float) -> None:
        """Set the learning rates."""
        factor = self.factor(progress)
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * factor

    def factor(self, progress: float) -> float:
        """Return lr as a part of the highest, at `progress` from 0 to 1."""
        if progress < self._warmup:
            return max(progress / self._warmup, 1e-3)
        part = min((progress - self._warmup) / (1.0 - self._warmup), 1.0)
        return self._final + (1.0 - self._final) * 0.5 * (1.0 + math.cos(math.pi * part))


class PerEpoch:
    """A schedule of torch, stepped once per epoch."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._needs_metric = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)

    def before_step(self, progress: float) -> None:
        """Nothing changes within an epoch."""

    def after_epoch(self, metric: float | None) -> None:
        """Step the schedule."""
        if not self._needs_metric:
            self._scheduler.step()
        elif metric is not None:
            self._scheduler.step(metric)

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's numbers."""
        state: dict[str, Any] = self._scheduler.state_dict()
        return {name: value for name, value in state.items() if not callable(value)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._scheduler.load_state_dict(dict(state))


def _match(what: str, name: str, known: Iterable[str], *, extra: Iterable[str] = ()) -> str:
    """Return the known name that equals `name` in any capitalisation."""
    folded = {one.lower(): one for one in known}
    if name.lower() in folded:
        return folded[name.lower()]
    everything = [*extra, *folded.values()]
    close = difflib.get_close_matches(name.lower(), [one.lower() for one in everything], n=1)
    hint = f" Did you mean {folded.get(close[0], close[0])!r}?" if close else ""
    raise ConfigError(
        f"training: no {what} named {name!r}; allowed: {', '.join(everything)}.{hint}"
    )


def _check_options(
    what: str, name: str, options: Mapping[str, Any], takes: Mapping[str, Any]
) -> None:
    allowed = [one for one in takes if one not in ("params", "lr", "optimizer", "self")]
    for option in options:
        if option not in allowed:
            close = difflib.get_close_matches(str(option), allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"training: {what} {name} has no option {option!r} in {what}_options; it takes: "
                f"{', '.join(allowed) or 'none'}.{hint}"
            )
