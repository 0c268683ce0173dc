"""Options of a component: its keyword-only signature, checked by pydantic.

The signature is the only place where options are declared. Their meaning is the text of the
docstring's Args section. A configuration file is checked against both, `epitaxy show` prints
them.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Union

from epitaxy.errors import OptionError, PluginError
from epitaxy.spec import Spec
from epitaxy.wrong_options import explain

if TYPE_CHECKING:
    from pydantic import BaseModel

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a component.

    Attributes:
        name: the key in a configuration file.
        type: the annotation, as text; "" where there is none.
        doc: its meaning, from the docstring; "" where there is none.
        default: what it is when it is not given.
        required: whether it must be given; `default` means nothing then.
    """

    name: str
    type: str
    doc: str
    default: Any = None
    required: bool = False


def options_of(
    target: Callable[..., Any], *, runtime: frozenset[str] = _NO_NAMES
) -> tuple[Option, ...]:
    """Return the options of a class or function: its keyword-only parameters.

    Args:
        target: a class (its ``__init__``) or a function.
        runtime: parameters that the program gives, as `run`; they are no options.

    Raises:
        PluginError: the target has no signature that Python can read.
    """
    docs = _documented(target)
    return tuple(
        Option(
            parameter.name,
            _type_text(parameter.annotation),
            docs.get(parameter.name, ""),
            None if parameter.default is parameter.empty else parameter.default,
            parameter.default is parameter.empty,
        )
        for parameter in _parameters(target, runtime)
    )


def check_options(
    title: str,
    target: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    runtime: frozenset[str] = _NO_NAMES,
) -> dict[str, Any]:
    """Return the given options, converted to the annotated types; defaults are left out.

    Args:
        title: what the errors call the component, for example "model 'painn'".
        target: the class or function that takes the options.
        options: what the user wrote.
        runtime: parameters that are no options.

    Raises:
        OptionError: an option is unknown, missing or has a wrong value: one line for each.
        PluginError: the annotations cannot be evaluated.
    """
    from pydantic import ValidationError

    schema = options_schema(target, runtime=runtime)
    try:
        checked = schema(**{str(key): value for key, value in options.items()})
    except ValidationError as error:
        raise OptionError(
            explain(
                title,
                options_of(target, runtime=runtime),
                runtime,
                {p.name: _hint(target, p) for p in _parameters(target, runtime)},
                error.errors(include_url=False),
            )
        ) from None
    return {
        field.alias or name: getattr(checked, name)
        for name, field in schema.model_fields.items()
        if name in checked.model_fields_set
    }


def complete_options(
    title: str,
    target: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    runtime: frozenset[str] = _NO_NAMES,
) -> dict[str, Any]:
    """Return all options as plain data: the given ones checked, the others at their defaults.

    Raises:
        OptionError: an option is unknown, missing or has a wrong value: one line for each.
        PluginError: the annotations cannot be evaluated.
    """
    given = check_options(title, target, options, runtime=runtime)
    return {
        option.name: _plain(given.get(option.name, option.default))
        for option in options_of(target, runtime=runtime)
    }


def json_schema(
    target: Callable[..., Any], *, runtime: frozenset[str] = _NO_NAMES
) -> dict[str, Any]:
    """Return the JSON schema of the options, for editors and web forms.

    Raises:
        PluginError: the annotations cannot be evaluated.
    """
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

    class Tolerant(GenerateJsonSchema):
        """Describes a type that JSON does not know as "anything"."""

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
            return {}

        def emit_warning(self, kind: Any, detail: str) -> None:
            """Leave out a default that JSON cannot hold, in silence."""

    return options_schema(target, runtime=runtime).model_json_schema(schema_generator=Tolerant)


def options_schema(
    target: Callable[..., Any], *, runtime: frozenset[str] = _NO_NAMES
) -> type[BaseModel]:
    """Return the pydantic model of a target's options; unknown keys are refused.

    Fields are called ``option_0`` ... with the option's name as alias, because an option may
    have any name, also one that pydantic uses itself, as ``schema`` or ``model_config``.

    Raises:
        PluginError: the annotations cannot be evaluated.
    """
    from pydantic import ConfigDict, Field, create_model

    docs = _documented(target)
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(_parameters(target, runtime)):
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"option_{index}"] = (
            _hint(target, parameter),
            Field(
                default,
                alias=parameter.name,
                title=parameter.name,
                description=docs.get(parameter.name) or None,
            ),
        )
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    name = getattr(target, "__name__", type(target).__name__)
    try:
        schema: type[BaseModel] = create_model(name, __config__=config, **fields)
    except Exception as error:
        raise PluginError(f"{name}: its options cannot be checked: {error}") from error
    return schema


