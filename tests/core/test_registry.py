"""The registry finds, explains and builds; what is broken harms nobody else."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epitaxy import Component, Registry, Spec, hookimpl
from epitaxy.errors import (
    AmbiguousComponentError,
    MissingDependencyError,
    OptionError,
    PluginError,
    UnknownComponentError,
)

Install = Callable[..., Path]

GOOD = '''
"""A plugin that works."""
from pathlib import Path
from epitaxy import Component, hookimpl

class Reader:
    """Reads.

    Args:
        path: file to read.
        stride: take every n-th frame.
    """
    def __init__(self, *, path: Path, stride: int = 1) -> None:
        self.path, self.stride = path, stride

@hookimpl
def provide_sources():
    return [Component(name="reader", target="good:Reader", summary="reads")]

@hookimpl
def identify_path(path):
    return "reader" if path.suffix == ".good" else None
'''


def problem_of(registry: Registry, plugin: str) -> Any:
    """Return the one problem of a plugin."""
    (problem,) = (p for p in registry.problems if p.plugin == plugin)
    return problem


@pytest.mark.parametrize(
    ("module", "reason", "line"),
    [
        ("import_error", "ModuleNotFoundError: No module named 'package_that_is_not_there'", 3),
        ("misspelt_hook", "no hook named provide_modles; did you mean provide_models?", 6),
        ("unmarked_hook", "provide_models is not marked with @hookimpl", 6),
        ("wrong_argument", "provide_models has no argument 'device'; it takes: none", 6),
        ("raises_half_way", "OSError: the list of models cannot be read", 18),
        ("yields_text", "provide_models returned 'painn', which is not a Component", 6),
        ("malformed_target", "'malformed_target.Model' must be 'package.module:Attribute'", 6),
        ("same_name_twice", "two components of kind model are named 'twin'", 6),
        ("wrapper", "provide_models cannot be a wrapper", 8),
        ("wrong_api", "written for plugin interface 99, this epitaxy has 1: update epitaxy", None),
        ("no_hooks", "it implements no hook", None),
        ("exits", "SystemExit: 3", 3),
    ],
)
def test_a_broken_plugin_is_listed_with_reason_and_place_and_leaves_nothing(
    install_plugin: Install, module: str, reason: str, line: int | None
) -> None:
    site = install_plugin(module, good=GOOD)
    registry = Registry.from_entry_points()
    problem = problem_of(registry, module.replace("_", "-"))
    assert reason in problem.reason
    assert problem.distribution == "stranger"
    assert problem.location == (f"{site / module}.py:{line}" if line else "")
    assert not [offer for offer in registry if offer.plugin == problem.plugin]
    assert registry.find("source", "reader").version == "0.1"


def test_a_syntax_error_is_placed_in_the_plugin(install_plugin: Install) -> None:
    site = install_plugin(unfinished="x = 1\ndef provide_models(:\n")
    problem = problem_of(Registry.from_entry_points(), "unfinished")
    assert problem.reason.startswith("SyntaxError")
    assert problem.location == f"{site / 'unfinished.py'}:2"


def test_all_broken_plugins_at_once_leave_the_good_one_working(install_plugin: Install) -> None:
    broken = ["import_error", "misspelt_hook", "wrong_argument", "raises_half_way", "exits"]
    install_plugin(*broken, good=GOOD)
    registry = Registry.from_entry_points()
    names = {problem.plugin for problem in registry.problems}
    assert {name.replace("_", "-") for name in broken} <= names
    reader = registry.build("source", {"use": "reader", "path": "a.good", "stride": "2"})
    assert (reader.path, reader.stride) == (Path("a.good"), 2)


def test_two_distributions_cannot_share_a_plugin_name(install_plugin: Install) -> None:
    site = install_plugin(good=GOOD)
    (site / "good2.py").write_text(GOOD)
    (site / "other-2.dist-info").mkdir()
    (site / "other-2.dist-info/METADATA").write_text("Name: other\nVersion: 2\n")
    (site / "other-2.dist-info/entry_points.txt").write_text("[epitaxy.plugins]\ngood = good2\n")
    problem = problem_of(Registry.from_entry_points(), "good")
    assert "a plugin named 'good' is already there (from other)" in problem.reason
    assert problem.distribution == "stranger"


def test_a_plugin_whose_metadata_are_gone_still_works(install_plugin: Install) -> None:
    site = install_plugin(good=GOOD)
    (site / "stranger-0.1.dist-info/METADATA").unlink()
    assert Registry.from_entry_points().find("source", "reader").plugin == "good"


def test_a_name_of_two_plugins_must_be_qualified(install_plugin: Install) -> None:
    install_plugin("clash_first", "clash_second")
    registry = Registry.from_entry_points()
    with pytest.raises(AmbiguousComponentError, match="clash-first/same, clash-second/same"):
        registry.find("source", "same")
    with pytest.raises(AmbiguousComponentError, match="source/clash-first/same"):
        registry.find_any("same")
    assert registry.build("source", "clash-second/same").origin == "second"
    assert registry.find_any("source/clash-first/same").plugin == "clash-first"


def test_a_missing_extra_gives_the_exact_pip_command(install_plugin: Install) -> None:
    site = install_plugin("missing_extra", distribution="stranger-models")
    shutil.copy(Path(__file__).parent / "broken_plugins/missing_extra_model.py", site)
    registry = Registry.from_entry_points()
    assert not [p for p in registry.problems if p.plugin == "missing-extra"]
    with pytest.raises(MissingDependencyError, match=r"pip install 'stranger-models\[gpu\]'$"):
        registry.load("model", "wants-extra")
    with pytest.raises(MissingDependencyError, match=r"pip install stranger-models$"):
        registry.load("model", "wants-dependency")
    with pytest.raises(MissingDependencyError, match="package_that_is_not_there, which is not"):
        registry.load("model", "wants-silently")


def test_a_missing_package_is_also_an_import_error(install_plugin: Install) -> None:
    install_plugin("missing_extra")
    with pytest.raises(ImportError):
        Registry.from_entry_points().load("model", "wants-extra")


def test_needs_may_name_a_submodule_without_importing_its_parent() -> None:
    here = Component(name="a", target="a:A", summary="a", needs=("xml.etree.ElementTree",))
    gone = Component(name="a", target="a:A", summary="a", needs=("xml.etree.Elementary", "xml"))
    assert here.missing() == ()
    assert gone.missing() == ("xml.etree.Elementary",)


def test_an_unknown_name_suggests_the_nearest_and_names_broken_plugins(
    install_plugin: Install,
) -> None:
    install_plugin("import_error", good=GOOD)
    registry = Registry.from_entry_points()
    with pytest.raises(UnknownComponentError) as caught:
        registry.find("source", "raeder")
    assert "Did you mean 'reader'?" in str(caught.value)
    assert "plugin 'import-error' (stranger) did not load" in str(caught.value)
    with pytest.raises(UnknownComponentError, match="but there is a source 'reader'"):
        registry.find("model", "reader")


def test_a_target_that_does_not_exist_is_explained(install_plugin: Install) -> None:
    install_plugin("wrong_options")
    registry = Registry.from_entry_points()
    with pytest.raises(PluginError, match="has no 'Positionl'; did you mean 'Positional'"):
        registry.load("featurizer", "absent")
    with pytest.raises(PluginError, match="its module 'wrong_options_gone' does not exist"):
        registry.load("featurizer", "nowhere")


def test_wrong_options_are_errors_with_the_nearest_match(install_plugin: Install) -> None:
    install_plugin(good=GOOD)
    registry = Registry.from_entry_points()
    with pytest.raises(OptionError) as caught:
        registry.build("source", {"use": "reader", "strid": 2, "stride": "two"})
    lines = str(caught.value).splitlines()
    assert "source 'reader' needs the option 'path' (Path): file to read." in lines
    assert any(line.startswith("source 'reader': stride = 'two'") for line in lines)
    assert any(
        "no option 'strid'; it takes: path, stride. Did you mean 'stride'?" in line
        for line in lines
    )


def test_resolve_checks_without_building_and_fills_in_defaults(install_plugin: Install) -> None:
    install_plugin(good=GOOD)
    registry = Registry.from_entry_points()
    resolved = registry.resolve("source", Spec("reader", {"path": Path("a.good")}))
    assert resolved.to_config() == {"use": "good/reader", "path": "a.good", "stride": 1}


class Loops:
    """A plugin made in code, with strategies, calculators and a command."""

    @hookimpl
    def provide_strategies(self) -> list[Component]:
        return [
            Component(name="function", target=f"{__name__}:strategy", summary="a function"),
            Component(name="class", target=f"{__name__}:Strategy", summary="a class"),
        ]

    @hookimpl
    def provide_calculators(self) -> list[Component]:
        return [Component(name="calculator", target=f"{__name__}:calculator", summary="one")]

    @hookimpl
    def provide_commands(self) -> list[Component]:
        return [Component(name="verb", target="json.tool", summary="a module")]


def strategy(model: Spec, split: Any, *, run: Any, members: int = 4) -> Any:
    """Return its arguments."""
    return model, split, run, members


class Strategy:
    """Return its arguments."""

    def __init__(self, *, inner: Spec = Spec("direct")) -> None:  # noqa: B008
        self.inner = inner

    def __call__(self, model: Spec, split: Any, *, run: Any) -> Any:
        return model, split, run, self.inner


def calculator(
    path: Path, *, device: str = "cpu", dtype: str = "float32", skin: float = 0.5
) -> Any:
    """Return its arguments."""
    return path, device, dtype, skin


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Return a registry with the plugin above."""
    import sys

    monkeypatch.setitem(
        sys.modules,
        __name__,
        SimpleNamespace(strategy=strategy, Strategy=Strategy, calculator=calculator),  # type: ignore[arg-type]
    )
    registry = Registry()
    registry.add("loops", Loops())
    return registry


