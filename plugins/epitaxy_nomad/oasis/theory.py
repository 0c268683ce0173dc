"""Levels of theory: all of them in arrays, the distinct codes and functionals to search by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from epitaxy_nomad.oasis.dataset import LevelOfTheory

MAX_LEVELS = 20
"""Pairs of code and functional that become sections of their own; all stand in the arrays."""


def fill_theory(section: Any, methods: Iterable[tuple[str, str, str]]) -> None:
    """Fill a section with levels of theory.

    Args:
        section: a trained model or a data set.
        methods: code, functional and settings of each.
    """
    rows = list(methods)
    section.method_codes = [code for code, _, _ in rows]
    section.method_functionals = [functional for _, functional, _ in rows]
    section.method_settings = [settings for _, _, settings in rows]
    section.xc_functional = joined(section.method_functionals)
    section.code = joined(section.method_codes)
    pairs = dict.fromkeys((code, functional) for code, functional, _ in rows if code or functional)
    section.levels_of_theory = [
        LevelOfTheory(code=code or None, xc_functional=functional or None)
        for code, functional in list(pairs)[:MAX_LEVELS]
    ]


def joined(words: list[str]) -> str | None:
    """Return the distinct words in one, the most common first; None if there is none."""
    known = [word for word in words if word]
    distinct = sorted(set(known), key=lambda word: (-known.count(word), word))
    if len(distinct) > 5:
        distinct = [*distinct[:5], f"{len(distinct) - 5} more"]
    return ", ".join(distinct) or None
