"""What a plugin offers: plain records that name a target without importing it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any, Literal, get_args

from epitaxy.errors import PluginError

Kind = Literal["source", "featurizer", "model", "strategy", "publisher", "calculator", "command"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A promise that a plugin can build something, made without importing it.

    Attributes:
        name: short name for configuration files, for example "painn".
        target: "package.module:Attribute"; for a command the module alone.
        summary: one line for `epitaxy plugins`.
        needs: import names that must be installed, for example ("torch",).
        extra: the extra of the plugin's own distribution that installs `needs`.
        example: options with which the conformance kit (`epitaxy.testing`) builds the target;
            needed where an option has no default, as the path of a file reader.
    """

    name: str
    target: str
    summary: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    example: Mapping[str, object] = field(default_factory=dict, hash=False)

    def missing(self) -> tuple[str, ...]:
        """Return the import names in `needs` that are not installed; imports nothing."""
        return tuple(name for name in self.needs if not _is_installed(name))

    def check(self, kind: Kind) -> None:
        """Check that the record is well formed for its kind.

        Raises:
            PluginError: a field has the wrong type or form; the message names it.
        """
        for attribute in ("name", "target", "summary", "extra"):
            value = getattr(self, attribute)
            if not isinstance(value, str):
                raise PluginError(f"{kind} component: {attribute} = {value!r} must be text")
        if not _NAME.fullmatch(self.name):
            raise PluginError(
                f"{kind} component: name = {self.name!r} must be letters, digits and . _ + -"
            )
        module, colon, attribute = self.target.partition(":")
        wanted = "'package.module'" if kind == "command" else "'package.module:Attribute'"
        if (
            not _MODULE.fullmatch(module)
            or (kind == "command") == bool(colon)
            or (colon and not _MODULE.fullmatch(attribute))
        ):
            raise PluginError(f"{kind} {self.name!r}: target = {self.target!r} must be {wanted}")
        if not isinstance(self.needs, tuple | list) or not all(
            isinstance(name, str) and _MODULE.fullmatch(name) for name in self.needs
        ):
            raise PluginError(
                f"{kind} {self.name!r}: needs = {self.needs!r} must be a tuple of import names, "
                f"as in needs=('torch',)"
            )
        if not isinstance(self.example, Mapping):
            raise PluginError(
                f"{kind} {self.name!r}: example = {self.example!r} must be a mapping of options"
            )


@dataclass(frozen=True, slots=True)
class Offer:
    """A component together with the plugin that offers it.

    Attributes:
        kind: what the component is.
        plugin: name of the plugin's entry point.
        distribution: name to give to pip; "" for a plugin that was registered in code.
        version: version of the distribution.
        component: what is offered.
    """

    kind: Kind
    plugin: str
    distribution: str
    version: str
    component: Component

    @property
    def qualified_name(self) -> str:
        """``plugin/name``: unique even when two plugins use the same short name."""
        return f"{self.plugin}/{self.component.name}"

    @property
    def install_command(self) -> str:
        """The pip command that installs what the component needs."""
        component = self.component
        if not self.distribution:
            return f"pip install {' '.join(component.needs)}"
        if not component.extra:
            return f"pip install {self.distribution}"
        return f"pip install '{self.distribution}[{component.extra}]'"


@dataclass(frozen=True, slots=True)
class Problem:
    """A plugin, or one hook of it, that could not be used, and why.

    Attributes:
        plugin: name of the plugin's entry point.
        distribution: the distribution that installed it.
        reason: what went wrong, in one line.
        location: innermost "file:line" outside the import machinery; "" where there is none.
        hook: the hook that failed while the program ran; "" if the plugin did not load.
    """

    plugin: str
    distribution: str
    reason: str
    location: str = ""
    hook: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        origin = f" ({self.distribution})" if self.distribution else ""
        failure = f"failed in {self.hook}" if self.hook else "did not load"
        place = f" [{self.location}]" if self.location else ""
        return f"plugin {self.plugin!r}{origin} {failure}: {self.reason}{place}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a plain dict."""
        return {
            "plugin": self.plugin,
            "distribution": self.distribution,
            "reason": self.reason,
            "location": self.location,
            "hook": self.hook,
        }


def _is_installed(name: str) -> bool:
    """Whether a module can be found; unlike `find_spec`, parents are not imported."""
    parent, *rest = name.split(".")
    try:
        spec = find_spec(parent)
    except (ImportError, ValueError):  # ValueError: a half-initialised entry in sys.modules
        return False
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return False
        parent = f"{parent}.{part}"
        spec = PathFinder.find_spec(parent, spec.submodule_search_locations)
    return spec is not None
