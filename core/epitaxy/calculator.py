"""`load`: the ASE calculator of a trained model, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.registry import Registry

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from epitaxy.artifact import Artifact
    from epitaxy.spec import Spec


def load(
    path_or_artifact: str | Path | Artifact,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    calculator: str | Mapping[str, Any] | Spec = "potential",
    registry: Registry | None = None,
) -> Calculator:
    """Return the ASE calculator of a trained model.

        from epitaxy.calculator import load

        atoms.calc = load("runs/si/artifact")
        atoms.get_forces()
        atoms.calc.results["forces_std"]  # if the model is an ensemble

    Args:
        path_or_artifact: folder of an artifact (see `epitaxy.artifact`), or a loaded one.
        device: torch device, "cpu" or "cuda".
        dtype: "float32" or "float64"; None keeps that of the trained weights.
        calculator: which calculator of which plugin, and its options, for example
            ``{"use": "potential", "skin": 1.0}``.
        registry: the plugins to look in; those installed if None.

    Raises:
        ArtifactError: the folder holds no readable artifact.
        CapabilityError: the model gives no energies or forces.
        UnknownComponentError: no plugin has a calculator of that name.
        OptionError: the calculator has no such option.
    """
    plugins = registry or Registry.from_entry_points()
    make = plugins.build("calculator", calculator)
    built: Calculator = make(path_or_artifact, device=device, dtype=dtype)
    return built
