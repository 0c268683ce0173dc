"""Tensors of a model in one safetensors file, with the facts to rebuild it in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from epitaxy.errors import ArtifactError

WEIGHTS = "weights.safetensors"


def write_weights(directory: Path, module: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write all tensors of a module, and plain facts as text in the header.

    Raises:
        ArtifactError: the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in module.state_dict().items()
    }
    path = Path(directory) / WEIGHTS
    try:
        save_file(tensors, path, metadata={"model": json.dumps(facts)})
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"the weights cannot be written to {path}: {error}") from error


def read_weights(directory: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the facts and the tensors that `write_weights` wrote.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(directory) / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["model"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); the file is missing, "
            f"cut short or not written by epitaxy: copy the model again"
        ) from error
    return facts, tensors


def fill(module: nn.Module, tensors: Mapping[str, torch.Tensor], *, title: str) -> None:
    """Load tensors into a module.

    Args:
        module: has exactly these tensors.
        tensors: what `read_weights` returned.
        title: what an error calls the model.

    Raises:
        ArtifactError: names or shapes differ.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ArtifactError(
            f"weights do not fit {title}: {error}; install the version of its plugin that wrote "
            f"the file"
        ) from error
