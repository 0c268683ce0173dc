"""How progress is told."""

from collections.abc import Callable

Tell = Callable[[int, int, "float | None"], None]
"""``(entries seen, entries kept, part of the work done or None)``."""
