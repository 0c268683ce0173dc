"""What the plugin of composition features and table models provides."""

from epitaxy import Component, hookimpl

_MODELS = (
    ("random_forest", "forest:random_forest", "random forest, with the spread of its trees"),
    (
        "gradient_boosting",
        "boosting:gradient_boosting",
        "gradient boosted trees on histograms, stopped by the validation set",
    ),
    ("mlp", "perceptron:mlp", "multilayer perceptron on standardised features"),
    ("linear", "linear:linear", "ridge regression; logistic regression for claims"),
    ("dummy", "constant:dummy", "mean of the training set: what any model must beat"),
)
_NEEDS = ("sklearn", "pymatgen", "safetensors")


@hookimpl
def provide_featurizers() -> list[Component]:
    """Offer the features of compositions."""
    return [
        Component(
            name="element_fractions",
            target="epitaxy_tabular.featurizers:ElementFractions",
            summary="fraction of each element (one-hot, weighted by composition)",
        ),
        Component(
            name="element_statistics",
            target="epitaxy_tabular.featurizers:ElementStatistics",
            summary="mean, deviation, range, extremes and mode of 27 properties of the elements",
            needs=("pymatgen",),
            extra="tabular",
        ),
    ]


@hookimpl
def provide_models() -> list[Component]:
    """Offer scikit-learn's models on the features of any featurizer."""
    return [
        Component(
            name=name,
            target=f"epitaxy_tabular.{target}",
            summary=summary,
            needs=_NEEDS,
            extra="tabular",
            example={"features": "element_fractions"},
        )
        for name, target, summary in _MODELS
    ]
