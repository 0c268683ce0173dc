"""Parents that a learning curve trains first: once, and kept while their recipe is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from epitaxy.errors import ConfigError, EpitaxyError
from epitaxy.experiment import ARTIFACT, train, write_text
from epitaxy.finished import identity_of
from epitaxy.learning_curve.data import warn_of_shared
from epitaxy.strategies import PlannedParent
from epitaxy.training_data import labels_of, open_dataset, open_split

if TYPE_CHECKING:
    from epitaxy.config import Config
    from epitaxy.progress import Progress
    from epitaxy.registry import Registry
    from epitaxy.split import Split

IDENTITY = "parent.json"


def planned_parents(
    parents: Mapping[str, Config], *, registry: Registry
) -> dict[str, PlannedParent]:
    """Return artifact folder -> what will be in it, of the parents that are not trained yet.

    Args:
        parents: name -> training.
        registry: the plugins.

    Raises:
        EpitaxyError: the data of one cannot be read; the message names it.
    """
    found = {}
    for name, config in parents.items():
        artifact = Path(config.output) / ARTIFACT
        if (artifact / "manifest.json").exists():
            continue
        try:
            wanted = labels_of(config.model, registry)
            elements = open_dataset(config.dataset, registry, wanted=wanted).elements
        except EpitaxyError as error:
            raise type(error)(f"parent {name}: {error}") from error
        found[str(artifact)] = PlannedParent(config.model, config.strategy, frozenset(elements))
    return found


def train_parent(
    name: str, config: Config, curve: Split, *, registry: Registry, progress: Progress
) -> None:
    """Train a parent into its folder, or find it trained.

    Args:
        name: of the parent.
        config: its training.
        curve: parts of the learning curve: groups of its test that the parent learns from are
            told, as they make the test easier than it seems.
        registry: the plugins.
        progress: who tells the user how far it is.

    Raises:
        ConfigError: the folder holds a parent of another config or of other data.
        EpitaxyError: it cannot be trained.
    """
    try:
        split = open_split(config, registry)
        warn_of_shared(f"parent {name}", curve, [split.train, split.valid])
        digests = {"train": split.train.digest, "valid": split.valid.digest}
        identity = identity_of(config, digests, seed=config.seed, registry=registry)
        path = Path(config.output) / IDENTITY
        if path.exists() and (Path(config.output) / ARTIFACT / "manifest.json").exists():
            if json.loads(path.read_text(encoding="utf-8"))["identity"] != identity:
                raise ConfigError(
                    f"{config.output} holds a parent of another config or of other data: remove "
                    f"the folder, or choose another with -o"
                )
            return
        progress.note(f"parent {name}: {config.strategy.use} {config.model.use}")
        train(config, resume=True, progress=progress, registry=registry)
        write_text(path, json.dumps({"identity": identity}) + "\n")
    except EpitaxyError as error:
        raise type(error)(f"parent {name}: {error}") from error
