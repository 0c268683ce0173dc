"""`epitaxy benchmark TASK ...`: MatBench's tasks with the official folds, against its board."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epitaxy.config import Config
    from epitaxy_benchmarks.matbench_report import TaskReport


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "tasks", nargs="+", metavar="TASK", help="matbench_steels ...; 'matbench' for all 13"
    )
    parser.add_argument(
        "--path",
        type=Path,
        required=True,
        help="the task's file, or a folder with it: json.gz, or a table of formulas",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="NAME, {use: NAME, ...}, or a config file (its model, strategy, training, seed)",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder (default: benchmarks/MODEL)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, for example --set training.epochs=10; may be repeated",
    )
    parser.add_argument(
        "--valid",
        type=float,
        default=0.1,
        metavar="FRACTION",
        help="part of each training fold to choose by, whole formulas (0.1; unused where the "
        "model needs none)",
    )
    parser.add_argument(
        "--fold",
        type=int,
        action="append",
        choices=range(5),
        metavar="K",
        help="run fold K (0 to 4) only; may be repeated; not comparable",
    )
    parser.add_argument(
        "--limit",
        "--subset",
        type=int,
        metavar="N",
        help="take N random rows with folds of their own; not comparable",
    )
    parser.add_argument("--keep-models", action="store_true", help="save the model of each fold")
    parser.add_argument("--overwrite", action="store_true", help="run finished folds again")
    parser.add_argument("--quiet", action="store_true", help="print the results only")


def run(args: Namespace) -> int:
    """Run the folds that are not done yet, and report."""
    from epitaxy.progress import Silent, progress_for
    from epitaxy.registry import Registry
    from epitaxy_benchmarks.matbench_model import read_model
    from epitaxy_benchmarks.matbench_report import lines_of, table_of, write_reports

    registry = Registry.from_entry_points()
    config = read_model(args.model, overrides=args.set, registry=registry)
    tasks = _tasks(args)
    output = args.output or Path("benchmarks") / _name(args.model, config)
    reports: list[TaskReport] = []
    progress = Silent() if args.quiet else progress_for()
    try:
        for task in tasks:
            report = _run_task(task, args, config, output, registry=registry, progress=progress)
            reports.append(report)
            print("\n".join(lines_of(report)), flush=True)
    except KeyboardInterrupt:
        progress.close()
        print("\nepitaxy: stopped; the same command goes on", file=sys.stderr)
        return 130
    finally:
        progress.close()
    if len(reports) > 1:
        print("\n".join(["", *table_of(reports)]))
    for path in write_reports(reports, output, config=config, algorithm=_name(args.model, config)):
        print(f"wrote {path}")
    return 0


def _run_task(
    name: str, args: Namespace, config: Config, output: Path, *, registry: Any, progress: Any
) -> TaskReport:
    import shutil

    from epitaxy_benchmarks.matbench_fold import finished, identity_of, run_fold
    from epitaxy_benchmarks.matbench_report import TaskReport
    from epitaxy_benchmarks.matbench_task import load_task

    task = load_task(name, args.path, limit=args.limit)
    identity = identity_of(task, config, valid=args.valid, registry=registry)
    results = []
    for fold in sorted(set(args.fold)) if args.fold else range(len(task.folds)):
        directory = output / name / f"fold_{fold}"
        if args.overwrite and directory.exists():
            shutil.rmtree(directory)
        result = finished(directory, identity)
        if result is not None:
            progress.note(f"{name} fold {fold}: done before ({result.seconds:.0f} s)")
        else:
            result = run_fold(
                task,
                fold,
                config,
                directory=directory,
                valid=args.valid,
                identity=identity,
                registry=registry,
                progress=progress,
                keep_model=args.keep_models,
            )
        results.append(result)
    return TaskReport.of(task, results)


def _tasks(args: Namespace) -> list[str]:
    """Return the tasks in the order given.

    Raises:
        ConfigError: there is no such task, or one file is to serve several tasks.
    """
    import difflib

    from epitaxy.errors import ConfigError
    from epitaxy_benchmarks.matbench import TASKS

    if not 0 <= args.valid < 1:
        raise ConfigError(f"--valid {args.valid}: a fraction from 0 to below 1 is needed")
    if args.limit is not None and args.limit < 10:
        raise ConfigError(f"--limit {args.limit}: five folds need at least 10 rows")
    tasks: list[str] = []
    for given in args.tasks:
        name = given if given.startswith("matbench") else f"matbench_{given}"
        if name != "matbench" and name not in TASKS:
            close = difflib.get_close_matches(name, TASKS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(f"no task {given!r}; there are {', '.join(TASKS)}.{hint}")
        tasks += list(TASKS) if name == "matbench" else [name]
    tasks = list(dict.fromkeys(tasks))
    if len(tasks) > 1 and args.path.is_file():
        raise ConfigError(f"--path {args.path} is one file, for {len(tasks)} tasks: name a folder")
    return tasks


def _name(text: str, config: Config) -> str:
    """Return a short name of the model, for folders and the submission."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml", ".json"):
        return path.stem
    return config.model.use.rpartition("/")[2]
