"""Learn the difference between two levels of theory.

Source: Ramakrishnan, Dral, Rupp, von Lilienfeld, J. Chem. Theory Comput. 11, 2087 (2015), doi
10.1021/acs.jctc.5b00099.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from epitaxy.artifact import Artifact, load_artifact
from epitaxy.delta_model import (
    FROM_POTENTIAL,
    DeltaModel,
    potentials_of,
    predict_targets,
    select_branch,
)
from epitaxy.errors import CapabilityError, ConfigError, TrainingError
from epitaxy.models import build_model
from epitaxy.protocols import Predictions
from epitaxy.quantities import quantity
from epitaxy.references import Compositions, fit_references
from epitaxy.spec import Spec
from epitaxy.strategies import check_strategy, refuses_early
from epitaxy_strategies.ensemble import Part

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.protocols import Model
    from epitaxy.run import Run
    from epitaxy.split import Split

CACHE = "low.npz"


def check_delta(
    model: Spec,
    split: Split,
    *,
    run: Run,
    parent: str,
    branch: str | None = None,
    learner: Spec = Spec("direct"),  # noqa: B008 (frozen)
) -> frozenset[int]:
    """Check parent, targets, elements and learner; arguments and errors as `delta`.

    Returns:
        Elements that the model of the difference knows before it is trained.
    """
    if parent in run.planned:
        _check_learner(model, run, learner=learner)
    else:
        _low_and_names(model, split, run, parent=parent, branch=branch, learner=learner)
    return check_strategy(learner, model, split, run=run)


@refuses_early(check_delta)
def delta(
    model: Spec,
    split: Split,
    *,
    run: Run,
    parent: str,
    branch: str | None = None,
    learner: Spec = Spec("direct"),  # noqa: B008 (frozen)
) -> Model:
    """Train a model of the labels less what a parent predicts; the result predicts the sum.

    The artifact holds a copy of the parent, so it can be moved and used alone. If both are
    potentials, so is the sum: energies, forces and stress, in the calculator too. The two may
    have different cutoffs and be of different kinds.

    Args:
        model: the recipe of the model of the difference.
        split: training and validation parts; the test part is not touched.
        run: seeds, options, directory.
        parent: folder of an artifact that predicts the lower level; may be an ensemble.
        branch: of the parent, where it knows several levels of theory.
        learner: the strategy that trains the difference: direct, transfer ...

    Raises:
        ArtifactError: the parent cannot be read.
        CapabilityError: the parent lacks a target, an element or the branch.
        ConfigError: units differ, or `learner` is an ensemble.
        TrainingError: training cannot start or go on.
    """
    low, names = _low_and_names(model, split, run, parent=parent, branch=branch, learner=learner)
    functionals = _tell_levels(low, split.train, branch, run)
    known = _low_predictions(low, split, names, branch=branch, run=run)
    train, valid = (
        _less(dataset, known[part])
        for part, dataset in (("train", split.train), ("valid", split.valid))
    )
    alone = _parent_alone(split, known)
    if alone:
        run.progress.note(
            "on the validation part, the parent alone: "
            + ", ".join(f"{name} {value:.4g}" for name, value in alone.items())
        )
    digest = hashlib.sha256(f"{split.digest} less {_digest(low)} {branch}".encode()).hexdigest()
    strategy = run.registry.build("strategy", learner)
    trained = strategy(model, Part(train, valid, digest), run=run)
    return DeltaModel(
        low,
        trained,
        spec=run.registry.resolve("model", model),
        branch=branch,
        lineage={
            "parent": str(low.path),
            "parent_sha256": _digest(low),
            "branch": branch,
            "targets": list(names),
            "low": functionals[0],
            "high": functionals[1],
            "parent_alone": alone,
            "learner": run.registry.resolve("strategy", learner).to_config(),
            "difference": getattr(trained, "lineage", None),
        },
    )


def _low_and_names(
    model: Spec, split: Split, run: Run, *, parent: str, branch: str | None, learner: Spec
) -> tuple[Artifact, tuple[str, ...]]:
    """Return the parent and the targets whose difference is learnt, both checked."""
    built = _check_learner(model, run, learner=learner)
    low = load_artifact(Path(parent), registry=run.registry)
    select_branch(low.model, branch)
    names = _names(low, built, split.train)
    _check(low, split, names)
    return low, names


def _check_learner(model: Spec, run: Run, *, learner: Spec) -> Model:
    """Return the untrained model of the difference; raise what is wrong whatever the parent."""
    if learner.use.rpartition("/")[2] == "ensemble":
        raise ConfigError(
            "learner: for error bars put delta into the ensemble: strategy: {use: ensemble, "
            "member: {use: delta, parent: ...}}"
        )
    built = build_model(model, run.registry)
    _refuse_claims(_wanted(built))
    return built


def _wanted(model: Model) -> tuple[str, ...]:
    """Return what the model learns."""
    return tuple(getattr(model, "targets", ())) or model.capabilities.targets


def _refuse_claims(names: tuple[str, ...]) -> None:
    """Raise `CapabilityError` for claims (is_metal): they have no difference."""
    if claims := [name for name in names if quantity(name).is_claim]:
        raise CapabilityError(
            f"strategy 'delta': {', '.join(claims)} is a claim (0 or 1), and a difference of two "
            f"claims is no claim: leave it out of the targets, or use the strategy transfer or "
            f"features, which learn it with a parent"
        )


def _digest(low: Artifact) -> str:
    return str(low.manifest["manifest_sha256"])


def _names(low: Artifact, model: Model, train: Dataset) -> tuple[str, ...]:
    """Return the targets whose difference is learnt.

    Raises:
        CapabilityError: the model learns something that the parent does not predict.
    """
    given = set(low.model.capabilities.targets)
    if potentials_of(low.model):
        given |= set(FROM_POTENTIAL)
    wanted = _wanted(model)
    labelled = [name for name in wanted if name in train.targets]
    if missing := [name for name in labelled if name not in given]:
        raise CapabilityError(
            f"parent {low.path} predicts {', '.join(sorted(given))}, and the model is to learn "
            f"{', '.join(missing)}: a difference needs both; choose other targets, or another "
            f"parent"
        )
    names = tuple(name for name in train.targets if name in given and not quantity(name).is_claim)
    if not labelled or not names:
        raise CapabilityError(
            f"the training set has {', '.join(train.targets) or 'no labels'}, the model learns "
            f"{', '.join(wanted)}, the parent predicts {', '.join(sorted(given))}: no overlap"
        )
    return names


def _check(low: Artifact, split: Split, names: tuple[str, ...]) -> None:
    """Check units and elements before any work.

    Raises:
        ConfigError: a unit differs.
        CapabilityError: the parent does not know an element.
    """
    for name in names:
        unit = low.manifest["units"].get(name)
        if unit is not None and unit != quantity(name).unit:
            raise ConfigError(
                f"parent {low.path} gives {name} in {unit}, here it is in {quantity(name).unit}: "
                f"it was made by another version of epitaxy; train it again"
            )
    known = low.model.capabilities.elements
    if known is None:
        return
    for part in ("train", "valid", "test"):
        dataset = getattr(split, part, None)
        if dataset is not None and (unseen := sorted(dataset.elements - known)):
            raise CapabilityError(
                f"parent {low.path} has not seen {', '.join(chemical_symbols[z] for z in unseen)}, "
                f"which the {part} part has: drop the structures that hold them, or take another "
                f"parent"
            )


def _tell_levels(
    low: Artifact, train: Dataset, branch: str | None, run: Run
) -> tuple[list[str], list[str]]:
    """Say which levels of theory the difference is between; return both."""
    theirs = sorted(
        {str(m["xc_functional"]) for m in low.manifest.get("methods", ()) if m["xc_functional"]}
    )
    theirs = [branch] if branch in theirs else theirs
    ours = sorted({m.xc_functional for m in train.methods if m.xc_functional})
    if len(ours) > 1:
        run.progress.note(
            f"the labels are of several levels of theory ({', '.join(ours)}): one difference is "
            f"learnt for all of them; select one with `epitaxy clean`"
        )
    if ours and ours == theirs:
        run.progress.note(
            f"parent and labels are both of {', '.join(ours)}: what is learnt is the error of the "
            f"parent, not a difference of levels"
        )
    elif ours or theirs:
        run.progress.note(
            f"difference: {', '.join(ours) or 'unknown'} less {', '.join(theirs) or 'unknown'}"
        )
    return theirs, ours


def _low_predictions(
    low: Artifact, split: Split, names: tuple[str, ...], *, branch: str | None, run: Run
) -> dict[str, dict[str, np.ndarray]]:
    """Return part -> target -> what the parent predicts, kept in the run's folder.

    A resumed training must see the same labels to the last bit, which a second evaluation with
    another number of threads would not give.
    """
    facts = [_digest(low), branch, split.train.digest, split.valid.digest, *names]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()
    path = run.directory / CACHE
    parts = {"train": split.train, "valid": split.valid}
    if path.exists():
        with suppress(OSError, ValueError, KeyError), np.load(path) as file:
            if str(file["key"]) == key:
                return {part: {n: file[f"{part}.{n}"] for n in names} for part in parts}
    low_to = getattr(low.model, "to", None)
    if low_to is not None:
        low_to(device=run.torch_device())
    found = {part: predict_targets(low.model, dataset, names) for part, dataset in parts.items()}
    if low_to is not None:
        low_to(device="cpu")
    arrays = {f"{part}.{name}": v for part, each in found.items() for name, v in each.items()}
    side = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        run.directory.mkdir(parents=True, exist_ok=True)
        np.savez(side, key=np.array(key), **arrays)  # type: ignore[arg-type]
        side.replace(path)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        side.unlink(missing_ok=True)
    return found


def _less(dataset: Dataset, low: Mapping[str, np.ndarray]) -> Dataset:
    """Return a dataset whose labels are less by what the parent predicts; others are hidden."""
    for name in dataset.targets:
        values, mask = dataset.target(name)
        if name not in low:
            dataset = dataset.with_target(name, np.zeros_like(values), np.zeros_like(mask))
            continue
        rows = np.repeat(mask, dataset.n_atoms) if quantity(name).per == "atom" else mask
        rows = rows.reshape(-1, *[1] * (values.ndim - 1))
        difference = np.where(rows, values - low[name], 0.0)
        finite = np.isfinite(difference)
        if name == "stress":  # a structure that is not periodic has none
            mask = mask & finite.all(axis=tuple(range(1, finite.ndim)))
            difference = np.where(finite, difference, 0.0)
        elif not finite.all():
            raise TrainingError(
                f"the parent predicts a {name} that is not finite for some structure of the "
                f"training or validation part: drop far-off structures, or take another parent"
            )
        dataset = dataset.with_target(name, difference, mask)
    return dataset


def _parent_alone(split: Split, known: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Return the errors of the parent on the validation part, and with fitted element shifts."""
    from epitaxy.evaluation.metrics import evaluate

    if not len(split.valid):
        return {}
    evaluation = evaluate(Predictions(known["valid"]), split.valid)
    numbers: dict[str, Any] = {f"{n}_mae": e.mae for n, e in evaluation.errors.items()}
    if "energy" in evaluation.errors:
        values, mask = split.train.target("energy")
        rows = np.flatnonzero(mask)
        compositions = Compositions.of(split.train, rows)
        per_atom = (values - known["train"]["energy"])[rows] / compositions.n_atoms
        shifts = fit_references(compositions, per_atom).energies
        own = Compositions.of(split.valid)
        each = own.mean(np.array([shifts.get(int(z), 0.0) for z in own.elements]))
        shifted = known["valid"]["energy"] + each * own.n_atoms
        result = evaluate(Predictions({"energy": shifted}), split.valid)
        numbers["energy_mae_with_element_shifts"] = result.errors["energy"].mae
    return numbers
