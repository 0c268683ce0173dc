"""From whatever a user has in hand to the potentials that a calculator evaluates."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from epitaxy.errors import CapabilityError, ConfigError
from epitaxy.potential import Potential

if TYPE_CHECKING:
    from epitaxy.artifact import Artifact

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The potentials of a calculator, ready to be evaluated.

    Attributes:
        potentials: one, or several for an ensemble; in evaluation mode on the device.
        elements: atomic numbers that all of them know.
        cutoff: the largest of their cutoffs, Å.
        dtype: of the networks.
        device: where they are.
        path: folder they were loaded from; None if they were given in memory.
        digest: sha256 of the artifact's manifest, which holds those of all files; "" without.
    """

    potentials: tuple[Potential, ...]
    elements: frozenset[int]
    cutoff: float
    dtype: torch.dtype
    device: torch.device
    path: Path | None = None
    digest: str = ""


def load_members(
    source: str | Path | Artifact | Potential | Sequence[Potential] | object,
    *,
    device: str = "cpu",
    dtype: str | None = None,
) -> Members:
    """Return the potentials of an artifact, a model or a list of potentials.

    Args:
        source: folder of an artifact, a loaded artifact, a trained model, or potentials.
        device: torch device.
        dtype: "float32" or "float64"; None keeps that of the weights.

    Raises:
        ArtifactError: the folder holds no readable artifact.
        CapabilityError: the model has no potential, so it has no forces.
        ConfigError: unknown dtype, or a device that is not there.
    """
    model, artifact = _model(source)
    target = _device(device)
    found = _potentials(model)
    if not isinstance(source, str | Path):
        # The caller may go on training what it gave: the calculator keeps its own weights.
        found = copy.deepcopy(found)
    wanted = _dtype(dtype, found)
    potentials = tuple(_prepared(potential, target, wanted) for potential in found)
    return Members(
        potentials=potentials,
        elements=frozenset.intersection(*(frozenset(p.elements) for p in potentials)),
        cutoff=max(float(p.cutoff) for p in potentials),
        dtype=wanted,
        device=target,
        path=Path(artifact.path).resolve() if artifact else None,
        digest=str(artifact.manifest["manifest_sha256"]) if artifact else "",
    )


def _model(source: object) -> tuple[object, Artifact | None]:
    """Return the model and the artifact that it belongs to, if any."""
    if isinstance(source, Potential | list | tuple):
        return source, None
    from epitaxy.artifact import Artifact, load_artifact

    artifact = load_artifact(source) if isinstance(source, str | Path) else source
    if isinstance(artifact, Artifact):
        return artifact.model, artifact
    return source, None


def _potentials(model: object) -> tuple[Potential, ...]:
    if isinstance(model, Potential):
        return (model,)
    members: Any = model if isinstance(model, list | tuple) else getattr(model, "members", None)
    if members:
        return tuple(p for member in members for p in _potentials(member))
    potential = getattr(model, "potential", None)
    if isinstance(potential, Potential):
        return (potential,)
    raise CapabilityError(
        f"a {type(model).__name__} has no potential, so it gives no forces: the calculator needs "
        f"a graph network trained on energies and forces, or an ensemble of them"
    )


def _prepared(potential: Potential, device: torch.device, dtype: torch.dtype) -> Potential:
    potential.to(device=device, dtype=dtype)
    potential.eval()
    potential.requires_grad_(False)
    return potential


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}: {error}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} is not there (torch sees no GPU); use device='cpu'")
    return device


def _dtype(name: str | None, potentials: Sequence[Potential]) -> torch.dtype:
    if name is None:
        return potentials[0].dtype
    if name not in DTYPES:
        raise ConfigError(f"dtype is {name!r}; allowed: {', '.join(DTYPES)}")
    return DTYPES[name]
