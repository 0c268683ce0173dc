"""Checks of a publisher: a dry run tells everything and does nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import SkipTest, mock

from epitaxy.component import Offer
from epitaxy.errors import EpitaxyError
from epitaxy.registry import Registry
from epitaxy.testing import Check

if TYPE_CHECKING:
    from epitaxy.protocols import Publisher, Receipt

Rule = Callable[["Publisher", Path], None]


def checks(registry: Registry, offer: Offer) -> list[Check]:
    """Return the checks of a publisher; it is built with `Component.example`."""
    rules: dict[str, Rule] = {
        "a dry run opens no socket": _opens_no_socket,
        "the receipt of a dry run is well formed": _receipt_is_well_formed,
        "a dry run again says the same": _says_the_same,
        "a dry run leaves what it publishes as it was": _leaves_it,
        "what is neither an artifact nor a dataset is refused": _refuses,
    }
    return [
        Check(
            f"publisher/{offer.qualified_name}: {title}",
            functools.partial(_run, registry, offer, rule),
        )
        for title, rule in rules.items()
    ]


def make_artifact(directory: Path, *, seed: int = 0) -> Path:
    """Write a small artifact without a network in it, for tests; return where."""
    from epitaxy.artifact import save_artifact

    return save_artifact(_Weights(seed), directory)  # type: ignore[arg-type]


class _Weights:
    """What `save_artifact` needs of a model."""

    def __init__(self, seed: int) -> None:
        from epitaxy.protocols import Capabilities
        from epitaxy.spec import Spec

        self.spec = Spec("example/weights", {"width": 4})
        self._seed = seed
        self.capabilities = Capabilities(elements=frozenset({14}))

    def save(self, directory: Path) -> None:
        """Write bytes of all values."""
        (directory / "weights.bin").write_bytes(random.Random(self._seed).randbytes(16_384))


def _run(registry: Registry, offer: Offer, rule: Rule) -> None:
    from epitaxy.options import options_of
    from epitaxy.testing.store_checks import ragged_dataset

    target = registry.load("publisher", offer.qualified_name)
    example = dict(offer.component.example)
    needed = [option.name for option in options_of(target) if option.required]
    if needed and not example:
        raise SkipTest(
            f"option {', '.join(needed)} has no default: give the Component an `example`"
        )
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset"
        ragged_dataset().save(dataset)
        for path in (make_artifact(Path(folder) / "artifact"), dataset):
            rule(registry.build("publisher", {"use": offer.qualified_name, **example}), path)


@contextmanager
def no_sockets() -> Iterator[None]:
    """Let every attempt to open a socket, or to look up a name, fail the check."""

    def refuse(*arguments: object, **named: object) -> Any:
        raise AssertionError(f"opens a socket in a dry run: {arguments or named}")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket.socket, "connect_ex", refuse),
        mock.patch.object(socket.socket, "sendto", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
        mock.patch.object(socket, "create_connection", refuse),
    ):
        yield


def _dry_run(publisher: Publisher, path: Path) -> Receipt:
    return publisher.publish(path, dry_run=True)


def _opens_no_socket(publisher: Publisher, path: Path) -> None:
    with no_sockets():
        _dry_run(publisher, path)


def _receipt_is_well_formed(publisher: Publisher, path: Path) -> None:
    from epitaxy.protocols import Receipt
    from epitaxy.receipts import receipt_to_json

    receipt = _dry_run(publisher, path)
    assert isinstance(receipt, Receipt), f"publish returns {receipt!r}, not an epitaxy.Receipt"
    for name in ("publisher", "identifier"):
        value = getattr(receipt, name)
        assert isinstance(value, str), f"receipt.{name} is {value!r}, not text"
        assert value.strip(), f"receipt.{name} is empty"
    assert isinstance(receipt.url, str), f"receipt.url is {receipt.url!r}, not text"
    try:
        text = json.dumps(receipt_to_json(receipt))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"receipt.facts cannot be written as JSON: {error}") from error
    assert "\n" not in text


def _says_the_same(publisher: Publisher, path: Path) -> None:
    first, second = _dry_run(publisher, path), _dry_run(publisher, path)
    assert first == second, f"a dry run says {first}, and then {second}"


def _leaves_it(publisher: Publisher, path: Path) -> None:
    before = _fingerprints(path.parent)
    _dry_run(publisher, path)
    after = _fingerprints(path.parent)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    assert not changed, f"a dry run changes {', '.join(changed)}"


def _refuses(publisher: Publisher, path: Path) -> None:
    (path.parent / "empty").mkdir(exist_ok=True)
    for nothing in (path.parent / "empty", path.parent / "absent"):
        said = ""
        try:
            _dry_run(publisher, nothing)
        except EpitaxyError as error:
            said = str(error)
        assert said, f"it would publish {nothing.name}, which is nothing"
        assert nothing.name in said, f"the message does not name {nothing.name}: {said}"


def _fingerprints(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
