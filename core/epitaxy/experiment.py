"""From a config to an artifact: what `epitaxy train` does, callable from Python."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from epitaxy.config import Config, check_config
from epitaxy.errors import ConfigError
from epitaxy.run import Run
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from epitaxy.artifact import Artifact
    from epitaxy.config import Place
    from epitaxy.dataset import Dataset
    from epitaxy.evaluation.metrics import Evaluation
    from epitaxy.progress import Progress
    from epitaxy.protocols import Model
    from epitaxy.registry import Registry
    from epitaxy.split import Split

ARTIFACT, CONFIG, SPLIT = "artifact", "config.yaml", "split.json"
GROUP_TAGS = ("group", "kind")  # test errors are also listed by the first that entries carry


def train(
    config: Config,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Artifact:
    """Train what a config describes, test it once, and save it in ``output/artifact``.

    Args:
        config: see `epitaxy.config.load_config`.
        resume: go on with what is in the output folder.
        progress: who tells the user how far it is; silent by default.
        registry: the plugins; the installed ones by default.

    Raises:
        ConfigError: the output folder holds something and `resume` is false, or the config is
            wrong.
        TrainingError: training cannot start or go on.
    """
    from epitaxy.artifact import load_artifact, save_artifact

    if registry is None:
        from epitaxy.registry import Registry

        registry = Registry.from_entry_points()
    output = Path(config.output)
    check_config(config, registry)
    refuse_used_folder(output, resume=resume)
    split = open_split(config, registry)
    output.mkdir(parents=True, exist_ok=True)
    _write_text(
        output / CONFIG, yaml.safe_dump(config.to_mapping(), sort_keys=False, allow_unicode=True)
    )
    split.save(_without(output / SPLIT))
    run = Run(
        output,
        seed=config.seed,
        device=config.device,
        dtype=config.dtype,
        training=config.training,
        observers=[registry],
        progress=progress,
        resume=resume,
        registry=registry,
    )
    strategy = registry.build("strategy", config.strategy)
    model = strategy(config.model, split, run=run)
    metrics = {
        name: _numbers(evaluated)
        for name, part in (("valid", split.valid), ("test", split.test))
        if (evaluated := _evaluate(model, part)) is not None
    }
    path = save_artifact(
        model,
        output / ARTIFACT,
        spec=registry.resolve("model", config.model),
        strategy=registry.resolve("strategy", config.strategy),
        split=split,
        run=run,
        metrics=metrics,
        overwrite=True,
    )
    return load_artifact(path, registry=registry)


def refuse_used_folder(output: Path, *, resume: bool) -> None:
    """Raise `ConfigError` if the folder holds something that training would overwrite."""
    if resume:
        return
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output {output} is a file: choose a folder")
    if output.is_dir() and any(output.iterdir()):
        raise ConfigError(
            f"the output folder {output} is not empty: add --resume to go on with it, choose "
            f"another with -o, or remove it"
        )


def open_split(config: Config, registry: Registry) -> Split:
    """Read the data of a config and divide them.

    Raises:
        EpitaxyError: data cannot be read or divided.
    """
    from epitaxy.split import Split, split_by_group, split_random

    dataset = open_dataset(config.dataset, registry)
    options = config.split
    if options.file:
        return Split.load(Path(options.file), dataset)
    sizes = {
        "valid": 0 if config.valid is not None else options.valid,
        "test": 0 if config.test is not None else options.test,
    }
    if options.method == "group":
        split = split_by_group(dataset, options.groups, **sizes, seed=options.seed)
    else:
        split = split_random(dataset, **sizes, seed=options.seed)
    extra = {
        name: open_dataset(place, registry)
        for name, place in (("valid", config.valid), ("test", config.test))
        if place is not None
    }
    return _with_own_sets(split, extra) if extra else split


def _with_own_sets(split: Split, extra: Mapping[str, Dataset]) -> Split:
    """Put sets of their own beside a split, as one dataset with three parts."""
    from epitaxy.dataset import Dataset
    from epitaxy.split import Split

    parts = [split.dataset, *extra.values()]
    joined = Dataset.from_entries(chain.from_iterable(parts), history=split.dataset.history)
    rows = dict(split.rows)
    start = len(split.dataset)
    for name, part in extra.items():
        rows[name] = np.arange(start, start + len(part))
        start += len(part)
    method = {**split.method, "own": sorted(extra)}
    return Split(joined, train=rows["train"], valid=rows["valid"], test=rows["test"], method=method)


def open_dataset(place: Place, registry: Registry) -> Dataset:
    """Open a stored dataset, or read a source into memory.

    Raises:
        EpitaxyError: it cannot be read.
    """
    from epitaxy.dataset import Dataset

    if isinstance(place, str):
        path = Path(place)
        if path.is_dir():
            return Dataset.open(path)
        if path.exists():
            name = registry.identify(path)
            if name is None:
                raise ConfigError(
                    f"dataset: no plugin knows how to read {path}; give a source as "
                    f"{{use: name, path: {path}}} (`epitaxy plugins` lists them)"
                )
            place = {"use": name, "path": str(path)}
    spec = Spec.from_config(place)
    source = registry.build("source", spec)
    step = {"operation": "read", "source": registry.resolve("source", spec).to_config()}
    return Dataset.from_entries(source, history=[step])


def _evaluate(model: Model, part: Dataset) -> Evaluation | None:
    from epitaxy.errors import DataError
    from epitaxy.evaluation.metrics import evaluate

    if not len(part):
        return None
    group = next((tag for tag in GROUP_TAGS if tag in part.tags), "")
    try:
        return evaluate(model.predict(part), part, group=group)
    except DataError:
        return None  # nothing of this part is both predicted and labelled


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        name: value if math.isfinite(value) else None
        for name, value in evaluation.numbers().items()
    }
    numbers["n_structures"] = evaluation.n_structures
    if evaluation.by_group:
        numbers["by_group"] = {
            group: {
                f"{name}_{kind}": getattr(errors, kind)
                for name, errors in rows.items()
                for kind in ("mae", "rmse")
            }
            for group, rows in evaluation.by_group.items()
        }
    return numbers


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _without(path: Path) -> Path:
    """Return a path at which nothing is."""
    path.unlink(missing_ok=True)
    return path
