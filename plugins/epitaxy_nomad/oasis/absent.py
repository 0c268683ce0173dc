"""What stands in for the plugin where nomad-lab is without the packages that our schemas extend.

An entry point that cannot be loaded ends every process of NOMAD, its client too: whoever has
epitaxy beside a plain nomad-lab must not lose the latter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

from nomad.metainfo import SchemaPackage
from nomad.parsing import MatchingParser

NEEDED = "nomad_ml_workflows"


@cache
def is_absent() -> bool:
    """Return whether our schemas cannot be made here, and say so once."""
    if find_spec(NEEDED) is not None:
        return False
    logging.getLogger("epitaxy.oasis").warning(
        "the plugin of epitaxy for NOMAD is off, because %s is not installed: "
        "pip install 'epitaxy[oasis]'",
        NEEDED.replace("_", "-"),
    )
    return True


def empty_package(name: str) -> SchemaPackage:
    """Return a schema package without sections."""
    return SchemaPackage(name=name)


class NoParser(MatchingParser):
    """Claims no file."""

    def is_mainfile(self, *_: Any, **__: Any) -> bool | Iterable[str]:
        """Return False."""
        return False
