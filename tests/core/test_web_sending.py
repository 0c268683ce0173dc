"""What the web client sends: bodies in pieces, once or again, and files that grow."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import FakeClock, Loopback, Reply, Request

from epitaxy.errors import DataError, SourceError
from epitaxy.web import Client, RefusedError

KEY = "Zq8sVerySecretKey01"


class Pieces:
    """A body that counts how often it is read."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.n_times = 0

    def __iter__(self) -> Iterator[bytes]:
        self.n_times += 1
        yield from self.pieces


def echo(request: Request) -> Reply:
    return Reply.of({"method": request.method, "body": request.body.decode(), "path": request.path})


def make(server: Loopback, **options) -> Client:
    given = {"cache": "none", "max_attempts": 3, "clock": FakeClock().clock(), **options}
    return Client(server.url, requests_per_second=0, **given)


@pytest.mark.parametrize("length", [None, 8])
def test_a_stream_arrives_in_order_with_or_without_a_length(length):
    body = Pieces(b"abc", b"", b"defgh")
    headers = {"Content-Type": "application/zip"}
    if length:
        headers["Content-Length"] = str(length)
    with Loopback(echo) as server, make(server) as client:
        answer = client.ask("PUT", "x", {"a": 1}, stream=body, headers=headers)
        assert answer == {"method": "PUT", "body": "abcdefgh", "path": "/x"}
        sent = server.requests[0].headers
        assert sent["content-type"] == "application/zip"
        assert sent.get("content-length") == (str(length) if length else None)
        assert ("transfer-encoding" in sent) is not bool(length)


@pytest.mark.parametrize("fault", ["500", "cut", "refused", "dropped"])
def test_a_stream_begins_anew_with_each_attempt(fault):
    body = Pieces(b"abc", b"def")
    with Loopback(echo) as server, make(server) as client:
        server.fail(fault)
        answer = client.ask("PUT", "x", stream=body, headers={"Content-Length": "6"})
        assert answer["body"] == "abcdef"
        assert (body.n_times, server.n_requests) == (2, 2)


@pytest.mark.parametrize("fault", ["500", "refused", "429"])
def test_what_must_not_happen_twice_is_asked_once(fault):
    with Loopback(echo) as server, make(server) as client:
        server.fail(fault)
        with pytest.raises(SourceError, match=r"\(1 attempt\)"):
            client.ask("POST", "x", body={"a": 1}, once=True)
        assert server.n_requests == 1
        assert client.ask("POST", "x", body={"a": 1})["body"] == '{"a": 1}'


def test_an_error_while_the_body_is_made_is_not_tried_again():
    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            yield b"abc"
            raise DataError("the file is gone")

    with Loopback(echo) as server, make(server) as client:
        with pytest.raises(DataError, match="the file is gone"):
            client.ask("PUT", "x", stream=Broken())
        assert client.ask("DELETE", "y")["method"] == "DELETE"


def test_answers_are_not_kept(tmp_path):
    with Loopback(echo) as server, make(server, cache=tmp_path) as client:
        for _ in range(2):
            client.ask("GET", "x")
        assert server.n_requests == 2
        assert not list(tmp_path.rglob("*.answer"))


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        (400, "Limit (of 3) exceeded", "Limit (of 3) exceeded"),
        (404, {"message": "none"}, "none"),
        (
            422,
            [
                {"loc": ["body", "x", 0], "msg": "too long", "type": "t"},
                {"loc": ["query", "y"], "msg": "missing", "type": "t"},
            ],
            "body.x.0: too long; query.y: missing",
        ),
        (409, f"key {KEY} was used", "key *** was used"),
    ],
)
def test_a_refusal_has_the_status_and_the_words_of_the_service(status, detail, said):
    reply = Reply.of({"detail": detail}, status=status)
    with Loopback(lambda request: reply) as server, make(server, headers={"key": KEY}) as client:
        with pytest.raises(RefusedError) as caught:
            client.ask("POST", "x", body={})
        assert (caught.value.status, caught.value.said) == (status, said)
        assert KEY not in str(caught.value)
        assert server.n_requests == 1


def test_a_key_that_is_echoed_is_not_in_the_answer(caplog):
    reply = Reply.of({"you": f"sent {KEY}"})
    with (
        Loopback(lambda request: reply) as server,
        make(server, headers={"key": KEY}) as client,
        caplog.at_level(logging.DEBUG),
    ):
        assert client.ask("POST", "x", body={}) == {"you": "sent ***"}
    assert KEY not in caplog.text


def test_a_key_is_not_sent_to_another_host():
    with (
        Loopback(echo) as other,
        Loopback(lambda r: Reply(status=307, headers={"Location": f"{other.url}/there"})) as server,
        make(server, headers={"Authorization": f"Bearer {KEY}"}) as client,
    ):
        body = Pieces(b"abc")
        assert client.ask("PUT", "x", stream=body)["body"] == "abc"
        assert "authorization" not in other.requests[0].headers
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def whole(request: Request) -> Reply:
    return Reply(bytes(range(100))[int(request.params.get("offset", 0)) :])


def test_a_file_grows_by_what_is_sent(tmp_path: Path):
    file = tmp_path / "file"
    with Loopback(whole) as server, make(server) as client:
        server.fail("dropped")
        with pytest.raises(SourceError, match="broke off in the middle"):
            client.append("x", file)
        n = file.stat().st_size
        assert n == 50
        assert client.append("x", file, params={"offset": n}) == 50
        assert file.read_bytes() == bytes(range(100))
        with pytest.raises(SourceError, match="cannot be written"):
            client.append("x", tmp_path)
    gone = Reply.of({"detail": "no"}, status=404)
    with Loopback(lambda r: gone) as server, make(server) as client, pytest.raises(RefusedError):
        client.append("x", file)
    assert file.read_bytes() == bytes(range(100))
