"""`epitaxy publish` with any plugin's publisher, and the checks that each of them must pass."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from epitaxy import Component, Receipt, Registry, hookimpl
from epitaxy.cli import main
from epitaxy.errors import DataError
from epitaxy.receipts import read_content, read_receipts
from epitaxy.testing import checks_for
from epitaxy.testing.publisher_checks import make_artifact


class Shelf:
    """A publisher that is right; `fault` makes it wrong.

    Args:
        fault: what is wrong with it.
    """

    n_calls = 0

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    def publish(self, path: Path, *, dry_run: bool = False) -> Receipt:
        """Say that it was published."""
        if self.fault == "anything":
            return Receipt("shelf", "x")
        if self.fault == "silent" and not (path / "manifest.json").exists():
            raise DataError("no")
        content = read_content(path)
        if self.fault == "socket":
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)
        if self.fault == "lookup":
            socket.getaddrinfo("localhost", 80)
        if self.fault == "writes":
            (path / "published").write_text("yes")
        Shelf.n_calls += 1
        identifier = f"{content.digest}-{Shelf.n_calls if self.fault == 'counts' else 0}"
        if self.fault == "tuple":
            return ("shelf", identifier)  # type: ignore[return-value]
        if self.fault == "nameless":
            return Receipt("shelf", " ")
        facts = {"path": path} if self.fault == "facts" else {"kind": content.kind}
        return Receipt("shelf", identifier, "", facts)


class Plugin:
    @staticmethod
    @hookimpl
    def provide_publishers() -> list[Component]:
        return [Component(name="shelf", target=f"{__name__}:Shelf", summary="a shelf")]


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, tuple[str, str]]]:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, _this_module()))
    registry = Registry()
    registry.add("library", Plugin)

    def run(fault: str) -> dict[str, tuple[str, str]]:
        found = checks_for("publisher/shelf", registry=registry, example={"fault": fault})
        return {check.name.rpartition(": ")[2]: check.outcome() for check in found}

    return run


def _this_module() -> object:
    import types

    module = types.ModuleType(__name__)
    module.Shelf = Shelf  # type: ignore[attr-defined]
    return module


def test_a_publisher_that_is_right_passes(outcomes):
    found = outcomes("")
    assert len(found) > 6
    assert {outcome for outcome, _ in found.values()} == {"passed"}, found


@pytest.mark.parametrize(
    ("fault", "check", "reason"),
    [
        ("socket", "a dry run opens no socket", "opens a socket in a dry run"),
        ("lookup", "a dry run opens no socket", "opens a socket in a dry run"),
        ("writes", "a dry run leaves what it publishes as it was", "changes artifact/published"),
        ("counts", "a dry run again says the same", "and then"),
        ("tuple", "the receipt of a dry run is well formed", "not an epitaxy.Receipt"),
        ("nameless", "the receipt of a dry run is well formed", "receipt.identifier is empty"),
        ("facts", "the receipt of a dry run is well formed", "cannot be written as JSON"),
        (
            "anything",
            "what is neither an artifact nor a dataset is refused",
            "it would publish empty",
        ),
        (
            "silent",
            "what is neither an artifact nor a dataset is refused",
            "does not name empty",
        ),
    ],
)
def test_a_publisher_with_one_fault_fails_the_check_for_it(outcomes, fault, check, reason):
    outcome, text = outcomes(fault)[check]
    assert outcome == "failed"
    assert reason in text


SHELF = '''
from pathlib import Path
from epitaxy import Component, Receipt, hookimpl
from epitaxy.receipts import read_content


class Shelf:
    """Copies the manifest.

    Args:
        folder: where to.
        label: a word.
    """

    def __init__(self, *, folder: Path, label: str = "none") -> None:
        self.folder, self.label = folder, label

    def publish(self, path: Path, *, dry_run: bool = False) -> Receipt:
        content = read_content(path)
        if not dry_run:
            (self.folder / content.digest).write_text(self.label)
        return Receipt("shelf", content.digest, "", {"label": self.label})


@hookimpl
def provide_publishers():
    return [Component(name="shelf", target="library:Shelf", summary="a shelf")]
'''


def test_any_plugins_publisher_is_used_by_the_verb(install_plugin, tmp_path, capsys):
    install_plugin(library=SHELF)
    artifact, shelf = make_artifact(tmp_path / "model"), tmp_path / "shelf"
    shelf.mkdir()
    digest = read_content(artifact).digest
    argv = ["publish", str(artifact), "--to", "shelf", "--set", f"folder={shelf}"]
    assert main([*argv, "--dry-run"]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert not list(shelf.iterdir())
    assert read_receipts(artifact) == ()
    assert main([*argv, "--set", "label=first", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["facts"] == {"label": "first"}
    assert (shelf / digest).read_text() == "first"
    assert [receipt.identifier for receipt in read_receipts(artifact)] == [digest]
