"""Which model a benchmark trains: a name, a recipe, or the config file of a training."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from epitaxy.config import Config, read_config
from epitaxy.errors import ConfigError
from epitaxy.options import options_of
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from epitaxy.registry import Registry

KEYS = ("model", "strategy", "training", "seed", "device", "dtype")
"""Keys of a config file that a benchmark uses; it brings its own data and folds."""


def read_model(text: str, *, overrides: Sequence[str] = (), registry: Registry) -> Config:
    """Return model, strategy and training options.

    Args:
        text: path of a config file (its data, split and output are not used), or the recipe of
            the model: "random_forest", "{use: random_forest, n_trees: 500}".
        overrides: changes such as "training.epochs=10" or "model.n_trees=500".
        registry: where components are checked.

    Raises:
        ConfigError: the file or a key is wrong.
        PluginError: there is no such component, or it lacks a package.
    """
    path = Path(text)
    is_file = path.suffix in (".yaml", ".yml", ".json")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8") if is_file else text)
    except OSError as error:
        raise ConfigError(f"--model {text}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--model {text!r} is no YAML: {error}") from None
    document = found if is_file else {"model": found}
    if not isinstance(document, dict) or not document.get("model"):
        raise ConfigError(f"--model {text}: names no model; write NAME, {{use: NAME, ...}} or FILE")
    used = {key: value for key, value in document.items() if key in KEYS}
    for override in overrides:
        _change(used, override)
    name = str(path) if is_file else "--model"
    return read_config({**used, "dataset": "matbench"}, name=name, registry=registry)


def for_quantity(spec: Spec, quantity: str, registry: Registry) -> Spec:
    """Return the recipe that predicts a quantity: a bare network gets a head, targets are named."""
    target = registry.load("model", spec.use)
    torch = sys.modules.get("torch")
    if torch is not None and inspect.isclass(target) and issubclass(target, torch.nn.Module):
        return Spec("property", {"body": spec.to_config(), "targets": [quantity]})
    takes_targets = any(option.name == "targets" for option in options_of(target))
    if takes_targets and not spec.options.get("targets"):
        return spec.replace(targets=[quantity])
    return spec


def _change(document: dict[str, Any], override: str) -> None:
    """Apply "section.key=value"; the value is read as YAML."""
    place, equals, text = override.partition("=")
    *sections, key = place.strip().split(".")
    if not equals or not key or (sections or [key])[0] not in KEYS:
        raise ConfigError(
            f"--set {override!r}: write KEY=VALUE, KEY beginning with one of {', '.join(KEYS)}"
        )
    target = document
    for section in sections:
        inner = target.get(section) or {}
        inner = {"use": inner} if isinstance(inner, str) else inner
        if not isinstance(inner, Mapping):
            raise ConfigError(f"--set {override!r}: {section} is {inner!r}, which has no keys")
        target[section] = dict(inner)
        target = target[section]
    target[key] = yaml.safe_load(text)