def test_a_strategy_gets_its_options_early_and_the_run_late(registry: Registry) -> None:
    built = registry.build("strategy", {"use": "function", "members": 2})
    assert built("model", "split", run="run") == ("model", "split", "run", 2)
    with pytest.raises(OptionError, match=r"'run'; it takes: members\. The program sets it"):
        registry.build("strategy", {"use": "function", "run": 1})


def test_strategies_nest(registry: Registry) -> None:
    built = registry.build("strategy", {"use": "class", "inner": {"use": "function", "members": 2}})
    assert built("model", "split", run="run")[-1] == Spec("function", {"members": 2})


def test_a_calculator_gets_path_device_and_dtype_late(registry: Registry) -> None:
    built = registry.build("calculator", {"use": "calculator", "skin": 1})
    assert built(Path("model"), device="cuda") == (Path("model"), "cuda", "float32", 1.0)


def test_a_command_is_its_module(registry: Registry) -> None:
    assert hasattr(registry.build("command", "verb"), "main")


def test_a_refused_plugin_can_be_added_once_it_is_mended() -> None:
    class Flawed:
        broken = True

        @hookimpl
        def provide_models(self) -> Iterator[Component]:
            yield Component(name="model", target="a.b:C", summary="a model")
            if self.broken:
                raise ValueError("half way")

    registry, plugin = Registry(), Flawed()
    with pytest.raises(ValueError, match="half way"):
        registry.add("flawed", plugin)
    assert list(registry) == []
    plugin.broken = False
    registry.add("flawed", plugin)
    assert [offer.qualified_name for offer in registry] == ["flawed/model"]


