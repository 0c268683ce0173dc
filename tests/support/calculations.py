"""Folders of calculations as the codes leave them, small."""

from __future__ import annotations

import os
from pathlib import Path

TIMES = 1_700_000_000_000_000_000  # ns since 1970

ENDINGS = {
    "OUTCAR": (
        " vasp.6.4.2 20Jul23 (build) complex\n",
        " General timing and accounting informations for this job:\n",
    ),
    "vasprun.xml": ('<?xml version="1.0"?>\n<modeling>\n', "</modeling>\n"),
    "INFO.OUT": ("| EXCITING FLUORINE started   =\n", "| EXCITING FLUORINE stopped   =\n"),
    "aims.out": ("          Invoking FHI-aims ...\n", "          Have a nice day.\n"),
    "pw.out": ("     Program PWSCF v.7.2 starts on\n", "   JOB DONE.\n"),
    "gs.txt": (
        "  __  _  _\n | _ |_)|_||  |\n |__||  | ||/\\| - 26.7.0\n",
        "|iter:   8| 16:20:28 |  -10.618 |\n\nConverged in 8 steps\n",
    ),
}
"""Name of a main output -> how it begins, and how it ends if the calculation ended well."""


def output(name: str, *, finished: bool = True, filler: int = 0) -> bytes:
    """Return a main output."""
    begin, end = ENDINGS[name]
    return (begin + " step\n" * (1 + filler) + (end if finished else "")).encode()


def calculation(
    folder: Path, *, name: str = "OUTCAR", n_files: int = 5, finished: bool = True, seed: int = 0
) -> Path:
    """Write a folder of n_files files, half of them in a folder below; return it."""
    (folder / "charge").mkdir(parents=True, exist_ok=True)
    put(folder / name, output(name, finished=finished))
    for i in range(1, n_files):
        place = folder / ("charge" if i % 2 else ".") / f"file-{i:02d}.dat"
        put(place, f"{folder.name} {seed} {i}\n".encode() * (20 * i))
    return folder


def put(path: Path, content: bytes) -> Path:
    """Write a file with a fixed time of change; return it."""
    path.write_bytes(content)
    os.utime(path, ns=(TIMES, TIMES))
    return path
