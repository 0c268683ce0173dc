"""One point of a learning curve: trained, tested and written down, or found finished."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epitaxy.errors import CapabilityError, DataError, EpitaxyError, TrainingError
from epitaxy.experiment import evaluate_part, numbers_of, unknown_elements
from epitaxy.finished import read_finished, write_finished
from epitaxy.split.by_target import tagged_test
from epitaxy.strategies import check_data, check_strategy

if TYPE_CHECKING:
    from epitaxy.config import Config
    from epitaxy.run import Run
    from epitaxy.split.parts import Split


@dataclass(frozen=True)
class Job:
    """One point.

    Attributes:
        arm: which way to train.
        seed: of subset and training.
        size: structures of the subset.
        config: model, strategy and training of the arm.
        part: subset, its validation part and the test set.
        run: where it is written.
        digests: of the parts: train, valid, test.
        identity: digest of all that its numbers depend on.
    """

    arm: str
    seed: int
    size: int
    config: Config
    part: Split
    run: Run
    digests: Mapping[str, str]
    identity: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.arm}, {self.size} structures, seed {self.seed}"

    def finished(self) -> dict[str, Any] | None:
        """Return the numbers of the point, or None if it is not finished.

        Raises:
            ConfigError: it was made with another config or other data.
        """
        return read_finished(self.run.directory, identity=self.identity)

    def check(self, known: frozenset[int]) -> None:
        """Let the model refuse the data, of the test set too, before any training time is spent.

        Args:
            known: elements that the model knows before it is trained.

        Raises:
            EpitaxyError: it cannot learn from the subset or cannot predict the test set.
        """
        known &= self.part.valid.elements
        for part in (self.part.valid, self.part.test):
            try:
                check_data(self.config.model, self.part.train, part, run=self.run, known=known)
            except EpitaxyError as error:
                what = "test" if part is self.part.test else "validation"
                missing = part.elements - self.part.train.elements - known
                hint = "larger sizes, or learning_curve: {elements: cover}"
                if missing and isinstance(error, TrainingError):
                    reason = unknown_elements(
                        missing, self.config.model.use, f"the {what} part", "the subset"
                    )
                    raise CapabilityError(f"{self.name}: {reason}, {hint}") from error
                more = f" ({what} part; {hint})" if missing else ""
                raise type(error)(f"{self.name}: {error}{more}") from error

    def check_strategy(self) -> frozenset[int]:
        """Let the strategy refuse parent, options and data, before any training time is spent.

        Returns:
            Elements that the model knows before it is trained.

        Raises:
            EpitaxyError: it cannot train the point.
        """
        try:
            return check_strategy(self.config.strategy, self.config.model, self.part, run=self.run)
        except EpitaxyError as error:
            raise type(error)(f"{self.name}: {error}") from error

    def train(self, *, keep: bool) -> float:
        """Train, test and write metrics.json last; return the seconds that it took."""
        from epitaxy.artifact import save_artifact

        started = time.monotonic()
        registry, config, run = self.run.registry, self.config, self.run
        strategy = registry.build("strategy", config.strategy)
        try:
            model = strategy(config.model, self.part, run=run)
            tested = evaluate_part(model, tagged_test(self.part), "test")
            if tested is None:
                raise DataError("the test part has no label of what the model predicts")
            validated = evaluate_part(model, self.part.valid, "valid")
        except EpitaxyError as error:
            raise type(error)(f"{self.name}: {error}") from error
        metrics = {"test": numbers_of(tested)}
        if validated is not None:
            metrics["valid"] = numbers_of(validated)
        if keep:
            save_artifact(
                model,
                run.directory / "artifact",
                spec=registry.resolve("model", config.model),
                strategy=registry.resolve("strategy", config.strategy),
                split=self.part,
                run=run,
                metrics=metrics,
                overwrite=True,
            )
        seconds = time.monotonic() - started
        numbers = {
            "arm": self.arm,
            "n_train": self.size,
            "n_also": len(self.part.train) - self.size,
            "n_valid": len(self.part.valid),
            "n_test": len(self.part.test),
            "seed": self.seed,
            "metrics": metrics,
            "units": {name: errors.unit for name, errors in tested.errors.items()},
            "lineage": getattr(model, "lineage", None),
            "digests": dict(self.digests),
            "seconds": round(seconds, 3),
        }
        write_finished(run.directory, numbers, identity=self.identity)
        return seconds

    def told(self, metric: str | None) -> str:
        """Return the error that counts, or the first one, in a few words."""
        numbers = self.finished() or {}
        tested = numbers["metrics"]["test"]
        name = metric or next(k for k in tested if k.endswith("_mae"))
        return f"{name} {tested.get(name, math.nan):.4g}"
