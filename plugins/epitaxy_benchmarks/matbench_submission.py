"""The two files that MatBench asks for: results.json.gz and info.json.

Format: `matbench.bench.MatbenchBenchmark.as_dict` and `matbench.task.MatbenchTask.as_dict` of
https://github.com/materialsproject/matbench (version 0.6), and "How To Use / Submit".
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from epitaxy.errors import DataError
from epitaxy_benchmarks.matbench_fold import FoldResult, write_json

VERSION = "0.6"
BENCHMARK = "matbench_v0.1"
RESULTS, INFO = "results.json.gz", "info.json"
_DATE = "%Y.%m.%d %H:%M.%S"
_DUNN = (
    "@article{Dunn2020, doi = {10.1038/s41524-020-00406-3}, year = {2020}, volume = {6}, "
    "number = {1}, author = {Alexander Dunn and Qi Wang and Alex Ganose and Daniel Dopp and "
    "Anubhav Jain}, title = {Benchmarking materials property prediction methods: the Matbench "
    "test set and Automatminer reference algorithm}, journal = {npj Computational Materials}}"
)


def task_record(
    task: str,
    folds: Sequence[FoldResult],
    scores: Sequence[Mapping[str, float]],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a task as MatBench records it.

    Args:
        task: for example "matbench_steels".
        folds: all five.
        scores: of each, as `epitaxy_benchmarks.matbench_scores.recorded` gives them.
        parameters: the recipe of the model, plain values.
    """
    results = {
        f"fold_{fold.fold}": {
            "data": dict(zip(fold.ids, fold.predicted, strict=True)),
            "parameters": dict(parameters),
            "scores": dict(score),
            "uncertainty": None,
        }
        for fold, score in zip(folds, scores, strict=True)
    }
    return {
        "@module": "matbench.task",
        "@class": "MatbenchTask",
        "benchmark_name": BENCHMARK,
        "dataset_name": task,
        "results": results,
    }


def submission(
    records: Mapping[str, Mapping[str, Any]], *, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the document of several tasks, with the hash by which MatBench checks it."""
    now = datetime.datetime.now(datetime.UTC)
    document: dict[str, Any] = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": VERSION,
        "tasks": in_order(records),
        "user_metadata": in_order(metadata),
        "benchmark_name": BENCHMARK,
        "datestamp": now.strftime(_DATE),
    }
    return {**document, "hash": digest(document)}


def digest(document: Mapping[str, Any]) -> str:
    """Return MatBench's hash of a document without the key "hash"."""
    return hashlib.sha256(json.dumps(in_order(document)).encode()).hexdigest()


def in_order(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with its keys sorted, and those of the mappings in it."""
    return {
        key: in_order(value) if isinstance(value, Mapping) else value
        for key, value in sorted(document.items())
    }


def recorded_tasks(folder: Path) -> dict[str, Any]:
    """Return the tasks of the submission in a folder; none if there is no readable one."""
    try:
        found = json.loads(gzip.decompress((folder / RESULTS).read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error):
        return {}
    tasks: dict[str, Any] = found.get("tasks", {})
    return tasks


def write_submission(folder: Path, document: Mapping[str, Any], *, algorithm: str) -> None:
    """Write results.json.gz, and info.json unless it is there already (it is to be edited).

    Raises:
        DataError: the disk refuses.
    """
    path = folder / RESULTS
    temporary = folder / f"{RESULTS}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    if not (folder / INFO).exists():
        write_json(folder / INFO, _info(algorithm))


def _info(algorithm: str) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    packages = []
    for name in ("epitaxy", "numpy", "scikit-learn", "torch"):
        with suppress(PackageNotFoundError):
            packages.append(f"{name}=={version(name)}")
    return {
        "authors": "TO BE FILLED IN",
        "algorithm": algorithm,
        "algorithm_long": "TO BE FILLED IN",
        "bibtex_refs": _DUNN,
        "notes": "",
        "requirements": {"python": packages},
    }