def test_needs_given_as_text_is_refused() -> None:
    class Letters:
        @hookimpl
        def provide_models(self) -> list[Component]:
            return [Component(name="m", target="a:B", summary="", needs="torch")]  # type: ignore[arg-type]

    with pytest.raises(PluginError, match=r"needs = 'torch' must be a tuple .* needs=\('torch',\)"):
        Registry().add("letters", Letters())


def test_identify_asks_plugins_and_survives_a_broken_one(
    install_plugin: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install_plugin("failing_hooks", good=GOOD)
    registry = Registry.from_entry_points()
    before = len(registry.problems)
    with caplog.at_level(logging.WARNING, "epitaxy"):
        assert registry.identify(Path("data.good")) == "reader"
        assert registry.identify(Path("data.exit")) is None
        assert registry.identify(Path("data.invent")) is None
    reasons = [problem.reason for problem in registry.problems[before:]]
    assert reasons[0] == "ValueError: cannot look at data.good"
    assert reasons[1] == "SystemExit: 1"
    assert reasons[2].startswith("answered 'invented' for data.invent")
    assert "failed in identify_path" in caplog.text


def test_a_failing_observer_is_recorded_once_and_the_others_are_told(
    install_plugin: Install,
) -> None:
    told: list[Any] = []

    class Meter:
        @hookimpl
        def epoch_finished(self, run: Any, metrics: Mapping[str, float]) -> None:
            told.append((run, dict(metrics)))

    install_plugin("failing_hooks")
    registry = Registry.from_entry_points()
    before = len(registry.problems)
    registry.add("meter", Meter())
    for epoch in range(3):
        registry.epoch_finished("run", epoch, {"loss": 1.0})  # type: ignore[arg-type]
    assert told == [("run", {"loss": 1.0})] * 3
    (problem,) = registry.problems[before:]
    assert (problem.plugin, problem.hook) == ("failing-hooks", "epoch_finished")


def test_the_registry_is_an_observer_of_a_run(tmp_path: Path) -> None:
    from epitaxy.run import Run

    told: list[str] = []

    class Meter:
        @hookimpl
        def run_started(self, facts: Mapping[str, Any]) -> None:
            told.append(f"started {facts['n_structures']}")

        @hookimpl
        def run_finished(self, run: Run) -> None:
            told.append(f"finished {run.directory.name}")

    registry = Registry()
    registry.add("meter", Meter())
    run = Run(tmp_path / "here", observers=[registry])
    run.started({"n_structures": 3})
    run.finished({})
    assert told == ["started 3", "finished here"]
