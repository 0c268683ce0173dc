"""What the plugin of graph networks provides."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_models() -> list[Component]:
    """Offer the graph networks."""
    return [
        Component(
            name="painn",
            target="epitaxy_graphs.painn:PaiNN",
            summary="PaiNN: equivariant messages of scalars and vectors (Schütt 2021)",
            needs=("torch", "pymatgen", "safetensors"),
            extra="graphs",
        ),
        Component(
            name="schnet",
            target="epitaxy_graphs.schnet:SchNet",
            summary="SchNet: continuous-filter convolutions over distances (Schütt 2017)",
            needs=("torch", "pymatgen", "safetensors"),
            extra="graphs",
        ),
        Component(
            name="property",
            target="epitaxy.property_model:PropertyModel",
            summary="any targets, with heads per dataset or level of theory, on any network here",
            needs=("torch", "pymatgen", "safetensors"),
            extra="graphs",
            example={"body": {"use": "painn", "width": 16, "n_layers": 1}, "targets": ["energy"]},
        ),
    ]
