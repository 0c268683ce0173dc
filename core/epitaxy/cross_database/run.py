"""Train on each of several databases and test on all of them: errors, offsets, leaks.

The file is that of `epitaxy train` with one more section, and without dataset and split::

    cross_database:
      datasets: {MP: mp_gap, experiment: expt_gap}
      target: band_gap
      n_train: 3000
      n_test: 800

For each seed a part of all groups (formulas) is held out of every database, so that no model has
seen a formula that it is tested on, whatever the database. One database is also divided twice
more, among the groups that occur in it more than once: row by row, and group by group. What the
first is better by is what an ungrouped split flatters by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.config import Config, check_config
from epitaxy.cross_database.options import GROUPED, SECTION, UNGROUPED, CrossConfig, CrossOptions
from epitaxy.cross_database.result import CrossResult, Measured
from epitaxy.cross_database.training import Training
from epitaxy.dataset import Dataset
from epitaxy.errors import ConfigError, DataError
from epitaxy.experiment import refuse_used_folder, write_text
from epitaxy.models import build_model
from epitaxy.quantities import quantity
from epitaxy.run import Run
from epitaxy.split.labels import labels_of_all
from epitaxy.split.parts import Split
from epitaxy.training_data import open_dataset

if TYPE_CHECKING:
    from epitaxy.config import Place
    from epitaxy.progress import Progress
    from epitaxy.registry import Registry

RESULT, PLOT = "cross_database.json", "cross_database.png"
FORMAT, VERSION = "epitaxy-cross-database", 1


def cross_database(
    cross: CrossConfig,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> CrossResult:
    """Train on each database with every seed, test on all; write JSON and plot.

    Each training has a folder ``output/NAME/seed-SEED`` with its metrics.json.

    Args:
        cross: see `load_cross`.
        resume: skip trainings that are finished and go on with the others.
        progress: who tells the user how far it is; silent by default.
        registry: the plugins; the installed ones by default.

    Raises:
        ConfigError: the output folder holds something and `resume` is false, a finished training
            was made with another config, or the model does not predict the target.
        DataError: a database has too few entries with the target.
        EpitaxyError: a model cannot be trained; the message names it. Finished ones are kept.
    """
    from epitaxy.progress import Silent

    if registry is None:
        from epitaxy.registry import Registry

        registry = Registry.from_entry_points()
    config, options = cross.training, cross.options
    progress = progress or Silent()
    check_config(config, registry)
    output = Path(config.output)
    refuse_used_folder(output, resume=resume)
    datasets = {
        name: _opened(name, place, options, registry) for name, place in options.datasets.items()
    }
    predicts = build_model(config.model, registry).capabilities.targets
    if predicts and options.target not in predicts:
        raise ConfigError(
            f"{SECTION}: target is {options.target}, but the model predicts {', '.join(predicts)}"
        )
    labels, _ = labels_of_all(list(datasets.values()), options.groups)
    groups = dict(zip(datasets, labels, strict=True))
    flattered = _flattered(groups, options, progress)
    plans = [
        _Plan.of(datasets, groups, options, seed=seed, flattered=flattered)
        for seed in options.all_seeds
    ]
    trainings = [
        training
        for plan in plans
        for training in _trainings(plan, config, options, registry, progress, output=output)
    ]
    waiting = [training for training in trainings if training.finished() is None]
    for training in waiting:
        training.check()
    if len(waiting) < len(trainings):
        progress.note(
            f"{len(trainings) - len(waiting)} of {len(trainings)} trainings were finished before"
        )
    for done, training in enumerate(waiting, start=len(trainings) - len(waiting) + 1):
        own = training.train()["tested_on"]
        told = ", ".join(f"{name} {errors['mae']:.3g}" for name, errors in own.items())
        progress.note(f"[{done}/{len(trainings)}] {training.name}: mean absolute error {told}")
    found: dict[tuple[str, str, str], list[float]] = {}
    for training in trainings:
        numbers = training.finished()
        assert numbers is not None
        for name, errors in numbers["tested_on"].items():
            for kind in ("mae", "offset"):
                found.setdefault((kind, training.learnt, name), []).append(errors[kind])
    names = tuple(datasets)
    pairs = [(learnt, tested) for learnt in names for tested in names]
    result = CrossResult(
        names,
        quantity(options.target).unit,
        {pair: Measured(tuple(found["mae", *pair])) for pair in pairs},
        {pair: Measured(tuple(found["offset", *pair])) for pair in pairs},
        flattered,
        *(
            Measured(tuple(found["mae", way, way])) if flattered else None
            for way in (UNGROUPED, GROUPED)
        ),
    )
    document = {
        "format": FORMAT,
        "version": VERSION,
        **result.to_mapping(),
        "options": {**asdict(options), "seeds": list(options.all_seeds)},
        "model": registry.resolve("model", config.model).to_config(),
        "strategy": registry.resolve("strategy", config.strategy).to_config(),
        "training": config.training.to_config(),
        "datasets": {
            name: {"digest": d.digest, "n": len(d), "n_groups": len(set(groups[name]))}
            for name, d in datasets.items()
        },
    }
    write_text(output / RESULT, json.dumps(document, indent=1) + "\n")
    result.plot(output / PLOT)
    return result


@dataclass(frozen=True)
class _Plan:
    """What is learnt and tested with one seed."""

    seed: int
    splits: Mapping[str, Split]
    flattered: Mapping[str, Split]

    @classmethod
    def of(
        cls,
        datasets: Mapping[str, Dataset],
        groups: Mapping[str, np.ndarray],
        options: CrossOptions,
        *,
        seed: int,
        flattered: str | None,
    ) -> _Plan:
        rng = np.random.default_rng(seed)
        everything = np.unique(np.concatenate(list(groups.values())))
        held = rng.permutation(everything)[: int(len(everything) * options.test)]
        splits = {}
        for name, dataset in datasets.items():
            is_test = np.isin(groups[name], held)
            test = rng.permutation(np.flatnonzero(is_test))[: options.n_test]
            learnt = rng.permutation(np.flatnonzero(~is_test))
            splits[name] = _split(name, dataset, learnt, test, options)
        if flattered is None:
            return cls(seed, splits, {})
        return cls(seed, splits, _two_ways(datasets[flattered], groups[flattered], rng, options))


def _flattered(
    groups: Mapping[str, np.ndarray], options: CrossOptions, progress: Progress
) -> str | None:
    """Return the database to divide in two ways; None if its groups do not occur again.

    Raises:
        DataError: it was asked for and has too few groups that occur again.
    """
    name = options.flattered or next(iter(groups))
    again = groups[name][_again(groups[name])]
    n_again, n_held = len(again), int(len(np.unique(again)) * options.test)
    needed = int((options.n_valid + options.n_test) / (1 - options.test)) + 1
    if n_again >= needed and n_held:
        return name
    reason = (
        f"{name}: {n_again:,} entries share their group ({options.groups}) with another one; "
        f"at least {needed:,} are needed to compare a division by rows with one by groups"
    )
    if options.flattered is not None:
        raise DataError(f"{reason}: choose another flattered, or smaller n_valid and n_test")
    progress.note(f"{reason}: left out")
    return None


def _again(groups: np.ndarray) -> np.ndarray:
    """Return the rows whose group occurs more than once, (n,) int64."""
    common = np.unique(groups, return_inverse=True)[1]
    return np.flatnonzero(np.bincount(common)[common] > 1)


def _two_ways(
    dataset: Dataset, groups: np.ndarray, rng: np.random.Generator, options: CrossOptions
) -> dict[str, Split]:
    """Divide the entries whose groups occur again: row by row, and group by group."""
    many = _again(groups)
    rows = rng.permutation(many)[: options.n_train + options.n_test]
    names = np.unique(groups[many])
    held = np.isin(groups[many], rng.permutation(names)[: int(len(names) * options.test)])
    test = rng.permutation(many[held])[: options.n_test]
    learnt = rng.permutation(many[~held])[: options.n_train]
    n_valid = options.n_valid
    return {
        UNGROUPED: Split(
            dataset,
            train=rows[options.n_test :][n_valid:],
            valid=rows[options.n_test :][:n_valid],
            test=rows[: options.n_test],
        ),
        GROUPED: Split(dataset, train=learnt[n_valid:], valid=learnt[:n_valid], test=test),
    }


def _split(
    name: str, dataset: Dataset, learnt: np.ndarray, test: np.ndarray, options: CrossOptions
) -> Split:
    n = options.n_train + options.n_valid
    if len(learnt) < n or len(test) < options.n_test:
        raise DataError(
            f"{name}: {len(learnt):,} entries to learn from and {len(test):,} to test on; asked "
            f"for are {n:,} and {options.n_test:,}: choose smaller n_train, n_valid or n_test"
        )
    return Split(
        dataset, train=learnt[options.n_valid : n], valid=learnt[: options.n_valid], test=test
    )


def _opened(name: str, place: Place, options: CrossOptions, registry: Registry) -> Dataset:
    try:
        dataset = open_dataset(place, registry, wanted=(options.target,))
    except DataError as error:
        raise type(error)(f"{SECTION}: {name}: {error}") from error
    if options.target not in dataset.targets:
        raise DataError(
            f"{SECTION}: {name} has no {options.target} (there: "
            f"{', '.join(dataset.targets) or 'nothing'})"
        )
    return dataset[np.flatnonzero(dataset.target(options.target)[1])]


def _trainings(
    plan: _Plan,
    config: Config,
    options: CrossOptions,
    registry: Registry,
    progress: Progress,
    *,
    output: Path,
) -> list[Training]:
    found = []
    for learnt, split in (*plan.splits.items(), *plan.flattered.items()):
        folder = output / learnt / f"seed-{plan.seed}"
        run = Run(
            folder,
            seed=plan.seed,
            device=config.device,
            dtype=config.dtype,
            training=config.training,
            observers=[registry],
            progress=progress,
            resume=True,
            registry=registry,
            name=f"{learnt}/{folder.name}",
        )
        others = plan.splits if learnt in plan.splits else {learnt: split}
        tests = {name: other.test for name, other in others.items()}
        found.append(
            Training.of(learnt, split, tests, target=options.target, config=config, run=run)
        )
    return found
