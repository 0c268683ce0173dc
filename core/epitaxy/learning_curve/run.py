"""Error against the number of training structures, for several ways to train side by side.

The file is that of `epitaxy train` with one more section::

    learning_curve:
      sizes: [50, 100, 200, 1.0]      # structures, or with a point a part of the training part
      seeds: [0, 1, 2]
      arms:
        scratch: {}
        transfer: {strategy: {use: transfer, parent: runs/parent/artifact}, training: {lr: 0.0002}}

The test set is the same for all points. For each seed the training part is put into one random
order; size n takes the first n of it, so that subsets are nested and all arms see the same ones.
An arm may learn from further data too (`also`), and parents that arms begin with may be described
in the same file (`parents`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.config import Config, check_config
from epitaxy.errors import ConfigError
from epitaxy.experiment import refuse_used_folder, write_text
from epitaxy.finished import identity_of
from epitaxy.learning_curve.data import ArmData, arm_data
from epitaxy.learning_curve.options import CurveConfig, sizes_of
from epitaxy.learning_curve.parents import planned_parents, train_parent
from epitaxy.learning_curve.point import Job
from epitaxy.learning_curve.result import CurveResult
from epitaxy.run import Run
from epitaxy.split.parts import Split
from epitaxy.training_data import open_split

if TYPE_CHECKING:
    from epitaxy.progress import Progress
    from epitaxy.registry import Registry
    from epitaxy.spec import Spec
    from epitaxy.strategies import PlannedParent

RESULT, PLOT = "learning_curve.json", "learning_curve.png"
_PACKAGES = ("epitaxy", "torch", "numpy", "scikit-learn", "ase")


def learning_curve(
    curve: CurveConfig,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> CurveResult:
    """Train every arm at every size with every seed, and say what the errors mean.

    Each point has a folder ``output/ARM/n-SIZE/seed-SEED`` with its metrics.json and, if asked,
    its artifact; learning_curve.json and learning_curve.png are written at the end.

    Args:
        curve: see `load_curve`.
        resume: skip points that are finished and go on with those that were begun.
        progress: who tells the user how far it is; silent by default.
        registry: the plugins; the installed ones by default.

    Raises:
        ConfigError: the output folder holds something and `resume` is false; a finished point
            was made with another config.
        SplitError: the parts are too small for a size.
        EpitaxyError: a point cannot be trained; the message names it. Finished ones are kept.
    """
    from epitaxy.progress import Silent

    if registry is None:
        from epitaxy.registry import Registry

        registry = Registry.from_entry_points()
    output = Path(curve.base.output)
    for config in (*curve.parents.values(), *curve.arms.values()):
        check_config(config, registry)
    refuse_used_folder(output, resume=resume)
    split = open_split(curve.base, registry)
    _check_metric(curve, split, registry)
    told = _Told(progress or Silent())
    data = arm_data(curve, split, registry)
    if curve.parents:
        planned = planned_parents(curve.parents, registry=registry)
        _jobs(curve, split, data, registry, told, output=output, planned=planned)
        for name, config in curve.parents.items():
            train_parent(name, config, split, registry=registry, progress=told)
    jobs = _jobs(curve, split, data, registry, told, output=output)
    told.note(_budget(curve, split, jobs))
    started = time.monotonic()
    waiting = [job for job in jobs if job.finished() is None]
    if len(waiting) < len(jobs):
        told.note(f"{len(jobs) - len(waiting)} of {len(jobs)} points were finished before")
    for done, job in enumerate(waiting, start=1):
        seconds = job.train(keep=curve.options.artifacts)
        left = (time.monotonic() - started) / done * (len(waiting) - done)
        told.note(
            f"[{len(jobs) - len(waiting) + done}/{len(jobs)}] {job.name}: "
            f"{job.told(curve.options.metric)} ({seconds:.0f} s; {left / 60:.0f} min left)"
        )
    facts = {
        "dataset": split.dataset.digest,
        "split": split.digest,
        "test": split.test.digest,
        "n_train": len(split.train),
        "n_valid": len(split.valid),
        "n_test": len(split.test),
        "split_method": split.method,
    }
    numbers = []
    for job in jobs:
        found = job.finished()
        assert found is not None
        numbers.append(found)
    result = CurveResult.of(
        numbers,
        options=curve.options.to_config(),
        configs={arm: config.to_mapping() for arm, config in curve.arms.items()},
        facts=facts,
        versions=_versions(),
    )
    write_text(output / RESULT, json.dumps(result.to_mapping(), indent=1) + "\n")
    result.plot(output / PLOT)
    return result


def _check_metric(curve: CurveConfig, split: Split, registry: Registry) -> None:
    """Check that the number that counts will come out of every arm.

    Raises:
        ConfigError: no structure of the test has its target, an arm does not predict it, or none
            is named and the arms predict different targets.
    """
    test, metric = split.test, curve.options.metric
    labelled = {name for name in test.targets if test.target(name)[1].any()}
    by_arm = {arm: _predicted(config, registry) for arm, config in curve.arms.items()}
    if metric is None:
        found = {arm: sorted(names & labelled) for arm, names in by_arm.items() if names}
        if len(set(map(tuple, found.values()))) > 1:
            each = "; ".join(f"{arm}: {', '.join(names)}" for arm, names in found.items())
            raise ConfigError(
                f"learning_curve: the arms predict different targets ({each}): name one that all "
                f"of them predict, as metric: energy_mae"
            )
        return
    target = metric.rpartition("_")[0]
    if target not in labelled:
        raise ConfigError(
            f"learning_curve: metric is {metric}, but no structure of the test set has {target} "
            f"(there: {', '.join(test.targets) or 'nothing'})"
        )
    for arm, names in by_arm.items():
        if names and target not in names:
            raise ConfigError(
                f"learning_curve: metric is {metric}, but the model of arm {arm!r} predicts "
                f"{', '.join(sorted(names))}"
            )


def _predicted(config: Config, registry: Registry) -> set[str]:
    """Return the targets of a model; none if it learns what there is."""
    from epitaxy.models import build_model

    can = build_model(config.model, registry).capabilities
    names = set(can.targets)
    if names and can.forces:
        names |= {"energy", "forces"}
    return names | ({"stress"} if names and can.stress else set())


class _Told:
    """Passes notes on, each once; the epochs of single points are not shown."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def started(self, name: str, n_epochs: int) -> None:
        """Say nothing."""

    def epoch(self, name: str, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def finished(self, name: str, message: str) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say it if it is new."""
        if message not in self._said:
            self._said.add(message)
            self._progress.note(message)

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.close()


def training_order(split: Split, *, seed: int, cover: bool) -> np.ndarray:
    """Return the order in which subsets take the rows of the training part, (n_train,) int64.

    Args:
        split: its training part.
        seed: of the order.
        cover: begin with the structures that each show an element for the first time.
    """
    order = Run("", seed=seed).rng("order of a learning curve").permutation(len(split.train))
    if not cover:
        return order
    from epitaxy.references import Compositions

    compositions = Compositions.of(split.train)
    ends = np.searchsorted(compositions.structures, np.arange(len(split.train) + 1))
    seen: set[int] = set()
    is_first = np.zeros(len(order), dtype=bool)
    for k, row in enumerate(order):
        new = set(compositions.columns[ends[row] : ends[row + 1]].tolist()) - seen
        is_first[k] = bool(new)
        seen |= new
    return np.concatenate([order[is_first], order[~is_first]])


def _reads(model: Spec, planned: Mapping[str, PlannedParent]) -> bool:
    """Whether a model itself, not its strategy, reads a parent that is yet to be trained."""
    text = json.dumps(model.to_config(), default=str)
    return any(json.dumps(artifact) in text for artifact in planned)


def _jobs(
    curve: CurveConfig,
    split: Split,
    data: Mapping[str, ArmData],
    registry: Registry,
    told: _Told,
    *,
    output: Path,
    planned: Mapping[str, PlannedParent] | None = None,
) -> list[Job]:
    """Return all points, checked as far as parents are there."""
    options = curve.options
    sizes = sizes_of(options, len(split.train))
    jobs, tested = [], split.test.digest
    for seed in options.all_seeds:
        order = training_order(split, seed=seed, cover=options.elements == "cover")
        valid_order = (
            Run("", seed=seed).rng("order of its validation").permutation(len(split.valid))
        )
        for n in sizes:
            n_valid = len(split.valid)
            if options.valid == "scaled" and n_valid:
                n_valid = max(1, round(n_valid * n / len(split.train)))
            for arm, config in curve.arms.items():
                own = data[arm]
                part = Split(
                    own.dataset,
                    train=np.concatenate(
                        [split.rows["train"][np.sort(order[:n])], own.more(seed=seed)]
                    ),
                    valid=split.rows["valid"][np.sort(valid_order[:n_valid])],
                    test=split.rows["test"],
                    method={**split.method, "learning_curve": {"n_train": n, "seed": seed}},
                )
                digests = {"train": part.train.digest, "valid": part.valid.digest, "test": tested}
                directory = output / arm / f"n-{n}" / f"seed-{seed}"
                run = Run(
                    directory,
                    seed=seed,
                    device=config.device,
                    dtype=config.dtype,
                    training=config.training,
                    observers=[registry],
                    progress=told,
                    resume=True,
                    registry=registry,
                    name=f"{arm}/n-{n}/seed-{seed}",
                    planned=planned,
                )
                identity = identity_of(config, digests, seed=seed, registry=registry)
                jobs.append(Job(arm, seed, n, config, part, run, digests, identity))
    waiting = [job for job in jobs if job.finished() is None]
    # The largest subset of a seed holds the others, so a parent is read once for all of them.
    largest = {(job.arm, job.seed): job for job in waiting}
    known = {which: job.check_strategy() for which, job in largest.items()}
    for job in waiting:
        if _reads(job.config.model, planned or {}):
            continue
        job.check(known[job.arm, job.seed])
    return jobs


def _budget(curve: CurveConfig, split: Split, jobs: Sequence[Job]) -> str:
    """Return what is trained for how long, one line per arm: arms should be given the same."""
    sizes = sizes_of(curve.options, len(split.train))
    lines = [
        f"{len(jobs)} points: {len(curve.arms)} arms, sizes {', '.join(map(str, sizes))} of "
        f"{len(split.train):,}, "
        f"seeds {', '.join(map(str, curve.options.all_seeds))}; one test set of "
        f"{len(split.test):,}; validation {curve.options.valid} ({len(split.valid):,} in full)"
    ]
    for arm, config in curve.arms.items():
        t = config.training
        limit = f", at most {t.max_seconds:g} s" if t.max_seconds is not None else ""
        stop = f", patience {t.patience}" if t.patience is not None else ""
        lines.append(
            f"  {arm}: {config.strategy.use} {config.model.use}, at most {t.epochs} epochs"
            f"{stop}{limit}, batch {t.batch_size}, lr {t.lr:g}"
            + (", with further data" if arm in curve.also else "")
        )
    if len({_effort(config) for config in curve.arms.values()}) > 1:
        lines.append("  note: the arms have different budgets (epochs, patience, time or batch)")
    return "\n".join(lines)


def _effort(config: Config) -> tuple[object, ...]:
    t = config.training
    return (t.epochs, t.patience, t.max_seconds, t.batch_size)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
