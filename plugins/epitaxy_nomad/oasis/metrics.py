"""Errors and calibration of a model, from the metrics of its manifest."""

from __future__ import annotations

from epitaxy.errors import DataError
from epitaxy.quantities import quantity
from epitaxy_nomad.oasis.facts import Facts
from epitaxy_nomad.oasis.model import (
    GroupErrors,
    ModelEvaluation,
    PredictedTarget,
    TrainedModel,
    UncertaintyCalibration,
)

SETS = ("test", "valid")
ERRORS = ("mae", "rmse")
CALIBRATIONS = ("error_std_ratio", "rank_correlation")
MAX_EVALUATIONS = 100
"""Errors that become sections of their own; all stand in the scalars of their quantity."""


def fill_metrics(model: TrainedModel, facts: Facts) -> None:
    """Fill errors, calibration and their summary."""
    sets = facts.section("metrics")
    targets = {target.name: target for target in model.targets}
    for target in model.targets:
        target.error_unit, target.per = _units(target)
    for name in sets:
        numbers = sets.section(name)
        n_structures = numbers.whole("n_structures")
        for key in numbers:
            if key in ("n_structures", "by_group"):
                continue
            value = numbers.number(key)
            found, _, kind = _key(key, targets)
            if value is None:
                continue
            target = targets.get(found)
            if target is not None and kind in ERRORS and name in SETS:
                setattr(target, f"{name}_{kind}", value)
            if kind not in CALIBRATIONS and len(model.evaluations) < MAX_EVALUATIONS:
                model.evaluations.append(
                    ModelEvaluation(
                        metric_name=kind.upper() if kind in ERRORS else key,
                        metric_value=value,
                        dataset_split=name,
                        target=found or None,
                        unit=None if target is None else target.error_unit,
                        n_structures=n_structures,
                    )
                )
        _calibrations(model, targets, name, numbers)
        _groups(model, targets, name, numbers)
    _summarise(model)


def _key(key: str, targets: dict[str, PredictedTarget]) -> tuple[str, str, str]:
    """Return (target, "_", kind) of a key as energy_mae; no target where it is none of ours."""
    for kind in (*ERRORS, *CALIBRATIONS):
        if key.endswith(f"_{kind}") and key.removesuffix(f"_{kind}") in targets:
            return key.removesuffix(f"_{kind}"), "_", kind
    return "", "", key


def _units(target: PredictedTarget) -> tuple[str | None, str | None]:
    """Return unit of the errors and what has one value (structure or atom)."""
    try:
        rule = quantity(target.name)
    except DataError:  # of a newer epitaxy than the server's
        return target.unit, None
    is_sum = rule.extensive and rule.per == "structure"
    return (f"{rule.unit}/atom" if is_sum else rule.unit), rule.per


def _calibrations(
    model: TrainedModel, targets: dict[str, PredictedTarget], name: str, numbers: Facts
) -> None:
    for target in targets:
        keys = [f"{target}_{kind}" for kind in CALIBRATIONS]
        if any(key in numbers for key in keys):
            ratio, rank = (numbers.number(key) for key in keys)
            model.calibrations.append(
                UncertaintyCalibration(
                    target=target, dataset_split=name, error_std_ratio=ratio, rank_correlation=rank
                )
            )


def _groups(
    model: TrainedModel, targets: dict[str, PredictedTarget], name: str, numbers: Facts
) -> None:
    groups = numbers.section("by_group")
    rows = [
        (group, target, targets[target].error_unit or "", *errors)
        for group in groups
        for target in targets
        if None
        not in (errors := [groups.section(group).number(f"{target}_{kind}") for kind in ERRORS])
    ]
    if rows:
        words, names, units, mae, rmse = (list(column) for column in zip(*rows, strict=True))
        model.group_errors.append(
            GroupErrors(
                dataset_split=name, groups=words, targets=names, units=units, mae=mae, rmse=rmse
            )
        )


def _summarise(model: TrainedModel) -> None:
    """Set the scalars that a search filters by."""
    for name in SETS:
        known = [t for t in model.targets if getattr(t, f"{name}_mae") is not None]
        if not known:
            continue
        main = known[0]
        model.main_target, model.main_error_split = main.name, name
        model.main_error, model.main_error_unit = getattr(main, f"{name}_mae"), main.error_unit
        errors = {target.name: getattr(target, f"{name}_mae") for target in known}
        model.energy_error, model.force_error = errors.get("energy"), errors.get("forces")
        for calibration in model.calibrations:
            if (calibration.target, calibration.dataset_split) == (main.name, name):
                model.error_std_ratio = calibration.error_std_ratio
        return
    if model.targets:
        model.main_target = model.targets[0].name
