"""Claim 6: cross-database errors, offsets, and what an ungrouped split hides."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import yaml
from outcome import interval, write

from epitaxy.composition import compositions
from epitaxy.dataset import Dataset
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec

REGISTRY = Registry.from_entry_points()


def read(path: Path) -> Dataset:
    """Return a table of formulas."""
    source = REGISTRY.build("source", {"use": "composition_table", "path": str(path)})
    return Dataset.from_entries(source)


def main() -> None:
    """Train on each database, test on all, and write cross-database.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    config = yaml.safe_load(args.config.read_text())
    target, n_train, n_test = config["target"], config["n_train"], config["n_test"]
    tables = {n: read(args.data / "composition_tables" / p) for n, p in config["tables"].items()}
    formulas = {name: compositions(table) for name, table in tables.items()}
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(float(value))

    with tempfile.TemporaryDirectory() as folder:
        for seed in config["seeds"]:
            rng = np.random.default_rng(seed)
            everything = np.unique(np.concatenate(list(formulas.values())))
            tested = set(rng.permutation(everything)[: len(everything) // 5].tolist())
            tests, models = {}, {}
            for name, table in tables.items():
                is_test = np.isin(formulas[name], list(tested))
                tests[name] = table[rng.permutation(np.flatnonzero(is_test))[:n_test]]
                rows = rng.permutation(np.flatnonzero(~is_test))[: n_train + 300]
                models[name] = build_model(Spec.from_config(config["model"]), REGISTRY)
                run = Run(Path(folder) / f"{name}-{seed}", seed=seed)
                models[name].fit(table[rows[300:]], table[rows[:300]], run=run)
            for learnt, model in models.items():
                for name, test in tests.items():
                    error = model.predict(test).mean[target] - test.target(target)[0]
                    note(f"MAE, {learnt} on {name}", np.abs(error).mean())
                    note(f"offset, {learnt} on {name}", error.mean())
            # The same sizes from MP, with and without keeping compositions together.
            table, names = tables["MP"], formulas["MP"]
            common = np.unique(names, return_inverse=True)[1]
            many = np.flatnonzero(np.bincount(common)[common] > 1)  # formulas that occur again
            rows = rng.permutation(many)[: n_train + n_test]
            loose = rows[:n_test], rows[n_test:]
            held = np.isin(
                names[many],
                rng.permutation(np.unique(names[many]))[: len(np.unique(names[many])) // 5],
            )
            whole = rng.permutation(many[held])[:n_test], rng.permutation(many[~held])[:n_train]
            for kind, (test_rows, train_rows) in (("ungrouped", loose), ("grouped", whole)):
                model = build_model(Spec.from_config(config["model"]), REGISTRY)
                run = Run(Path(folder) / f"{kind}-{seed}", seed=seed)
                model.fit(table[train_rows[300:]], table[train_rows[:300]], run=run)
                test = table[test_rows]
                error = model.predict(test).mean[target] - test.target(target)[0]
                note(f"MAE, MP formulas that occur again, {kind}", np.abs(error).mean())
            print(f"seed {seed} done", flush=True)
    results = {
        name: {"mean and 95 % interval": interval(v), "by seed": v} for name, v in found.items()
    }
    for name in results:
        print(f"{name}: {results[name]['mean and 95 % interval'][0]:+.3f} eV")
    write(args.output / "cross-database.json", config, results)


if __name__ == "__main__":
    main()
