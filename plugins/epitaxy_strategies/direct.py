"""Train one model on the training part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epitaxy.models import build_model

if TYPE_CHECKING:
    from epitaxy.protocols import Model
    from epitaxy.run import Run
    from epitaxy.spec import Spec
    from epitaxy.split import Split


def direct(model: Spec, split: Split, *, run: Run) -> Model:
    """Build the model and fit it; the validation part chooses the best weights.

    Args:
        model: the recipe.
        split: training and validation parts; the test part is not touched.
        run: seeds, options, directory.
    """
    built = build_model(model, run.registry)
    built.fit(split.train, split.valid, run=run)
    return built
