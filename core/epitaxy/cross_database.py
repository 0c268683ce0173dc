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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.config import Config, Place, check_config, read_config, read_document
from epitaxy.dataset import Dataset
from epitaxy.errors import ConfigError, DataError
from epitaxy.experiment import refuse_used_folder, write_text
from epitaxy.quantities import quantity
from epitaxy.run import Run
from epitaxy.split.labels import labels_of_all
from epitaxy.split.parts import Split
from epitaxy.strategies import check_data, check_strategy
from epitaxy.training_data import open_dataset

if TYPE_CHECKING:
    from epitaxy.progress import Progress
    from epitaxy.registry import Registry

SECTION, RESULT, PLOT = "cross_database", "cross_database.json", "cross_database.png"
FORMAT, VERSION = "epitaxy-cross-database", 1
_N_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class CrossOptions:
    """The ``cross_database:`` section.

    Attributes:
        datasets: name -> where it is: two or more.
        target: one number per structure.
        n_train: entries of each that are learnt from.
        n_valid: further ones, by which the best weights are chosen.
        n_test: entries of each that are tested on.
        test: part of the groups that is held out of all.
        groups: what stays together: "composition" or a tag.
        seeds: of the choice and of the trainings, or how many (3 means 0, 1, 2).
        flattered: the database that is also divided row by row; the first by default.
    """

    datasets: Mapping[str, Place]
    target: str
    n_train: int = 3000
    n_valid: int = 300
    n_test: int = 800
    test: float = 0.2
    groups: str = "composition"
    seeds: Sequence[int] | int = 3
    flattered: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: one is out of range; the message names it.
        """
        rule = quantity(self.target)
        if len(self.datasets) < 2:
            raise ConfigError(f"{SECTION}: datasets: give two or more, not {len(self.datasets)}")
        if rule.per == "atom" or rule.shape or rule.extensive or rule.is_claim:
            raise ConfigError(
                f"{SECTION}: target {self.target} is not one intensive number per structure, as "
                f"band_gap or formation_energy"
            )
        if min(self.n_train, self.n_test) < 1 or self.n_valid < 0 or not 0 < self.test < 1:
            raise ConfigError(
                f"{SECTION}: n_train {self.n_train}, n_valid {self.n_valid}, n_test {self.n_test}, "
                f"test {self.test}: expected numbers of entries, and a part between 0 and 1"
            )
        if not self.all_seeds or min(self.all_seeds) < 0:
            raise ConfigError(f"{SECTION}: seeds is {self.seeds!r}; allowed: whole numbers from 0")
        if self.flattered is not None and self.flattered not in self.datasets:
            raise ConfigError(
                f"{SECTION}: flattered {self.flattered!r} is none of {', '.join(self.datasets)}"
            )

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds as numbers."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of one seed each.

    Attributes:
        by_seed: in the order of the seeds, in the unit of the target.
    """

    by_seed: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.by_seed))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean over the seeds."""
        values, rng = np.asarray(self.by_seed), np.random.default_rng(0)
        means = values[rng.integers(len(values), size=(_N_RESAMPLES, len(values)))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values."""
        return {"mean": self.mean, "interval": list(self.interval), "by_seed": list(self.by_seed)}


@dataclass(frozen=True, slots=True)
class CrossResult:
    """What came out.

    Attributes:
        names: of the databases.
        unit: of all numbers.
        errors: (learnt on, tested on) -> mean absolute error.
        offsets: (learnt on, tested on) -> mean of prediction less label.
        flattered: name of the database that was divided in two ways.
        ungrouped: error where groups are divided.
        grouped: error where they are not.
    """

    names: tuple[str, ...]
    unit: str
    errors: Mapping[tuple[str, str], Measured]
    offsets: Mapping[tuple[str, str], Measured]
    flattered: str
    ungrouped: Measured
    grouped: Measured

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        pairs = [
            {
                "learnt_on": learnt,
                "tested_on": tested,
                "mae": self.errors[learnt, tested].to_mapping(),
                "offset": self.offsets[learnt, tested].to_mapping(),
                "times_own": self.errors[learnt, tested].mean / self.errors[learnt, learnt].mean,
            }
            for learnt in self.names
            for tested in self.names
        ]
        return {
            "unit": self.unit,
            "pairs": pairs,
            "groups": {
                "dataset": self.flattered,
                "ungrouped_mae": self.ungrouped.to_mapping(),
                "grouped_mae": self.grouped.to_mapping(),
                "flatters_by": 1 - self.ungrouped.mean / self.grouped.mean,
            },
        }

    def plot(self, path: Path) -> Path:
        """Draw the errors, one group of bars per training set."""
        from epitaxy.evaluation.plots import COLORS, new_figure, write_figure

        figure, axis = new_figure(5.2, 3.8)
        width = 0.8 / len(self.names)
        for k, tested in enumerate(self.names):
            found = [self.errors[learnt, tested] for learnt in self.names]
            means = np.array([one.mean for one in found])
            reach = np.abs(np.array([one.interval for one in found]) - means[:, None]).T
            places = np.arange(len(self.names)) + (k - (len(self.names) - 1) / 2) * width
            axis.bar(places, means, 0.9 * width, yerr=reach, capsize=3, color=COLORS[k % 7])
            axis.plot([], [], "s", color=COLORS[k % 7], label=f"tested on {tested}")
        axis.set_xticks(range(len(self.names)), [f"learnt on {name}" for name in self.names])
        axis.set_ylabel(f"mean absolute error, {self.unit}")
        figure.legend(loc="outside upper center", ncols=len(self.names), frameon=False, fontsize=9)
        return write_figure(figure, path)


