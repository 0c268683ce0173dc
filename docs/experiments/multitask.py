"""Claim 7: multi-task training over unlike datasets helps the small one."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import yaml
from outcome import interval, paired_gain, plot, write

from epitaxy.curation.ingest import ingest
from epitaxy.dataset import Dataset
from epitaxy.models import build_model
from epitaxy.registry import Registry
from epitaxy.run import Run
from epitaxy.spec import Spec
from epitaxy.stores.merge import merge
from epitaxy.training.options import TrainingOptions

REGISTRY = Registry.from_entry_points()


def read(data: Path, folder: Path) -> dict[str, Dataset]:
    """Return every dataset, tagged with its name."""
    mlearn = data / "mlearn"
    oxides = data / "oxide_polymorphs_4xc" / "supporting-information.json.xz"
    sources = {
        **{
            e: {"use": "mlearn", "path": mlearn / f"{e}_training.json.xz"}
            for e in ("Li", "Ge", "Si")
        },
        **{
            e: {"use": "alignn", "path": mlearn / f"{e}_alignn_id_prop.json.xz"}
            for e in ("Cu", "Ni")
        },
        "oxides": {"use": "oxide_polymorphs", "path": oxides, "xc": "PBE"},
        "Si-test": {"use": "mlearn", "path": mlearn / "Si_test.json.xz"},
    }
    return {
        name: ingest(
            REGISTRY.build("source", Spec.from_config({**spec, "path": str(spec["path"])})),
            folder / name,
            tags={"dataset": name.removesuffix("-test")},
        ).dataset
        for name, spec in sources.items()
    }


def errors(model: object, test: Dataset) -> dict[str, float]:
    """Return the mean absolute errors of silicon: meV/atom and eV/Å."""
    found = (
        model.select("Si").predict(test).mean
        if len(model.branches) > 1
        else model.predict(test).mean
    )
    energy = np.abs(found["energy"] - test.target("energy")[0]) / test.n_atoms
    forces = np.abs(found["forces"] - test.target("forces")[0])
    return {"energy": 1000 * float(energy.mean()), "forces": float(forces.mean())}


def main() -> None:
    """Train every arm and write multitask.json and multitask.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    config = yaml.safe_load(args.config.read_text())
    options = TrainingOptions(**config["training"])
    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        datasets = read(args.data, folder)
        for seed in config["seeds"]:
            rng = np.random.default_rng(seed)
            silicon = datasets["Si"][rng.permutation(len(datasets["Si"]))]
            valid = silicon[: config["n_valid"]]
            others = {
                name: datasets[name][rng.permutation(len(datasets[name]))[:n]]
                for name, n in config["n_others"].items()
            }
            for n in config["n_small"]:
                small = silicon[config["n_valid"] : config["n_valid"] + n]
                merge({"Si": small, **others}, folder / f"joint-{seed}-{n}")
                joint = Dataset.open(folder / f"joint-{seed}-{n}")
                more = options.epochs * len(joint) // n
                for arm, train, branch, epochs in (
                    ("alone", small, "", options.epochs),
                    ("alone, as many steps", small, "", more),
                    ("together", joint, "dataset", options.epochs),
                ):
                    spec = {"body": config["body"], "targets": ["energy"], "branch_by": branch}
                    model = build_model(Spec("property", spec), REGISTRY)
                    run = Run(
                        folder / f"{arm}-{seed}-{n}",
                        seed=seed,
                        training=options.replace(epochs=epochs),
                    )
                    model.fit(train, valid, run=run)
                    result = errors(model, datasets["Si-test"])
                    found.setdefault(arm, {}).setdefault(n, []).append(result)
                    print(f"seed {seed}, n = {n}, {arm}: {result}", flush=True)
    results = {
        arm: {
            str(n): {kind: interval([r[kind] for r in rows]) for kind in ("energy", "forces")}
            for n, rows in points.items()
        }
        for arm, points in found.items()
    }
    for kind in ("energy", "forces"):
        for arm in ("alone", "alone, as many steps"):
            results[f"gain of together over {arm}, {kind}"] = {
                str(n): paired_gain(
                    [r[kind] for r in found["together"][n]], [r[kind] for r in found[arm][n]]
                )
                for n in config["n_small"]
            }
    write(args.output / "multitask.json", config, {**results, "by seed": found})
    plot(
        args.output / "multitask.png",
        {
            arm: {n: [r["forces"] for r in rows] for n, rows in points.items()}
            for arm, points in found.items()
        },
        x="silicon frames to learn from",
        y="force MAE on 25 silicon frames, eV/Å",
    )


if __name__ == "__main__":
    main()
