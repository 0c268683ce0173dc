"""`epitaxy info`: say what a dataset or an artifact holds."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset

_MANY = 12  # values of a tag that are listed


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", type=Path, help="dataset, or artifact of a trained model")
    parser.add_argument(
        "--verify", action="store_true", help="read every column and compare its sha256"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--recipe",
        action="store_true",
        help="print the operations of its history, as `epitaxy clean --recipe` reads them",
    )


def run(args: Namespace) -> int:
    """Print the facts and return 0."""
    from epitaxy.artifact import MANIFEST as OF_ARTIFACT
    from epitaxy.dataset import Dataset
    from epitaxy.stores.formats import dataset_format

    if (args.path / OF_ARTIFACT).exists() and _holds_a_model(args.path / OF_ARTIFACT):
        return _print_artifact(args.path, as_json=args.json)
    dataset = Dataset.open(args.path, verify=args.verify)
    if args.recipe:
        _print_recipe(args.path, dataset)
        return 0
    facts = facts_of(dataset)
    facts["format"] = dataset_format(args.path)
    if args.verify:
        facts["verified"] = True
    if args.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _print(args.path, facts)
    return 0


def _print_recipe(path: Path, dataset: Dataset) -> None:
    """Print the operations of a history, what came before them as a comment."""
    from epitaxy.curation.conventions import Conventions
    from epitaxy.curation.recipe import recipe_of, recipe_text

    steps = recipe_of(dataset.history)
    for step in dataset.history:
        for source in step.get("sources", []) if step.get("operation") == "ingest" else []:
            words = {k: v for k, v in source.items() if k != "card"}
            print(f"# read from {words}")
        if conventions := step.get("conventions"):
            print(f"# read with {Conventions(**conventions).flags()}")
    before = next((s["digest_before"] for s in dataset.history if "digest_before" in s), None)
    if before:
        print(f"# digest before the first operation: {before}")
    print(f"# digest of {path}: {dataset.digest}")
    print(recipe_text(steps) if steps else "[]", end="")


def _holds_a_model(manifest: Path) -> bool:
    from epitaxy.artifact import FORMAT

    return f'"{FORMAT}"' in manifest.read_text(encoding="utf-8", errors="replace")


def _print_artifact(path: Path, *, as_json: bool) -> int:
    from epitaxy.artifact import CARD, load_artifact

    manifest = dict(load_artifact(path).manifest)  # compares every file with its sha256
    if as_json:
        print(json.dumps(manifest, indent=1, ensure_ascii=False))
    else:
        card = path / CARD
        text = card.read_text(encoding="utf-8") if card.exists() else json.dumps(manifest, indent=1)
        print(text.rstrip())
    return 0


def facts_of(dataset: Dataset) -> dict[str, Any]:
    """Return what a dataset holds, as plain values."""
    import numpy as np
    from ase.data import chemical_symbols

    from epitaxy.quantities import quantity

    n_atoms = dataset.n_atoms
    targets: dict[str, Any] = {}
    for name in dataset.targets:
        values, mask = dataset.target(name)
        rule = quantity(name)
        chosen = np.repeat(mask, n_atoms) if rule.per == "atom" else mask
        values = values[chosen]
        targets[name] = {
            "unit": rule.unit,
            "n_structures": int(mask.sum()),
            "coverage": float(mask.mean()) if len(mask) else 0.0,
        }
        if values.size:
            targets[name] |= {
                "min": float(values.min()),
                "mean": float(values.mean()),
                "max": float(values.max()),
            }
            if name == "energy":
                per_atom = values / n_atoms[mask]
                targets[name]["per_atom"] = [float(per_atom.min()), float(per_atom.max())]
    return {
        "n_structures": len(dataset),
        "n_atoms": int(n_atoms.sum()),
        "atoms_per_structure": [int(n_atoms.min()), int(n_atoms.max())] if len(dataset) else [],
        "elements": [chemical_symbols[z] for z in sorted(dataset.elements)],
        "methods": [asdict(method) for method in dataset.methods],
        "origins": [asdict(origin) for origin in dataset.origins[:_MANY]],
        "targets": targets,
        "tags": {name: dict(Counter(dataset.tag(name).tolist())) for name in dataset.tags},
        "history": list(dataset.history),
        "digest": dataset.digest,
    }


def _print(path: Path, facts: dict[str, Any]) -> None:
    sizes = facts["atoms_per_structure"]
    of = f" ({sizes[0]} to {sizes[1]} per structure)" if sizes else ""
    print(f"{path}: {facts['n_structures']:,} structures, {facts['n_atoms']:,} atoms{of}")
    print(f"elements: {' '.join(facts['elements'])}")
    for method in facts["methods"]:
        said = ", ".join(value for value in method.values() if value)
        print(f"method: {said or 'not recorded'}")
    for name, target in facts["targets"].items():
        span = f"{target['min']:.6g} to {target['max']:.6g} " if "min" in target else ""
        mean = f", mean {target['mean']:.6g}" if "mean" in target else ""
        line = f"{name}: {target['n_structures']:,} structures ({target['coverage']:.1%}), "
        line += f"{span}{target['unit']}{mean}"
        if "per_atom" in target:
            line += f" ({target['per_atom'][0]:.4f} to {target['per_atom'][1]:.4f} per atom)"
        print(line)
    for name, counts in facts["tags"].items():
        common = sorted(counts.items(), key=lambda item: -item[1])
        said = ", ".join(f"{word or '(none)'} {count:,}" for word, count in common[:_MANY])
        more = f" and {len(common) - _MANY:,} more" if len(common) > _MANY else ""
        print(f"tag {name}: {said}{more}")
    for step in facts["history"]:
        words = [str(step.get("operation", "?"))]
        counts = step.get("counts", step)
        if counts.get("n_dropped") or "reasons" in step:
            words.append(f"{counts['n_dropped']:,} of {counts['n_seen']:,} dropped")
        if "n_changed" in counts:
            words.append(f"{counts['n_changed']:,} of {counts['n_seen']:,} changed")
        for fact in step.get("inputs", []):
            if isinstance(fact, dict) and "name" in fact:
                words.append(f"{fact['name']} {fact.get('n_structures', 0):,}")
        for reason, fact in step.get("reasons", {}).items():
            words.append(f"{reason}: {fact['count']:,}")
        for finding in step.get("findings", []):
            words.append(f"{finding['label']} {finding['verdict']}")
        print(f"history: {'; '.join(words)}")
    print(f"stored as: {facts['format']}")
    print(f"digest: {facts['digest']}")
    if facts.get("verified"):
        print("verified: every column has the bytes that were written")