@dataclass(frozen=True, kw_only=True)
class CrossConfig:
    """The file, checked: how to train, and on what."""

    training: Config
    options: CrossOptions


def load_cross(
    path: Path | str,
    *,
    overrides: Sequence[str] = (),
    output: Path | str | None = None,
    registry: Registry | None = None,
) -> CrossConfig:
    """Read a config file with a ``cross_database:`` section; arguments as `load_config`.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    from epitaxy.options import check_options

    document, lines = read_document(path, overrides=overrides, output=output)
    section = document.pop(SECTION, None)
    if not isinstance(section, Mapping):
        raise ConfigError(f"{path}: it needs the section {SECTION}: {{datasets: {{...}}, ...}}")
    if wrong := sorted({"dataset", "split", "valid", "test"} & set(document)):
        raise ConfigError(
            f"{path}: {', '.join(wrong)}: the data are those of {SECTION}.datasets, divided by it"
        )
    options = CrossOptions(**check_options(f"{path}: {SECTION}", CrossOptions, section))
    first = next(iter(options.datasets.values()))
    config = read_config(
        {"dataset": first, **document}, name=str(path), lines=lines, registry=registry
    )
    return CrossConfig(training=config, options=options)


def cross_database(
    cross: CrossConfig,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> CrossResult:
    """Train on each database with every seed, test on all; write JSON and plot.

    Args:
        cross: see `load_cross`.
        resume: write into a folder that is there.
        progress: who tells the user how far it is; silent by default.
        registry: the plugins; the installed ones by default.

    Raises:
        ConfigError: the output folder holds something and `resume` is false.
        DataError: a database has too few entries with the target.
        EpitaxyError: a model cannot be trained.
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
    datasets = {name: _opened(name, place, options, registry) for name, place in _places(options)}
    labels, _ = labels_of_all(list(datasets.values()), options.groups)
    groups = dict(zip(datasets, labels, strict=True))
    plans = [_Plan.of(datasets, groups, options, seed=seed) for seed in options.all_seeds]
    for plan in plans:
        for name, split in (*plan.splits.items(), *plan.flattered.items()):
            run = _run(config, output / "check", plan.seed, registry, progress)
            known = check_strategy(config.strategy, config.model, split, run=run)
            try:
                check_data(config.model, split.train, split.valid, run=run, known=known)
            except DataError as error:
                raise type(error)(f"{name}, seed {plan.seed}: {error}") from error
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(float(value))

    strategy = registry.build("strategy", config.strategy)
    for plan in plans:
        for learnt, split in (*plan.splits.items(), *plan.flattered.items()):
            folder = output / learnt / f"seed-{plan.seed}"
            run = _run(config, folder, plan.seed, registry, progress)
            model = strategy(config.model, split, run=run)
            tested = plan.splits if learnt in plan.splits else {learnt: split}
            for name, other in tested.items():
                predicted = model.predict(other.test).mean[options.target]
                wrong = predicted - other.test.target(options.target)[0]
                note(f"mae {learnt} {name}", np.abs(wrong).mean())
                note(f"offset {learnt} {name}", wrong.mean())
        progress.note(f"seed {plan.seed} done")
    names = tuple(datasets)
    pairs = [(learnt, tested) for learnt in names for tested in names]
    result = CrossResult(
        names,
        quantity(options.target).unit,
        {(a, b): Measured(tuple(found[f"mae {a} {b}"])) for a, b in pairs},
        {(a, b): Measured(tuple(found[f"offset {a} {b}"])) for a, b in pairs},
        options.flattered or names[0],
        Measured(tuple(found[f"mae {UNGROUPED} {UNGROUPED}"])),
        Measured(tuple(found[f"mae {GROUPED} {GROUPED}"])),
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


UNGROUPED, GROUPED = "ungrouped", "grouped"


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
        chosen = options.flattered or next(iter(datasets))
        return cls(seed, splits, _two_ways(datasets[chosen], groups[chosen], rng, options))


def _two_ways(
    dataset: Dataset, groups: np.ndarray, rng: np.random.Generator, options: CrossOptions
) -> dict[str, Split]:
    """Divide the entries whose groups occur again: row by row, and group by group."""
    common = np.unique(groups, return_inverse=True)[1]
    many = np.flatnonzero(np.bincount(common)[common] > 1)
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


def _places(options: CrossOptions) -> list[tuple[str, Place]]:
    return list(options.datasets.items())


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


def _run(config: Config, folder: Path, seed: int, registry: Registry, progress: Progress) -> Run:
    return Run(
        folder,
        seed=seed,
        device=config.device,
        dtype=config.dtype,
        training=config.training,
        observers=[registry],
        progress=progress,
        resume=True,
        registry=registry,
        name=f"{folder.parent.name}/{folder.name}",
    )
