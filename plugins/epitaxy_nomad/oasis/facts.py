"""Reads a manifest that may be damaged: every key that is missing or of a wrong kind is noted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

Note = Callable[[str], None]
"""Called with one sentence for each problem."""

_DEEPEST = 60
"""Levels of a manifest; ours have six."""
_LARGEST = 2**63 - 1
"""Largest whole number that NOMAD stores."""


class Facts:
    """A section of a manifest.

    Args:
        content: what the manifest has there.
        place: keys that lead there, joined with dots; "" for the top.
        note: is told what is missing or of a wrong kind.
    """

    def __init__(self, content: Any, place: str, note: Note) -> None:
        self.place, self._note = place, note
        if not isinstance(content, Mapping):
            note(f"{place or 'the manifest'} is {_shown(content)}, a mapping is needed")
            content = {}
        self.content: Mapping[str, Any] = content

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return (str(key) for key in self.content)

    def text(self, key: str, *, needed: bool = False) -> str | None:
        """Return a text, None if there is none."""
        return self._value(key, str, "a text", needed=needed)

    def flag(self, key: str, *, needed: bool = False) -> bool | None:
        """Return true or false, None if there is neither."""
        return self._value(key, bool, "true or false", needed=needed)

    def whole(self, key: str, *, needed: bool = False) -> int | None:
        """Return a whole number, None if there is none."""
        return self._value(key, int, "a whole number", needed=needed)

    def number(self, key: str, *, needed: bool = False) -> float | None:
        """Return a finite number, None if there is none."""
        value = self._value(key, float, "a number", needed=needed)
        return None if value is None or not math.isfinite(value) else value

    def numbers(self, key: str) -> list[float]:
        """Return a list of numbers, nan where there is none; empty if there is no list."""
        values = self._value(key, list, "a list of numbers", needed=False) or []
        return [
            float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan
            for v in values
        ]

    def texts(self, key: str, *, needed: bool = False) -> list[str]:
        """Return a list of texts, empty if there is none."""
        values = self._value(key, list, "a list of texts", needed=needed) or []
        if not all(isinstance(value, str) for value in values):
            self._note(f"{self._path(key)} is {_shown(values)}, a list of texts is needed")
        return [value for value in values if isinstance(value, str)]

    def section(self, key: str, *, needed: bool = False) -> Facts:
        """Return a mapping; an empty one if there is none."""
        if key not in self:
            if needed:
                self._note(f"{self._path(key)} is missing")
            return Facts({}, self._path(key), self._note)
        return Facts(self.content[key], self._path(key), self._note)

    def sections(self, key: str, *, needed: bool = False) -> list[Facts]:
        """Return a list of mappings, empty if there is none."""
        values = self._value(key, list, "a list", needed=needed) or []
        return [Facts(v, f"{self._path(key)}.{i}", self._note) for i, v in enumerate(values)]

    def mapping(self, key: str) -> dict[str, Any] | None:
        """Return a mapping as it is, None if there is none."""
        value = self._value(key, dict, "a mapping", needed=False)
        return None if value is None else dict(value)

    def mappings(self, key: str) -> list[dict[str, Any]]:
        """Return a list of mappings as they are, empty if there is none."""
        return [dict(section.content) for section in self.sections(key)]

    def _path(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def _value(self, key: str, kind: type[T], words: str, *, needed: bool) -> T | None:
        value = self.content.get(key)
        if value is None:
            if needed:
                self._note(f"{self._path(key)} is missing")
            return None
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self._note(f"{self._path(key)} is {_shown(value)}, {words} is needed")
            return None
        return value


def storable(content: Any, note: Note, *, place: str = "", depth: int = 0) -> Any:
    """Return what a JSON file says without what NOMAD cannot store.

    Whole numbers of more than 64 bits and halves of characters are noted; numbers that are not
    finite become None.

    Raises:
        ValueError: it is nested too deeply.
    """
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    if isinstance(content, str):
        kept = content.encode("utf-8", "replace").decode()
        if kept != content:
            note(f"{place or 'a key'} is {_shown(content)}, which is no text in Unicode")
        return kept
    if isinstance(content, int) and not -_LARGEST <= content <= _LARGEST:
        note(f"{place} is {_shown_number(content)}, at most {_LARGEST:,} can be stored")
        return None
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {
            storable(key, note): storable(
                value, note, place=f"{place}.{key}" if place else key, depth=depth + 1
            )
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [
            storable(value, note, place=f"{place}.{i}", depth=depth + 1)
            for i, value in enumerate(content)
        ]
    return content


def _shown_number(value: int) -> str:
    return f"a number of {value.bit_length():,} bits"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
