"""Which of the many names in files are our targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from epitaxy.curation.conventions import Conventions
from epitaxy.errors import DataError
from epitaxy.quantities import QUANTITIES, quantity

if TYPE_CHECKING:
    from ase import Atoms

ALIASES: Mapping[str, tuple[str, ...]] = {
    # Names that say "reference" come first: next to them, plain names may hold a model's
    # predictions. The free energy is what forces are derivatives of.
    "energy": (
        "REF_energy",
        "ref_energy",
        "dft_energy",
        "DFT_energy",
        "free_energy",
        "energy",
        "Energy",
        "total_energy",
        "TotEnergy",
        "potential_energy",
    ),
    "forces": (
        "REF_forces",
        "REF_force",
        "ref_forces",
        "dft_forces",
        "dft_force",
        "DFT_forces",
        "forces",
        "force",
        "Forces",
        "f",
    ),
    "stress": (
        "REF_stress",
        "ref_stress",
        "dft_stress",
        "DFT_stress",
        "stress",
        "stress_voigt",
        "Stress",
    ),
    "virial": (
        "REF_virial",
        "REF_virials",
        "ref_virial",
        "dft_virial",
        "DFT_virial",
        "virial",
        "virials",
        "virial_voigt",
        "Virial",
    ),
}
"""Target (or "virial") -> names under which it is found, best first."""

_SHOWN = 12  # keys named in a message
_VIRIAL = Conventions(stress_is_virial=True, stress_is_pressure=True)


def known_values(atoms: Atoms) -> dict[str, Any]:
    """Return everything that a frame carries: results, then per-atom arrays, then its facts."""
    values: dict[str, Any] = dict(atoms.info)
    builtin = ("numbers", "positions", "masses", "tags", "momenta")
    values.update({name: a for name, a in atoms.arrays.items() if name not in builtin})
    if atoms.calc is not None:
        # A reader's own results only: nothing is calculated here.
        values.update({k: v for k, v in atoms.calc.results.items() if v is not None})
    return values


def read_targets(
    atoms: Atoms, values: Mapping[str, Any], *, mapping: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return the targets of a frame, in the shapes of `epitaxy.quantities` where possible.

    Values of a wrong shape are returned as they are: the frame checks count and name them.

    Args:
        atoms: the frame.
        values: what it carries, from `known_values`.
        mapping: target (or "virial") -> the name in the file, where the usual names fail.

    Raises:
        DataError: `mapping` names an unknown quantity.
    """
    for name in mapping:
        if name != "virial":
            quantity(name)
    targets: dict[str, np.ndarray] = {}
    for name in (*QUANTITIES, "virial"):
        keys = (mapping[name],) if name in mapping else ALIASES.get(name, (name,))
        found = next((key for key in keys if key in values), None)
        if found is None:
            continue
        array = _numbers(values[found])
        if array is None:
            if name in mapping:
                raise DataError(f"{name}: {found!r} does not hold numbers: {values[found]!r}")
            continue
        targets[name] = array
    virial = targets.pop("virial", None)
    if "stress" in targets:
        targets["stress"] = _voigt(targets["stress"])
    elif virial is not None:
        volume = float(atoms.cell.volume) if all(atoms.pbc) else None
        if volume:
            stress = {"stress": _voigt(virial)}
            targets |= _VIRIAL.convert(stress, n_atoms=len(atoms), volume=volume)
    if "energy" in targets and targets["energy"].size == 1:
        targets["energy"] = targets["energy"].reshape(())
    for name in set(targets) - {"energy", "forces", "stress"} - set(mapping):
        # A name that happens to be a quantity's is taken only if its shape agrees.
        rule = QUANTITIES[name]
        shape = (len(atoms), *rule.shape) if rule.per == "atom" else rule.shape
        if targets[name].shape != shape:
            del targets[name]
    return targets


def explain_missing(values: Mapping[str, Any], name: str, *, mapping: Mapping[str, str]) -> str:
    """Return why a frame has no such target, what it has instead, and what to do."""
    keys = (mapping[name],) if name in mapping else ALIASES.get(name, (name,))
    found = next((key for key in keys if key in values), None)
    if found is not None:
        why = f"{found} = {str(values[found])[:40]!r} is not a number"
    else:
        why = f"no {name} under {keys[0] if name in mapping else 'a usual name'}"
    numeric = [key for key, value in values.items() if _numbers(value) is not None]
    seen = ", ".join(numeric[:_SHOWN]) + (" ..." if len(numeric) > _SHOWN else "")
    return (
        f"{why}; the frame has the numbers {seen or '(none)'}; where one of them is the {name}, "
        f'say so with --option "mapping={{{name}: NAME}}"'
    )


def _numbers(value: Any) -> np.ndarray | None:
    if isinstance(value, bool):
        return None
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _voigt(tensor: np.ndarray) -> np.ndarray:
    """Return six components in ASE's order from six or nine numbers."""
    if tensor.size != 9:
        return tensor.reshape(-1)
    full = tensor.reshape(3, 3)
    full = 0.5 * (full + full.T)
    six: np.ndarray = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return six
