"""Options are the keyword-only signature and the docstring, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from epitaxy.errors import OptionError, PluginError
from epitaxy.options import check_options, complete_options, json_schema, options_of
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from ase import Atoms


class Network:
    """A network.

    Args:
        width: features per atom; a long meaning
            goes on in the next line.
        cutoff (float): radius, Å.
        activation: smooth function: one of two.

    Raises:
        ValueError: never.
    """

    def __init__(
        self,
        atoms: Atoms | None = None,
        /,
        label: str = "",
        *,
        width: int = 64,
        cutoff: float = 5.0,
        activation: Literal["silu", "tanh"] = "silu",
        folder: Path | None = None,
    ) -> None:
        pass


class Child(Network):
    """Inherits the options and their meaning."""


def test_only_keyword_only_parameters_are_options() -> None:
    assert [o.name for o in options_of(Network)] == ["width", "cutoff", "activation", "folder"]


def test_meaning_type_and_default_are_read() -> None:
    width, cutoff, activation, folder = options_of(Network)
    assert width.doc == "features per atom; a long meaning goes on in the next line."
    assert (width.type, width.default, width.required) == ("int", 64, False)
    assert cutoff.doc == "radius, Å."
    assert activation.doc == "smooth function: one of two."
    assert folder.doc == ""


def test_an_inherited_signature_keeps_its_meaning() -> None:
    assert options_of(Child) == options_of(Network)


def test_a_class_without_options_takes_none() -> None:
    class Plain:
        pass

    assert options_of(Plain) == ()
    with pytest.raises(OptionError, match="it takes: none"):
        check_options("model 'plain'", Plain, {"width": 1})


def test_values_are_converted_and_defaults_left_to_the_target() -> None:
    given = check_options("model", Network, {"width": "32", "cutoff": "1e1", "folder": "a/b"})
    assert given == {"width": 32, "cutoff": 10.0, "folder": Path("a/b")}


def test_wrong_values_name_the_option_the_value_and_what_is_allowed() -> None:
    with pytest.raises(OptionError, match="activation = 'relu': allowed: 'silu' or 'tanh'"):
        check_options("model 'n'", Network, {"activation": "relu"})


@dataclass
class Head:
    """Of one target."""

    pooling: Literal["mean", "sum"] = "mean"
    hidden: tuple[int, ...] | None = None


def with_heads(*, targets: Mapping[str, Head] | Sequence[str]) -> None:
    """Take heads, or names."""


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            {"gap": {"poolin": "sum"}},
            "n: targets.gap has no option 'poolin'; it takes: hidden, pooling. "
            "Did you mean 'pooling'?",
        ),
        ({"gap": {"pooling": "max"}}, "n: targets.gap.pooling = 'max': allowed: 'mean' or 'sum'"),
        ({"gap": {"hidden": 64}}, "n: targets.gap.hidden = 64: must be a list"),
        ({"gap": {"hidden": ["x"]}}, "n: targets.gap.hidden.0 = 'x': must be a whole number"),
        ({"gap": "sum"}, "n: targets.gap = 'sum': must be a mapping of options"),
        ("gap", "n: targets = 'gap': must be a mapping of names to values, or must be a list"),
    ],
)
def test_wrong_options_inside_an_option_are_said_in_the_words_of_the_file(targets, message) -> None:
    with pytest.raises(OptionError) as caught:
        check_options("n", with_heads, {"targets": targets})
    assert str(caught.value) == message


def test_complete_options_are_plain_data() -> None:
    assert complete_options("model", Network, {"folder": Path("a")}) == {
        "width": 64,
        "cutoff": 5.0,
        "activation": "silu",
        "folder": "a",
    }


def nested(
    *,
    first: Spec,
    others: Sequence[Spec] = (),
    named: Mapping[str, Spec] | None = None,
    seed: int = 0,
) -> None:
    """Take other components.

    Args:
        first: one.
        others: many.
        named: many with names.
        seed: of the run.
    """


def test_nested_components_are_written_as_names_or_mappings() -> None:
    given = check_options(
        "strategy",
        nested,
        {"first": "direct", "others": [{"use": "painn", "width": 8}], "named": {"a": "schnet"}},
    )
    assert given == {
        "first": Spec("direct"),
        "others": [Spec("painn", {"width": 8})],
        "named": {"a": Spec("schnet")},
    }
    complete = complete_options("strategy", nested, given)
    assert complete["others"] == [{"use": "painn", "width": 8}]


def test_a_nested_component_needs_a_name() -> None:
    with pytest.raises(OptionError, match="needs the key 'use'"):
        check_options("strategy", nested, {"first": {"width": 3}})
    with pytest.raises(OptionError, match=r"first = 3: .*name of a component"):
        check_options("strategy", nested, {"first": 3})


def test_runtime_arguments_are_no_options() -> None:
    runtime = frozenset({"seed"})
    assert "seed" not in [o.name for o in options_of(nested, runtime=runtime)]
    with pytest.raises(OptionError, match=r"no option 'seed'.*The program sets it"):
        check_options("strategy", nested, {"first": "a", "seed": 1}, runtime=runtime)


def odd(*, schema: int = 1, model_config: str = "", copy: bool = False, _hidden: int = 2) -> None:
    """Take options with names that pydantic uses itself."""


def test_an_option_may_have_any_name() -> None:
    assert check_options("odd", odd, {"schema": 2, "model_config": "a", "_hidden": 3}) == {
        "schema": 2,
        "model_config": "a",
        "_hidden": 3,
    }


def test_a_dataclass_with_keyword_only_fields_has_options() -> None:
    @dataclass(kw_only=True)
    class Options:
        """Fields.

        Attributes:
            width: features.
        """

        width: int = 3

    (option,) = options_of(Options)
    assert (option.name, option.doc, option.default) == ("width", "features.", 3)


def test_a_type_that_exists_for_the_type_checker_only_is_explained() -> None:
    def unresolvable(*, atoms: Atoms | None = None) -> None:
        pass

    with pytest.raises(PluginError, match=r"'Atoms \| None' of option 'atoms' .*TYPE_CHECKING"):
        check_options("model", unresolvable, {})


def test_the_json_schema_has_types_defaults_and_meanings() -> None:
    schema = json_schema(Network)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["cutoff"] == {
        "type": "number",
        "default": 5.0,
        "title": "cutoff",
        "description": "radius, Å.",
    }
    assert schema["properties"]["activation"]["enum"] == ["silu", "tanh"]
    assert json_schema(nested)["required"] == ["first"]


def test_a_type_that_json_does_not_know_is_anything() -> None:
    class Unit:
        pass

    unit = Unit()

    def measured(*, unit: Unit = unit) -> None:
        pass

    measured.__annotations__["unit"] = Unit
    assert json_schema(measured)["properties"]["unit"]["title"] == "unit"
    assert check_options("m", measured, {"unit": unit}) == {"unit": unit}