def _function(target: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose signature holds the options."""
    if inspect.isclass(target):
        return typing.cast("Callable[..., Any]", target.__init__)
    return typing.cast("Callable[..., Any]", inspect.unwrap(target))


def _parameters(target: Callable[..., Any], runtime: frozenset[str]) -> list[inspect.Parameter]:
    function = _function(target)
    if function is object.__init__:
        return []
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(f"{target!r} has no readable signature: {error}") from error
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in runtime]


def _type_text(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)  # pathlib.Path -> Path


def _hint(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the evaluated annotation of one option; each is evaluated by itself."""
    if parameter.annotation is parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={"option": parameter.annotation})
    scope = getattr(_function(target), "__globals__", {})
    try:
        hint = typing.get_type_hints(holder, globalns=scope, include_extras=True)["option"]
    except Exception as error:
        raise PluginError(
            f"{getattr(target, '__name__', target)}: the type {parameter.annotation!r} of option "
            f"{parameter.name!r} cannot be evaluated: {error} (import its names outside "
            f"`if TYPE_CHECKING:`)"
        ) from error
    return _with_specs(hint)


def _with_specs(hint: Any) -> Any:
    """Let every `Spec` in a type be written as a name or as ``{"use": name, ...}``."""
    if hint is Spec:
        from pydantic import PlainValidator, WithJsonSchema

        written = {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"use": {"type": "string"}}, "required": ["use"]},
            ]
        }
        return Annotated[Spec, PlainValidator(_read_spec), WithJsonSchema(written)]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    changed = tuple(_with_specs(argument) for argument in arguments)
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return hint
    if origin in (Union, types.UnionType):
        return Union[changed]  # noqa: UP007  (built at run time)
    if origin in (list, tuple, dict, set, frozenset) or (
        isinstance(origin, type) and origin.__module__ == collections.abc.__name__
    ):
        return origin[changed if len(changed) > 1 or origin is tuple else changed[0]]
    return hint


def _read_spec(value: Any) -> Spec:
    if not isinstance(value, str | Mapping | Spec):
        raise ValueError("must be the name of a component or a mapping with the key 'use'")
    return Spec.from_config(value)


def _plain(value: Any) -> Any:
    """Return a value as JSON and YAML can hold it."""
    from pydantic_core import to_jsonable_python

    if isinstance(value, Spec):
        return _plain(value.to_config())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, fallback=str)


_SECTION = re.compile(r"(Args|Arguments|Attributes|Parameters):\s*")
_ENTRY = re.compile(r"\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)")


def _documented(target: Callable[..., Any]) -> dict[str, str]:
    """Return option name -> meaning, from the docstrings of a class, its bases or a function."""
    if not inspect.isclass(target):
        return _arguments(inspect.unwrap(target).__doc__ or "")
    found: dict[str, str] = {}
    for owner in target.__mro__:
        for text in (
            vars(owner).get("__doc__"),
            getattr(vars(owner).get("__init__"), "__doc__", ""),
        ):
            for name, meaning in _arguments(text or "").items():
                found.setdefault(name, meaning)
    return found


@functools.lru_cache(maxsize=256)
def _read_arguments(docstring: str) -> tuple[tuple[str, str], ...]:
    entries: list[list[str]] = []
    indent = -1  # of the entries of the section; -1 outside of it
    for line in inspect.cleandoc(docstring).splitlines():
        depth = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if depth == 0:
            indent = 0 if _SECTION.fullmatch(line) else -1
        elif indent >= 0:
            indent = indent or depth
            entry = _ENTRY.fullmatch(line.strip()) if depth == indent else None
            if entry:
                entries.append([entry[1], entry[2]])
            elif entries:
                entries[-1][1] += f" {line.strip()}"
    return tuple((name, meaning.strip()) for name, meaning in entries)


def _arguments(docstring: str) -> dict[str, str]:
    return dict(_read_arguments(docstring))
