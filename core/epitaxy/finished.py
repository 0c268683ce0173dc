"""Finished trainings of a study: their numbers in one file each, and what these depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.errors import ConfigError
from epitaxy.experiment import write_text

if TYPE_CHECKING:
    from epitaxy.config import Config
    from epitaxy.registry import Registry

METRICS = "metrics.json"


def identity_of(
    config: Config, digests: Mapping[str, str], *, seed: int, registry: Registry
) -> str:
    """Return a digest of all that the numbers of a training depend on.

    Args:
        config: model, strategy and training.
        digests: what is learnt and tested -> its digest.
        seed: of the training.
        registry: the plugins, whose defaults count too.
    """
    specs = {
        "model": registry.resolve("model", config.model).to_config(),
        "strategy": registry.resolve("strategy", config.strategy).to_config(),
    }
    facts = {
        **specs,
        "parents": _parents(specs),
        "training": config.training.to_config(),
        "dtype": config.dtype,
        "seed": seed,
        **digests,
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read_finished(folder: Path, *, identity: str) -> dict[str, Any] | None:
    """Return the numbers of a training, or None if it is not finished.

    Args:
        folder: of the training.
        identity: that it would have now (`identity_of`).

    Raises:
        ConfigError: it was made with another config or other data, or cannot be read.
    """
    path = folder / METRICS
    try:
        numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): remove it") from error
    if numbers.get("identity") != identity:
        raise ConfigError(
            f"{path} was made with another config, data or parent: remove its folder to train "
            f"again, or choose another output folder with -o"
        )
    return numbers


def write_finished(folder: Path, numbers: Mapping[str, Any], *, identity: str) -> None:
    """Write the numbers of a training, which finishes it; its checkpoints go."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"identity": identity, **numbers}
    write_text(folder / METRICS, json.dumps(document, indent=1, default=str) + "\n")
    for left in folder.rglob("checkpoint.safetensors*"):
        left.unlink()


def _parents(value: object) -> list[str]:
    """Return the digests of the artifacts that options name by their folders."""
    if isinstance(value, Mapping):
        return [digest for inner in value.values() for digest in _parents(inner)]
    if isinstance(value, list | tuple):
        return [digest for inner in value for digest in _parents(inner)]
    if isinstance(value, str) and (Path(value) / "manifest.json").is_file():
        return [hashlib.sha256((Path(value) / "manifest.json").read_bytes()).hexdigest()]
    return []
