"""What a source leaves out, counted by reason with examples."""

from __future__ import annotations

from collections import Counter

_EXAMPLES = 3  # names in a note


class LeftOut:
    """Counts entries that a source cannot use, for its `notes`.

    Args:
        singular: what is counted, "entry".
        plural: the same for many, "entries".
    """

    def __init__(self, singular: str = "entry", plural: str = "entries"):
        self._words = singular, plural
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, name: str, reason: str) -> None:
        """Count one more that was left out for this reason."""
        self._counts[reason] += 1
        if self._counts[reason] <= _EXAMPLES:
            self._examples.setdefault(reason, []).append(name)

    def notes(self) -> tuple[str, ...]:
        """Return one sentence per reason, the commonest first."""
        singular, plural = self._words
        return tuple(
            f"{n:,} {singular if n == 1 else plural} left out: {reason} "
            f"({', '.join(self._examples[reason])}{', ...' if n > _EXAMPLES else ''})"
            for reason, n in self._counts.most_common()
        )
