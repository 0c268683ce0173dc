"""The client of databases, against a real server on this machine."""

from pathlib import Path

import pytest
from loopback import FakeClock, Loopback, Reply, Request

from epitaxy.errors import SourceError
from epitaxy.web import Client

KEY = "Zq8sVerySecretKey"


def numbered(request: Request) -> Reply:
    """Answer with a list that depends on the page."""
    page = int(request.params.get("page", 0))
    return Reply.of({"data": [{"id": f"e{3 * page + i}"} for i in range(3)], "echo": request.path})


@pytest.fixture
def fake() -> FakeClock:
    return FakeClock()


def make(server: Loopback, folder: Path, fake: FakeClock, **options) -> Client:
    return Client(server.url, cache=folder / "cache", clock=fake.clock(), seed=1, **options)


def test_an_answer_is_asked_for_once_and_then_comes_from_the_disk(tmp_path, fake):
    with Loopback(numbered) as server, make(server, tmp_path, fake) as client:
        first = client.get("entries", {"page": 1})
        again = make(server, tmp_path, fake).get("entries", {"page": 1})
        assert first.json == again.json
        assert (first.from_cache, again.from_cache) == (False, True)
        assert first.retrieved == again.retrieved == "2027-01-15"
        assert server.n_requests == 1
        client.get("entries", {"page": 2})
        client.post("entries", {"page": 2})
        client.post("entries", {"page": 3})
        assert server.n_requests == 4


@pytest.mark.parametrize("fault", ["429", "500", "503", "dropped", "refused", "truncated", "empty"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_fault_that_passes_is_tried_again(tmp_path, fake, fault, compress):
    with Loopback(numbered, compress=compress) as server, make(server, tmp_path, fake) as client:
        server.fail(fault, times=2)
        assert client.get_json("x", {"page": 1})["data"][0] == {"id": "e3"}
        assert server.n_requests == 3
        if fault != "429":  # which says itself that we need not wait
            assert 1.5 <= sum(fake.slept) <= 4.0  # 1 s and 2 s, less the jitter, and the pace


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", "answered 429 (too fast)"),
        ("500", "answered 500"),
        ("dropped", "broke off in the middle of its answer"),
        ("refused", "cannot be reached"),
        ("truncated", "JSON that is cut or damaged"),
        ("html", "no JSON, of type text/html, but '<html>log in</html>'"),
        ("empty", "an empty answer"),
        ("slow", "only a part of its answer within 0.3 s"),
    ],
)
def test_a_fault_that_stays_is_named_and_nothing_is_kept(tmp_path, fake, fault, said):
    with Loopback(numbered) as server:
        server.fail(fault, times=None)
        with make(server, tmp_path, fake, max_attempts=3, timeout=0.3) as client:
            with pytest.raises(SourceError) as caught:
                client.get_json("entries", {"page": 1})
            assert said in str(caught.value)
            assert "(3 attempts)" in str(caught.value)
            assert f"{server.url}/entries?page=1" in str(caught.value)
            assert "Start again later" in str(caught.value)
            server.heal()
            assert client.get_json("entries", {"page": 1})["data"]
        assert server.n_requests == 4
