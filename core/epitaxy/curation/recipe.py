"""Recipes: lists of operations, read from a file, run on a dataset, taken from a history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from epitaxy.curation.operations import OPERATIONS, apply, checked_options
from epitaxy.curation.tell import Tell
from epitaxy.dataset import Dataset
from epitaxy.errors import ConfigError, OptionError


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a recipe.

    Attributes:
        operation: name of an operation.
        options: its options, plain values.
    """

    operation: str
    options: Mapping[str, Any] = field(default_factory=dict)


def default_recipe(
    dataset: Dataset,
    *,
    frames: Mapping[str, Any] | None = None,
    duplicates: bool = True,
    outliers: bool = True,
    consistency: Mapping[str, Any] | None = None,
) -> tuple[Step, ...]:
    """Return what `epitaxy clean` does without a recipe.

    Args:
        dataset: that is to be cleaned.
        frames: options of the operation `frames`.
        duplicates: whether to drop duplicates.
        outliers: whether to drop outliers of energy and formation energy.
        consistency: options of the operation `consistency`; None for all defaults.
    """
    steps = [Step("frames", dict(frames or {}))]
    if duplicates:
        steps.append(Step("duplicates"))
    if outliers:
        energies = ("energy", "formation_energy")
        steps += [Step("outliers", {"target": t}) for t in energies if t in dataset.targets]
    return (*steps, Step("consistency", dict(consistency or {})))


def run_recipe(dataset: Dataset, steps: Iterable[Step], *, tell: Tell | None = None) -> Dataset:
    """Run operations one after another.

    Raises:
        ConfigError: there is no such operation.
        OptionError: an option is unknown or has a wrong value.
        DataError: an operation cannot be done on these data.
    """
    listed = list(steps)
    for step in listed:
        checked_options(step.operation, step.options)  # all of them, before any work
    for step in listed:
        dataset = apply(dataset, step.operation, step.options, tell=tell)
    return dataset


def recipe_of(history: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the operations that a history tells of, ready to be run again.

    What `epitaxy ingest` checked on the way counts: run on the same entries read without any
    check, the recipe gives the same data.
    """
    steps: list[Step] = []
    for step in history:
        name = step.get("operation")
        if name in OPERATIONS and "options" in step:
            steps.append(Step(str(name), dict(step["options"])))
        else:
            steps += [Step(s["operation"], dict(s["options"])) for s in step.get("recipe", ())]
    return tuple(steps)


def recipe_text(steps: Iterable[Step]) -> str:
    """Return a recipe as YAML, as `read_recipe` reads it."""
    plain = [
        {"operation": step.operation, **({"options": dict(step.options)} if step.options else {})}
        for step in steps
    ]
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)


def read_recipe(path: Path) -> tuple[Step, ...]:
    """Read a recipe: a YAML list of ``{operation: NAME, options: {...}}``.

    Raises:
        ConfigError: the file is missing, is no such list, or names an unknown operation.
        OptionError: an option is unknown or has a wrong value.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    wanted = "a recipe is a list such as [{operation: frames, options: {max_force: 50}}]"
    if not isinstance(content, list) or not content:
        raise ConfigError(f"{path}: {wanted}")
    steps = []
    for i, item in enumerate(content, start=1):
        if isinstance(item, str):
            item = {"operation": item}
        options = item.get("options") or {} if isinstance(item, dict) else None
        unknown = set(item) - {"operation", "options"} if isinstance(item, dict) else set()
        if not isinstance(options, dict) or "operation" not in item or unknown:
            what = f" (unknown: {', '.join(map(str, sorted(unknown)))})" if unknown else ""
            raise ConfigError(f"{path}: item {i}{what}: {wanted}")
        try:
            checked_options(str(item["operation"]), options)
        except (ConfigError, OptionError) as error:
            raise type(error)(f"{path}: item {i}: {error}") from error
        steps.append(Step(str(item["operation"]), options))
    return tuple(steps)
