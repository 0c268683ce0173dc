"""What the plugin of AtomSets provides."""

from epitaxy import Component, hookimpl

_NEEDS = ("torch", "pymatgen", "safetensors")


@hookimpl
def provide_models() -> list[Component]:
    """Offer AtomSets."""
    return [
        Component(
            name="atomsets",
            target="epitaxy_atomsets.model:AtomSets",
            summary="AtomSets: sets of atoms or elements, with a parent's features (Chen 2021)",
            needs=_NEEDS,
            extra="graphs",
            example={"targets": ["energy"]},
        )
    ]


@hookimpl
def provide_featurizers() -> list[Component]:
    """Offer a parent's features to models of tables."""
    return [
        Component(
            name="parent_features",
            target="epitaxy_atomsets.featurizer:ParentFeatures",
            summary="features of one depth of a trained parent, averaged over the atoms",
            needs=_NEEDS,
            extra="graphs",
            example={"parent": "parent", "level": "V0"},
        )
    ]
