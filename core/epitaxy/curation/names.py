"""Short names of files that still tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return for each path its shortest end that no other path shares.

    The file's name where that is enough, else with as many folders before it as are needed;
    so ``r1/d.xyz`` and ``r2/d.xyz`` keep their folders and ``r1/e.xyz`` is ``e.xyz``.
    """
    given = [path.parts for path in paths]
    return [_shortest(parts, [other for other in given if other != parts]) for parts in given]


def _shortest(parts: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    for n in range(1, len(parts) + 1):
        end = parts[-n:]
        if all(other[-n:] != end for other in others):
            return Path(*end).as_posix()
    return Path(*parts).as_posix()
