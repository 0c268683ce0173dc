"""The page that tells a person what a saved model is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epitaxy.quantities import QUANTITIES, readable_unit


def write_card(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the card of an artifact from its manifest."""
    path.write_text(card(manifest), encoding="utf-8")


def card(manifest: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    blocks = [
        _title(manifest),
        _what(manifest),
        _learnt_from(manifest),
        _how_good(manifest),
        _limits(manifest),
        _use(manifest),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _title(manifest: Mapping[str, Any]) -> str:
    elements = "-".join(manifest["elements"]) or "untrained"
    kind = _short(manifest["spec"]["use"])
    if manifest["kind"] == "ensemble":
        kind = f"ensemble of {manifest['n_members']} {kind}"
    if manifest["kind"] == "delta":
        kind = f"{kind} for the difference to a lower level"
    return f"# {elements}: {kind}"


def _short(name: str) -> str:
    """Return the name of a component without its plugin."""
    return name.rpartition("/")[2]


def _what(manifest: Mapping[str, Any]) -> str:
    can = manifest["capabilities"]
    options = ", ".join(f"{k} {v}" for k, v in manifest["spec"].items() if k != "use")
    lines = [
        f"- model: {_short(manifest['spec']['use'])}" + (f" ({options})" if options else ""),
        f"- predicts: {', '.join(f'{n} ({u})' for n, u in manifest['units'].items())}",
    ]
    if manifest.get("strategy"):
        strategy = dict(manifest["strategy"])
        used = _short(strategy.pop("use"))
        given = ", ".join(f"{k} {v}" for k, v in strategy.items())
        lines.append(f"- strategy: {used}" + (f" ({given})" if given else ""))
    if can["uncertainty"]:
        spread = "standard deviation over the members, population form"
        is_ensemble = manifest["n_members"] > 1
        lines.append(f"- error bars: {spread if is_ensemble else 'predicted by the model itself'}")
    if "training" in manifest:
        lines.append(_training(manifest))
    versions = manifest["versions"]
    made_with = ", ".join(f"{k} {v}" for k, v in versions.items())
    lines.append(f"- made {manifest['created']} with {made_with}")
    return "\n".join(lines)


def _training(manifest: Mapping[str, Any]) -> str:
    chosen, seed = manifest["training"], manifest["seed"]
    if "optimizer" not in chosen:  # forests, lines ...: a few options, or none
        given = [f"{name} {value}" for name, value in chosen.items() if value is not None]
        return f"- training: {', '.join([*given, f'seed {seed}'])}"
    weights = ", ".join(
        f"{name} {chosen[f'{name}_weight']:g}"
        for name in ("energy", "forces", "stress")
        if name in manifest["units"]
    )
    return (
        f"- training: {chosen['optimizer']}, lr {chosen['lr']:g}, batches of "
        f"{chosen['batch_size']}, {chosen['schedule']} schedule, {chosen['loss']} loss"
        f"{f' with weights {weights}' if weights else ''}; seed {manifest['seed']}, "
        f"{manifest['dtype']}"
    )


def _learnt_from(manifest: Mapping[str, Any]) -> str:
    if "data" not in manifest:
        return ""
    facts = manifest["data"]
    labels = ", ".join(f"{name} of {count}" for name, count in facts["labels"].items())
    lines = [
        "## What it learnt from",
        "",
        f"- {facts['n_train']} structures ({labels}); best weights chosen by {facts['n_valid']} "
        f"others",
    ]
    for method in manifest["methods"]:
        shown = ", ".join(value for value in method.values() if value) or "not recorded"
        lines.append(f"- level of theory: {shown}")
    for origin in facts["origins"][:5]:
        shown = ", ".join(value for value in origin.values() if value)
        if shown:
            lines.append(f"- origin: {shown}")
    lines.append(f"- digest of the training set: {facts['train_digest']}")
    return "\n".join(lines)


def _how_good(manifest: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for name, numbers in manifest["metrics"].items():
        rows = _rows("all", numbers)
        for group, by_target in numbers.get("by_group", {}).items():
            rows += _rows(group, by_target)
        if rows:
            lines += [
                f"### {name}",
                "",
                "| group | quantity | MAE | RMSE |",
                "|---|---|---:|---:|",
                *rows,
                "",
            ]
    return "\n".join(["## How good it is", "", *lines]).rstrip() if lines else ""


def _rows(group: str, numbers: Mapping[str, Any]) -> list[str]:
    rows = []
    for target, rule in QUANTITIES.items():
        if f"{target}_mae" not in numbers:
            continue
        unit = f"{rule.unit}/atom" if rule.extensive and rule.per == "structure" else rule.unit
        factor, shown = readable_unit(unit)
        mae, rmse = numbers[f"{target}_mae"], numbers[f"{target}_rmse"]
        rows.append(
            f"| {group} | {target} | {mae * factor:.4g} {shown} | {rmse * factor:.4g} {shown} |"
        )
    return rows


def _limits(manifest: Mapping[str, Any]) -> str:
    lines = [
        "## Limits",
        "",
        f"- only for structures of {', '.join(manifest['elements']) or 'no element yet'}; others "
        f"are refused",
        "- reliable near what it learnt from: other phases, densities, temperatures and defects "
        "need a test first",
    ]
    if manifest.get("cutoff"):
        lines.append(
            f"- atoms interact through shells of {manifest['cutoff']:g} Å; no long-range "
            f"electrostatics or dispersion beyond them"
        )
    if not manifest["capabilities"]["uncertainty"]:
        lines.append("- gives no error bar: train with `strategy: ensemble` for one")
    return "\n".join(lines)


def _use(manifest: Mapping[str, Any]) -> str:
    if not manifest["capabilities"]["forces"]:
        return (
            "## How to use it\n\n```python\n"
            "from epitaxy.artifact import load_artifact\n"
            "from epitaxy.dataset import Dataset\n"
            'model = load_artifact("path/to/this/folder").model\n'
            'print(model.predict(Dataset.open("dataset")).mean)\n'
            "```"
        )
    return (
        "## How to use it\n\n```python\n"
        "from epitaxy.calculator import load\n"
        'atoms.calc = load("path/to/this/folder")\n'
        "print(atoms.get_potential_energy(), atoms.calc.results)\n"
        "```"
    )
