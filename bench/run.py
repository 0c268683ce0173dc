"""Run every benchmark of this folder, one after another, and print what each measures.

    make bench                         all of them
    .venv/bin/python bench/run.py graphs calculator     some of them

Each benchmark is a script of its own that prints ratios taken in one run, with their
conditions. Nothing here is a test: a slow machine prints a bad number, it does not fail.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

BENCHMARKS = ("graphs", "training_step", "calculator", "stores", "bp5", "atomsets")
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
    """Run the named benchmarks and return how many failed."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"processor  {processor()}, {os.cpu_count()} cores; load {load}")
    print(
        f"versions   Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "ase", "pymatgen"))
    )
    failed = 0
    for name in names or BENCHMARKS:
        script = FOLDER / f"{name}.py"
        print(f"\n## {name}", flush=True)
        if not script.exists():
            print(f"no such benchmark: {script.name}")
            failed += 1
            continue
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        failed += bool(
            subprocess.run([sys.executable, script], env=os.environ | one_thread).returncode
        )
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
