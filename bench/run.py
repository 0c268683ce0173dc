"""Run benchmarks of this folder, one after another, and print what each measures.

    make bench                                          the quick ones
    make bench-all                                      all of them
    .venv/bin/python bench/run.py groups curation       some of them
    .venv/bin/python bench/run.py graphs --device cpu cuda       on several devices, where they can
    .venv/bin/python bench/run.py --list                their names, and what they measure

Each benchmark is a script of its own that prints ratios taken in one run, with their
conditions. Nothing here is a test: a slow machine prints a bad number, it does not fail.
"""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

QUICK = ("graphs", "training_step", "calculator", "atomsets", "similarity", "oasis", "packing")
"""Minutes each at most: models and graphs."""

LONG = ("stores", "curation", "bp5", "groups")
"""Up to ten minutes and 10 GB of disk each: data."""

ON_DEVICES = ("graphs", "training_step", "calculator", "atomsets")
"""Take --device."""

FOLDER = Path(__file__).parent


def processor() -> str:
    """Return the name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main(names: list[str]) -> int:
    """Run the named benchmarks and return how many failed or do not exist."""
    if "--list" in names:
        for name in (*QUICK, *LONG):
            summary = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
            kind = "quick" if name in QUICK else "long"
            print(f"{name:14}  {kind:5}  {summary.splitlines()[0]}")
        return 0
    devices: list[str] = []
    if "--device" in names:
        at = names.index("--device")
        names, devices = names[:at], names[at:]
        names = names or list(ON_DEVICES)
    if names == ["--all"]:
        names = [*QUICK, *LONG]
    if unknown := [name for name in names if name not in (*QUICK, *LONG)]:
        print(f"no benchmark {', '.join(unknown)}: there are {', '.join((*QUICK, *LONG))}")
        return len(unknown)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"processor  {processor()}, {os.cpu_count()} cores; load {load}")
    print(
        f"versions   Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "ase", "pymatgen"))
    )
    failed = 0
    for name in names or QUICK:
        script = FOLDER / f"{name}.py"
        print(f"\n## {name}", flush=True)
        start = time.monotonic()
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, script, *(devices if name in ON_DEVICES else [])]
        failed += bool(subprocess.run(command, env=os.environ | one_thread).returncode)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    if not names:
        print(f"\nthe long ones, by name or with --all: {', '.join(LONG)}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
