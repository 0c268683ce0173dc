"""Train several models and let them answer together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from epitaxy.artifact import load_artifact, save_artifact
from epitaxy.ensemble import EnsembleModel
from epitaxy.errors import ArtifactError, ConfigError
from epitaxy.spec import Spec
from epitaxy.strategies import check_strategy, refuses_early
from epitaxy_strategies.processes import Job, run_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from epitaxy.dataset import Dataset
    from epitaxy.protocols import Model
    from epitaxy.run import Run
    from epitaxy.split import Split

ARTIFACT = "artifact"


@dataclass(frozen=True)
class Part:
    """The parts that one member sees.

    Attributes:
        train: structures to learn from; with repetitions if bootstrapped.
        valid: structures to choose the best weights by.
        digest: of the split and of the choice.
    """

    train: Dataset
    valid: Dataset
    digest: str


def check_ensemble(
    model: Spec,
    split: Split,
    *,
    run: Run,
    n_members: int = 4,
    bootstrap: bool = False,
    member: Spec = Spec("direct"),  # noqa: B008 (frozen)
    n_parallel: int = 1,
) -> frozenset[int]:
    """Check options and the strategy of the members; arguments and errors as `ensemble`.

    Returns:
        Elements that the members know before they are trained.
    """
    for name, value in (("n_members", n_members), ("n_parallel", n_parallel)):
        if value < 1:
            raise ConfigError(f"strategy 'ensemble': {name} is {value}; allowed: at least 1")
    return check_strategy(member, model, split, run=run)


@refuses_early(check_ensemble)
def ensemble(
    model: Spec,
    split: Split,
    *,
    run: Run,
    n_members: int = 4,
    bootstrap: bool = False,
    member: Spec = Spec("direct"),  # noqa: B008 (frozen)
    n_parallel: int = 1,
) -> Model:
    """Train members that differ in their seeds; their spread is the error bar.

    Each finished member is saved in its own folder, so an interrupted ensemble goes on where
    it was.

    Args:
        model: the recipe of every member.
        split: training and validation parts; the test part is not touched.
        run: seeds, options, directory.
        n_members: how many models.
        bootstrap: whether each member learns from structures drawn with replacement; else all
            see the same.
        member: the strategy that trains a member; may be an ensemble itself.
        n_parallel: members trained at once, each in its own process with its part of the
            threads. Small networks use one core well and several badly, so 2 on 2 cores is
            faster than one after the other.

    Raises:
        ConfigError: a number is out of range.
    """
    check_ensemble(model, split, run=run, n_members=n_members, member=member, n_parallel=n_parallel)
    if n_parallel > 1 and not run.device.startswith("cpu"):
        run.progress.note(f"members share the device {run.device}: n_parallel = 1 may be faster")
    children = [run.child(f"members/{k}") for k in range(n_members)]
    waiting = []
    for child in children:
        if run.resume and _is_finished(child.directory / ARTIFACT):
            run.progress.note(f"[{child.name}] finished before")
            continue
        shutil.rmtree(child.directory / ARTIFACT, ignore_errors=True)
        waiting.append(Job(model, member, _part(split, child, bootstrap=bootstrap), child))
    if n_parallel > 1 and len(waiting) > 1:
        run_jobs(waiting, train_member, n_parallel=n_parallel)
    else:
        for job in waiting:
            train_member(job)
    trained: Sequence[Model] = [
        load_artifact(child.directory / ARTIFACT, registry=run.registry).model for child in children
    ]
    return EnsembleModel(trained, spec=run.registry.resolve("model", model))


def train_member(job: Job) -> None:
    """Train one member and save it in its folder."""
    run = job.run
    strategy = run.registry.build("strategy", job.strategy)
    trained = strategy(job.model, job.part, run=run)
    save_artifact(
        trained,
        run.directory / ARTIFACT,
        spec=run.registry.resolve("model", job.model),
        strategy=job.strategy,
        split=job.part,
        run=run,
        overwrite=True,
    )


def _part(split: Split, run: Run, *, bootstrap: bool) -> Part:
    if not bootstrap:
        return Part(split.train, split.valid, split.digest)
    rows = run.rng("bootstrap").integers(len(split.train), size=len(split.train))
    digest = f"{split.digest}+bootstrap:{run.seed_for('bootstrap')}"
    return Part(split.train[np.sort(rows)], split.valid, digest)


def _is_finished(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        load_artifact(path)
    except ArtifactError:
        return False  # a member that was damaged is trained again
    return True
