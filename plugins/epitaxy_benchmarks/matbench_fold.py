"""One fold of a benchmark: train, predict its test part, and keep the predictions in a file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.errors import CapabilityError, ConfigError, DataError
from epitaxy.models import build_model
from epitaxy.run import Run
from epitaxy.split import Split, split_by_group
from epitaxy_benchmarks.matbench_model import for_quantity

if TYPE_CHECKING:
    from epitaxy.config import Config
    from epitaxy.dataset import Dataset
    from epitaxy.progress import Progress
    from epitaxy.protocols import Model
    from epitaxy.registry import Registry
    from epitaxy_benchmarks.matbench_task import LoadedTask

FILE_NAME = "predictions.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """What a fold gave.

    Attributes:
        fold: its number, 0 to 4.
        ids: of the test entries, in order.
        predicted: of each; the probability of 1 for claims.
        std: standard deviations, or None.
        n_train: entries that were learnt from.
        n_valid: entries that the model was chosen by.
        n_by_mean: test entries that the model refused because of their elements; they have the
            mean of the training part.
        seconds: wall time.
        identity: sha256 of everything that the predictions depend on.
    """

    fold: int
    ids: tuple[str, ...]
    predicted: tuple[float, ...]
    std: tuple[float, ...] | None
    n_train: int
    n_valid: int
    n_by_mean: int
    seconds: float
    identity: str


def identity_of(task: LoadedTask, config: Config, *, valid: float, registry: Registry) -> str:
    """Return the sha256 of everything that the predictions of a fold depend on."""
    spec = for_quantity(config.model, task.facts.quantity, registry)
    facts = {
        "task": task.name,
        "data": task.dataset.digest,
        "model": registry.resolve("model", spec).to_config(),
        "strategy": registry.resolve("strategy", config.strategy).to_config(),
        "training": config.training.to_config(),
        "seed": config.seed,
        "dtype": config.dtype,
        "valid": valid,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def finished(directory: Path, identity: str) -> FoldResult | None:
    """Return the result of a fold that was run before, None if it is yet to be run.

    Raises:
        ConfigError: the folder has a fold of another model, other options or other data.
        DataError: the file is damaged.
    """
    path = directory / FILE_NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        result = FoldResult(
            **{
                **found,
                "ids": tuple(found["ids"]),
                "predicted": tuple(found["predicted"]),
                "std": tuple(found["std"]) if found["std"] is not None else None,
            }
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: damaged ({type(error).__name__}: {error}); remove its folder to run the fold "
            f"again"
        ) from error
    if result.identity != identity:
        raise ConfigError(
            f"{path} is of another model, other options or other data: choose another folder with "
            f"-o, or replace it with --overwrite"
        )
    return result


def run_fold(
    task: LoadedTask,
    fold: int,
    config: Config,
    *,
    directory: Path,
    valid: float,
    identity: str,
    registry: Registry,
    progress: Progress,
    keep_model: bool = False,
) -> FoldResult:
    """Train on the training part of a fold and predict its test part.

    Entries that the model refuses because no training entry has their elements are predicted by
    the mean of the training part, and counted.

    Raises:
        CapabilityError: the model does not predict the quantity of the task.
        EpitaxyError: training fails.
    """
    start = time.monotonic()
    quantity = task.facts.quantity
    spec = for_quantity(config.model, quantity, registry)
    needs_validation = getattr(build_model(spec, registry), "needs_validation", True)
    split = fold_split(task, fold, valid=valid if needs_validation else 0.0, seed=config.seed)
    run = Run(
        directory,
        seed=config.seed,
        device=config.device,
        dtype=config.dtype,
        training=config.training,
        observers=[registry],
        progress=progress,
        resume=True,
        registry=registry,
        name=f"{task.name} fold {fold}",
    )
    strategy = registry.build("strategy", config.strategy)
    model = strategy(spec, split, run=run)
    predicted, std, is_known = _predict(model, split, quantity)
    result = FoldResult(
        fold=fold,
        ids=tuple(split.test.ids),
        predicted=tuple(predicted.tolist()),
        std=None if std is None else tuple(std.tolist()),
        n_train=len(split.train),
        n_valid=len(split.valid),
        n_by_mean=int((~is_known).sum()),
        seconds=time.monotonic() - start,
        identity=identity,
    )
    if keep_model:
        from epitaxy.artifact import save_artifact

        save_artifact(
            model,
            directory / "artifact",
            spec=registry.resolve("model", spec),
            strategy=registry.resolve("strategy", config.strategy),
            split=split,
            run=run,
            overwrite=True,
        )
    write_json(directory / FILE_NAME, asdict(result))
    return result


def fold_split(task: LoadedTask, fold: int, *, valid: float, seed: int) -> Split:
    """Return the parts of a fold; validation is a part of its training rows, whole formulas.

    Formulas with an element that no remaining training entry has stay in the training part.
    """
    train, test = task.folds[fold]
    chosen = np.zeros(0, dtype=np.int64)
    if valid > 0:
        inner = split_by_group(
            task.dataset[train], "composition", valid=valid, test=0, seed=seed + fold
        )
        is_known = knows(inner.train.elements, inner.valid)
        chosen = train[inner.rows["valid"][is_known]]
    return Split(
        task.dataset,
        train=np.setdiff1d(train, chosen),
        valid=np.sort(chosen),
        test=test,
        method={"method": "matbench", "fold": fold, "valid": valid, "seed": seed + fold},
    )


def knows(elements: frozenset[int], dataset: Dataset) -> np.ndarray:
    """Return which entries hold only these elements, (n,) bool."""
    if dataset.elements <= elements:
        return np.ones(len(dataset), dtype=bool)
    some = dataset.gather()
    is_known = np.isin(some.numbers, sorted(elements))
    starts = np.concatenate([[0], np.cumsum(some.n_atoms)[:-1]])
    known: np.ndarray = np.logical_and.reduceat(is_known, starts)
    return known


def _predict(
    model: Model, split: Split, quantity: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return predictions, standard deviations and which entries the model has predicted."""
    test = split.test
    if quantity not in model.capabilities.targets:
        raise CapabilityError(
            f"the model predicts {', '.join(model.capabilities.targets)}, the task asks for "
            f"{quantity}: set the targets of the model"
        )
    is_known = np.ones(len(test), dtype=bool)
    try:
        found = model.predict(test)
    except CapabilityError:
        is_known = knows(split.train.elements, test)
        if is_known.all() or not is_known.any():
            raise
        found = model.predict(test[is_known])
    mean = np.full(len(test), float(split.train.target(quantity)[0].mean()))
    mean[is_known] = found.mean[quantity]
    std = None
    if found.std is not None and quantity in found.std:
        std = np.full(len(test), float(split.train.target(quantity)[0].std()))
        std[is_known] = found.std[quantity]
    if not np.isfinite(mean).all():
        raise DataError(
            f"{test.ids[int((~np.isfinite(mean)).argmax())]}: the prediction is not finite"
        )
    return mean, std, is_known


def write_json(path: Path, document: Any) -> None:
    """Write a file to the side, then rename it.

    Raises:
        DataError: the disk refuses; what was at `path` is untouched.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
