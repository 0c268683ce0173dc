"""One database learnt with one seed: trained, tested and written down, or found finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.errors import EpitaxyError
from epitaxy.finished import identity_of, read_finished, write_finished
from epitaxy.strategies import check_data, check_strategy

if TYPE_CHECKING:
    from epitaxy.config import Config
    from epitaxy.dataset import Dataset
    from epitaxy.run import Run
    from epitaxy.split.parts import Split


@dataclass(frozen=True)
class Training:
    """What is learnt, and what it is tested on.

    Attributes:
        learnt: name of the database.
        split: its training and validation parts.
        tests: name -> structures of the test.
        target: that counts.
        config: model, strategy and training.
        run: where it is written; its seed is that of the training.
        identity: digest of all that its numbers depend on.
    """

    learnt: str
    split: Split
    tests: Mapping[str, Dataset]
    target: str
    config: Config
    run: Run
    identity: str

    @classmethod
    def of(
        cls,
        learnt: str,
        split: Split,
        tests: Mapping[str, Dataset],
        *,
        target: str,
        config: Config,
        run: Run,
    ) -> Training:
        """Return it with its identity; arguments as the attributes."""
        digests = {
            "train": split.train.digest,
            "valid": split.valid.digest,
            "target": target,
            **{f"test {name}": test.digest for name, test in tests.items()},
        }
        identity = identity_of(config, digests, seed=run.seed, registry=run.registry)
        return cls(learnt, split, tests, target, config, run, identity)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.learnt}, seed {self.run.seed}"

    def finished(self) -> dict[str, Any] | None:
        """Return its numbers, or None if it is not finished.

        Raises:
            ConfigError: it was made with another config or other data.
        """
        return read_finished(self.run.directory, identity=self.identity)

    def check(self) -> None:
        """Let strategy and model refuse options and data, before any training time is spent.

        Raises:
            EpitaxyError: it cannot be trained.
        """
        config, split = self.config, self.split
        try:
            known = check_strategy(config.strategy, config.model, split, run=self.run)
            check_data(config.model, split.train, split.valid, run=self.run, known=known)
        except EpitaxyError as error:
            raise type(error)(f"{self.name}: {error}") from error

    def train(self) -> dict[str, Any]:
        """Train, test and write the numbers last; return them.

        Raises:
            EpitaxyError: it cannot be trained, or cannot predict a test.
        """
        strategy = self.run.registry.build("strategy", self.config.strategy)
        tested = {}
        try:
            model = strategy(self.config.model, self.split, run=self.run)
            for name, test in self.tests.items():
                wrong = model.predict(test).mean[self.target] - test.target(self.target)[0]
                tested[name] = {"mae": float(np.abs(wrong).mean()), "offset": float(wrong.mean())}
        except EpitaxyError as error:
            raise type(error)(f"{self.name}: {error}") from error
        numbers = {"learnt_on": self.learnt, "seed": self.run.seed, "tested_on": tested}
        write_finished(self.run.directory, numbers, identity=self.identity)
        return numbers
