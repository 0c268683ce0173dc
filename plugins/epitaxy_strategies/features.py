"""Learn from what a trained parent has inside, computed once, instead of from structures.

Protocol: Chen, Ong, npj Comput. Mater. 7, 173 (2021): features of a parent at some depth are the
input of a small model. The parent is not changed. To train a new head on a parent's frozen body,
with its graphs, is the strategy `transfer` with ``mode: head``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epitaxy.errors import CapabilityError, OptionError
from epitaxy.models import build_model
from epitaxy.options import options_of
from epitaxy.spec import Spec
from epitaxy.strategies import refuses_early

if TYPE_CHECKING:
    from epitaxy.hierarchy import Parent
    from epitaxy.protocols import Model
    from epitaxy.run import Run
    from epitaxy.split import Split

FEATURIZER = "atomsets/parent_features"
FOLDER = "features"


def check_features(
    model: Spec,
    split: Split,
    *,
    run: Run,
    parent: str,
    level: str,
    cache: Path | None = None,
    control: bool | None = None,
) -> frozenset[int]:
    """Check parent, level, elements and model; arguments and errors as `features`."""
    if parent in run.planned:
        folder = Path(cache) if cache is not None else run.directory / FOLDER
        with_features(model, run, parent=parent, level=level, cache=folder)
    else:
        _prepared(model, split, run, parent=parent, level=level, cache=cache)
    return frozenset()


@refuses_early(check_features)
def features(
    model: Spec,
    split: Split,
    *,
    run: Run,
    parent: str,
    level: str,
    cache: Path | None = None,
    control: bool | None = None,
) -> Model:
    """Train a model on the features of a parent.

    The model is one that takes the options `parent` and `level` (atomsets), or one of tables that
    takes `features` (random_forest, gradient_boosting, mlp ...): there atoms are averaged.

    Args:
        model: the recipe; what it says about parent, level or features is filled in here.
        split: training and validation parts; the test part is not touched.
        run: seeds, options, directory.
        parent: folder of the parent's artifact: any trained network with features.
        level: V0 (elements), V1 ... (atoms after so many layers), u1 ..., v_r, f; V0-stats too for
            atomsets. A parent without the level is refused, with those it has.
        cache: folder where features are kept, for any run that asks for the same structures; by
            default "features" in the run's folder.
        control: whether the model is also trained as it was given, without the parent, with an
            equal budget, in the folder "control"; None does so between different properties.

    Raises:
        ArtifactError: the parent cannot be read.
        CapabilityError: the parent lacks the level or an element, or the model cannot use it.
        OptionError: the model names another parent.
    """
    from epitaxy.hierarchy import hierarchical_features

    known, built, folder = _prepared(model, split, run, parent=parent, level=level, cache=cache)
    atoms = level.removesuffix("-stats")
    same = _tell(known, built, split, run)
    if atoms != "V0":
        for part in (split.train, split.valid):
            hierarchical_features(known, part, levels=[atoms], cache=folder, tell=run.progress.note)
    lineage: dict[str, Any] = {
        "parent": str(parent),
        "parent_sha256": known.digest,
        "level": level,
        "strategy": "features",
    }
    if control if control is not None else not same:
        lineage["control"] = _control(model, split, run)
    metrics = built.fit(split.train, split.valid, run=run)
    if "control" in lineage:
        name = f"valid_{run.training.validation_metric}"
        lineage["control"]["with_parent"] = metrics.get(name)
    built.lineage = lineage  # type: ignore[attr-defined]
    return built


def _prepared(
    model: Spec, split: Split, run: Run, *, parent: str, level: str, cache: Path | None
) -> tuple[Parent, Model, Path]:
    """Return the parent, the untrained model that reads it, and the folder of the features."""
    from epitaxy.hierarchy import Parent

    known = Parent.open(Path(parent), registry=run.registry)
    folder = Path(cache) if cache is not None else run.directory / FOLDER
    filled = with_features(model, run, parent=parent, level=level, cache=folder)
    atoms = level.removesuffix("-stats")
    known.level(atoms)
    if atoms != "V0":  # there the model says what it does about elements that the parent lacks
        for part in (split.train, split.valid):
            known.check(part, [atoms])
    built = build_model(filled, run.registry)
    if hasattr(built, "check_data"):
        built.check_data(split.train, split.valid, run=run)
    return known, built, folder


def with_features(model: Spec, run: Run, *, parent: str, level: str, cache: Path) -> Spec:
    """Return the recipe with the options that make a model read the parent.

    Raises:
        CapabilityError: the model has no such options.
        OptionError: it names another parent or level.
    """
    target = run.registry.load("model", model.use)
    names = {option.name for option in options_of(target)}
    given: Mapping[str, Any] = model.options
    if {"parent", "level"} <= names:
        for name, value in (("parent", parent), ("level", level)):
            if given.get(name) not in (None, value):
                raise OptionError(
                    f"model {model.use!r} has {name}: {given[name]}, the strategy {value}: give it "
                    f"to the strategy only"
                )
        own = {"cache": str(cache)} if "cache" in names else {}
        return model.replace(parent=str(parent), level=level, **own)
    if "features" in names:
        featurizer = {"use": FEATURIZER, "parent": str(parent), "level": level, "cache": str(cache)}
        return model.replace(features=featurizer)
    raise CapabilityError(
        f"model {model.use!r} cannot read the features of a parent: take atomsets or a model of "
        f"tables (random_forest, mlp ...); a new head on the parent's body is the strategy "
        f"transfer with mode: head"
    )


def _control(model: Spec, split: Split, run: Run) -> dict[str, Any]:
    run.progress.note("control: the same model without the parent, with an equal budget")
    name = f"valid_{run.training.validation_metric}"
    plain = build_model(model, run.registry)
    metrics = plain.fit(split.train, split.valid, run=run.child("control"))
    return {"without_parent": metrics.get(name)}


def _tell(parent: Parent, model: Model, split: Split, run: Run) -> bool:
    """Say what parent and child learn; return whether the property is the same."""
    theirs = parent.model.capabilities.targets
    ours = model.capabilities.targets or split.train.targets
    same = any(name in theirs for name in ours)
    if not same:
        run.progress.note(
            f"the parent predicts {', '.join(theirs)}, here {', '.join(ours)} is learnt: compare "
            f"with the control"
        )
    return same
