"""The training loop: one for every network, every optimizer and every set of labels."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from epitaxy.errors import TrainingError
from epitaxy.training import checkpoint, journal
from epitaxy.training.batches import names_of
from epitaxy.training.ema import MovingAverage
from epitaxy.training.interruption import Interruption
from epitaxy.training.optimizers import make_optimizer, make_schedule
from epitaxy.training.sampler import Sampler

if TYPE_CHECKING:
    from epitaxy.run import Run
    from epitaxy.training.options import TrainingOptions
    from epitaxy.training.task import Task


@dataclass
class Position:
    """Where a training is; all of it goes into checkpoints.

    Attributes:
        epoch: the current epoch, from 1; one more than `TrainingOptions.epochs` at the end.
        batch: batches of the current epoch that are done.
        step: steps since the beginning.
        seconds: wall time since the beginning, over all resumed parts.
        epoch_seconds: wall time of the current epoch.
        loss_sum: sum over the current epoch of batch loss times batch size.
        n_seen: structures seen in the current epoch.
        best_epoch: epoch of the best weights; 0 before the first validation.
        best_value: validation metric of the best weights.
        stale_epochs: epochs since then.
        best_metrics: numbers of the best epoch.
        last_metrics: numbers of the last validation.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    loss_sum: float = 0.0
    n_seen: int = 0
    best_epoch: int = 0
    best_value: float = math.inf
    stale_epochs: int = 0
    best_metrics: dict[str, float] | None = None
    last_metrics: dict[str, float] | None = None


