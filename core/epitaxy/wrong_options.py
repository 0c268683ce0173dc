"""What was wrong with options, in the words of a configuration file and not in pydantic's."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epitaxy.options import Option

_MEANT = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dataclass_type": "must be a mapping of options",
    "dict_type": "must be a mapping of names to values",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "frozen_set_type": "must be a list",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "is_instance_of": "must be a list",
    "list_type": "must be a list",
    "mapping_type": "must be a mapping of names to values",
    "none_required": "must be left out",
    "path_type": "must be a path",
    "sequence_str": "must be a list",
    "set_type": "must be a list",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
}
_NO_PLACE = ("extra_forbidden", "missing", "unexpected_keyword_argument")


def explain(
    title: str,
    options: Sequence[Option],
    runtime: frozenset[str],
    hints: Mapping[str, Any],
    problems: Sequence[Mapping[str, Any]],
) -> str:
    """Return one line per wrong option.

    Args:
        title: what the component is called, for example "model 'painn'".
        options: that it takes.
        runtime: parameters that the program gives.
        hints: option -> type.
        problems: what pydantic has found.
    """
    names = [option.name for option in options]
    lines: list[str] = []
    wrong: dict[str, list[Mapping[str, Any]]] = {}
    for problem in problems:
        path = ".".join(str(part) for part in problem["loc"])
        top = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden" and top not in names:
            hint = " The program sets it, it is not an option." if path in runtime else ""
            lines.append(_unknown(title, path, names) + (hint or _near(path, names)))
        elif problem["type"] == "missing" and top in names and len(problem["loc"]) == 1:
            option = options[names.index(top)]
            meaning = f": {option.doc}" if option.doc else ""
            lines.append(f"{title} needs the option {top!r} ({option.type}){meaning}")
        else:
            wrong.setdefault(top, []).append(problem)
    for top, found in wrong.items():
        lines += _wrong_values(title, top, found, hints.get(top))
    return "\n".join(lines)


def _wrong_values(
    title: str, top: str, problems: Sequence[Mapping[str, Any]], hint: Any
) -> list[str]:
    """Return one line per wrong place inside one option.

    Of a union pydantic reports every member that does not fit; what fits farthest is meant.
    """
    found: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for problem in problems:
        found.setdefault(_place(problem, hint), []).append(problem)
    if any(len(_place(problem, hint)) < len(problem["loc"]) for problem in problems):
        deepest = max(len(place) for place in found)
        found = {place: those for place, those in found.items() if len(place) == deepest}
    lines = []
    for place, those in found.items():
        path = ".".join(str(part) for part in place)
        kind, value = those[0]["type"], those[0]["input"]
        if kind == "missing":
            where = ".".join(str(part) for part in place[:-1])
            lines.append(f"{title}: {where} needs {place[-1]!r}")
        elif kind in _NO_PLACE:
            fields = (dataclasses.fields(one) for one in _dataclasses_in(hint))
            names = sorted({field.name for each in fields for field in each})
            owner = ".".join(str(part) for part in place[:-1])
            name = str(place[-1])
            lines.append(_unknown(f"{title}: {owner}", name, names) + _near(name, names))
        else:
            meant = dict.fromkeys(_meaning(problem) for problem in those)
            lines.append(f"{title}: {path} = {value!r}: {', or '.join(meant)}")
    return lines


def _meaning(problem: Mapping[str, Any]) -> str:
    kind = str(problem["type"])
    if kind == "literal_error":
        return f"allowed: {problem['ctx']['expected']}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return _MEANT.get(kind, message)


def _place(problem: Mapping[str, Any], hint: Any) -> tuple[object, ...]:
    """Return the keys that lead to a problem, without pydantic's names of types between them."""
    loc = tuple(problem["loc"])
    types = {"bool", "bytes", "float", "int", "none", "str"}
    types |= {one.__name__ for one in _dataclasses_in(hint)}
    kept = [p for p in loc[1:] if not isinstance(p, str) or not (p in types or "[" in p)]
    return (loc[0], *kept)


def _dataclasses_in(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _dataclasses_in(argument)


def _unknown(owner: str, name: str, names: Sequence[str]) -> str:
    return f"{owner} has no option {name!r}; it takes: {', '.join(names) or 'none'}."


def _near(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
