"""`epitaxy train CONFIG`: train the model that a config file describes."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epitaxy.commands.go_on import resume_command


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, help="YAML file, see docs/training.md")
    parser.add_argument("-o", "--output", type=Path, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on where the run was stopped")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, for example --set training.epochs=10; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="say only where the result is")


def run(args: Namespace) -> int:
    """Train, test, save, and say where everything is."""
    from epitaxy.config import load_config
    from epitaxy.experiment import ARTIFACT, train
    from epitaxy.progress import Silent, progress_for
    from epitaxy.registry import Registry

    registry = Registry.from_entry_points()
    config = load_config(args.config, overrides=args.set, output=args.output, registry=registry)
    progress = Silent() if args.quiet else progress_for()
    try:
        artifact = train(config, resume=args.resume, progress=progress, registry=registry)
    except KeyboardInterrupt:
        progress.close()
        print(f"\nepitaxy: stopped; go on with: {resume_command('train', args)}", file=sys.stderr)
        return 130
    finally:
        progress.close()
    for name, numbers in artifact.manifest["metrics"].items():
        print(f"{name}: {describe(numbers)}")
    print(f"model: {Path(config.output) / ARTIFACT} (read its card.md)")
    print(f"learning curves: epitaxy report {shlex.quote(config.output)}")
    return 0


def describe(numbers: Mapping[str, Any]) -> str:
    """Return the errors of a set in one line, in the units in which they are usually read."""
    from epitaxy.quantities import QUANTITIES, readable_unit

    parts = []
    for name, rule in QUANTITIES.items():
        if numbers.get(f"{name}_mae") is None:
            continue
        unit = f"{rule.unit}/atom" if rule.extensive and rule.per == "structure" else rule.unit
        factor, shown = readable_unit(unit)
        mae, rmse = (numbers[f"{name}_{kind}"] * factor for kind in ("mae", "rmse"))
        parts.append(f"{name} MAE {mae:.4g}, RMSE {rmse:.4g} {shown}")
    return f"{numbers['n_structures']} structures: " + "; ".join(parts)
