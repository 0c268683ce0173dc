"""What this plugin offers. Targets are named as text: nothing is imported before it is used."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_models() -> list[Component]:
    """Offer the pair potential."""
    return [
        Component(
            name="pair-potential",
            target="epitaxy_rare_gas.pair_potential:PairPotential",
            summary="a pair potential whose shape is learnt",
            needs=("torch", "pymatgen", "safetensors"),
            extra="torch",
        )
    ]


@hookimpl
def provide_sources() -> list[Component]:
    """Offer the argon crystals."""
    return [
        Component(
            name="argon",
            target="epitaxy_rare_gas.argon:Argon",
            summary="strained, rattled fcc argon with Lennard-Jones energies, forces, stresses",
            example={"n_structures": 80},
        )
    ]
