"""Who may import whom, who stays light, and what must be documented."""

import argparse
import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import epitaxy
from epitaxy import hookspecs
from epitaxy.cli import CORE_VERBS
from epitaxy.registry import Registry

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "epitaxy"
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir())
LIGHT = ("__init__", "cli", "component", "errors", "hookspecs", "options", "refusal", "registry",
         "spec")  # fmt: skip


def imports(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Yield every module that a file imports, or those that it imports when it is imported."""
    for name, is_early in _imports(ast.parse(path.read_text(encoding="utf-8")), True):
        if is_early or not at_import_time:
            yield name


def _imports(node: ast.AST, is_early: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, is_early) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        yield node.module or "", is_early
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        is_early = False
    is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, is_early and not is_typing)


def top(name: str) -> str:
    return name.partition(".")[0]


def test_core_imports_no_plugin() -> None:
    for path in CORE.rglob("*.py"):
        for name in imports(path):
            assert not top(name).startswith("epitaxy_"), f"{path} imports {name}"


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_no_other_plugin(plugin: Path) -> None:
    for path in plugin.rglob("*.py"):
        for name in imports(path):
            is_other = top(name).startswith("epitaxy_") and top(name) != plugin.name
            assert not is_other, f"{path} imports {name}"


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_module_imports_only_epitaxy(plugin: Path) -> None:
    for name in imports(plugin / "plugin.py", at_import_time=True):
        is_light = top(name) in ("epitaxy", *sys.stdlib_module_names)
        assert is_light, f"{plugin.name}/plugin.py imports {name}"


@pytest.mark.parametrize("module", LIGHT)
def test_the_light_modules_of_the_core_import_nothing_heavy(module: str) -> None:
    name = "epitaxy" if module == "__init__" else f"epitaxy.{module}"
    code = (
        f"import sys, {name}\n"
        "print([m for m in ('torch', 'pymatgen', 'ase', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_epitaxy_imports_nothing_of_it() -> None:
    code = "import sys, epitaxy; print([m for m in sys.modules if m.startswith('epitaxy.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", epitaxy.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(epitaxy, name) is not None
    assert name in dir(epitaxy)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Potential'"):
        _ = epitaxy.Potential  # type: ignore[attr-defined]


def documented(page: str) -> set[str]:
    """Return the words between backticks in the headings of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return set(re.findall(r"^#+ .*?`(?:epitaxy )?([\w-]+)[^`]*`", text, re.MULTILINE))


def test_every_hook_is_documented() -> None:
    hooks = {
        name
        for name, function in vars(hookspecs).items()
        if inspect.isfunction(function) and hasattr(function, "epitaxy_spec")
    }
    assert hooks == {name for name in documented("plugins.md") if not name.startswith("new-")}


def first_party_verbs() -> dict[str, str]:
    """Return verb -> module, of the core and of our own plugins."""
    verbs = {name: f"epitaxy.commands.{name.replace('-', '_')}" for name in CORE_VERBS}
    for offer in Registry.from_entry_points().offers["command"]:
        if offer.distribution == "epitaxy":
            verbs[offer.component.name] = offer.component.target
    return verbs


def test_every_verb_is_documented_and_nothing_else() -> None:
    assert set(first_party_verbs()) == documented("command-line.md")


@pytest.mark.parametrize("verb", first_party_verbs())
def test_every_option_of_a_verb_is_documented_and_explained(verb: str) -> None:
    module = first_party_verbs()[verb]
    parser = argparse.ArgumentParser(add_help=False)
    import_module(module).add_arguments(parser)
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for action in parser._actions:
        assert action.help, f"epitaxy {verb}: {action.dest} has no help"
        for option in action.option_strings[-1:]:
            section = re.search(rf"^## `epitaxy {verb}\b.*?(?=^## |\Z)", text, re.M | re.S)
            assert section, verb
            assert f"`{option}" in section[0], f"epitaxy {verb} {option} is not in command-line.md"
