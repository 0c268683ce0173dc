"""Finds plugins, checks them, and builds the components that they offer."""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import pluggy

from epitaxy import hookspecs
from epitaxy.component import KINDS, Component, Kind, Offer, Problem
from epitaxy.errors import (
    AmbiguousComponentError,
    MissingDependencyError,
    PluginError,
    UnknownComponentError,
)
from epitaxy.refusal import check_hooks, location_of, reason_of, refusal
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from pluggy import HookImpl

    from epitaxy.run import Run

__all__ = ["KINDS", "RUNTIME", "Component", "Kind", "Offer", "Problem", "Registry"]

RUNTIME: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {"strategy": frozenset({"run"}), "calculator": frozenset({"device", "dtype"})}
)
"""Keyword arguments that the program gives when it calls a component: never options."""

_HOOK_OF: Mapping[Kind, str] = MappingProxyType(
    {kind: f"provide_{kind}s" for kind in KINDS} | {"strategy": "provide_strategies"}
)
_logger = logging.getLogger("epitaxy")


class Registry:
    """The plugins found in this environment, and what they offer.

    Attributes:
        offers: kind -> offers, in the order of the plugins' names.
        problems: plugins that did not load and hooks that failed; never hidden from the user.
        plugins: plugin name -> the module or object behind it.
    """

    def __init__(self) -> None:
        self.offers: dict[Kind, list[Offer]] = {kind: [] for kind in KINDS}
        self.problems: list[Problem] = []
        self.plugins: dict[str, object] = {}
        self._distributions: dict[str, str] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def from_entry_points(cls) -> Registry:
        """Load every installed plugin; a broken one becomes a `Problem` and breaks nothing."""
        registry = cls()
        found = [
            (point.name, *_distribution_of(point), point)
            for point in entry_points(group=hookspecs.GROUP)
        ]
        for name, distribution, version, point in sorted(found, key=lambda item: item[:3]):
            try:
                registry.add(name, point.load(), distribution=distribution, version=version)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too: a plugin cannot end the program
                registry.problems.append(
                    Problem(name, distribution, reason_of(error), location_of(error))
                )
        return registry

    def add(self, name: str, plugin: object, *, distribution: str = "", version: str = "") -> None:
        """Check one plugin and record what it offers; on any error nothing of it stays.

        Args:
            name: name of the plugin, the first half of ``plugin/component``.
            plugin: a module or an object with functions marked by `epitaxy.hookimpl`.
            distribution: what pip calls it.
            version: version of the distribution.

        Raises:
            PluginError: the plugin is written for another version of this interface, has a
                misspelt or unmarked hook, a wrong hook argument, or a malformed component.
        """
        wanted = getattr(plugin, "epitaxy_api", hookspecs.API_VERSION)
        if wanted != hookspecs.API_VERSION:
            older = isinstance(wanted, int) and wanted < hookspecs.API_VERSION
            raise PluginError(
                f"written for plugin interface {wanted!r}, this epitaxy has "
                f"{hookspecs.API_VERSION}: update {'the plugin' if older else 'epitaxy'}"
            )
        if name in self.plugins:
            raise PluginError(
                f"a plugin named {name!r} is already there (from "
                f"{self._distributions[name] or 'this program'}): uninstall one of the two"
            )
        check_hooks(plugin)
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            collected = {
                kind: self._collect(kind, name, distribution=distribution, version=version)
                for kind in KINDS
            }
        except BaseException:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise
        for kind, offers in collected.items():
            self.offers[kind] += offers
        self.plugins[name] = plugin
        self._distributions[name] = distribution

    def _collect(self, kind: Kind, plugin: str, *, distribution: str, version: str) -> list[Offer]:
        offers: list[Offer] = []
        for implementation in self._implementations(_HOOK_OF[kind]):
            if implementation.plugin_name != plugin:
                continue
            if implementation.wrapper or implementation.hookwrapper:
                raise refusal(implementation.function, f"{_HOOK_OF[kind]} cannot be a wrapper")
            for component in cast("Iterable[object]", implementation.function()):
                if not isinstance(component, Component):
                    raise refusal(
                        implementation.function,
                        f"{_HOOK_OF[kind]} returned {component!r}, which is not a Component",
                    )
                try:
                    component.check(kind)
                except PluginError as error:
                    raise refusal(implementation.function, str(error)) from None
                if any(component.name == offer.component.name for offer in offers):
                    raise refusal(
                        implementation.function,
                        f"two components of kind {kind} are named {component.name!r}",
                    )
                offers.append(Offer(kind, plugin, distribution, version, component))
        return offers

    def _implementations(self, hook: str) -> list[HookImpl]:
        """Return the implementations of a hook, in the order in which pluggy calls them."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller.get_hookimpls()[::-1]

    def __iter__(self) -> Iterator[Offer]:
        """Iterate over everything on offer, kind by kind."""
        for offers in self.offers.values():
            yield from offers

    def find(self, kind: Kind, name: str) -> Offer:
        """Return the offer that a short name or ``plugin/name`` refers to.

        Raises:
            UnknownComponentError: there is none; the message suggests the nearest name.
            AmbiguousComponentError: several plugins use the short name; it lists them.
        """
        hits = [
            offer
            for offer in self.offers[kind]
            if name in (offer.component.name, offer.qualified_name)
        ]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise AmbiguousComponentError(
                f"{kind} {name!r} is offered by several plugins: use one of "
                f"{', '.join(offer.qualified_name for offer in hits)}"
            )
        elsewhere = [
            f"{offer.kind} {offer.component.name!r}"
            for offer in self
            if name in (offer.component.name, offer.qualified_name)
        ]
        message = f"no {kind} named {name!r}"
        message += f" (but there is a {elsewhere[0]})" if elsewhere else ""
        raise UnknownComponentError(
            self._unknown(message, name, [offer.component.name for offer in self.offers[kind]])
        )

    def find_any(self, name: str) -> Offer:
        """Return the offer that ``[kind/][plugin/]name`` refers to, whatever its kind.

        Raises:
            UnknownComponentError: there is none; the message suggests the nearest name.
            AmbiguousComponentError: the name stands for several; the message lists them.
        """
        first, _, rest = name.partition("/")
        if rest and first in KINDS and first not in self.plugins:
            return self.find(KINDS[KINDS.index(first)], rest)
        hits = [
            offer
            for offer in self
            if name
            in (
                offer.component.name,
                offer.qualified_name,
                f"{offer.kind}/{offer.component.name}",
                f"{offer.kind}/{offer.qualified_name}",
            )
        ]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise AmbiguousComponentError(
                f"{name!r} stands for several components: use one of "
                f"{', '.join(f'{offer.kind}/{offer.qualified_name}' for offer in hits)}"
            )
        raise UnknownComponentError(
            self._unknown(
                f"no component named {name!r}", name, [offer.component.name for offer in self]
            )
        )

    def _unknown(self, message: str, name: str, known: list[str]) -> str:
        close = difflib.get_close_matches(name.rpartition("/")[2], known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        broken = "".join(f" Note: {problem}." for problem in self.problems if not problem.hook)
        return f"{message}; installed: {', '.join(sorted(set(known))) or 'none'}.{hint}{broken}"

    def load(self, kind: Kind, name: str) -> Any:
        """Import and return the class, function or command module behind a component.

        Raises:
            UnknownComponentError: there is none of this name.
            AmbiguousComponentError: several plugins use the short name.
            MissingDependencyError: a package is not installed; it gives the pip command.
            PluginError: the target cannot be imported or has no such attribute.
        """
        offer = self.find(kind, name)
        title = f"{kind} {offer.qualified_name!r}"
        if missing := offer.component.missing():
            raise MissingDependencyError(
                f"{title} needs {', '.join(missing)}; install with: {offer.install_command}"
            )
        module_name, _, attributes = offer.component.target.partition(":")
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (
                module_name == error.name or module_name.startswith(error.name + ".")
            ):
                raise PluginError(f"{title}: its module {module_name!r} does not exist") from error
            raise MissingDependencyError(
                f"{title} needs {error.name or error}, which is not installed "
                f"(and which the plugin should list in `needs`)"
                + (f"; try: {offer.install_command}" if offer.distribution else "")
            ) from error
        except Exception as error:
            raise PluginError(
                f"{title}: importing {module_name!r} failed: {reason_of(error)} "
                f"[{location_of(error)}]"
            ) from error
        target: Any = module
        for attribute in filter(None, attributes.split(".")):
            if not hasattr(target, attribute):
                close = difflib.get_close_matches(attribute, dir(target), n=1)
                raise PluginError(
                    f"{title}: {module_name!r} has no {attributes!r}"
                    + (f"; did you mean {close[0]!r}?" if close else "")
                )
            target = getattr(target, attribute)
        return target

    def resolve(self, kind: Kind, config: str | Mapping[str, Any] | Spec) -> Spec:
        """Check a recipe without building it; return it complete.

        Every option is filled in and the name is ``plugin/name``, so that what is stored means
        the same after an update, and after another plugin with the same short name is installed.

        Raises:
            OptionError: an option is unknown, missing or has a wrong value.
            PluginError: as `load`.
        """
        from epitaxy.options import complete_options

        spec = Spec.from_config(config)
        target = self.load(kind, spec.use)
        title = f"{kind} {spec.use!r}"
        return Spec(
            self.find(kind, spec.use).qualified_name,
            complete_options(title, target, spec.options, runtime=RUNTIME.get(kind, frozenset())),
        )

    def factory(self, kind: Kind, config: str | Mapping[str, Any] | Spec) -> Callable[..., Any]:
        """Return the target with its checked options bound, not yet called.

        Raises:
            OptionError: an option is unknown, missing or has a wrong value.
            PluginError: as `load`.
        """
        from epitaxy.options import check_options

        spec = Spec.from_config(config)
        target = self.load(kind, spec.use)
        title = f"{kind} {spec.use!r}"
        options = check_options(title, target, spec.options, runtime=RUNTIME.get(kind, frozenset()))
        return functools.partial(target, **options)

    def build(self, kind: Kind, config: str | Mapping[str, Any] | Spec) -> Any:
        """Build a component from its name, from ``{"use": name, **options}`` or a `Spec`.

        A class is instantiated with its options. A calculator, and a strategy that is a plain
        function, come back with their options bound, to be called with what remains:
        ``(path, device=..., dtype=...)`` and ``(model, split, run=...)``. A command comes back
        as its module.

        Raises:
            OptionError: an option is unknown, missing or has a wrong value.
            PluginError: as `load`.
        """
        if kind == "command":
            return self.load(kind, Spec.from_config(config).use)
        factory = self.factory(kind, config)
        target = factory.func  # type: ignore[attr-defined]
        if kind == "calculator" or (kind == "strategy" and not inspect.isclass(target)):
            return factory
        return factory()

    def identify(self, path: Path) -> str | None:
        """Return the name of the source that reads `path`, or None if no plugin knows it.

        A plugin whose `identify_path` fails is recorded in `problems` and passed over.
        """
        for implementation in self._implementations("identify_path"):
            answer = self._call(implementation, {"path": path})
            if answer is None:
                continue
            own = [o for o in self.offers["source"] if o.plugin == implementation.plugin_name]
            for offer in own:
                if answer in (offer.component.name, offer.qualified_name):
                    short = offer.component.name
                    clash = [o for o in self.offers["source"] if o.component.name == short]
                    return short if len(clash) == 1 else offer.qualified_name
            self._record(
                implementation,
                f"answered {answer!r} for {path}; its sources are "
                f"{', '.join(offer.component.name for offer in own) or 'none'}",
            )
        return None

    def run_started(self, run: Run, facts: Mapping[str, Any]) -> None:
        """Tell every observer that training starts; a failing one is recorded."""
        self._observe("run_started", {"run": run, "facts": facts})

    def epoch_finished(self, run: Run, epoch: int, metrics: Mapping[str, float]) -> None:
        """Tell every observer that an epoch has ended; a failing one is recorded."""
        self._observe("epoch_finished", {"run": run, "epoch": epoch, "metrics": metrics})

    def run_finished(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Tell every observer that training has ended; a failing one is recorded."""
        self._observe("run_finished", {"run": run, "metrics": metrics})

    def _observe(self, hook: str, arguments: Mapping[str, Any]) -> None:
        for implementation in self._implementations(hook):
            self._call(implementation, arguments)

    def _call(self, implementation: HookImpl, arguments: Mapping[str, Any]) -> Any:
        try:
            return implementation.function(*(arguments[name] for name in implementation.argnames))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's SystemExit must not end a training
            self._record(implementation, reason_of(error), location_of(error))
            return None

    def _record(self, implementation: HookImpl, reason: str, location: str = "") -> None:
        plugin = implementation.plugin_name
        hook = implementation.opts.get("specname") or implementation.function.__name__
        problem = Problem(plugin, self._distributions.get(plugin, ""), reason, location, hook)
        if problem not in self.problems:  # an observer fails in every epoch: say it once
            self.problems.append(problem)
            _logger.warning("%s", problem)


def _distribution_of(point: EntryPoint) -> tuple[str, str]:
    """Return name and version of what installed an entry point, "" where that is damaged."""
    try:
        return (point.dist.name or "", point.dist.version or "") if point.dist else ("", "")
    except Exception:  # the folder of metadata is incomplete; the plugin itself may be well
        return "", ""