class Loop:
    """Trains a module.

    Args:
        task: the module, on the run's device and in its dtype, its data and its loss. Without
            validation data the last weights are kept.
        run: options, directory, seeds, observers.
        identity: what must not differ when a checkpoint is resumed, name -> plain value.
        lr_factors: parameter name -> learning rate as a part of that of the options; 0 freezes
            the parameter.
    """

    def __init__(
        self,
        task: Task,
        *,
        run: Run,
        identity: Mapping[str, Any],
        lr_factors: Mapping[str, float] | None = None,
    ) -> None:
        self._task, self._module = task, task.module
        self._train, self._valid, self._run = task.train, task.valid, run
        self._options = run.training
        self._identity = dict(identity)
        factors = dict(lr_factors or {})
        named = {
            name: p
            for name, p in self._module.named_parameters()
            if p.requires_grad and factors.get(name, 1.0) != 0
        }
        trained = list(named.values())
        self._frozen_norms = _norms_of_frozen(self._module, trained)
        self._frozen = [
            p
            for name, p in self._module.named_parameters()
            if p.requires_grad and name not in named
        ]
        if not trained:
            raise TrainingError("the network has no parameter that can be trained")
        self._trained = trained
        self._optimizer = make_optimizer(
            trained, self._options, lr_factors=[factors.get(name, 1.0) for name in named]
        )
        self._schedule = make_schedule(self._optimizer, self._options)
        self._ema = MovingAverage(self._module.named_parameters(), decay=self._options.ema_decay)
        self._sampler = Sampler(
            len(self._train), batch_size=self._options.batch_size, seed=run.seed_for("sampler")
        )
        self._at = Position()
        self._best: dict[str, Tensor] = {}
        self._path = run.directory / checkpoint.FILE_NAME
        self._last_saved = self._started = time.monotonic()
        self._valid_batches = self._valid.pieces()

    def train(self) -> dict[str, float]:
        """Train to the end, leave the best weights in the module, return their metrics.

        Raises:
            TrainingError: the loss or a gradient is not finite, or a checkpoint does not fit.
            KeyboardInterrupt: the user or the batch system asked to stop; a checkpoint is
                there.
        """
        run, options = self._run, self._options
        for leftover in run.directory.glob(f"{checkpoint.FILE_NAME}.*.tmp"):
            leftover.unlink()  # of a process that died while writing
        if run.resume and self._path.exists():
            self._restore(checkpoint.read_checkpoint(self._path))
        log = journal.Journal(run.directory / journal.FILE_NAME, after_epoch=self._at.epoch - 1)
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        objective = self._task.objective()
        run.progress.started(run.name, options.epochs)
        run.started(self._facts())
        reason = "stopped by an error"
        self._last_saved = self._started = time.monotonic()
        try:
            with Interruption() as interruption:
                reason = self._until_done(objective, log, interruption)
        finally:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            run.finished(self._at.best_metrics or {})
        if not self._best:
            raise TrainingError(
                f"{options.validation_metric} on the validation set was never a finite number, so "
                f"there are no best weights; try a smaller lr (now {options.lr:g})"
            )
        self._module.load_state_dict(self._best)
        metrics = dict(self._at.best_metrics or self._at.last_metrics or {})
        run.progress.finished(run.name, f"{reason}; {self._summary()}")
        return metrics

    def _until_done(self, objective: Any, log: journal.Journal, interruption: Interruption) -> str:
        at, options = self._at, self._options
        reason = self._reason_to_stop()
        while reason is None:
            self._module.train()
            for norm in self._frozen_norms:
                norm.eval()  # frozen weights mean nothing with other statistics
            batches = self._sampler.batches(at.epoch)
            while at.batch < len(batches) and reason is None:
                started = time.monotonic()
                self._step(objective, batches[at.batch])
                at.epoch_seconds += time.monotonic() - started
                if interruption.requested:
                    self._save()
                    raise KeyboardInterrupt(f"stopped in epoch {at.epoch}; checkpoint written")
                if at.batch < len(batches):
                    reason = self._reason_to_stop()
                    if time.monotonic() - self._last_saved > options.checkpoint_seconds:
                        self._save()
            reason = self._finish_epoch(log, len(batches), last=reason is not None) or reason
        self._save()
        if interruption.requested:
            raise KeyboardInterrupt("stopped at the end; checkpoint written")
        return reason

    def _step(self, objective: Any, rows: np.ndarray) -> None:
        at, options = self._at, self._options
        self._schedule.before_step(self._progress())
        inputs, labels = self._train.batch(rows)

        def closure() -> float:
            self._optimizer.zero_grad(set_to_none=True)
            loss = objective(inputs, labels)
            if not loss.requires_grad:  # a batch without any label
                return 0.0
            # Named inputs: nobody wants the gradient by the positions, which forces start from.
            loss.backward(inputs=self._trained)
            value = float(loss.detach())
            if options.gradient_clip:
                norm = float(torch.nn.utils.clip_grad_norm_(self._trained, options.gradient_clip))
            else:
                norm = float(
                    torch.nn.utils.get_total_norm(
                        [p.grad for p in self._trained if p.grad is not None]
                    )
                )
            if not (math.isfinite(value) and math.isfinite(norm)):
                self._refuse(value, norm, rows)
            return value

        value = self._optimizer.step(closure)
        self._ema.update()
        at.loss_sum += float(value or 0.0) * len(rows)
        at.n_seen += len(rows)
        at.batch += 1
        at.step += 1

    def _refuse(self, loss: float, norm: float, rows: np.ndarray) -> None:
        what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
        raise TrainingError(
            f"{what} in epoch {self._at.epoch}, batch {self._at.batch + 1}, with the structures "
            f"{names_of(self._train.dataset, rows)}. Look at their labels (`epitaxy info`), then "
            f"try a smaller lr (now {self._options.lr:g}), a gradient_clip (now "
            f"{self._options.gradient_clip:g}), or loss: huber"
        )

    def _seconds(self) -> float:
        return self._at.seconds + time.monotonic() - self._started

    def _time_is_up(self) -> bool:
        limit = self._options.max_seconds
        return limit is not None and self._seconds() >= limit

    def _progress(self) -> float:
        at, options = self._at, self._options
        progress = at.step / (options.epochs * self._sampler.n_batches)
        if options.max_seconds is not None:
            progress = max(progress, self._seconds() / options.max_seconds)
        return min(progress, 1.0)

    def _reason_to_stop(self) -> str | None:
        at, options = self._at, self._options
        if at.epoch > options.epochs:
            return f"all {options.epochs} epochs done"
        if self._time_is_up():
            return f"max_seconds = {options.max_seconds:g} used up in epoch {at.epoch}"
        if options.patience is not None and at.stale_epochs >= options.patience:
            return f"no better {options.validation_metric} for {at.stale_epochs} epochs"
        return None

    def _finish_epoch(self, log: journal.Journal, n_batches: int, *, last: bool) -> str | None:
        """Validate, keep the best, write the line; an epoch that is cut short stays open."""
        at, options = self._at, self._options
        is_whole = at.batch == n_batches
        value: float | None = None
        metrics: dict[str, float] = {
            "epoch": at.epoch,
            "step": at.step,
            "train_loss": at.loss_sum / max(at.n_seen, 1),
        }
        is_last = last or at.epoch == options.epochs or self._time_is_up()
        if is_last or at.epoch % options.validate_every == 0:
            found = {f"valid_{name}": v for name, v in self.validate().items()}
            metrics |= found
            value = found.get(f"valid_{options.validation_metric}") if found else None
            self._keep_if_best(value, metrics)
        lr = max(float(group["lr"]) for group in self._optimizer.param_groups)
        metrics |= {
            "lr": lr,
            "seconds": self._seconds(),
            "structures_per_second": at.n_seen / max(at.epoch_seconds, 1e-9),
        }
        at.last_metrics = metrics
        if at.best_epoch == at.epoch:
            at.best_metrics = {**metrics, "best_epoch": at.epoch}
        log.write(metrics)
        if not is_whole:  # resumed with more time, the epoch goes on and its line is replaced
            return None
        self._schedule.after_epoch(value)
        at.epoch, at.batch, at.loss_sum, at.n_seen, at.epoch_seconds = at.epoch + 1, 0, 0.0, 0, 0.0
        self._run.progress.epoch(self._run.name, metrics)
        self._run.epoch_finished(at.epoch - 1, metrics)
        due = (at.epoch - 1) % options.checkpoint_every == 0
        if due or time.monotonic() - self._last_saved > options.checkpoint_seconds:
            self._save()
        return self._reason_to_stop()

    def _keep_if_best(self, value: float | None, metrics: Mapping[str, float]) -> None:
        at = self._at
        if len(self._valid) and value is None:
            raise TrainingError(
                f"validation_metric is {self._options.validation_metric!r}, but the validation "
                f"set gives only "
                f"{', '.join(n.removeprefix('valid_') for n in metrics if n.startswith('valid_'))}"
            )
        if value is not None and self._options.validation_metric.endswith("_accuracy"):
            value = -value  # the larger the better
        # Without a validation set the last weights are the best that is known.
        if value is None or value < at.best_value:
            at.best_value = math.inf if value is None else value
            at.best_epoch = at.epoch
            at.stale_epochs = 0
            with self._ema.applied():
                self._best = {
                    name: tensor.detach().clone()
                    for name, tensor in self._module.state_dict().items()
                }
        else:
            at.stale_epochs = at.epoch - at.best_epoch

    def validate(self) -> dict[str, float]:
        """Return loss and errors on the validation set, with averaged weights if they are on."""
        if not len(self._valid):
            return {}
        self._module.eval()
        sums = self._task.sums()
        with self._ema.applied():
            for rows in self._valid_batches:
                sums.add(*self._valid.batch(rows))
        self._module.train()
        return sums.metrics()

    def _save(self) -> None:
        state = {
            "identity": self._identity,
            "options": self._options.to_config(),
            "position": {**asdict(self._at), "seconds": self._seconds()},
            "module": dict(self._module.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "ema": self._ema.state_dict(),
            "best": self._best,
            "random": checkpoint.random_state(),
        }
        checkpoint.write_checkpoint(self._path, state)
        self._last_saved = time.monotonic()

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, value in self._identity.items():
            found = state["identity"].get(name)
            if _with_full_name(found, like=value) != value:
                raise TrainingError(
                    f"cannot resume {self._path}: its {name} is {found!r}, now it is {value!r}; "
                    f"use the same configuration and data, or train into another folder"
                )
        known = {field.name for field in fields(Position)}
        for name, value in state["position"].items():
            if name in known:
                setattr(self._at, name, value)
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._ema.load_state_dict(state["ema"])
        device = next(iter(self._trained)).device
        self._best = {name: tensor.to(device) for name, tensor in state["best"].items()}
        checkpoint.set_random_state(state["random"])
        self._run.progress.note(
            f"resumed at epoch {self._at.epoch}, batch {self._at.batch + 1}: {self._path}"
        )

    def _facts(self) -> dict[str, Any]:
        return {
            **self._identity,
            "n_train": len(self._train),
            "n_valid": len(self._valid),
            "n_parameters": sum(p.numel() for p in self._trained),
            "labels": self._task.labelled(),
            "epochs": self._options.epochs,
            "device": self._run.device,
        }

    def _summary(self) -> str:
        from epitaxy.progress import describe

        at = self._at
        numbers = describe({k: v for k, v in (at.best_metrics or {}).items() if "valid" in k})
        return f"best epoch {at.best_epoch}: {numbers}" if numbers else f"{at.step} steps"


def _with_full_name(recipe: Any, *, like: Any) -> Any:
    """Return a recipe of before names were stored in full with the plugin of `like`."""
    if not isinstance(recipe, Mapping) or not isinstance(like, Mapping) or "use" not in recipe:
        return recipe
    if "/" in recipe["use"] or "use" not in like:
        return recipe
    plugin, _, name = like["use"].rpartition("/")
    return {**recipe, "use": like["use"]} if plugin and recipe["use"] == name else recipe


def identity_of(run: Run, options: TrainingOptions, **facts: Any) -> dict[str, Any]:
    """Return what a checkpoint must share with the run that resumes it.

    Epochs, times and thread counts may change; then the result is a valid continuation, though
    not the one that an uninterrupted run would have given.
    """
    kept = ("optimizer", "batch_size", "ema_decay", "schedule")
    return {"seed": run.seed, "dtype": run.dtype, **{k: getattr(options, k) for k in kept}, **facts}


def _norms_of_frozen(module: torch.nn.Module, trained: list[torch.nn.Parameter]) -> list[Any]:
    """Return the batch normalisations whose parameters, or those beside them, are all frozen."""
    is_trained = {id(p) for p in trained}
    modules = dict(module.named_modules())
    found = []
    for name, norm in modules.items():
        if not isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            continue
        owner = name
        while owner and not list(modules[owner].parameters()):
            owner = owner.rpartition(".")[0]  # without parameters of its own: look around it
        if not any(id(p) in is_trained for p in modules[owner].parameters()):
            found.append(norm)
    return found
