"""One execution: where it writes, its seeds, its options, and who watches it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from epitaxy.errors import ConfigError
from epitaxy.progress import Progress, Silent
from epitaxy.training.options import TrainingOptions

if TYPE_CHECKING:
    import numpy as np
    import torch

    from epitaxy.registry import Registry
    from epitaxy.strategies import PlannedParent

DType = Literal["float32", "float64"]
DTYPES: tuple[DType, ...] = ("float32", "float64")

log = logging.getLogger("epitaxy")


class Run:
    """One execution of a strategy, in one directory.

    Every random choice is drawn from a generator named after its purpose, so that adding a
    new random choice somewhere does not change the others.

    Attributes:
        directory: where checkpoints and metrics go; made when first written to.
        seed: the seed from which all others are derived.
        device: torch device, for example "cpu" or "cuda:0".
        dtype: precision of the network, "float32" or "float64".
        training: how models are trained.
        observers: objects with some of the methods run_started, epoch_finished, run_finished
            (see `epitaxy.hookspecs`), or pluggy's hook relay.
        progress: who tells the user how far it is.
        resume: whether checkpoints found in `directory` are continued.
        registry: where nested strategies and models are found; the installed plugins unless
            another is given.
        name: path of this run below the outermost one, "" for the outermost.
        planned: folder of an artifact -> what will be in it: parents that are trained before this
            run, of which a strategy checks the recipe as long as there is no more.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: DType = "float32",
        training: TrainingOptions | None = None,
        observers: Sequence[object] = (),
        progress: Progress | None = None,
        resume: bool = False,
        registry: Registry | None = None,
        name: str = "",
        planned: Mapping[str, PlannedParent] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ConfigError(f"seed is {seed!r}; allowed: whole numbers from 0")
        self.directory = Path(directory)
        self.seed = seed
        self.device = device
        self.dtype: DType = dtype
        self.training = training or TrainingOptions()
        self.observers = list(observers)
        self.progress: Progress = progress or Silent()
        self.resume = resume
        self._registry = registry
        self.name = name
        self.planned = dict(planned or {})
        self.log = log

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r}, seed={self.seed}, name={self.name!r})"

    @property
    def registry(self) -> Registry:
        """Where nested strategies and models are found."""
        if self._registry is None:
            from epitaxy.registry import Registry

            self._registry = Registry.from_entry_points()
        return self._registry

    def child(
        self, name: str, *, seed: int | None = None, training: TrainingOptions | None = None
    ) -> Run:
        """Return a nested execution in ``directory/name``.

        Args:
            name: folder name, for example "members/0"; also distinguishes the seeds.
            seed: seed of the child; derived from this run's seed and `name` if not given.
            training: other training options than this run's.
        """
        return Run(
            self.directory / name,
            seed=self.seed_for(f"child {name}") if seed is None else seed,
            device=self.device,
            dtype=self.dtype,
            training=training or self.training,
            observers=self.observers,
            progress=self.progress,
            resume=self.resume,
            registry=self._registry,
            name=f"{self.name}/{name}" if self.name else name,
            planned=self.planned,
        )

    def seed_for(self, purpose: str) -> int:
        """Return the seed for one purpose: the same for the same run seed, else unrelated."""
        digest = hashlib.sha256(f"{self.seed}:{purpose}".encode()).digest()
        return int.from_bytes(digest[:6], "big")

    def generator(self, purpose: str) -> torch.Generator:
        """Return a fresh torch generator on the CPU for one purpose."""
        import torch

        return torch.Generator().manual_seed(self.seed_for(purpose))

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a fresh numpy generator for one purpose."""
        import numpy as np

        return np.random.default_rng(self.seed_for(purpose))

    def torch_device(self) -> torch.device:
        """Return the device, checked.

        Raises:
            ConfigError: the device has a wrong name or is not there.
        """
        import torch

        try:
            device = torch.device(self.device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"device {self.device!r} cannot be used ({reason}); here: {', '.join(available)}"
            ) from None
        if device.type == "meta":
            raise ConfigError("device 'meta' holds no numbers; use cpu or cuda")
        return device

    def torch_dtype(self) -> torch.dtype:
        """Return the torch type of `dtype`."""
        import torch

        return torch.float64 if self.dtype == "float64" else torch.float32

    def started(self, facts: Mapping[str, Any]) -> None:
        """Tell the observers that training begins."""
        self._notify("run_started", facts=facts)

    def epoch_finished(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Tell the observers that an epoch has ended."""
        self._notify("epoch_finished", epoch=epoch, metrics=metrics)

    def finished(self, metrics: Mapping[str, float]) -> None:
        """Tell the observers that training has ended, well or by an error."""
        self._notify("run_finished", metrics=metrics)

    def _notify(self, event: str, **facts: Any) -> None:
        for observer in tuple(self.observers):
            listen = getattr(observer, event, None)
            if listen is None:
                continue
            try:
                listen(run=self, **facts)
            except Exception as error:
                # An observer must not end a training; it is shown once and then left out.
                self.observers.remove(observer)
                self.log.warning(
                    "observer %r failed in %s and is left out from here on: %s: %s",
                    observer,
                    event,
                    type(error).__name__,
                    error,
                )
