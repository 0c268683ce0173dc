"""The conformance kit: checks that any plugin, ours or a stranger's, runs on itself.

Use it in a test::

    import pytest
    from epitaxy.testing import checks_for

    @pytest.mark.parametrize("check", checks_for("my-plugin"), ids=str)
    def test_plugin(check):
        check()

``epitaxy check my-plugin`` runs the same checks without pytest.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Literal
from unittest import SkipTest

from epitaxy.component import Offer
from epitaxy.errors import PluginError
from epitaxy.registry import Registry

__all__ = ["Check", "checks_for"]

Outcome = Literal["passed", "failed", "skipped", "expected"]


@dataclass(frozen=True, slots=True)
class Check:
    """One named check; call it to run it.

    Attributes:
        name: what is checked, for example "model/graphs/painn: batch equals single".
        run: raises AssertionError, or any other error, when the check fails, and
            `unittest.SkipTest` when it cannot be made here.
        expected_failure: why it is known to fail; "" if it must pass.
    """

    name: str
    run: Callable[[], None]
    expected_failure: str = ""

    def __str__(self) -> str:
        """The name, for ``ids=str``."""
        return self.name

    def __call__(self) -> None:
        """Run the check under pytest or unittest.

        Raises:
            AssertionError: it fails, or it passes although its failure is expected.
            SkipTest: it cannot be made here, or it fails as expected.
        """
        if not self.expected_failure:
            self.run()
            return
        try:
            self.run()
        except SkipTest:
            raise
        except Exception as error:
            raise SkipTest(f"fails as expected: {self.expected_failure}") from error
        raise AssertionError(
            f"{self.name} passes, but its failure is expected ({self.expected_failure}): "
            f"remove it from expected_failures"
        )

    def outcome(self) -> tuple[Outcome, str]:
        """Run the check and return how it went, and why, in one line."""
        try:
            self()
        except SkipTest as error:
            return ("expected" if error.__cause__ else "skipped"), str(error)
        except AssertionError as error:
            return "failed", " ".join(str(error).split()) or "an assertion without a message"
        except Exception as error:
            return "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
        return "passed", ""


def checks_for(
    name: str,
    *,
    registry: Registry | None = None,
    example: Mapping[str, object] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks of a plugin, or of one component.

    Args:
        name: a plugin, or a component as NAME, PLUGIN/NAME or KIND/NAME.
        registry: where plugins are found; this environment's if not given.
        example: options with which one component is built, instead of its `Component.example`;
            for example the path of a file that only the test knows.
        expected_failures: name of a check, whole or from the last colon on -> why it fails.
            A plugin declares its own as a mapping `expected_failures` in its plugin module.

    Raises:
        PluginError: there is no such plugin or component, an expected failure names no check, or
            example options are given for a whole plugin.
    """
    registry = registry or Registry.from_entry_points()
    if name in registry.plugins or any(name == problem.plugin for problem in registry.problems):
        from epitaxy.testing.plugin_checks import checks as plugin_checks

        if example is not None:
            raise PluginError(f"{name!r} is a whole plugin: give example options to one component")
        offers = [offer for offer in registry if offer.plugin == name]
        found = plugin_checks(registry, name)
        plugin = name
    else:
        offer = registry.find_any(name)
        if example is not None:
            offer = replace(offer, component=replace(offer.component, example=example))
        offers = [offer]
        found = []
        plugin = offer.plugin
    for offer in offers:
        found += _component_checks(registry, offer)
    declared = getattr(registry.plugins.get(plugin), "expected_failures", {})
    return _with_expectations(
        found, {**declared, **(expected_failures or {})}, is_whole=name == plugin
    )


def _component_checks(registry: Registry, offer: Offer) -> list[Check]:
    from epitaxy.testing.plugin_checks import component_checks

    found = component_checks(registry, offer)
    module = f"epitaxy.testing.{offer.kind}_checks"
    if find_spec(module) is None:
        return found
    if missing := offer.component.missing():
        reason = f"needs {', '.join(missing)}: {offer.install_command}"
        skip = functools.partial(_skip, reason)
        return [*found, Check(f"{offer.kind}/{offer.qualified_name}: behaviour", skip)]
    try:
        behaviour: list[Check] = import_module(module).checks(registry, offer)
    except PluginError:  # the check of the target says why
        return found
    return [*found, *behaviour]


def _skip(reason: str) -> None:
    raise SkipTest(reason)


def _with_expectations(
    checks: list[Check], expected: Mapping[str, str], *, is_whole: bool
) -> list[Check]:
    """Mark the checks that are expected to fail; every expectation must meet a check."""
    marked = []
    used = set()
    for check in checks:
        short = check.name.rpartition(": ")[2]
        key = check.name if check.name in expected else short
        if key in expected:
            used.add(key)
            check = replace(check, expected_failure=expected[key])
        marked.append(check)
    unused = [name for name in expected if name not in used]
    if unused and is_whole:
        names = [check.name for check in checks]
        close = difflib.get_close_matches(unused[0], names, n=1)
        raise PluginError(
            f"expected_failures names {unused[0]!r}, which is no check"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )
    return marked
