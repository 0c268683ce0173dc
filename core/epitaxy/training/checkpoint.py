"""The whole state of a training in one file, without pickle.

A checkpoint is a safetensors file: tensors as tensors, everything else as JSON in the file's
metadata, with references to the tensors. One file, written to the side and renamed, is either
the old state or the new one, whenever the process dies.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from epitaxy.errors import TrainingError

FILE_NAME = "checkpoint.safetensors"
FORMAT = "epitaxy-checkpoint"
VERSION = 1

_TENSOR, _TUPLE, _MAPPING = "$tensor", "$tuple", "$mapping"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state: nested mappings, lists and tuples of plain values and tensors.

    Raises:
        TrainingError: the state holds something else, or the disk refuses to take the file; the
            old checkpoint is still there.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_encode(state, tensors, "state"))
    metadata = {"format": FORMAT, "version": str(VERSION), "tree": tree}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata=metadata)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"cannot write the checkpoint {path}: {error}; an older one, if any, is untouched"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, to the bit.

    Raises:
        TrainingError: the file is damaged, no checkpoint, or of a newer format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies, because tensors in the middle of a file are not aligned as others are, and
            # vectorised sums differ in their last bits with the alignment.
            tensors = {
                name: file.get_tensor(name).clone()
                for name in file.keys()  # noqa: SIM118
            }
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"cannot read the checkpoint {path}: {error}; delete it to train from the start"
        ) from error
    if metadata.get("format") != FORMAT:
        raise TrainingError(f"{path} is not a checkpoint of epitaxy")
    if int(metadata["version"]) > VERSION:
        raise TrainingError(
            f"{path} has checkpoint format {metadata['version']}, this epitaxy reads up to "
            f"{VERSION}: update epitaxy, or train from the start in another folder"
        )
    state = _decode(json.loads(metadata["tree"]), tensors)
    assert isinstance(state, dict)
    return state


def _encode(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, Tensor):
        # A copy: two names of one storage, or a view, are not allowed in the file.
        tensors[where] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: where}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(v, tensors, f"{where}.{i}") for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(v, tensors, f"{where}.{i}") for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        # As pairs, because the state of an optimizer has whole numbers as keys.
        pairs = [[_key(k), _encode(v, tensors, f"{where}.{k}")] for k, v in value.items()]
        return {_MAPPING: pairs}
    raise TrainingError(
        f"a checkpoint cannot hold {where} = {value!r} of type {type(value).__name__}; this "
        f"optimizer or schedule cannot be resumed"
    )


def _key(key: Any) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
    raise TrainingError(f"a checkpoint cannot hold the key {key!r} of type {type(key).__name__}")


def _decode(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == _TENSOR:
        return tensors[content]
    if kind == _TUPLE:
        return tuple(_decode(value, tensors) for value in content)
    return {key: _decode(value, tensors) for key, value in content}


def random_state() -> dict[str, Any]:
    """Return the state of the global random generators of torch, numpy and Python."""
    name, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(tuple(state["numpy"]))
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
