"""Arrays and facts of a model in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epitaxy.errors import ArtifactError

FILE_NAME = "weights.safetensors"


def write_arrays(
    directory: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Write arrays, and plain facts as text in the header.

    Raises:
        ArtifactError: the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = directory / FILE_NAME
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        save_file(plain, path, metadata={"model": json.dumps(facts)})
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"the model cannot be written to {path}: {error}") from error


def read_arrays(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the facts and the arrays that `write_arrays` wrote.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / FILE_NAME
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})["model"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); the file is missing, cut "
            f"short or not written by epitaxy: copy the model again"
        ) from error
    return facts, arrays
