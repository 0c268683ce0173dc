"""Why a plugin is refused, and where: checks of its hooks, reasons and places of errors."""

from __future__ import annotations

import difflib
import inspect
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import pluggy

from epitaxy import hookspecs
from epitaxy.errors import PluginError


class RefusedError(PluginError):
    """A plugin is refused because of the function at `location`."""

    location = ""
    """Where the function is defined, "file:line"."""


def refusal(function: Any, reason: str) -> PluginError:
    """Return the error that refuses a plugin because of one function."""
    error = RefusedError(reason)
    code = getattr(inspect.unwrap(function), "__code__", None)
    error.location = f"{code.co_filename}:{code.co_firstlineno}" if code else ""
    return error


def check_hooks(plugin: object) -> None:
    """Check names and arguments of a plugin's hooks: pluggy's own messages name no place.

    Raises:
        PluginError: a hook is misspelt, not marked, has a wrong argument, or there is none.
    """
    known = {
        name: inspect.signature(getattr(hookspecs, name)).parameters
        for name in vars(hookspecs)
        if hasattr(getattr(hookspecs, name), f"{hookspecs.PROJECT}_spec")
    }
    has_hooks = False
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        options = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if function is None or not isinstance(options, dict):
            if name in known and inspect.isroutine(function):
                raise refusal(function, f"{name} is not marked with @hookimpl")
            continue
        has_hooks = True
        hook = options.get("specname") or name
        if hook not in known:
            if options.get("optionalhook"):
                continue
            close = difflib.get_close_matches(hook, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"hooks: {', '.join(known)}"
            raise refusal(function, f"there is no hook named {hook}; {hint}")
        unknown = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name not in known[hook] and parameter.default is parameter.empty
        ]
        if unknown:
            raise refusal(
                function,
                f"{hook} has no argument {', '.join(map(repr, unknown))}; "
                f"it takes: {', '.join(known[hook]) or 'none'}",
            )
    if not has_hooks:
        raise PluginError(
            "it implements no hook: no function is marked with @hookimpl (from epitaxy import "
            "hookimpl)"
        )


def reason_of(error: BaseException) -> str:
    """Return an error in one line; our own errors without the name of their class."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def location_of(error: BaseException) -> str:
    """Return "file:line" of the innermost frame outside the import and hook machinery."""
    if isinstance(error, RefusedError):
        return error.location
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    machinery = {Path(inspect.getfile(import_module)).parent, Path(pluggy.__file__).parent}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if (
            not frame.filename.startswith("<")
            and not any(path.is_relative_to(folder) for folder in machinery)
            and path.parent != Path(__file__).parent
        ):
            return f"{frame.filename}:{frame.lineno}"
    return ""
