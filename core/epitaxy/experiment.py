"""From a config to an artifact: what `epitaxy train` does, callable from Python."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from epitaxy.config import Config, check_config
from epitaxy.errors import CapabilityError, ConfigError, EpitaxyError, TrainingError
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split.by_target import tagged_test
from epitaxy.strategies import check_data, check_strategy
from epitaxy.training.journal import FILE_NAME, read_journal
from epitaxy.training_data import open_split

if TYPE_CHECKING:
    from epitaxy.artifact import Artifact
    from epitaxy.dataset import Dataset
    from epitaxy.evaluation.metrics import Evaluation
    from epitaxy.progress import Progress
    from epitaxy.protocols import Model
    from epitaxy.registry import Registry
    from epitaxy.split import Split

ARTIFACT, CONFIG, SPLIT = "artifact", "config.yaml", "split.json"
GROUP_TAGS = (
    "test_part",
    "group",
    "kind",
)  # test errors are also listed by the first that entries carry

log = logging.getLogger("epitaxy")


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
    _check_data(config, split, run=run)
    is_new = not output.exists() or not any(output.iterdir())
    kept = (output / CONFIG, output / SPLIT)
    before = {path: path.read_bytes() for path in kept if path.exists()}
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot make the output folder {output}: {error.strerror}") from error
    try:
        text = yaml.safe_dump(
            _in_full(config, registry).to_mapping(), sort_keys=False, allow_unicode=True
        )
        write_text(output / CONFIG, text)
        split.save(output / SPLIT)
        model = strategy(config.model, split, run=run)
    except EpitaxyError:
        if is_new:
            _remove_start(output)
        for path, content in before.items():  # a refused resumption changes nothing
            path.write_bytes(content)
        raise
    metrics = {
        name: numbers_of(evaluated)
        for name, part in (("valid", split.valid), ("test", tagged_test(split)))
        if (evaluated := evaluate_part(model, part, name)) is not None
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


def _check_data(config: Config, split: Split, *, run: Run) -> None:
    """Let strategy and model refuse data that they cannot use, before anything is written."""
    known = check_strategy(config.strategy, config.model, split, run=run)
    known &= split.valid.elements  # what is in no part is not made room for
    check_data(config.model, split.train, split.valid, run=run, known=known)
    if missing := split.test.elements - split.train.elements - known:
        try:
            check_data(config.model, split.train, split.test, run=run, known=known)
        except TrainingError as error:
            raise CapabilityError(
                unknown_elements(missing, config.model.use, "the test part", "the training part")
                + ", or split in another way"
            ) from error


def unknown_elements(missing: Iterable[int], model: str, where: str, lacking: str) -> str:
    """Return why a model cannot be tested on elements that it has not seen."""
    from ase.data import chemical_symbols

    return (
        f"{where} holds {', '.join(chemical_symbols[z] for z in sorted(missing))}, which "
        f"{lacking} lacks, and model {model!r} learns each element from its structures: take a "
        f"model that describes elements by their properties"
    )


def _in_full(config: Config, registry: Registry) -> Config:
    """Return the config with names that stay clear when other plugins are installed."""
    model = registry.find("model", config.model.use).qualified_name
    strategy = registry.find("strategy", config.strategy.use).qualified_name
    return replace(
        config,
        model=Spec(model, config.model.options),
        strategy=Spec(strategy, config.strategy.options),
    )


def _remove_start(output: Path) -> None:
    """Remove what a start that failed has written, so that the corrected command can run."""
    journal = output / FILE_NAME
    if journal.exists() and read_journal(journal):
        return  # an epoch was trained
    if {path.name for path in output.iterdir()} <= {CONFIG, SPLIT, FILE_NAME}:
        for name in (CONFIG, SPLIT, FILE_NAME):
            (output / name).unlink(missing_ok=True)
        with suppress(OSError):
            output.rmdir()


def evaluate_part(model: Model, part: Dataset, name: str) -> Evaluation | None:
    """Return the errors of a model on a part; None if the part is empty or has no labels.

    Args:
        model: trained.
        part: structures with labels.
        name: what the log calls the part.
    """
    from epitaxy.errors import DataError
    from epitaxy.evaluation.metrics import evaluate

    if not len(part):
        return None
    group = next((tag for tag in GROUP_TAGS if tag in part.tags), "")
    try:
        return evaluate(model.predict(part), part, group=group)
    except DataError as error:  # the model is kept: hours of training are in it
        log.warning("no errors are known on the %s part: %s", name, error)
        return None


def numbers_of(evaluation: Evaluation) -> dict[str, Any]:
    """Return the errors of an evaluation, overall and by group, ready for JSON."""
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


def write_text(path: Path, text: str) -> None:
    """Write a small file to the side, then rename it.

    Raises:
        TrainingError: the disk refuses; what was at `path` is untouched.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            f"folder with -o, then start again"
        ) from error
