"""From a dataset on disk to a cleaner one, by a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from epitaxy.curation.operations import checked_options
from epitaxy.curation.recipe import Step, default_recipe, run_recipe
from epitaxy.curation.step import step_lines
from epitaxy.curation.tell import Tell
from epitaxy.dataset import Dataset
from epitaxy.errors import DataError
from epitaxy.stores.memory_map import Writer


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What came of it.

    Attributes:
        dataset: the new dataset.
        steps: what each operation left in the history.
        n_seen: entries there were before.
        removed: what a killed run had left beside the dataset, one sentence each.
    """

    dataset: Dataset
    steps: tuple[dict[str, Any], ...]
    n_seen: int
    removed: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """What was dropped, changed and found, one sentence each."""
        return [line for step in self.steps for line in step_lines(step)]

    @property
    def warnings(self) -> list[str]:
        """What the user should know, one sentence each."""
        return [
            *self.removed,
            *(warning for step in self.steps for warning in step.get("warnings", ())),
        ]


def clean(
    dataset: Dataset,
    path: str | Path,
    *,
    recipe: Iterable[Step] | None = None,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> CleanReport:
    """Run a recipe on a dataset and write what it makes.

    Args:
        dataset: to clean; it stays as it is.
        path: of the dataset to make.
        recipe: operations; those of `epitaxy.curation.recipe.default_recipe` by default.
        overwrite: replace a dataset that is there already.
        tell: called now and then with the progress.

    Raises:
        ConsistencyError: labels contradict each other.
        DataError: nothing is usable, or an operation cannot be done.
        StoreError: the dataset cannot be written; what was at `path` stays as it was.
    """
    steps = tuple(default_recipe(dataset) if recipe is None else recipe)
    for step in steps:
        checked_options(step.operation, step.options)
    n_before = len(dataset.history)
    with Writer(path, overwrite=overwrite) as writer:
        cleaned = dataset
        for step in steps:
            cleaned = run_recipe(cleaned, [step], tell=tell)
            if not len(cleaned):
                said = [
                    line for done in cleaned.history[n_before:] for line in step_lines(done)
                ] or ["the dataset is empty"]
                raise DataError(f"nothing is left to put into {path}: {'; '.join(said)}")
        writer.extend(cleaned)
        done = tuple({**step, "epitaxy": version("epitaxy")} for step in cleaned.history[n_before:])
        for kept in (*dataset.history, *done):
            writer.record(kept)
    return CleanReport(Dataset.open(path), done, len(dataset), writer.removed)
