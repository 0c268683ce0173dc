"""The file that describes one training: read, checked, and turned into plain values.

    dataset: data/si               # a stored dataset, a file, or {use: silicon, xc: PBE}
    split: {method: random, valid: 0.1, test: 0.1, seed: 0}
    model: {use: painn, width: 64}
    strategy: {use: ensemble, n_members: 4}
    training: {epochs: 300, lr: 0.002}
    output: runs/si

Relative paths are relative to the directory in which the command runs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from epitaxy.errors import ConfigError, EpitaxyError, OptionError
from epitaxy.spec import Spec
from epitaxy.split.options import METHODS, SplitOptions
from epitaxy.training.options import TrainingOptions

if TYPE_CHECKING:
    from epitaxy.registry import Registry

SECTIONS_OF_OTHER_VERBS = {"learning_curve": "learning-curve", "cross_database": "cross-database"}
"""Section of a file -> the command that reads it."""

Place = str | Mapping[str, Any]
"""Where data come from: a path, or a source as ``{use: name, **options}``."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training, checked.

    Attributes:
        dataset: path of a stored dataset or of a file, name of a source, or a source with options.
        model: the recipe of the model.
        split: how the dataset is divided into parts for training, validation and test.
        valid: a dataset of its own for validation.
        test: a dataset of its own for the test.
        strategy: from the recipe to a trained model: direct, ensemble ...
        training: how models are trained.
        seed: from which all random choices of the training follow.
        device: "cpu", "cuda", "cuda:1" ...
        dtype: precision of the network.
        output: folder of the run; the artifact is written to output/artifact.
    """

    dataset: Place
    model: Spec
    split: SplitOptions = field(default_factory=SplitOptions)
    valid: Place | None = None
    test: Place | None = None
    strategy: Spec = field(default_factory=lambda: Spec("direct"))
    training: TrainingOptions = field(default_factory=TrainingOptions)
    seed: int = 0
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    output: str = "run"

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that `read_config` reads back to the same config."""
        division = self.split.to_mapping()
        for part in ("valid", "test"):
            if getattr(self, part) is not None and part in division:
                division[part] = 0
        parts: dict[str, Any] = {
            "dataset": self.dataset,
            "valid": self.valid,
            "test": self.test,
            "split": division,
            "model": self.model.to_config(),
            "strategy": self.strategy.to_config(),
            "training": self.training.to_config(),
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "output": self.output,
        }
        return {name: value for name, value in parts.items() if value is not None}


def load_config(
    path: Path | str,
    *,
    overrides: Sequence[str] = (),
    output: Path | str | None = None,
    registry: Registry | None = None,
) -> Config:
    """Read a config file.

    Args:
        path: a YAML (or JSON) file.
        overrides: changes like "training.epochs=10", as given to ``--set``.
        output: another folder than the one in the file.
        registry: if given, components and their options are checked too.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; the message names file
            and line.
    """
    document, lines = read_document(path, overrides=overrides, output=output)
    return read_config(document, name=str(path), lines=lines, registry=registry)


def read_document(
    path: Path | str, *, overrides: Sequence[str] = (), output: Path | str | None = None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the keys of a config file, changed as asked, and "section.key" -> line number.

    Args:
        path: a YAML (or JSON) file.
        overrides: changes like "training.epochs=10", as given to ``--set``.
        output: another folder than the one in the file.

    Raises:
        ConfigError: the file cannot be read, or an override is not one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file: {error}") from error
    document, lines = _parse(text, str(path))
    for override in overrides:
        _override(document, override)
    if output is not None:
        document["output"] = str(output)
    document.setdefault("output", f"runs/{path.stem}")
    return document, lines


def read_config(
    document: Mapping[str, Any],
    *,
    name: str = "config",
    lines: Mapping[str, int] | None = None,
    registry: Registry | None = None,
) -> Config:
    """Turn the content of a config file into a `Config`.

    Args:
        document: the keys of the file.
        name: what to call the file in messages.
        lines: "section.key" -> line number, for messages.
        registry: if given, components and their options are checked too.

    Raises:
        ConfigError: a key or value is wrong.
        PluginError: with `registry`: there is no such component, or it lacks a package.
    """
    from epitaxy.options import check_options

    place = _Places(name, lines or {})
    for other, verb in SECTIONS_OF_OTHER_VERBS.items():
        if other in document:
            raise ConfigError(
                f"{place.of(other)}{other}: this file describes more than one training; it is "
                f"for `epitaxy {verb} {name}`"
            )
    with place.at(""):
        values = check_options("the config file", Config, _as_specs(document))
    for key, section in (("split", SplitOptions), ("training", TrainingOptions)):
        given = document.get(key)
        if given is None:
            values.pop(key, None)
            continue
        if not isinstance(given, Mapping):
            raise ConfigError(f"{place.of(key)}{key} must be a mapping of options, got {given!r}")
        with place.at(key):
            values[key] = section(**check_options(key, section, given))
    split = document.get("split") or {}
    if split.get("file") and len(split) > 1:
        others = ", ".join(k for k in split if k != "file")
        raise ConfigError(f"{place.of('split')}split: with a file, {others} cannot be given too")
    for key in ("valid", "test"):
        if values.get(key) is not None and (split.get("file") or split.get(key)):
            also = "file" if split.get("file") else key
            raise ConfigError(
                f"{place.of(key)}{key} is a dataset of its own, so split.{also} must not be given"
            )
    config = Config(**values)
    for key in ("valid", "test"):
        options = METHODS[config.split.method]
        if getattr(config, key) is not None and (key not in options or "train" in options):
            raise ConfigError(
                f"{place.of(key)}{key} is a dataset of its own, but split.method "
                f"{config.split.method} chooses that part itself"
            )
    if registry is not None:
        with place.at("model"):
            registry.resolve("model", config.model)
        with place.at("strategy"):
            registry.resolve("strategy", config.strategy)
    return config


def check_config(config: Config, registry: Registry) -> None:
    """Check everything that can be checked without reading data.

    Components, their options, optimizer, schedule, device and paths: a mistake shows at
    once and not after an hour.

    Raises:
        EpitaxyError: something is wrong; the message names it.
    """
    from epitaxy.run import Run

    registry.resolve("model", config.model)
    registry.resolve("strategy", config.strategy)
    _check_nested(config.strategy, registry)
    for key in ("dataset", "valid", "test"):
        value = getattr(config, key)
        if isinstance(value, Mapping):
            registry.resolve("source", value)
        elif isinstance(value, str) and not Path(value).exists():
            names = [offer.component.name for offer in registry.offers["source"]]
            if value not in names:
                close = difflib.get_close_matches(value, names, n=1)
                hint = f"; did you mean the source {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"{key}: there is no folder or file {value!r} in {Path.cwd()}, and no source "
                    f"of that name{hint}"
                )
    for file in config.split.files:
        if not Path(file).is_file():
            raise ConfigError(f"split: there is no file {file!r} in {Path.cwd()}")
    run = Run(config.output, seed=config.seed, device=config.device, dtype=config.dtype)
    if registry.find("model", config.model.use).component.needs:
        from epitaxy.training.optimizers import check_training

        check_training(config.training)
        run.torch_device()


