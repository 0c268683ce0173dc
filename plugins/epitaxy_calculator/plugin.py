"""What the calculator plugin provides."""

from __future__ import annotations

from epitaxy import Component, hookimpl

_NEEDS = ("torch", "pymatgen", "safetensors")
_VERB_NEEDS = (*_NEEDS, "matplotlib")  # found missing before the work, not after it


@hookimpl
def provide_calculators() -> list[Component]:
    """Offer the calculator of trained potentials."""
    return [
        Component(
            name="potential",
            target="epitaxy_calculator.calculator:PotentialCalculator",
            summary="energy, forces, stress and error bar of a trained potential or ensemble",
            needs=_NEEDS,
            extra="calculator",
        )
    ]


@hookimpl
def provide_commands() -> list[Component]:
    """Offer the verbs that use a trained potential."""
    return [
        Component(
            name="relax",
            target="epitaxy_calculator.relax",
            summary="relax atoms, and the cell if asked",
            needs=_VERB_NEEDS,
            extra="calculator",
        ),
        Component(
            name="md",
            target="epitaxy_calculator.md",
            summary="run molecular dynamics with an error bar",
            needs=_VERB_NEEDS,
            extra="calculator",
        ),
        Component(
            name="eos",
            target="epitaxy_calculator.eos",
            summary="equation of state: equilibrium volume and bulk modulus",
            needs=_VERB_NEEDS,
            extra="calculator",
        ),
        Component(
            name="predict",
            target="epitaxy_calculator.predict",
            summary="energies, forces and stresses of structures in files",
            needs=_VERB_NEEDS,
            extra="calculator",
        ),
    ]
