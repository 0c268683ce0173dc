"""What the plugin of strategies provides."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_strategies() -> list[Component]:
    """Offer the ways to train that need nothing but a model and a split."""
    return [
        Component(
            name="direct",
            target="epitaxy_strategies.direct:direct",
            summary="train one model from random weights",
        ),
        Component(
            name="ensemble",
            target="epitaxy_strategies.ensemble:ensemble",
            summary="train several models that differ in their seeds, for error bars",
        ),
        Component(
            name="transfer",
            target="epitaxy_strategies.transfer:transfer",
            summary="begin with the weights of a trained parent: full, head, layers or adapters",
            needs=("torch",),
            extra="graphs",
            example={"parent": "runs/parent/artifact"},
        ),
        Component(
            name="delta",
            target="epitaxy_strategies.delta:delta",
            summary="learn the difference to a parent of a lower level; the result is the sum",
            needs=("torch",),
            extra="graphs",
            example={"parent": "runs/parent/artifact"},
        ),
        Component(
            name="features",
            target="epitaxy_strategies.features:features",
            summary="learn from the inner features of a trained parent, computed once",
            needs=("torch",),
            extra="graphs",
            example={"parent": "parent", "level": "V1"},
        ),
    ]