def _check_nested(strategy: Spec, registry: Registry) -> None:
    resolved = registry.resolve("strategy", strategy)
    for value in resolved.options.values():
        if isinstance(value, Mapping) and isinstance(value.get("use"), str):
            _check_nested(Spec.from_config(value), registry)


def _as_specs(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leave sections to their own check, with its better messages."""
    return {key: value for key, value in document.items() if key not in ("split", "training")}


class _Places:
    """Adds file and line to the messages of a check."""

    def __init__(self, name: str, lines: Mapping[str, int]) -> None:
        self._name, self._lines = name, lines
        self._section = ""

    def at(self, section: str) -> _Places:
        self._section = section
        return self

    def of(self, key: str) -> str:
        number = self._lines.get(key)
        return f"{self._name}, line {number}: " if number else f"{self._name}: "

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, EpitaxyError):
            return
        placed = []
        for line in str(error).splitlines():
            found = re.search(r"(?:option |: )'?(\w+)[\w.]*'?", line.removeprefix(self._section))
            key = found.group(1) if found else ""
            path = f"{self._section}.{key}" if self._section else key
            placed.append(self.of(path if path in self._lines else self._section) + line)
        kept = ConfigError if isinstance(error, OptionError) else type(error)
        raise kept("\n".join(placed)) from None


class _Loader(yaml.SafeLoader):
    """YAML with numbers as everybody writes them: 1e-3 is a number, not a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the content of a YAML text and "section.key" -> line number."""
    lines: dict[str, int] = {}
    try:
        root = yaml.compose(text, Loader=_Loader)
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{name}{where}: not valid YAML: {problem}") from None
    if not isinstance(root, yaml.MappingNode) or not isinstance(document, dict):
        raise ConfigError(f"{name}: expected keys like 'dataset:' and 'model:', found none")

    def walk(node: yaml.MappingNode, prefix: str) -> None:
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            line = key.start_mark.line + 1
            if path in lines:
                raise ConfigError(
                    f"{name}, line {line}: {path} is given twice (first in line {lines[path]})"
                )
            lines[path] = line
            if isinstance(value, yaml.MappingNode):
                walk(value, f"{path}.")

    walk(root, "")
    return document, lines


def read_options(section: str, *, path: Path | str | None, overrides: Sequence[str]) -> Any:
    """Return one section of a config file, changed as asked; {} where there is no file.

    Args:
        section: its name, for example "publish".
        path: a YAML (or JSON) file, None for no file.
        overrides: changes like "url=https://...", as given to ``--set``.

    Raises:
        ConfigError: the file cannot be read or has no such section, or an override is not one.
    """
    document: dict[str, Any] = {section: {}}
    if path is not None:
        document, _ = read_document(path)
        if section not in document:
            raise ConfigError(f"{path} has no section '{section}:'")
    for override in overrides:
        _override(document, f"{section}.{override}")
    return document[section]


def _override(document: dict[str, Any], override: str) -> None:
    """Apply "section.key=value"; the value is read as YAML."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {override!r}: write it as section.key=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from None
    *sections, key = path.strip().split(".")
    target = document
    for section in sections:
        inner = target.get(section)
        if isinstance(inner, str):  # `model: painn` is short for `model: {use: painn}`
            inner = {"use": inner}
        elif inner is None:
            inner = {}
        elif not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {section} is {inner!r}, which has no keys")
        target[section] = inner
        target = inner
    target[key] = value
