"""The named operations of curation: each takes a dataset and options and returns a dataset."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

from epitaxy.curation.tell import Tell
from epitaxy.dataset import Dataset
from epitaxy.errors import ConfigError

RUNTIME = frozenset({"tell"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        name: in recipes and histories.
        target: "module:function".
        summary: one line.
    """

    name: str
    target: str
    summary: str

    @property
    def function(self) -> Callable[..., Dataset]:
        """The function, imported when it is needed."""
        module, _, name = self.target.partition(":")
        function: Callable[..., Dataset] = getattr(import_module(module), name)
        return function


_OFFERED = (
    ("convert", "converting:convert", "units, signs and orders of labels, units of positions"),
    ("drop", "dropping:drop_named", "entries by id, tag or method"),
    ("frames", "dropping:drop_unusable", "unusable entries: forces, distances, ranges, cells"),
    ("duplicates", "dropping:drop_duplicates", "structures that were there before"),
    ("outliers", "outliers:drop_outliers", "energies that no chemistry explains"),
    ("consistency", "checking:check", "nothing; refuses labels that contradict each other"),
    ("align", "alignment:align", "nothing; energies of all methods on the scale of one"),
    ("formation_energy", "formation:formation_energy", "nothing; adds formation energies"),
)

OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        name: Operation(name, f"epitaxy.curation.{target}", summary)
        for name, target, summary in _OFFERED
    }
)
"""Name -> operation; the summary says what it drops."""


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an operation, checked and converted.

    Raises:
        ConfigError: there is no such operation; the message lists them.
        OptionError: an option is unknown or has a wrong value.
    """
    from epitaxy.options import check_options

    if name not in OPERATIONS:
        import difflib

        close = difflib.get_close_matches(str(name), OPERATIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"no operation is called {name!r}: there are {', '.join(OPERATIONS)}{hint}"
        )
    function = OPERATIONS[name].function
    return check_options(f"operation {name!r}", function, options, runtime=RUNTIME)


def apply(
    dataset: Dataset, name: str, options: Mapping[str, Any], *, tell: Tell | None = None
) -> Dataset:
    """Return what an operation makes of a dataset, with one more step in the history.

    Args:
        dataset: to work on; it stays as it is.
        name: of the operation.
        options: its options.
        tell: called now and then with the progress, where the operation takes its time.

    Raises:
        ConfigError: there is no such operation.
        OptionError: an option is unknown or has a wrong value.
        DataError: the operation cannot be done on these data.
    """
    given = checked_options(name, options)
    function = OPERATIONS[name].function
    if tell is not None and "tell" in inspect.signature(function).parameters:
        given["tell"] = tell
    return function(dataset, **given)
