"""Claim 3: between functionals, full transfer beats head-only, and that beats none."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from outcome import interval, paired_gain, plot, write

from epitaxy.artifact import save_artifact
from epitaxy.dataset import Dataset
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.split import Split
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()
ARMS: Mapping[str, Mapping[str, Any]] = {
    "none": {"use": "direct"},
    "head": {"use": "transfer", "mode": "head"},
    "full": {"use": "transfer", "mode": "full"},
}


def silicon(xc: str, data: Path) -> tuple[Dataset, np.ndarray]:
    """Return the embedded set and the name of each structure, the same for both functionals."""
    dataset = Dataset.from_entries(REGISTRY.build("source", {"use": "silicon", "xc": xc}))
    return dataset, dataset.tag("structure_id")


def oxides(xc: str, data: Path) -> tuple[Dataset, np.ndarray]:
    """Return the polymorphs and the equation of state that each belongs to."""
    path = data / "oxide_polymorphs_4xc" / "supporting-information.json.xz"
    source = REGISTRY.build("source", {"use": "oxide_polymorphs", "path": str(path), "xc": xc})
    dataset = Dataset.from_entries(source)
    return dataset, np.char.add(dataset.tag("material"), dataset.tag("polymorph"))


def held_out(groups: np.ndarray, n: int, rng: np.random.Generator) -> set[str]:
    """Return whole groups with about n members."""
    names, counts = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    return set(names[order[np.cumsum(counts[order]) <= n]])


def trained(strategy: Mapping[str, Any], spec: Spec, split: Split, run: Run) -> Any:
    """Train with a strategy."""
    return REGISTRY.build("strategy", dict(strategy))(spec, split, run=run)


def divided(dataset: Dataset, train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Split:
    """Return a split from rows."""
    return Split(dataset, train=train, valid=valid, test=test)


def one_set(name: str, config: Mapping[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    """Run all seeds, functionals and sizes of one set; return errors in meV/atom and eV/Å."""
    reader = {"silicon": silicon, "oxides": oxides}[name]
    spec = Spec.from_config(config["body"])
    options = TrainingOptions(**config["training"])
    parent_data, parent_groups = reader(config["parent"], data)
    found: dict[str, Any] = {}
    for seed in config["seeds"]:
        rng = np.random.default_rng(seed)
        test_groups = held_out(parent_groups, config["n_test"], rng)
        rows = np.flatnonzero(~np.isin(parent_groups, list(test_groups)))
        rows = rng.permutation(rows)
        n = config["n_valid"]
        split = divided(parent_data, rows[n:], rows[:n], np.zeros(0, dtype=int))
        run = Run(folder / f"{name}-{seed}", seed=seed, training=options)
        parent = trained({"use": "direct"}, spec, split, run)
        path = save_artifact(
            parent, folder / f"{name}-parent-{seed}", spec=spec, split=split, run=run
        )
        for xc in config["child"]:
            dataset, groups = reader(xc, data)
            is_test = np.isin(groups, list(test_groups))
            rest = np.random.default_rng(seed + 1000).permutation(np.flatnonzero(~is_test))
            for size in config["sizes"]:
                split = divided(dataset, rest[n : n + size], rest[:n], np.flatnonzero(is_test))
                for arm, strategy in ARMS.items():
                    given = dict(strategy) | ({"parent": str(path)} if arm != "none" else {})
                    run = Run(
                        folder / f"{name}-{seed}-{xc}-{size}-{arm}", seed=seed, training=options
                    )
                    model = trained(given, spec, split, run)
                    predicted = model.predict(split.test).mean
                    energy = (
                        predicted["energy"] - split.test.target("energy")[0]
                    ) / split.test.n_atoms
                    forces = predicted["forces"] - split.test.target("forces")[0]
                    result = {
                        "energy": 1000 * float(np.abs(energy).mean()),
                        "forces": float(np.abs(forces).mean()),
                    }
                    found.setdefault(xc, {}).setdefault(arm, {}).setdefault(size, []).append(result)
                    title = f"{name} {config['parent']} -> {xc}, seed {seed}, n = {size}"
                    print(f"{title}, {arm}: {result}", flush=True)
    return found


def main() -> None:
    """Run the sets of the config and write functionals.json and a picture for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    config = yaml.safe_load(args.config.read_text())
    results: dict[str, Any] = {}
    for name, one in config.items():
        with tempfile.TemporaryDirectory() as folder:
            found = one_set(name, one, args.data, Path(folder))
        for xc, arms in found.items():
            title = f"{name}: {one['parent']} to {xc}"
            for kind in ("energy", "forces"):
                values = {
                    a: {n: [r[kind] for r in rows] for n, rows in p.items()}
                    for a, p in arms.items()
                }
                results[f"{title}, {kind}"] = {
                    "mean and 95 % interval": {
                        a: {str(n): interval(v) for n, v in p.items()} for a, p in values.items()
                    },
                    "gain over none": {
                        a: {str(n): paired_gain(v, values["none"][n]) for n, v in values[a].items()}
                        for a in ("head", "full")
                    },
                    "by seed": values,
                }
                if kind == "energy":
                    file = args.output / f"functionals-{name}-{xc}.png"
                    plot(file, values, x=f"structures with {xc}", y="energy MAE, meV/atom")
    write(args.output / "functionals.json", config, results)


if __name__ == "__main__":
    main()
