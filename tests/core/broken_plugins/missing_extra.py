"""Offers a model whose package is not installed, and breaks no rule with that."""

from epitaxy import Component, hookimpl


@hookimpl
def provide_models() -> list[Component]:
    """Offer models that need something."""
    target = "missing_extra:Model"
    return [
        Component(
            name="wants-extra",
            target=target,
            summary="needs a package of an extra",
            needs=("package_that_is_not_there",),
            extra="gpu",
        ),
        Component(
            name="wants-dependency",
            target=target,
            summary="needs a package of its own distribution",
            needs=("package_that_is_not_there.submodule",),
        ),
        Component(
            name="wants-silently",
            target="missing_extra_model:Model",
            summary="needs a package and does not say so",
        ),
    ]
