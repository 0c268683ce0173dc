"""What the plugin of graph networks provides."""

from epitaxy import Component, hookimpl

_NETWORKS = (
    ("painn", "painn:PaiNN", "PaiNN: equivariant messages of scalars and vectors (Schütt 2021)"),
    ("schnet", "schnet:SchNet", "SchNet: continuous-filter convolutions (Schütt 2017)"),
    ("egnn", "egnn:EGNN", "EGNN: messages learnt from both atoms and distance (Satorras 2021)"),
    ("pna", "pna:PNA", "PNA: mean, deviation, soft extremes of messages (after Corso 2020)"),
    ("pna-published", "pna:PublishedPNA", "PNA with the published aggregators (Corso 2020)"),
    ("cgcnn", "cgcnn:CGCNN", "CGCNN: gated convolutions on nearest neighbors (Xie 2018)"),
    ("megnet", "megnet:MEGNet", "MEGNet: edges, atoms and a global state (Chen 2019)"),
    ("mpeu", "mpeu:MPEU", "MPEU: messages with edge updates (Jørgensen 2018, Speckhard 2024)"),
    ("cgat", "cgat:CGAT", "CGAT: attention over neighbor shells, no distances (Schmidt 2021)"),
    ("roost", "roost:Roost", "ROOST: attention over a composition, no structure (Goodall 2020)"),
)
_EXAMPLES: dict[str, dict[str, object]] = {
    "cgat": {
        "width": 12,
        "edge_width": 10,
        "n_layers": 3,
        "n_heads": 2,
        "head_widths": [24, 12],
        "cutoff": 6.0,
    },
    "roost": {"width": 12, "n_layers": 2, "hidden": 16},
}
_NEEDS = ("torch", "pymatgen", "safetensors")


@hookimpl
def provide_models() -> list[Component]:
    """Offer the graph networks."""
    networks = [
        Component(
            name=name,
            target=f"epitaxy_graphs.{target}",
            summary=summary,
            needs=_NEEDS,
            extra="graphs",
            example=_EXAMPLES.get(name, {}),
        )
        for name, target, summary in _NETWORKS
    ]
    return [
        *networks,
        Component(
            name="property",
            target="epitaxy.property_model:PropertyModel",
            summary="any targets, with heads per dataset or level of theory, on any network here",
            needs=_NEEDS,
            extra="graphs",
            example={"body": {"use": "painn", "width": 16, "n_layers": 1}, "targets": ["energy"]},
        ),
    ]


@hookimpl
def provide_commands() -> list[Component]:
    """Offer the verb that reads published weights."""
    return [
        Component(
            name="convert",
            target="epitaxy_graphs.convert",
            summary="make an artifact of published weights (Keras MEGNet)",
            needs=(*_NEEDS, "h5py"),
            extra="keras",
        )
    ]
