"""The command line: instant, clear about mistakes, and quiet when the reader has gone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epitaxy.cli import CORE_VERBS, main

Install = Callable[..., Path]

HEAVY = ("torch", "ase", "pymatgen", "numpy", "scipy", "pydantic", "rich")

PLUGIN = '''
"""Offers verbs."""
from epitaxy import Component, hookimpl

@hookimpl
def provide_commands():
    for name, module in [("greet", "greeting"), ("info", "greeting"), ("need", "gone")]:
        needs = ("package_that_is_not_there",) if name == "need" else ()
        yield Component(name=name, target=module, summary=f"{name} somebody", needs=needs,
                        extra="hello")
'''

GREETING = '''
"""Greets; fails in each way that is asked for."""
import os, signal, sys

def add_arguments(parser):
    parser.add_argument("what")

def run(args):
    from epitaxy.errors import DataError
    if args.what == "mistake":
        raise DataError("file x.xyz, entry 3: the energy is nan")
    if args.what == "bug":
        raise RuntimeError("a bug")
    if args.what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if args.what in ("torch", "matplotlib"):
        raise ModuleNotFoundError(f"No module named {args.what!r}", name=args.what)
    if args.what == "tables":
        from rich.console import Console
        for _ in range(100_000):
            Console().print("a line of text")
    if args.what == "pages":
        for _ in range(100_000):
            print("a line of text")
    print("hello", args.what)
    return 7
'''


@pytest.fixture
def verbs(install_plugin: Install) -> None:
    """Install a plugin with verbs."""
    site = install_plugin(verbs=PLUGIN)
    (site / "greeting.py").write_text(GREETING)
    sys.modules.pop("greeting", None)


def epitaxy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "epitaxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["plugins"], ["new-plugin", "-h"]]
)
def test_listing_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom epitaxy.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_verb_with_its_summary(
    verbs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, summary in CORE_VERBS.items():
        assert f"  {name} " in text
        assert summary in text
    assert "greet somebody" in text
    assert "verbs/info" in text


def test_no_verb_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: epitaxy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plugin"], "no verb named 'plugin'; did you mean 'plugins'?"),
        (["gret"], "no verb named 'gret'; did you mean 'greet'?"),
        (["--verbose"], "unknown option '--verbose'"),
        (["need", "x"], "pip install 'stranger[hello]'"),
        (["show", "pain"], "Did you mean 'painn'?"),
        (["greet", "mistake"], "epitaxy: error: file x.xyz, entry 3: the energy is nan\n"),
        (["greet", "torch"], "pip install 'epitaxy[graphs]'"),
        (["greet", "matplotlib"], "pip install 'epitaxy[plots]'"),
    ],
)
def test_a_mistake_is_one_clear_message_and_status_2(
    verbs: None, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("epitaxy: error: ")
    assert printed.out == ""


def test_a_wrong_argument_is_explained_by_the_verb(
    verbs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["greet"])
    assert caught.value.code == 2
    assert "epitaxy greet: error: the following arguments are required: what" in (
        capsys.readouterr().err
    )


def test_a_plugin_verb_returns_its_status(verbs: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["greet", "world"]) == 7
    assert main(["verbs/info", "world"]) == 7
    assert capsys.readouterr().out == "hello world\n" * 2


def test_a_bug_keeps_its_traceback(verbs: None) -> None:
    done = epitaxy("greet", "bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a bug" in done.stderr


def test_ctrl_c_is_one_line(verbs: None) -> None:
    done = epitaxy("greet", "interrupt")
    assert done.returncode == 130
    assert done.stderr == "epitaxy: interrupted\n"


@pytest.mark.parametrize("what", ["pages", "tables"])
def test_a_reader_that_leaves_early_is_no_error(verbs: None, what: str) -> None:
    command = [sys.executable, "-m", "epitaxy", "greet", what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 128 + signal.SIGPIPE


def test_a_name_of_two_verbs_must_be_qualified(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    site = install_plugin(first=PLUGIN, second=PLUGIN)
    (site / "greeting.py").write_text(GREETING)
    assert main(["greet", "world"]) == 2
    assert "use one of first/greet, second/greet" in capsys.readouterr().err
    assert main(["second/greet", "world"]) == 7


def test_plugins_lists_states_and_what_is_broken(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    site = install_plugin("missing_extra", "raises_half_way", distribution="stranger")
    assert main(["plugins"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (needing,) = [line for line in lines if "wants-extra" in line]
    assert "needs package_that_is_not_there: pip install 'stranger[gpu]'" in needing
    (broken,) = [line for line in lines if "raises-half-way" in line]
    assert broken.startswith("BROKEN")
    assert f"OSError: the list of models cannot be read [{site}/raises_half_way.py:18]" in broken


def test_plugins_speaks_json(install_plugin: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install_plugin("missing_extra", "misspelt_hook")
    assert main(["plugins", "--json", "--kind", "model"]) == 1
    listing = json.loads(capsys.readouterr().out)
    states = {item["name"]: item["state"] for item in listing["components"]}
    assert (states["wants-extra"], states["wants-silently"]) == ("needs", "ready")
    assert {item["kind"] for item in listing["components"]} == {"model"}
    problem = next(p for p in listing["problems"] if p["plugin"] == "misspelt-hook")
    assert "did you mean provide_models?" in problem["reason"]


def test_plugins_draws_a_table_on_a_terminal(install_plugin: Install) -> None:
    pty = pytest.importorskip("pty", reason="pseudo terminals need POSIX")
    install_plugin("missing_extra")
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "epitaxy", "plugins"]
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=writer, env=environment):  # read while it writes
        os.close(writer)
        text = b""
        try:
            while piece := os.read(reader, 65536):
                text += piece
        except OSError:  # the other end of a closed terminal, on Linux
            pass
    os.close(reader)
    assert b"missing-extra/wants-extra" in text
    assert b"\x1b[" in text


READER = '''
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
        pass

@hookimpl
def provide_sources():
    return [Component(name="reader", target="good:Reader", summary="reads frames")]
'''


def test_show_prints_origin_options_and_their_meaning(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin(good=READER, distribution="stranger-reader")
    for name in ("reader", "good/reader", "source/reader", "source/good/reader"):
        assert main(["show", name]) == 0
        text = capsys.readouterr().out
        assert "source/reader: reads frames" in text
        assert "plugin good (stranger-reader 0.1)" in text
        assert "path: Path  (required)\n      file to read." in text
        assert "stride: int  (default 1)\n      take every n-th frame." in text


def test_show_gives_the_json_schema(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin(good=READER)
    assert main(["show", "reader", "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    assert options["required"] == ["path"]
    assert options["properties"]["stride"]["description"] == "take every n-th frame."


def test_show_without_the_package_gives_the_pip_command(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("missing_extra")
    assert main(["show", "wants-extra"]) == 1
    assert "pip install 'stranger[gpu]'" in capsys.readouterr().out
    assert main(["show", "wants-extra", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["install"] == "pip install 'stranger[gpu]'"


def test_new_plugin_refuses_to_overwrite_and_wrong_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "my-potential"]) == 0
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert "epitaxy-my-potential/src/epitaxy_my_potential/plugin.py" in " ".join(before)
    assert main(["new-plugin", "my-potential", "--kind", "source"]) == 2
    assert "epitaxy-my-potential exists; nothing was written" in capsys.readouterr().err
    assert main(["new-plugin", "My Potential"]) == 2
    assert main(["new-plugin", "graphs"]) == 2
    assert "a plugin named 'graphs' is installed already" in capsys.readouterr().err
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_check_prints_a_line_for_each_check_and_fails_when_one_fails(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin("wrong_options", good=READER)
    assert main(["check", "featurizer/untyped"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "ok        featurizer/wrong-options/untyped: summary is one short line" in lines
    assert any(line.startswith("FAILED") and "'width' has no type" in line for line in lines)
    assert lines[-1] == "3 passed, 2 failed"
    assert main(["check", "good", "--only", "loads"]) == 0
    assert capsys.readouterr().out == "ok        good: loads\n1 passed\n"


def test_check_takes_options_for_the_component(
    install_plugin: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_plugin(good=READER)
    only = ["--only", "example options"]
    assert main(["check", "reader", "--set", "path=a.xyz", "--set", "stride=2", *only]) == 0
    assert main(["check", "reader", "--set", "path=a.xyz", "--set", "stride=two", *only]) == 1
    assert main(["check", "reader", "--set", "path"]) == 2
    assert "--set 'path': write KEY=VALUE" in capsys.readouterr().err
    assert main(["check", "good", "--set", "path=a.xyz"]) == 2
    assert main(["check", "good", "--only", "nothing of the kind"]) == 2


def test_report_notices_a_missing_plot_library_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"epoch": 1, "step": 1, "seconds": 1.0, "train_loss": 0.5, "lr": 0.1}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "pip install 'epitaxy[plots]'" in said.err
    assert said.out == ""
    assert main(["report", str(tmp_path), "--no-plot"]) == 0
