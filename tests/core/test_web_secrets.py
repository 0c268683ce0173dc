"""Keys and tokens stay with the host they belong to, and appear nowhere else."""

import gzip
import logging

import pytest
from loopback import FakeClock, Loopback, Reply, Request

from epitaxy.errors import SourceError
from epitaxy.web import Client
from epitaxy.web.secrets import safe_url

KEY = "Zq8sVerySecretKey01"
NAMES = [("X-API-KEY", KEY), ("Authorization", f"Bearer {KEY}"), ("Cookie", f"session={KEY}")]


@pytest.fixture
def connect(tmp_path):
    """Give a function that makes clients; close them in the end."""
    clients = []

    def make(url: str, **options) -> Client:
        client = Client(url, cache=tmp_path, clock=FakeClock().clock(), **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def echo(request: Request) -> Reply:
    """Answer with everything that was asked, as a careless service does."""
    return Reply.of({"headers": request.headers, "query": request.query})


@pytest.mark.parametrize("header", NAMES, ids=lambda h: h[0])
def test_a_key_that_the_service_echoes_is_not_kept(tmp_path, connect, header):
    with Loopback(echo) as server:
        client = connect(server.url, headers=[header])
        answer = client.get("x")
        assert KEY not in str(answer.json)
        assert server.requests[0].headers[header[0].lower()] == header[1]
        assert connect(server.url, headers=[header]).get("x").json == answer.json
    for path in tmp_path.rglob("*.answer"):
        head, _, packed = path.read_bytes().partition(b"\n")
        assert KEY.encode() not in head + gzip.decompress(packed)
        assert KEY not in str(path)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500])
def test_a_key_that_the_service_echoes_is_not_in_messages_or_logs(connect, caplog, status):
    with Loopback(lambda r: Reply.of({"detail": f"bad key {KEY}"}, status=status)) as server:
        client = connect(
            server.url,
            headers={"X-API-KEY": KEY},
            key_help="put it into FILE",
            max_attempts=2,
        )
        with caplog.at_level(logging.DEBUG), pytest.raises(SourceError) as caught:
            client.get_json("x", {"api_key": KEY, "page": 2})
    assert KEY not in str(caught.value)
    assert KEY not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("epi"))
    assert f"answered {status} (bad key ***)" in str(caught.value)
    assert ("Put it into FILE" in str(caught.value)) == (status in (401, 403))


def test_a_key_is_not_sent_to_another_host(connect):
    with Loopback(echo) as other:

        def move(request: Request) -> Reply:
            return Reply(b"", 302, {"Location": f"{other.url}/there"})

        with Loopback(move) as server:
            client = connect(server.url, headers={"X-API-KEY": KEY, "X-Plain": "1"})
            client.get("x")
            client.get(f"{other.url}/next")
        assert [r.path for r in other.requests] == ["/there", "/next"]
        assert all("x-api-key" not in r.headers for r in other.requests)
        assert all(r.headers["x-plain"] == "1" for r in other.requests)


def test_a_redirect_on_the_same_host_keeps_the_key(connect):
    def move(request: Request) -> Reply:
        return echo(request) if request.path == "/b" else Reply(b"", 301, {"Location": "/b"})

    with Loopback(move) as server:
        connect(server.url, headers={"X-API-KEY": KEY}).get("a")
        assert server.requests[1].headers["x-api-key"] == KEY


def test_a_service_that_moves_in_circles_is_named(connect):
    with Loopback(lambda r: Reply(b"", 302, {"Location": "/x"})) as server:
        with pytest.raises(SourceError, match="moved more than 5 times"):
            connect(server.url).get("x")
        assert server.n_requests == 6


def test_a_post_is_not_silently_turned_into_a_get(connect):
    with Loopback(lambda r: Reply(b"", 301, {"Location": "/new"})) as server:
        with pytest.raises(SourceError, match=r"has moved to .*/new; give that address"):
            connect(server.url).post("x", {})
        assert server.n_requests == 1


def test_different_tokens_in_an_address_are_different_requests(connect):
    with Loopback(echo) as server:
        client = connect(server.url)
        client.get("x", {"token": "first-token"})
        client.get("x", {"token": "second-token"})
        client.get("x", {"token": "first-token"})
        assert server.n_requests == 2
        client.get("x", {"page_token": "one"})
        client.get("x", {"page_token": "two"})
        assert server.n_requests == 4


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://user:pass@host/x?a=1", "https://host/x?a=1"),
        ("https://host/x?api_key=abc&page=2", "https://host/x?page=2"),
        ("https://host/x?token=abc", "https://host/x"),
        ("https://host/x?species(Na,Cl),paging(1,2)", "https://host/x?species(Na,Cl),paging(1,2)"),
        ("https://host/x?page_token=abc", "https://host/x?page_token=abc"),
    ],
)
def test_addresses_are_shown_without_secrets(url, safe):
    assert safe_url(url) == safe
